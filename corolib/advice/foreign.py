"""What asyncio, trio, curio, threading, queue and socket call the things of corolib.

Who knows one of them types its names here. This table says what to write instead, for names of the
module and for those of objects. It is looked at when a name was not found, and never before. What
has no counterpart here is listed in the test that holds the table against those libraries.
"""

from __future__ import annotations

import re
import sys
from types import CodeType

from corolib.kernel.frames import CO_COROUTINE
from corolib.kernel.safely import name_of

IN_A_THREAD = "yield from to_thread(f, *args)"
JOIN = "result = yield from task"
SLEEP = "yield Sleep(seconds)"
SPAWN = "task = spawn(f, *args)"
QUEUE = "queue = Queue(size)"
MOVE_ON = "with move_on_after(seconds) as scope:"
TIMEOUT = "with timeout(seconds):"
SHIELD = "with shield():"
GROUP = "with TaskGroup() as g: ...; results = yield from g"
OPEN_TCP = "stream = yield from open_tcp(host, port)"
OPEN_TLS = "stream = yield from open_tcp(host, port, tls=True)"
OPEN_UNIX = "stream = yield from open_unix(path)"
SERVE = "yield from serve_tcp(handler, host, port)"
SERVER = "server = listen_tcp(host, port).serve(handler)"
SERVE_TLS = "yield from serve_tcp(handler, host, port, tls=context)"
SERVE_UNIX = "yield from serve_unix(handler, path)"
PROCESS = "process = yield from open_process([program, argument])"
SOON = "current_scheduler().call_soon_threadsafe(f, *args)"
FROM_THREAD = "from_thread(scheduler, f, *args)"
SIGNALS = "with open_signal_receiver(signal.SIGHUP) as received:"

READ_WAIT = "yield ReadWait(file)"
WRITE_WAIT = "yield WriteWait(file)"
RECV = "data = yield from stream.recv(65536)"
SENDALL = "yield from stream.sendall(data)"
LISTEN = "listener = listen_tcp(host, port)"
OPEN_UDP = "sock = yield from open_udp(host, port)"
TICKS = "for tick in every(seconds): missed = yield from tick"
LOOKUP = "found = yield from to_thread(socket.getaddrinfo, host, port)"


def _all(cure: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), cure)


NAMES = {
    # asyncio
    **_all("run(f, *args)", "run_forever run_until_complete set_event_loop set_event_loop_policy"),
    **_all(f"{SERVE}, where `handler` is a generator function", "Protocol BufferedProtocol"),
    **_all(LOOKUP, "getaddrinfo gethostbyname"),
    "DatagramProtocol": "server = yield from serve_udp(handler, host, port)",
    "Transport": "Stream",
    "add_reader": f"{READ_WAIT}, in a task",
    "add_signal_handler": SIGNALS,
    "add_writer": f"{WRITE_WAIT}, in a task",
    "call_at": "yield Sleep(at=deadline), in a task of its own",
    "call_later": "yield Sleep(seconds), in a task of its own",
    "call_soon": SPAWN,
    "call_soon_threadsafe": SOON,
    "create_datagram_endpoint": OPEN_UDP,
    "create_future": "result = Result()",
    "create_unix_connection": OPEN_UNIX,
    "create_unix_server": SERVE_UNIX,
    "sock_accept": "yield ReadWait(sock); then sock.accept()",
    "sock_connect": OPEN_TCP,
    "sock_recv": "yield ReadWait(sock); then sock.recv(n)",
    "sock_sendall": "yield WriteWait(sock); then sock.send(data)",
    "start_tls": "yield from stream.start_tls(context)",
    "CancelledError": "Cancelled",
    "Future": "result = Result()",
    "IncompleteReadError": "IncompleteRead",
    "LimitOverrunError": "LimitExceeded",
    "Runner": "run(f, *args)",
    "StreamReader": "Stream",
    "StreamWriter": "Stream",
    "Timeout": "timeout",
    "TimeoutError": "TimeoutError, Python's own",
    "AbstractEventLoop": "Scheduler",
    "BaseEventLoop": "Scheduler",
    "EventLoop": "Scheduler",
    "SelectorEventLoop": "Scheduler",
    "Server": "Server",
    "AbstractServer": "Server",
    "FIRST_COMPLETED": "index, value = yield from race(f(), g())",
    "FIRST_EXCEPTION": GROUP,
    "ALL_COMPLETED": "results = yield from gather(f(), g())",
    "all_tasks": "current_scheduler().tasks",
    "create_subprocess_exec": PROCESS,
    "create_subprocess_shell": "process = yield from open_process(['sh', '-c', line])",
    "create_task": SPAWN,
    "ensure_future": SPAWN,
    "get_event_loop": "current_scheduler()",
    "get_running_loop": "current_scheduler()",
    "new_event_loop": "Scheduler()",
    "open_connection": OPEN_TCP,
    "open_unix_connection": OPEN_UNIX,
    "run_coroutine_threadsafe": FROM_THREAD,
    "sleep": SLEEP,
    "start_server": SERVE,
    "start_unix_server": SERVE_UNIX,
    "timeout_at": "with timeout(at=deadline):",
    "wait": "for step in as_completed(*tasks):",
    "wait_for": TIMEOUT,
    "wrap_future": "value = yield from wait_future(future)",
    # trio and anyio
    **_all("yield", "checkpoint checkpoint_if_cancelled"),
    **_all(READ_WAIT, "wait_readable wait_socket_readable"),
    **_all(WRITE_WAIT, "wait_writable wait_socket_writable"),
    **_all(GROUP, "create_task_group"),
    **_all(FROM_THREAD, "BlockingPortal start_blocking_portal"),
    **_all("yield from to_thread(open, path)", "aopen open_file wrap_file"),
    "EndOfStream": "b'', which stream.recv(n) returns at the end",
    "DelimiterNotFound": "LimitExceeded",
    "ParkingLot": "Condition",
    "connect_tcp": OPEN_TCP,
    "connect_unix": OPEN_UNIX,
    "create_connected_udp_socket": OPEN_UDP,
    "create_memory_object_stream": QUEUE,
    "create_tcp_listener": LISTEN,
    "create_udp_socket": "sock = yield from open_udp(local=(host, port))",
    "create_unix_listener": "listener = listen_unix(path)",
    "current_root_task": "current_scheduler().main",
    "current_trio_token": "current_scheduler()",
    "get_cancelled_exc_class": "Cancelled",
    "get_current_task": "current_task()",
    "get_running_tasks": "current_scheduler().tasks",
    "notify_closing": "close(sock)",
    "spawn_system_task": "task = spawn(f, daemon=True)",
    "wait_task_rescheduled": "yield Suspend(arm, what)",
    "BrokenResourceError": "OSError, as the operating system says",
    "BusyResourceError": "BusyError",
    "CapacityLimiter": "Semaphore(n), or current_threads().limit",
    "ClosedResourceError": "ClosedError",
    "EndOfChannel": "QueueShutDown",
    "MemoryReceiveChannel": QUEUE,
    "MemorySendChannel": QUEUE,
    "Nursery": "TaskGroup",
    "RunFinishedError": "RunFinished",
    "SSLListener": SERVE_TLS,
    "SSLStream": OPEN_TLS,
    "SocketListener": LISTEN,
    "SocketStream": "Stream",
    "StrictFIFOLock": "Lock",
    "TASK_STATUS_IGNORED": "started(value)",
    "TaskStatus": "started(value)",
    "TooSlowError": "TimeoutError, Python's own",
    "WouldBlock": "QueueEmpty, QueueFull",
    "aclose_forcefully": "stream.close()",
    "current_time": "now()",
    "fail_after": TIMEOUT,
    "fail_at": "with timeout(at=deadline):",
    "move_on_at": "with move_on_after(at=deadline) as scope:",
    "open_memory_channel": QUEUE,
    "open_nursery": GROUP,
    "open_ssl_over_tcp_listeners": SERVE_TLS,
    "open_ssl_over_tcp_stream": OPEN_TLS,
    "open_tcp_listeners": LISTEN,
    "open_tcp_stream": OPEN_TCP,
    "open_unix_socket": OPEN_UNIX,
    "serve_listeners": "server = listener.serve(handler)",
    "serve_ssl_over_tcp": SERVE_TLS,
    "sleep_forever": "yield Sleep(math.inf)",
    "sleep_until": "yield Sleep(at=deadline)",
    # curio
    "Channel": "listener = listen_unix(path)",
    "Kernel": "Scheduler",
    "ReadResourceBusy": "BusyError",
    "ResourceBusy": "BusyError",
    "TaskError": "TaskCancelled, or what left the task",
    "TaskTimeout": "TimeoutError, Python's own",
    "TimeoutCancellationError": "Cancelled",
    "UniversalQueue": "ThreadEnd(queue)",
    "WriteResourceBusy": "BusyError",
    "block_in_thread": IN_A_THREAD,
    "check_cancellation": "yield",
    "clock": "now()",
    "disable_cancellation": SHIELD,
    "ignore_after": MOVE_ON,
    "run_in_executor": "yield from wait_future(pool.submit(f, *args))",
    "run_in_process": "yield from to_process(f, *args)",
    "run_in_thread": IN_A_THREAD,
    "spawn_thread": IN_A_THREAD,
    "tcp_server": SERVE,
    "tcp_server_socket": LISTEN,
    "timeout_after": TIMEOUT,
    "unix_server": SERVE_UNIX,
    "unix_server_socket": "listener = listen_unix(path)",
    # gevent
    "AsyncResult": "result = Result()",
    "Greenlet": SPAWN,
    "GreenletExit": "Cancelled",
    "StreamServer": SERVE,
    "getcurrent": "current_task()",
    "get_hub": "current_scheduler()",
    "iwait": "for step in as_completed(*tasks):",
    "joinall": "results = yield from gather(*tasks)",
    "kill": "task.cancel()",
    "killall": "task.cancel(), for each task",
    "spawn_later": "yield Sleep(seconds), at the beginning of the task",
    "spawn_raw": SPAWN,
    "with_timeout": TIMEOUT,
    # threading and queue
    "BrokenBarrierError": "Cancelled, in the tasks that wait",
    "Empty": "QueueEmpty",
    "Full": "QueueFull",
    "ShutDown": "QueueShutDown",
    "SimpleQueue": "queue = Queue(math.inf)",
    "Thread": SPAWN,
    "Timer": "yield Sleep(seconds), in a task of its own",
    "active_count": "len(current_scheduler().tasks)",
    "current_thread": "current_task()",
    "enumerate": "current_scheduler().tasks",
    "excepthook": "run(f, on_task_error=report)",
    "get_ident": "current_task().id",
    "local": "contextvars.ContextVar(name)",
    "main_thread": "current_scheduler().main",
    # socket and selectors
    "EVENT_READ": READ_WAIT,
    "EVENT_WRITE": WRITE_WAIT,
    "create_connection": OPEN_TCP,
    "create_server": LISTEN,
    "socket": OPEN_TCP,
    # socketserver, Twisted, Tornado
    **_all(SERVE, "TCPServer ThreadingTCPServer StreamRequestHandler BaseRequestHandler"),
    "IOLoop": "Scheduler",
    "UDPServer": "server = yield from serve_udp(handler, host, port)",
    "inlineCallbacks": "waits",
    "reactor": "run(f, *args)",
}

MODULES = {"Protocol", "Transport", "kill", "local", "reactor", "socket"}
"""Those of them that are more often meant as something else: a module that was not imported."""

WORDS = {
    **_all(SPAWN, "go start start_soon submit fork launch"),
    **_all(OPEN_TCP, "connect dial open Socket"),
    **_all(OPEN_TLS, "connect_tls open_tls ssl tls"),
    **_all(LISTEN, "listen bind"),
    **_all("run(serve_tcp, handler, host, port)", "serve run_server serve_forever start_serving"),
    **_all("stream = yield from listener.accept()", "accept"),
    **_all(RECV, "read receive recv"),
    **_all("line = yield from stream.readline()", "readline read_line"),
    **_all(SENDALL, "send sendall write"),
    **_all("yield ReadWait(file), or WriteWait(file)", "poll select DefaultSelector"),
    **_all(READ_WAIT, "Read read_wait wait_read"),
    **_all(WRITE_WAIT, "Write write_wait wait_write"),
    **_all(SLEEP, "after delay pause"),
    **_all(TICKS, "interval periodic repeat tick ticker"),
    **_all(GROUP, "Group group"),
    **_all(QUEUE, "Mailbox Stack channel pipe"),
    **_all("yield from map_concurrent(f, items, limit=n)", "Pool map"),
    **_all("index, value = yield from race(f(), g())", "any wait_any wait_first"),
    **_all("results = yield from gather(f(), g())", "all wait_all"),
    **_all("with (yield from Lock()):", "Mutex lock"),
    **_all(JOIN, "join"),
    **_all("task.cancel()", "cancel abort"),
    **_all("report = yield from server.stop(), or scheduler.main.cancel()", "stop shutdown"),
    **_all(IN_A_THREAD, "Executor ThreadPoolExecutor executor run_sync thread"),
    **_all("yield from to_process(f, *args)", "ProcessPoolExecutor process"),
    **_all(PROCESS, "Popen subprocess"),
    **_all(SIGNALS, "signal signals"),
    **_all("stream = open_stdin()", "input stdin"),
    **_all("sock = yield from open_udp(local=(host, port))", "listen_udp udp"),
    **_all("current_scheduler()", "loop scheduler"),
    **_all("waits", "async_function coroutine task"),
}
"""Words under which one may look in `corolib`. In a program they would be names of its own."""

PACKAGES = ("interop", "testing", "trace")
"""Packages that are imported by themselves."""

EVENT = {"isSet": "event.is_set()"}
ACQUIRE = {
    "acquire_nowait": "with (yield from lock):, or `lock.locked()` to ask",
    "acquire_lock": "with (yield from lock):",
    "locked_lock": "lock.locked()",
    "release_lock": "lock.release()",
    "statistics": "lock.waiters, lock.owner",
}
CONDITION = {**ACQUIRE, "notifyAll": "condition.notify_all()"}

SERVERS = {
    **_all("report = yield from server.stop()", "aclose cancel close kill shutdown terminate"),
    **_all("report = yield from server", "join run serve_forever start wait wait_closed"),
}
SUBSCRIBE = "with topic.subscribe() as news: item = yield from news.get()"

MEMBERS = {
    "Barrier": {"n_waiting": "barrier.waiters"},
    "CancelScope": {
        "is_relative": "scope.deadline, on the clock of now()",
        "relative_deadline": "scope.deadline - now()",
        "reschedule": "scope.deadline = now() + seconds",
        "when": "scope.deadline",
        **_all("scope.cancelled_caught", "cancelled is_cancelled was_cancelled"),
        **_all("scope.deadline = now() + seconds", "extend reset restart"),
        **_all("scope.expired", "is_expired timed_out"),
    },
    "Condition": CONDITION,
    "DatagramServer": {
        **SERVERS,
        "sendto": "yield from sock.sendto(data, sender)",
        "sockets": "the DatagramSocket that serves",
    },
    "DatagramSocket": {
        **_all("data, sender = yield from sock.recvfrom()", "read receive receive_from recv_from"),
        **_all("yield from sock.sendto(data, address)", "sendall send_to write"),
        **_all("sock = yield from open_udp(local=(host, port))", "bind listen"),
        **_all("server = sock.serve(handler)", "datagram_received serve_forever"),
        **_all("sock.close()", "abort aclose shutdown"),
        "accept": "data, sender = yield from sock.recvfrom(): there are no connections",
        "connect": OPEN_UDP,
        "get_extra_info": "sock.local, sock.peer",
        "getpeername": "sock.peer",
        "getsockname": "sock.local",
        "settimeout": TIMEOUT,
    },
    "Event": {
        **EVENT,
        **_all("event.set()", "fire notify notify_all signal trigger"),
        **_all("event.clear()", "reset unset"),
        **_all("event.is_set()", "fired ready"),
    },
    "Listener": {
        **_all(
            "stream = yield from listener.accept(), whose methods they are",
            "getpeername makefile read recv recv_into recvfrom send sendall",
        ),
        **_all("nothing: it listens already", "bind listen"),
        **_all("listener.close()", "shutdown stop wait_closed"),
        **_all("server = listener.serve(handler)", "run start"),
        "connect": OPEN_TCP,
        "settimeout": TIMEOUT,
        "address": "listener.addresses[0]",
        "port": "listener.addresses[0][1]",
        "aclose": "listener.close()",
        "is_serving": "listener.closed",
        "serve_forever": "yield from listener.serve(handler)",
        "sockets": "listener.addresses",
        "getsockname": "listener.addresses",
        "start_serving": "server = listener.serve(handler)",
    },
    "Lock": ACQUIRE,
    "Process": {
        **_all("process.returncode", "exitcode exit_code"),
        **_all("process.returncode is None", "is_alive is_running"),
        "join": "yield from process.wait()",
        "stop": "process.terminate()",
        "communicate": "result = yield from run_process(args, input=data)",
        "poll": "process.returncode",
    },
    "Queue": {
        **_all("yield from queue.put(item)", "add append enqueue push"),
        **_all("item = yield from queue.get()", "dequeue pop popleft recv take"),
        "is_empty": "queue.empty()",
        "is_full": "queue.full()",
        "aclose": "queue.shutdown()",
        "close": "queue.shutdown()",
        "maxsize": "queue.size",
        "receive": "yield from queue.get()",
        "receive_nowait": "queue.get_nowait()",
        "send": "yield from queue.put(item)",
        "send_nowait": "queue.put_nowait(item)",
        "statistics": "len(queue), queue.waiters",
    },
    "Result": {
        **_all("value = yield from result", "get value"),
        **_all("result.done", "ready successful"),
        "done()": "result.done",
        "add_done_callback": "value = yield from result, in a task of its own",
        "cancelled": "result.done",
        "exception": "value = yield from result",
        "is_set": "result.done",
        "result": "value = yield from result",
        "set_exception": "result.fail(error)",
        "set_result": "result.set(value)",
        "set_value": "result.set(value)",
        "unwrap": "value = yield from result",
    },
    "Scheduler": {
        **_all(LOOKUP, "getaddrinfo getnameinfo"),
        "is_running": "scheduler.current",
        "sleep": SLEEP,
        "start_tls": "yield from stream.start_tls(context)",
        "subprocess_shell": "process = yield from open_process(['sh', '-c', line])",
        "add_reader": "yield ReadWait(file), in a task",
        "add_signal_handler": SIGNALS,
        "add_writer": "yield WriteWait(file), in a task",
        "call_exception_handler": "run(f, on_task_error=report)",
        "call_later": "yield Sleep(seconds), in a task",
        "call_soon": SPAWN,
        "connect_read_pipe": "stream = yield from open_process(...), or open_stdin()",
        "create_connection": OPEN_TCP,
        "create_datagram_endpoint": OPEN_UDP,
        "create_future": "result = Result()",
        "create_server": SERVE,
        "create_task": SPAWN,
        "create_unix_connection": OPEN_UNIX,
        "create_unix_server": SERVE_UNIX,
        "run_forever": "run(f, *args)",
        "run_in_executor": IN_A_THREAD,
        "run_until_complete": "run(f, *args)",
        "set_exception_handler": "run(f, on_task_error=report)",
        "sock_accept": "yield ReadWait(sock); then sock.accept()",
        "sock_connect": OPEN_TCP,
        "sock_recv": "yield ReadWait(sock); then sock.recv(n)",
        "sock_sendall": "yield WriteWait(sock); then sock.send(data)",
        "stop": "scheduler.main.cancel()",
        "subprocess_exec": PROCESS,
        "time": "now()",
    },
    "Semaphore": {**ACQUIRE, "max_value": "semaphore.value, what is left"},
    "Server": {
        **SERVERS,
        "accept": "each connection goes to the handler",
        "address": "server.listener.addresses[0]",
        "addresses": "server.listener.addresses",
        "port": "server.listener.addresses[0][1]",
        "sockets": "server.listener.addresses",
        "is_serving": "server.stopping.is_set()",
    },
    "SignalReceiver": _all("signum = yield from received", "get recv wait"),
    "Stream": {
        **_all(RECV, "read1 readany receive"),
        **_all("line = yield from stream.readline()", "gets read_line recv_line"),
        **_all("data = yield from stream.readexactly(n)", "receive_exactly recv_exactly"),
        **_all("data = yield from stream.readuntil(end)", "read_until receive_until recv_until"),
        **_all("yield from stream.sendall(line + b'\\n')", "puts sendline write_line writeline"),
        **_all("yield from stream.more()", "is_readable poll"),
        **_all("listener = listen_tcp(host, port)", "accept bind listen"),
        **_all("stream.peer", "addr address client_address peername remote_address"),
        **_all("stream.close()", "disconnect stop"),
        **_all("stream.reset()", "abort"),
        **{name: f"stream.socket.{name}" for name in ("family", "proto", "type")},
        **{name: f"stream.socket.{name}()" for name in ("dup", "fileno")},
        "sock": "stream.socket",
        **_all(
            "nothing: it reads when recv() is called", "is_reading pause_reading resume_reading"
        ),
        **_all("nothing: a stream waits where a socket would block", "getblocking setblocking"),
        **_all(TIMEOUT, "gettimeout timeout"),
        "get_write_buffer_size": "stream.unsent",
        "recvmsg": RECV,
        "sendto": "yield from sock.sendto(data, address), of open_udp()",
        "unwrap": "yield from stream.aclose()",
        "at_eof": "stream.ended",
        "can_write_eof": "yield from stream.send_eof()",
        "connect": OPEN_TCP,
        "detach": "stream.socket",
        "do_handshake": "yield from stream.start_tls(context)",
        "drain": "yield from stream.sendall(data), which has waited already",
        "flush": "yield from stream.sendall(data), which has waited already",
        "get_extra_info": "stream.peer, stream.local, stream.tls, stream.socket",
        "getpeername": "stream.peer",
        "getsockname": "stream.local",
        "getsockopt": "stream.socket.getsockopt(...)",
        "lines": "while line := (yield from stream.readline()):",
        "is_closing": "stream.ended, which says that the peer has ended",
        "makefile": "while line := (yield from stream.readline()):",
        "read": RECV,
        "read_exactly": "data = yield from stream.readexactly(n)",
        "readall": "data = yield from stream.recv(65536), until it is b''",
        "readinto": "n = yield from stream.recv_into(buffer)",
        "readlines": "while line := (yield from stream.readline()):",
        "receive_some": RECV,
        "recvfrom": RECV,
        "send": SENDALL,
        "send_all": SENDALL,
        "sendmsg": "yield from stream.sendall([head, body])",
        "setsockopt": "stream.socket.setsockopt(...)",
        "settimeout": TIMEOUT,
        "shutdown": "yield from stream.send_eof()",
        "transport": "stream.socket",
        "wait_closed": "yield from stream.aclose()",
        "write": SENDALL,
        "write_eof": "yield from stream.send_eof()",
        "writelines": "yield from stream.sendall([head, body])",
    },
    "Task": {
        **_all("task.cancel()", "abort interrupt kill terminate throw"),
        **_all("task.done", "dead finished is_done ready"),
        **_all(JOIN, "get value"),
        **_all("task.exception", "error exc_info"),
        "get_context": "task = spawn(f, context=context)",
        "is_running": "not task.done",
        "status": "task.state",
        "successful": "task.done and task.exception is None",
        "add_done_callback": f"{JOIN}, in a task of its own",
        "cancelled()": "isinstance(task.exception, TaskCancelled)",
        "cancelling": "task.state",
        "getName": "task.name",
        "get_coro": "task.stack()",
        "get_name": "task.name",
        "get_stack": "task.stack()",
        "ident": "task.id",
        "isDaemon": "task.daemon",
        "is_alive": "not task.done",
        "join": JOIN,
        "print_stack": "print(current_scheduler().report())",
        "setDaemon": "task = spawn(f, daemon=True)",
        "setName": "task = spawn(f, name=name)",
        "set_name": "task = spawn(f, name=name)",
        "start": f"nothing: it runs already, since {SPAWN}",
        "traceback": "task.stack()",
        "where": "task.stack()",
        # These are there, and are no methods.
        "done()": "task.done",
        "exception()": "task.exception",
        "result()": JOIN,
        "wait()": JOIN,
    },
    "TaskGroup": {
        **_all("g.spawn(f, *args)", "add go launch run schedule start_task submit"),
        **_all("results = yield from g", "gather wait wait_all"),
        **_all("g.cancel()", "cancel_all cancel_remaining close stop"),
        "add_task": "g.spawn(f, *args)",
        "child_tasks": "g.tasks",
        "create_task": "g.spawn(f, *args)",
        "join": "results = yield from g",
        "next_done": "for step in as_completed(*tasks):",
        "next_result": "for step in as_completed(*tasks): value = yield from step",
        "parent_task": "current_task()",
        "results": "results = yield from g",
        "start_soon": "g.spawn(f, *args)",
    },
    "Topic": {
        **_all(
            "yield from topic.publish(item)",
            "broadcast emit notify push put put_nowait send send_nowait",
        ),
        **_all(SUBSCRIBE, "get get_nowait listen on receive recv wait"),
        **_all("topic.shutdown()", "aclose close"),
        "clone": "topic.subscribe()",
        "unsubscribe": "with topic.subscribe() as news:, whose end is the end of the block",
    },
}
"""For each class; what has `()` is there, and is not called."""


ITERATED = {
    "DatagramSocket": "while True: {x}, sender = {word} {it}.recvfrom()",
    "Listener": "while True: {x} = {word} {it}.accept()",
    "Queue": "while True: {x} = {word} {it}.get()",
    "Stream": "while {x} := ({word} {it}.readline()):",
}
"""What takes the place of `for x in it:`, for things whose items have to be waited for."""

BLOCKS = ("hold", "subscribe")
"""What returns the beginning of a `with` block."""

READ = "while {x} := ({word} {it}):"
TAKEN = "while True: {x} = {word} {it}"
REPEATED = {
    **dict.fromkeys(("readline", "readuntil", "recv"), READ),
    **dict.fromkeys(("accept", "get", "recvfrom"), TAKEN),
}
"""What takes the place of `for x in it():`, for calls that give one item each."""

WAITING = ("wait", "get", "recv", "recvfrom", "accept")
"""The methods that a thing is most often waited for by, in this order."""


def waiting_call(kind: type) -> str | None:
    """Return the call by which one waits for a thing of a class: `wait()`; None if it has none."""
    # It may be inherited: `get` of a PriorityQueue is a Queue's.
    members = [name for each in kind.__mro__ for name in vars(each)]
    name = next((each for each in WAITING if each in members), None)
    return name and ("recv(65536)" if name == "recv" else f"{name}()")


ASYNCIO = "What needs asyncio's loop runs in a thread: `yield from to_thread(asyncio.run, f())`"


def for_async(text: str) -> str:
    """Return what to write as it is in an `async def`."""
    for ours, there in (("yield from ", "await "), ("yield ", "await ")):
        text = text.replace(ours, there)
    return re.sub("(?<!async )with TaskGroup", "async with TaskGroup", text)


def asyncio_cure(name: str) -> str:
    """Return what to do about the call of a coroutine function of asyncio's."""
    kind = name.rpartition(".")[0]
    cure = NAMES.get(name)
    ours = kind or name
    if kind in MEMBERS or (cure is None and ours in sys.modules["corolib"].__all__):
        cure = f"{ours} is imported from corolib, too"
    what = f"In corolib: {cure}" if cure else ASYNCIO
    return f"asyncio.{name}() is asyncio's, and corolib cannot wait for it. {what}"


FUNCTIONS = {
    "from_thread": {
        "check_cancelled": "nothing: a thread is not told",
        "run": FROM_THREAD,
        "run_sync": "scheduler.call_soon_threadsafe(f, *args)",
    },
    "to_process": {"run_sync": "yield from to_process(f, *args)"},
    "to_thread": {
        "current_default_thread_limiter": "current_threads().limit",
        "run_sync": IN_A_THREAD,
    },
}
"""What is looked for at functions of ours, which are modules elsewhere."""


def name_cure(name: str, imported: bool, code: CodeType) -> str | None:
    """Return what is in `corolib` instead of a name that it has not; None if nothing is known.

    Args:
        imported: whether it is in `from corolib import name`, which finds packages by itself.
        code: of what asks.
    """
    if name in PACKAGES and not imported:
        return f"import corolib.{name}"
    cure = NAMES.get(name) or WORDS.get(name)
    return for_async(cure) if cure and code.co_flags & CO_COROUTINE else cure


def member_cure(kind: type, name: str) -> str | None:
    """Return what to write instead of a member of that name; None if nothing is known of it."""
    cures = (MEMBERS.get(name_of(each), {}).get(name) for each in kind.__mro__)
    return next((cure for cure in cures if cure is not None), None)
