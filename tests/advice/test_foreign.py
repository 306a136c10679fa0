"""Names of other libraries: each is ours too, or has a cure, or is known to have no counterpart.

The lists of what has none are part of the test: a new name of one of these libraries makes it fail,
until somebody has thought about it. Libraries that are not installed are left out.
"""

import importlib
import socket
import types
import warnings

import pytest

import corolib
from corolib.advice.foreign import (
    FUNCTIONS,
    MEMBERS,
    NAMES,
    PACKAGES,
    WORDS,
    asyncio_cure,
    member_cure,
)
from tests.helpers.programs import python

WITHOUT = {
    "asyncio": (
        "AbstractChildWatcher AbstractEventLoopPolicy BaseProtocol BaseTransport BufferedProtocol "
        "DatagramProtocol DatagramTransport DefaultEventLoopPolicy FastChildWatcher Handle "
        "InvalidStateError MultiLoopChildWatcher PidfdChildWatcher Protocol ReadTransport "
        "SafeChildWatcher SendfileNotAvailableError StreamReaderProtocol SubprocessProtocol "
        "SubprocessTransport ThreadedChildWatcher TimerHandle Transport WriteTransport "
        "_enter_task _get_running_loop _leave_task _register_task _set_running_loop "
        "_swap_current_task _unregister_task get_child_watcher get_event_loop_policy "
        "iscoroutine iscoroutinefunction "
        "isfuture set_child_watcher set_event_loop set_event_loop_policy _AbstractEventLoopPolicy "
        "_DefaultEventLoopPolicy _get_event_loop_policy _set_event_loop_policy "
        "create_eager_task_factory "
        "eager_task_factory future_add_to_awaited_by future_discard_from_awaited_by "
        "capture_call_graph format_call_graph print_call_graph FrameCallGraphEntry FutureCallGraph "
    ),
    "threading": (
        "ExceptHookArgs TIMEOUT_MAX ThreadError get_native_id getprofile gettrace setprofile "
        "setprofile_all_threads settrace settrace_all_threads stack_size concurrent_tee "
        "serialize_iterator synchronized_iterator"
    ),
    "queue": "",
    "trio": (
        "CapacityLimiterStatistics ConditionStatistics DTLSChannel DTLSChannelStatistics "
        "DTLSEndpoint EventStatistics LockStatistics MemoryChannelStatistics NeedHandshakeError "
        "Path PosixPath StapledStream TrioDeprecationWarning TrioInternalError WindowsPath "
        "annotations as_safe_channel current_effective_deadline open_file wrap_file"
    ),
    "curio": (
        "AWAIT AsyncOnlyError CurioError SyncIOError UncaughtTimeoutError UniversalEvent "
        "UniversalResult anext aopen set_cancellation"
    ),
    "socket": (
        "AddressFamily AddressInfo MsgFlag SocketKind SocketType CMSG_LEN CMSG_SPACE dup error "
        "fromfd gaierror getaddrinfo getdefaulttimeout getfqdn gethostbyaddr gethostbyname "
        "gethostbyname_ex gethostname getnameinfo getprotobyname getservbyname getservbyport "
        "has_dualstack_ipv6 herror htonl htons if_indextoname if_nameindex if_nametoindex "
        "inet_aton "
        "inet_ntoa inet_ntop inet_pton ntohl ntohs recv_fds send_fds setdefaulttimeout sethostname "
        "socketpair SocketIO CAPI"
    ),
}

OBJECTS = [  # class of ours, one of theirs, what has no counterpart
    ("Task", "asyncio:Task", "get_context get_loop remove_done_callback set_exception set_result "
     "uncancel"),
    ("Task", "threading:Thread", "native_id run"),
    ("Task", "curio:Task", "next_event"),
    ("Queue", "asyncio:Queue", ""),
    ("Queue", "queue:Queue", ""),
    ("Queue", "curio:Queue", ""),
    ("Queue", "trio:MemorySendChannel", "clone"),
    ("Queue", "trio:MemoryReceiveChannel", "clone"),
    ("Event", "asyncio:Event", ""),
    ("Event", "threading:Event", ""),
    ("Event", "curio:Event", ""),
    ("Event", "trio:Event", "statistics"),
    ("Lock", "asyncio:Lock", ""),
    ("Lock", "curio:Lock", ""),
    ("Lock", "trio:Lock", ""),
    ("Condition", "asyncio:Condition", ""),
    ("Condition", "threading:Condition", ""),
    ("Condition", "trio:Condition", ""),
    ("Semaphore", "asyncio:Semaphore", ""),
    ("Semaphore", "threading:Semaphore", ""),
    ("Semaphore", "trio:Semaphore", ""),
    ("Barrier", "asyncio:Barrier", "abort broken reset"),
    ("Barrier", "threading:Barrier", "abort broken reset"),
    ("TaskGroup", "asyncio:TaskGroup", "cancel"),
    ("TaskGroup", "trio:Nursery", ""),
    ("TaskGroup", "curio:TaskGroup", "cancel_remaining exception exceptions result spawn_thread"),
    ("CancelScope", "asyncio:Timeout", "expired"),
    ("CancelScope", "trio:CancelScope", "cancel cancel_called cancelled_caught deadline"),
    ("Result", "asyncio:Future", "cancel get_loop remove_done_callback"),
    ("Result", "curio:Result", ""),
    ("Stream", "asyncio:StreamReader", "exception feed_data feed_eof set_exception set_transport"),
    ("Stream", "asyncio:StreamWriter", ""),
    ("Stream", "trio:SocketStream", "wait_send_all_might_not_block"),
    ("Stream", "curio.io:SocketStream", "blocking fileno"),
    ("Stream", "curio.io:Socket", "accept as_stream blocking connect_ex dup fileno gettimeout "
     "recvfrom_into recvmsg recvmsg_into sendto"),
    ("Stream", "socket:socket", "accept bind connect_ex dup family fileno get_inheritable "
     "getblocking gettimeout ioctl listen proto recvfrom_into recvmsg recvmsg_into sendmsg_afalg "
     "sendto set_inheritable setblocking share timeout type"),
    ("Listener", "trio:SocketListener", "socket"),
    ("Server", "asyncio.base_events:Server", "abort_clients close_clients get_loop sockets "
     "start_serving"),
    ("Process", "asyncio.subprocess:Process", ""),
    ("Process", "trio:Process", "encoding errors universal_newlines"),
    ("Scheduler", "asyncio:AbstractEventLoop", "connect_accepted_socket connect_write_pipe "
     "default_exception_handler get_debug get_exception_handler get_task_factory getaddrinfo "
     "getnameinfo is_closed is_running remove_reader remove_signal_handler remove_writer sendfile "
     "set_debug set_default_executor set_task_factory shutdown_asyncgens "
     "shutdown_default_executor sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendfile "
     "sock_sendto start_tls subprocess_shell"),
]  # fmt: skip


def public_names(module):
    """Return the names that a library is known by: functions, classes, and words in capitals."""
    for name in getattr(module, "__all__", None) or dir(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old names that will go
            thing = getattr(module, name, None)
        constant = module is socket and not callable(thing)
        if thing is None or isinstance(thing, types.ModuleType) or constant:
            continue
        if module is socket or not name.startswith("_") or hasattr(module, "__all__"):
            if not (module is socket and (name.startswith("_") or name == "EBADF")):
                yield name


@pytest.mark.found("E3")
@pytest.mark.parametrize("library", WITHOUT)
def test_each_name_of_other_libraries_is_ours_or_has_a_cure_or_no_counterpart(library):
    module = pytest.importorskip(library)
    ours = set(corolib.__all__)
    unknown = set(public_names(module)) - ours - NAMES.keys() - set(WITHOUT[library].split())
    assert sorted(unknown) == [], "give each a cure, or list it as without counterpart"


@pytest.mark.found("E3")
@pytest.mark.parametrize(("ours", "theirs", "without"), OBJECTS, ids=lambda text: text[:30])
def test_so_is_each_member_of_their_classes(ours, theirs, without):
    module, _, name = theirs.partition(":")
    pytest.importorskip(module.partition(".")[0])
    kind = getattr(importlib.import_module(module), name, None)
    if kind is None:
        pytest.skip(f"there is no {theirs} here")
    members = {each for each in dir(kind) if not each.startswith("_")}
    own = getattr(corolib, ours)
    known = {each for each in members if hasattr(own, each) or member_cure(own, each)}
    # What `__init__` sets is no attribute of the class.
    known |= {"daemon", "name", "value", "parties"} & members
    assert sorted(members - known - set(without.split())) == []


def test_cures_are_for_classes_of_ours_and_for_nothing_that_is_there():
    for name, cures in MEMBERS.items():
        kind = getattr(corolib, name)
        for member in cures:
            assert hasattr(kind, member.removesuffix("()")) == member.endswith("()"), member


def test_words_are_no_names_that_are_there_or_known_already():
    assert WORDS.keys().isdisjoint({*corolib.__all__, *NAMES, *PACKAGES})
    assert NAMES.keys() & set(corolib.__all__) <= {"Server"}
    for name, cures in FUNCTIONS.items():
        assert not [each for each in cures if hasattr(getattr(corolib, name), each)]


@pytest.mark.found("E3")
def test_a_package_that_was_not_imported_is_named():
    program = """
        import corolib
        try:
            corolib.testing
        except AttributeError as exc:
            print(exc)
        from corolib import testing, interop, trace
        print(corolib.testing is testing)
    """
    said = "module 'corolib' has no attribute 'testing'. In corolib: import corolib.testing"
    assert python(program) == (0, f"{said}\nTrue\n", "")


def test_a_subclass_has_the_cures_of_its_base():
    assert member_cure(corolib.RLock, "acquire_lock") == member_cure(corolib.Lock, "acquire_lock")
    assert member_cure(corolib.RLock, "nonsense") is None


def test_what_asyncio_calls_otherwise_is_named_and_all_else_goes_to_a_thread():
    assert asyncio_cure("open_connection").endswith("In corolib: " + NAMES["open_connection"])
    assert "to_thread(asyncio.run, f())" in asyncio_cure("staggered_race")


@pytest.mark.found("E3")
@pytest.mark.parametrize(
    "name", ["sleep", "open_connection", "open_nursery", "call_later", "listen"]
)
def test_a_name_that_is_not_there_says_what_is(name):
    with pytest.raises(AttributeError, match=r"In corolib: ") as caught:
        getattr(corolib, name)
    assert str(caught.value).endswith(NAMES.get(name) or WORDS[name])
    assert not hasattr(corolib, name)
    with pytest.raises(ImportError, match=rf"^cannot import name '{name}' from 'corolib'\. In co"):
        exec(f"from corolib import {name}")


@pytest.mark.found("E3")
def test_a_name_that_is_not_there_is_named_as_an_async_def_writes_it():
    async def asks():
        return corolib.sleep

    async def imports():
        from corolib import sleep

        return sleep

    for f in asks, imports:
        with pytest.raises(
            (AttributeError, ImportError), match=r"corolib: await Sleep\(seconds\)$"
        ):
            corolib.run(f)


@pytest.mark.found("E3")
def test_the_import_of_a_name_that_nobody_has_fails_as_always():
    with pytest.raises(ImportError, match=r"^cannot import name 'spwan' from 'corolib' \("):
        exec("from corolib import spwan")


def test_the_table_is_not_read_before_a_name_is_missed():
    program = "import sys, corolib; print('corolib.advice.foreign' in sys.modules)"
    assert python(program) == (0, "False\n", "")
