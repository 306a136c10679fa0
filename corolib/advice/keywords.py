"""Keywords of functions and servers of other libraries, and what they are here.

    open_tcp(host, port, ssl=True)          tls=
    serve_tcp(echo, host, port, timeout=5)  idle_timeout=

Looked at when a keyword was refused, and never before. Imports from corolib how a text is made of a
thing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from corolib.kernel.safely import brief

if TYPE_CHECKING:
    from inspect import Parameter

TLS = ("tls", "it is listener.serve(handler, tls=context)")
LIMIT = (
    *("max_connections", "limit", "size", "max_waiting"),
    "it is listener.serve(handler, max_connections=n)",
)
IDLE = ("idle_timeout", "seconds", "to bound a wait, put `with timeout(seconds):` around it")
STOP = ("grace", "it is report = yield from server.stop(grace=seconds)")
HANDLER = ("handler", "f")
ERROR = ("on_error", "on_task_error")
CERTIFICATE = "it is tls=context, after context.load_cert_chain(certfile, keyfile)"
AGAIN = "leave it out, an address can be used again at once"
NOWAIT = "there are get_nowait(), put_nowait() or locked(), which do not wait"

KEYWORDS = {
    # TLS
    **dict.fromkeys(("ssl", "ssl_context", "ssl_options", "sslcontext", "tls_context"), TLS),
    **dict.fromkeys(
        ("ca_certs", "certfile", "keyfile", "ssl_certfile", "ssl_keyfile"), (CERTIFICATE,)
    ),
    "do_handshake_on_connect": ("leave it out, the handshake is part of the call",),
    "ssl_handshake_timeout": ("handshake", "with timeout(seconds):"),
    "ssl_shutdown_timeout": ("drain", "with timeout(seconds):"),
    "tls": TLS,
    # limits
    **dict.fromkeys(("connection_limit", "concurrency", "limit_concurrency"), LIMIT),
    **dict.fromkeys(("max_clients", "max_concurrency", "max_concurrent", "max_conn"), LIMIT),
    **dict.fromkeys(("max_conns", "max_connections", "max_workers", "maxconn", "maxsize"), LIMIT),
    **dict.fromkeys(
        ("max_tasks", "pool_size", "processes", "workers", "worker_connections"), LIMIT
    ),
    **dict.fromkeys(
        ("capacity", "max_buffer_size", "max_items", "max_size"), ("size", "max_message")
    ),
    **dict.fromkeys(("limit", "max_line_size"), ("max_line",)),
    "max_line": ("limit", "it is stream.max_line = bytes"),
    "max_message": ("limit", "it is stream.max_message = bytes"),
    "parties": ("parties",),
    **dict.fromkeys(("listen_backlog", "queue", "request_queue_size"), ("backlog",)),
    # time
    **dict.fromkeys(("idle", "inactivity_timeout", "keepalive_timeout", "read_timeout"), IDLE),
    **dict.fromkeys(("connect_timeout", "receive_timeout", "socket_timeout", "timeout"), IDLE),
    **dict.fromkeys(
        ("close_timeout", "graceful_timeout", "shutdown_timeout", "stop_timeout"), STOP
    ),
    **dict.fromkeys(
        ("delay", "duration", "secs", "seconds", "timeout_seconds"), ("seconds", "delay")
    ),
    **dict.fromkeys(("deadline", "until", "when"), ("at",)),
    "happy_eyeballs_delay": ("delay",),
    "keep_alive": ("keepalive",),
    # addresses and sockets
    **dict.fromkeys(("address", "addr", "hostname", "interface", "ip"), ("host",)),
    **dict.fromkeys(("local_addr", "local_address", "source_address"), ("source", "local")),
    **dict.fromkeys(("allow_reuse_address", "reuse_addr", "reuse_address"), (AGAIN,)),
    **dict.fromkeys(("sock", "sockets"), ("it is fd=sock.detach(), of listen_tcp()",)),
    "filename": ("path",),
    "nodelay": ("leave it out, TCP_NODELAY is set",),
    "remote_addr": ("they are host and port, as the first two arguments",),
    "server_name": ("server_hostname",),
    # what is called
    **dict.fromkeys(("callback", "client_connected_cb", "client_handler", "cb"), HANDLER),
    **dict.fromkeys(("connection_handler", "fn", "func", "function", "handle", "target"), HANDLER),
    **dict.fromkeys(("error_handler", "exception_handler", "on_exception"), ERROR),
    "args": ("arguments follow the function, as in spawn(f, x)",),
    # what else they have
    **dict.fromkeys(("block", "blocking"), (NOWAIT,)),
    "debug": ("run it by python -X dev, or with COROLIB_DEBUG=1 in the environment",),
    "loop": ("leave it out, the scheduler is the one that runs",),
    "return_when": ("it is race(f(), g()), or first_success(f(), g())",),
    "shell": ("give ['sh', '-c', line] as the program and its arguments",),
}
"""What keywords of functions and servers of other libraries are here: the first that the function
has; or else a sentence, which has a space."""


def keyword_cure(word: str, known: Collection[str]) -> str | None:
    """Return what a keyword of another library's is here: one of those that are known, or a
    sentence, which has a space; None if nothing is known of it.
    """
    for cure in KEYWORDS.get(word, ()):
        if cure in known or " " in cure:
            return cure
    return None


def refused_keyword(caller: str, word: str, known: Collection[str]) -> str:
    """Return the message for a keyword that a function of ours has not, among those it has."""
    from difflib import get_close_matches

    cure = keyword_cure(word, known)
    near = [cure] if cure in known else get_close_matches(word, known, 1)
    hint = f"did you mean {near[0]}=? Its" if near else "its"
    if cure is not None and cure not in known:
        hint = f"{cure}. Its"
    return f"{caller}() has no keyword {brief(word)}; {hint} keywords are {', '.join(known)}"


def keywords_of(function: Any) -> list[str]:
    """Return the keywords that a function takes, also those of its `Unpack`."""
    from inspect import Parameter
    from typing import get_args, get_type_hints

    found = []
    try:
        for each in parameters_of(function):
            if each.kind is Parameter.VAR_KEYWORD and each.name != "unknown":
                (taken,) = get_args(get_type_hints(function)[each.name])
                found += taken.__annotations__
            elif each.kind not in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL):
                found.append(each.name)
    except Exception:
        pass  # not every function can say what it takes
    return found


def misplaced_keyword(caller: str, name: str, f: Any, word: str) -> str:
    """Return the message for a keyword that `run(f)` and its like have not: it may be for `f`."""
    text = f"{caller}() has no keyword {brief(word)}: its keywords are the scheduler's own. "
    known = keywords_of(f)
    cure = None if word in known else keyword_cure(word, known)
    if cure is None:
        call = f"`{caller}({name}(..., {word}=...))`"
        return f"{text}If {brief(word)} is for {name}(), write {call}"
    if cure in known:
        return f"{text}For {name}() it is {cure}=: write `{caller}({name}(..., {cure}=...))`"
    return f"{text}In corolib, {cure}"


def parameters_of(function: Any) -> list[Parameter]:
    """Return what a function takes, without what it has for mistakes only."""
    from inspect import signature

    return [
        each
        for each in signature(function).parameters.values()
        if each.name not in ("self", "unknown")
    ]
