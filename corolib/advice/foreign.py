"""What asyncio, trio, curio, threading, queue and socket call the things of corolib.

Who knows one of them types its names here. This table says what to write instead, for names of the
module and for those of objects. It is looked at when a name was not found, and never before. What
has no counterpart here is listed in the test that holds the table against those libraries.

Imports nothing else from corolib.
"""

from __future__ import annotations

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
SERVE_TLS = "yield from serve_tcp(handler, host, port, tls=context)"
SERVE_UNIX = "yield from serve_unix(handler, path)"
PROCESS = "process = yield from open_process([program, argument])"
SOON = "current_scheduler().call_soon_threadsafe(f, *args)"
FROM_THREAD = "from_thread(scheduler, f, *args)"
SIGNALS = "with open_signal_receiver(signal.SIGHUP) as received:"

NAMES = {
    # asyncio
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
    # trio
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
    "SocketListener": "listener = listen_tcp(host, port)",
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
    "open_tcp_listeners": "listener = listen_tcp(host, port)",
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
    "tcp_server_socket": "listener = listen_tcp(host, port)",
    "timeout_after": TIMEOUT,
    "unix_server": SERVE_UNIX,
    "unix_server_socket": "listener = listen_unix(path)",
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
    # socket
    "create_connection": OPEN_TCP,
    "create_server": "listener = listen_tcp(host, port)",
    "socket": OPEN_TCP,
}

MODULES = {"local", "socket"}
"""Those of them that are more often meant as something else: a module that was not imported."""

EVENT = {"isSet": "event.is_set()"}
ACQUIRE = {
    "acquire_nowait": "with (yield from lock):, or `lock.locked()` to ask",
    "acquire_lock": "with (yield from lock):",
    "locked_lock": "lock.locked()",
    "release_lock": "lock.release()",
    "statistics": "lock.waiters, lock.owner",
}
CONDITION = {**ACQUIRE, "notifyAll": "condition.notify_all()"}

MEMBERS = {
    "Barrier": {"n_waiting": "barrier.waiters"},
    "CancelScope": {
        "is_relative": "scope.deadline, on the clock of now()",
        "relative_deadline": "scope.deadline - now()",
        "reschedule": "scope.deadline = now() + seconds",
        "when": "scope.deadline",
    },
    "Condition": CONDITION,
    "Event": EVENT,
    "Listener": {
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
        "communicate": "result = yield from run_process(args, input=data)",
        "poll": "process.returncode",
    },
    "Queue": {
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
        "add_reader": "yield ReadWait(file), in a task",
        "add_signal_handler": SIGNALS,
        "add_writer": "yield WriteWait(file), in a task",
        "call_exception_handler": "run(f, on_task_error=report)",
        "call_later": "yield Sleep(seconds), in a task",
        "call_soon": SPAWN,
        "connect_read_pipe": "stream = yield from open_process(...), or open_stdin()",
        "create_connection": OPEN_TCP,
        "create_datagram_endpoint": "sock = yield from open_udp(host, port)",
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
        "address": "server.listener.addresses[0]",
        "addresses": "server.listener.addresses",
        "port": "server.listener.addresses[0][1]",
        "sockets": "server.listener.addresses",
        "close": "report = yield from server.stop()",
        "is_serving": "server.stopping.is_set()",
        "serve_forever": "report = yield from server",
        "wait_closed": "report = yield from server",
    },
    "Stream": {
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
        "read": "data = yield from stream.recv(65536)",
        "read_exactly": "data = yield from stream.readexactly(n)",
        "readall": "data = yield from stream.recv(65536), until it is b''",
        "readinto": "n = yield from stream.recv_into(buffer)",
        "readlines": "while line := (yield from stream.readline()):",
        "receive_some": "data = yield from stream.recv(65536)",
        "recvfrom": "data = yield from stream.recv(65536)",
        "send": "yield from stream.sendall(data)",
        "send_all": "yield from stream.sendall(data)",
        "sendmsg": "yield from stream.sendall([head, body])",
        "setsockopt": "stream.socket.setsockopt(...)",
        "settimeout": TIMEOUT,
        "shutdown": "yield from stream.send_eof()",
        "transport": "stream.socket",
        "wait_closed": "yield from stream.aclose()",
        "write": "yield from stream.sendall(data)",
        "write_eof": "yield from stream.send_eof()",
        "writelines": "yield from stream.sendall([head, body])",
    },
    "Task": {
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
}
"""For each class; what has `()` is there, and is not called."""


LOOPS = {"as_completed": ("step", "value"), "every": ("tick", "missed")}
"""What gives one wait after the other: what each is called, and what it returns."""

ITERATED = {
    "DatagramSocket": "while True: {x}, sender = {word} {it}.recvfrom()",
    "Listener": "while True: {x} = {word} {it}.accept()",
    "Queue": "while True: {x} = {word} {it}.get()",
    "Stream": "while {x} := ({word} {it}.readline()):",
}
"""What takes the place of `for x in it:`, for things whose items have to be waited for."""

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
    return text.replace("with TaskGroup", "async with TaskGroup")


def asyncio_cure(name: str) -> str:
    """Return what to do about the call of a coroutine function of asyncio's."""
    kind = name.rpartition(".")[0]
    cure = NAMES.get(name)
    if kind in MEMBERS:
        cure = f"{kind} is imported from corolib, too"
    what = f"In corolib: {cure}" if cure else ASYNCIO
    return f"asyncio.{name}() is asyncio's, and corolib cannot wait for it. {what}"


def member_cure(kind: type, name: str) -> str | None:
    """Return what to write instead of a member of that name; None if nothing is known of it."""
    cures = (MEMBERS.get(name_of(each), {}).get(name) for each in kind.__mro__)
    return next((cure for cure in cures if cure is not None), None)
