"""corolib: network servers written as plain generators.

    from corolib import run, serve_tcp

    def echo(stream):
        while data := (yield from stream.recv(65536)):
            yield from stream.sendall(data)

    run(serve_tcp, echo, "127.0.0.1", 7007)

The one rule: if it can wait, it has `yield` in front: `yield` a trap, as `yield Sleep(0.5)`, and
`yield from` a function. If it cannot wait, it is an ordinary call, as `spawn(f, *args)`.

Where to go on: `help(corolib.run)`, and so for each name, shows an example; begin with `spawn`,
`timeout`, `TaskGroup`, `Queue`, `Stream`, `open_tcp` and `listen_tcp`. The guide, in the folder
demos/guide of the repository, has a table of how everything is spelled. `python3 -m corolib` serves
from the command line.

Under it all a task yields `ReadWait(sock)` or `WriteWait(sock)`, and a scheduler on the standard
`selectors` module resumes it when the socket is ready.

The layers, where each package imports only from those below it:

    testing/        looks at everything below: tools for users' tests                       layer 5
        cases, fixtures -> runner -> alarm, clocks, leaks     sweeps -> clocks, leaks
    interop/        interfaces to other libraries
        psycopg -> readiness     asyncio_calls     redis
    trace/          records what the scheduler does, where a run asks for it
        command -> traces -> recorder -> watching     page, perfetto, files
        page, perfetto -> sentences -> state -> events     looking
        observing -> watchdog, measuring     recorder -> messages
    demo/           two servers to try it with: they and `__main__` use what is public
        daytime -> echo -> ports     start
    -----------------------------------------------------------------------------------------------
    system/         this program among others, and under systemd                            layer 4
        subprocesses, stdin -> pipe_ends     process_pool   workers -> identity   systemd
    -----------------------------------------------------------------------------------------------
    net/            made of ReadWait and WriteWait: sockets                                 layer 3
        servers -> listening -> streams -> tls     listening -> peer_log     limits     handlers
        servers -> progress     servers, datagram_servers -> serving -> stopping, peer_log
        datagram_servers -> datagrams -> packet_info
        connecting -> streams     connecting, datagrams -> resolving     servers -> proxy_header
        network (opens sockets, looks names up)
    -----------------------------------------------------------------------------------------------
    coordination/   made of Suspend and cancel scopes: no file is known here                layer 2
        groups -> tasksets -> timeouts   first   locks   queues   topics   signals   waitqueue
        threads -> thread_pool     ticks
    ============== kernel/__init__.py: the interface, from which the upper layers import ===========
    kernel/         what `import corolib` loads                                             layer 1
        scheduler --> lifecycle --> hooks
             +--> poller, urgent     files            +--> timers          times
             +--> suspend            wakes            +--> callqueue       other threads
             +--> task --> cancellation               +--> diagnostics            words
        errors traps waits context checks safely late source    (words)
        frames bodies observing asked
    advice/         what was meant by a mistake: asked where an error is made, and only there
        mistakes -> arguments, uses -> places     keywords     foreign     dropped

What is public is listed here; everything else may change. The kernel is imported with the package,
and each module above it when one of its names is first asked for. `from corolib import timeout`
asks at the beginning of a program, `corolib.timeout` only where it is reached: there it may be the
first thing for which no file number is left, or a module that was replaced since the program began.

This file is read by older Pythons too, down to 2.7: they are told that they are too old.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # pragma: no cover - it runs in old ones
    version = ".".join(map(str, sys.version_info[:3]))
    text = "corolib needs Python 3.11 or newer; this is Python " + version
    if sys.argv[0] in ("-m", "-c") and "runpy" in sys.modules:  # it is to be run: `-m corolib`
        sys.exit(text)
    raise ImportError(text)

from corolib.kernel import (
    BusyError,
    Cancelled,
    CancelScope,
    ClosedError,
    Coro,
    Deadlock,
    ReadWait,
    RunFinished,
    Scheduler,
    ScopeError,
    Sleep,
    Suspend,
    Task,
    TaskCancelled,
    UrgentWait,
    WriteWait,
    close,
    current_effective_deadline,
    current_scheduler,
    current_task,
    now,
    run,
    spawn,
    waits,
)

TYPE_CHECKING = False  # checkers take a variable of this name for true

if TYPE_CHECKING:
    from corolib.coordination.first import first
    from corolib.coordination.groups import TaskGroup, started
    from corolib.coordination.locks import (
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Lock,
        Result,
        RLock,
        Semaphore,
    )
    from corolib.coordination.queues import (
        LifoQueue,
        PriorityQueue,
        Queue,
        QueueEmpty,
        QueueFull,
        QueueShutDown,
    )
    from corolib.coordination.signals import SignalReceiver, open_signal_receiver
    from corolib.coordination.tasksets import (
        as_completed,
        first_success,
        gather,
        map_concurrent,
        race,
    )
    from corolib.coordination.threads import (
        ThreadEnd,
        current_threads,
        from_thread,
        to_thread,
        wait_future,
    )
    from corolib.coordination.ticks import every
    from corolib.coordination.timeouts import move_on_after, shield, timeout
    from corolib.coordination.topics import Subscription, Topic
    from corolib.net.connecting import open_tcp, open_unix
    from corolib.net.datagram_servers import DatagramHandler, DatagramServer, serve_udp
    from corolib.net.datagrams import DatagramSocket, open_udp, open_unix_datagrams
    from corolib.net.network import Network, PeerCredentials
    from corolib.net.servers import (
        Handler,
        Listener,
        Server,
        listen_tcp,
        listen_unix,
        serve_tcp,
        serve_unix,
    )
    from corolib.net.serving import StopReport
    from corolib.net.streams import IncompleteRead, LimitExceeded, Stream
    from corolib.system.process_pool import to_process
    from corolib.system.stdin import open_stdin
    from corolib.system.subprocesses import Process, open_process, run_process
    from corolib.system.systemd import (
        inherited_datagrams,
        inherited_listeners,
        notify_systemd,
    )
    from corolib.system.workers import WorkerReport, run_workers
else:
    _LATE = {
        "coordination.first": "first",
        "coordination.groups": "TaskGroup started",
        "coordination.locks": (
            "Barrier BoundedSemaphore Condition Event Lock RLock Result Semaphore"
        ),
        "coordination.queues": "LifoQueue PriorityQueue Queue QueueEmpty QueueFull QueueShutDown",
        "coordination.signals": "SignalReceiver open_signal_receiver",
        "coordination.tasksets": "as_completed first_success gather map_concurrent race",
        "coordination.threads": "ThreadEnd current_threads from_thread to_thread wait_future",
        "coordination.ticks": "every",
        "coordination.timeouts": "move_on_after shield timeout",
        "coordination.topics": "Subscription Topic",
        "net.connecting": "open_tcp open_unix",
        "net.datagram_servers": "DatagramHandler DatagramServer serve_udp",
        "net.datagrams": "DatagramSocket open_udp open_unix_datagrams",
        "net.network": "Network PeerCredentials",
        "net.servers": ("Handler Listener Server listen_tcp listen_unix serve_tcp serve_unix"),
        "net.serving": "StopReport",
        "net.streams": "IncompleteRead LimitExceeded Stream",
        "system.process_pool": "to_process",
        "system.stdin": "open_stdin",
        "system.subprocesses": "Process open_process run_process",
        "system.systemd": "inherited_datagrams inherited_listeners notify_systemd",
        "system.workers": "WorkerReport run_workers",
    }
    _MODULE_OF = {name: module for module, names in _LATE.items() for name in names.split()}

    def __getattr__(name):
        """Import the module that has this name, when it is first asked for."""
        from importlib import import_module

        if name not in _MODULE_OF:
            # `from corolib import sleep` asks through this function, and forgets what it was told.
            frame = sys._getframe(1)
            imported = frame.f_code.co_name == "_handle_fromlist"
            code = (frame.f_back if imported else frame).f_code
            cure = import_module("corolib.advice.foreign").name_cure(name, imported, code)
            if cure and imported:
                text = "cannot import name " + repr(name) + " from 'corolib'. In corolib: " + cure
                raise ImportError(text, name="corolib", path=__file__)
            more = ". In corolib: " + cure if cure else ""
            raise AttributeError("module 'corolib' has no attribute " + repr(name) + more)
        found = globals()[name] = getattr(import_module("corolib." + _MODULE_OF[name]), name)
        return found

    def __dir__():
        return sorted(__all__ + [name for name in globals() if name.startswith("__")])


__version__ = "0.1.0"

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "BusyError",
    "CancelScope",
    "Cancelled",
    "ClosedError",
    "Condition",
    "Coro",
    "DatagramHandler",
    "DatagramServer",
    "DatagramSocket",
    "Deadlock",
    "Event",
    "Handler",
    "IncompleteRead",
    "LifoQueue",
    "LimitExceeded",
    "Listener",
    "Lock",
    "Network",
    "PeerCredentials",
    "PriorityQueue",
    "Process",
    "Queue",
    "QueueEmpty",
    "QueueFull",
    "QueueShutDown",
    "RLock",
    "ReadWait",
    "Result",
    "RunFinished",
    "Scheduler",
    "ScopeError",
    "Semaphore",
    "Server",
    "SignalReceiver",
    "Sleep",
    "StopReport",
    "Stream",
    "Subscription",
    "Suspend",
    "Task",
    "TaskCancelled",
    "TaskGroup",
    "ThreadEnd",
    "Topic",
    "UrgentWait",
    "WorkerReport",
    "WriteWait",
    "as_completed",
    "close",
    "current_effective_deadline",
    "current_scheduler",
    "current_task",
    "current_threads",
    "every",
    "first",
    "first_success",
    "from_thread",
    "gather",
    "inherited_datagrams",
    "inherited_listeners",
    "listen_tcp",
    "listen_unix",
    "map_concurrent",
    "move_on_after",
    "notify_systemd",
    "now",
    "open_process",
    "open_signal_receiver",
    "open_stdin",
    "open_tcp",
    "open_udp",
    "open_unix",
    "open_unix_datagrams",
    "race",
    "run",
    "run_process",
    "run_workers",
    "serve_tcp",
    "serve_udp",
    "serve_unix",
    "shield",
    "spawn",
    "started",
    "timeout",
    "to_process",
    "to_thread",
    "wait_future",
    "waits",
]
