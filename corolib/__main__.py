"""Serve with a handler of yours, or run a function, from the command line.

    $ python3 -m corolib serve app.py:echo --port 7007
    app.py:echo on 127.0.0.1:7007, in debug mode; Ctrl-C ends it
    ^C
    stopped: 2 finished, 0 had to be cancelled

`app.py:echo` is the function `echo` of that file, and `package.module:echo` that of a module which
can be imported. `serve` gives it to a server, each connection a `Stream`; what it takes sockets
from is, in this order: systemd, `--unix`, or `--host` and `--port`. `run` does `run(main)`.

Both have debug mode on, which a service leaves out with `--production`. It is decided when corolib
is imported: if the environment wants another one, this program starts itself anew.

Exit status: 0, after SIGTERM too; 1, with one line, for what cannot be, and with your frames alone
for an error of your program; 2 for a wrong option; 130 after Ctrl-C. What the servers and runs do
is in `net/` and `kernel/`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from corolib import (
    Coro,
    Deadlock,
    Listener,
    Scheduler,
    __version__,
    inherited_listeners,
    listen_tcp,
    listen_unix,
    run,
    run_workers,
)
from corolib.demo import daytime, echo
from corolib.demo.start import NOT_HERE, at_least, start
from corolib.kernel import DEFAULT_TRACE
from corolib.kernel.safely import brief, trace_of, with_trace
from corolib.kernel.waits import DEBUG
from corolib.net.handlers import STREAM, check_handler
from corolib.net.network import address_text
from corolib.system import workers

if TYPE_CHECKING:
    import inspect
    import ssl

HELP = """\
corolib: network servers as plain generators.

  python3 -m corolib serve app.py:echo --port 7007    serve with the handler `echo` of app.py
  python3 -m corolib run app.py:main                  run the function `main` of app.py
  python3 -m corolib demo echo                        an echo server on port 7007; `time`: two more
  python3 -m corolib trace app.py                     a page to step through what app.py does
  python3 -m corolib ps 4711                          what the tasks of process 4711 do now
  python3 -m corolib convert run.jsonl run.html       such a page of what --trace has recorded

Each has --help. `serve` and `run` have debug mode on, which finds a forgotten `yield from`;
--production leaves it out. To begin: python3 -c "import corolib; help(corolib)"
"""

DEMOS = """\
  python3 -m corolib demo echo    what you send comes back, on port 7007
  python3 -m corolib demo time    the time and the date, on ports 7037 and 7013

Each has --help. A checkout of corolib has more: python3 -m demos
"""

RECORD = {
    "metavar": "FILE",
    "help": "what the scheduler does: .html, .jsonl, .json, or - for text",
}
PRODUCTION = {"action": "store_true", "help": "without debug mode, which costs an echo a third"}
SERVE = {
    "handler": {"help": "the function that is given each connection: app.py:echo"},
    "--unix": {"metavar": "PATH", "help": "a Unix socket instead of host and port"},
    "--tls": {"metavar": "FILE", "help": "the certificate and its key, in one file"},
    "--workers": {
        "type": at_least(1, 256),
        "default": 1,
        "help": "processes; default: %(default)s",
    },
    "--trace": RECORD,
    "--production": PRODUCTION,
}
RUN = {
    "function": {"help": "the function, which takes no arguments: app.py:main"},
    "--trace": RECORD,
    "--production": PRODUCTION,
}


def command(words: Sequence[str]) -> NoReturn:
    """Do what the command line asks for, and exit."""
    match words:
        case ["serve", *given] if both_places(given):
            sys.exit("--unix and --host or --port: a server listens at one of these places")
        case ["serve", *given]:
            doc = "Serve with a handler of yours.\n\n    $ python3 -m corolib serve app.py:echo\n"
            begin(told_of_mistakes(serve), doc, "serve", given, port=7007, arguments=SERVE)
        case ["run", *given]:
            doc = "Run a function of yours.\n\n    $ python3 -m corolib run app.py:main\n"
            begin(told_of_mistakes(run_function), doc, "run", given, arguments=RUN)
        case ["demo", "echo", *given]:
            begin(echo.main, echo.__doc__, "demo echo", given, port=7007)
        case ["demo", "time", *given]:
            extra = daytime.ARGUMENTS
            begin(daytime.main, daytime.__doc__, "demo time", given, port=7037, arguments=extra)
        case ["trace" | "convert" as name, *given]:
            from corolib.trace.command import convert, record

            (record if name == "trace" else convert)(given)
        case ["ps", *given]:
            from corolib.trace.looking import ps

            ps(given)
        case ["demo", "-h" | "--help", *_]:
            explain(DEMOS)
        case ["demo"]:
            explain(DEMOS, "which demo?")
        case ["demo", name, *_]:
            explain(DEMOS, f"there is no demo {brief(name)}")
        case ["--version"]:
            explain(f"corolib {__version__}\n")
        case [] | ["-h" | "--help"]:
            explain(HELP)
        case _:
            explain(HELP, f"there is no command {brief(words[0])}")


def both_places(given: Sequence[str]) -> bool:
    """Return whether the words name a path and an address to listen at."""
    words = {each.partition("=")[0] for each in given}
    return "--unix" in words and bool(words & {"--host", "--port"})


def explain(text: str, mistake: str | None = None) -> NoReturn:
    """Print what there is, and exit; a mistake comes before it, on stderr, and is status 2."""
    if mistake is None:
        print(text, end="")
        sys.exit(0)
    print(f"{mistake}\n\n{text}", end="", file=sys.stderr)
    sys.exit(2)


def begin(main: Any, doc: str | None, name: str, given: Sequence[str], **more: Any) -> NoReturn:
    start(main, doc, name=f"python3 -m corolib {name}", given=given, **more)


def told_of_mistakes(main: Callable[[argparse.Namespace], None]) -> Callable[..., None]:
    """Return `main`, which then shows of an error the frames that are not corolib's, and exits.

    What `start` says in one line is left to it; so is what may be a fault of corolib's own.
    """

    @functools.wraps(main)
    def call(options: argparse.Namespace) -> None:
        try:
            main(options)
        except Exception as exc:
            frames = frames_of_the_program(trace_of(exc))
            if isinstance(exc, OSError) and (frames is None or exc.errno in NOT_HERE):
                raise
            if frames is None and not isinstance(exc, (TypeError, ValueError, Deadlock)):
                raise
            sys.excepthook(type(exc), with_trace(exc, frames), frames)
            sys.exit(1)

    return call


def frames_of_the_program(trace: TracebackType | None) -> TracebackType | None:
    """Leave corolib's frames, and those of imports, out of a traceback; None: no other is there."""
    kept: list[TracebackType] = []
    while trace is not None:
        scope = trace.tb_frame.f_globals
        inside = str(scope.get("__name__")).startswith(("corolib.", "importlib."))
        if not inside and scope is not globals():
            kept.append(trace)
        trace = trace.tb_next
    for each, following in pairwise([*kept, None]):
        assert each is not None
        each.tb_next = following
    return kept[0] if kept else None


# Serve and run ------------------------------------------------------------------------------------


def serve(options: argparse.Namespace) -> None:
    """Serve with the handler, until Ctrl-C or SIGTERM."""
    ensure_mode(options.production)
    handler = load(options.handler)
    if not parameters_of(handler):
        name = options.handler
        text = f"{name.rpartition(':')[2]}() takes no stream, so it is no handler"
        sys.exit(f"{text}: a function is run, by `python3 -m corolib run {name}`")
    check_handler("serve", handler, STREAM)
    sys.argv = [options.handler]  # the title of a trace
    tls = None if options.tls is None else tls_context(options.tls)
    trace = trace_for(options)
    listeners = open_listeners(options)
    places = ", ".join(
        address_text(address) for listener in listeners for address in listener.addresses
    )
    mode = "debug" if DEBUG else "production"
    print(f"{options.handler} on {places}, in {mode} mode; Ctrl-C ends it", flush=True)
    status = 0
    said = "stopped"
    try:
        if options.workers == 1:
            said = run(serve_all, listeners, handler, tls, trace=trace)
        else:  # each has a trace of its own
            path = options.trace or DEFAULT_TRACE
            run_workers(options.workers, serve_all, listeners, handler, tls, trace=path)
    except KeyboardInterrupt as exc:
        status = 130
        said = str(exc) or said
    # Behind the ^C that a terminal shows, this is a line of its own.
    print(f"\n{said}" if sys.stdout.isatty() else said, flush=True)
    say_where(trace)
    sys.exit(status)


def trace_for(options: argparse.Namespace) -> Any:
    """Return what `run(trace=)` is to be."""
    if options.trace is None:
        return DEFAULT_TRACE
    from corolib.trace import Trace

    return Trace(options.trace)


def say_where(trace: Any) -> None:
    """Say where the trace of a run is, if there is one, as `python3 -m corolib trace` does."""
    if trace is not DEFAULT_TRACE and trace.path:
        print(trace.path, file=sys.stderr)


def serve_all(listeners: list[Listener], handler: Any, tls: ssl.SSLContext | None) -> Coro[str]:
    """Serve what comes to any of the listeners; when all have ended, return how, in words.

    After Ctrl-C, KeyboardInterrupt has the words.
    """
    servers = [listener.serve(handler, tls=tls) for listener in listeners]
    interrupted = False
    try:
        for server in servers:
            yield from server
    except KeyboardInterrupt:
        interrupted = True
    finished, cancelled = 0, 0
    for server in servers:
        report = yield from server.stop()
        finished += report.finished
        cancelled += len(report.cancelled)
    said = f"stopped: {finished} finished, {cancelled} had to be cancelled"
    if interrupted:
        raise KeyboardInterrupt(said)
    return said


def open_listeners(options: argparse.Namespace) -> list[Listener]:
    """Return what to listen on: what systemd has opened, or what the options say."""
    inherited = list(inherited_listeners().values())
    if inherited:
        return inherited
    if options.unix is not None:
        try:
            return [listen_unix(options.unix)]
        except OSError as exc:
            sys.exit(f"--unix: {exc.strerror}")
    return [listen_tcp(options.host, options.port)]


def tls_context(path: str) -> ssl.SSLContext:
    """Return the context of a server that shows the certificate of a file."""
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(path)
    except ssl.SSLError as exc:
        sys.exit(
            f"--tls {path}: {exc.strerror or exc}. The file has to have the certificate and its "
            "private key; of two files: `cat cert.pem key.pem > both.pem`"
        )
    except OSError as exc:
        sys.exit(f"--tls {path}: {exc.strerror or exc}")
    return context


def run_function(options: argparse.Namespace) -> None:
    """Run the function, as `run()` does."""
    ensure_mode(options.production)
    function = load(options.function)
    refuse_arguments(function, options.function)
    sys.argv = [options.function]
    trace = trace_for(options)
    try:
        run(function, trace=trace)
    finally:
        say_where(trace)


def refuse_arguments(function: Any, name: str) -> None:
    """Exit if the function cannot be called without arguments."""
    missing = [
        each.name
        for each in parameters_of(function)
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    text = f"{name.rpartition(':')[2]}() takes {', '.join(missing)}, and `run` gives it nothing"
    if len(missing) == 1:
        text += f": a handler is served, by `python3 -m corolib serve {name}`"
    if missing:
        sys.exit(text)


def parameters_of(function: Any) -> list[inspect.Parameter]:
    """Return what a function takes; something unknown if it has no signature."""
    import inspect

    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:
        return [inspect.Parameter("unknown", inspect.Parameter.VAR_POSITIONAL)]


def ensure_mode(production: bool) -> None:
    """Start this program anew if debug mode is not as it was asked for. (-O never has it.)"""
    wanted = not (production or sys.flags.optimize or os.environ.get("COROLIB_DEBUG") == "0")
    if wanted != DEBUG:
        os.environ["COROLIB_DEBUG"] = str(int(wanted))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


# Functions of the user's --------------------------------------------------------------------------


def load(name: str) -> Any:
    """Return the function that `app.py:echo`, or `package.module:echo`, stands for."""
    place, _, function = name.rpartition(":")
    if not place or not function:
        sys.exit(f"{name}: give a file, a colon and a function, as in app.py:echo")
    with refusing_runs():
        module = load_file(Path(place)) if place.endswith(".py") else load_module(place)
    found = getattr(module, function, None)
    if not callable(found):
        there = [each for each, thing in vars(module).items() if callable(thing)]
        own = [each for each in there if vars(module)[each].__module__ == module.__name__]
        sys.exit(f"{place} has no function {brief(function)}; it has: {', '.join(own) or 'none'}")
    return found


@contextmanager
def refusing_runs() -> Iterator[None]:
    """Exit if what is imported meanwhile runs something: that would be all that is ever run."""
    with ExitStack() as stack:
        for owner, attribute, name in (
            (Scheduler, "run", "run()"),
            (workers, "check_place", "run_workers()"),
        ):
            before = getattr(owner, attribute)
            stack.callback(setattr, owner, attribute, before)
            setattr(owner, attribute, refusal(name, before))
        yield


def refusal(name: str, before: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands for a function while a file is imported: it exits, but in threads."""
    importing = threading.get_ident()

    def call(*args: Any, **options: Any) -> Any:
        if threading.get_ident() != importing:
            return before(*args, **options)
        frame: Any = sys._getframe(1)
        while frame.f_globals["__name__"].startswith("corolib."):
            frame = frame.f_back
        file = os.path.basename(frame.f_code.co_filename)
        sys.exit(
            f'{file} calls {name} when it is imported: put it under `if __name__ == "__main__":`'
        )

    return call


def load_file(path: Path) -> ModuleType:
    """Import a file; what is beside it can be imported from there."""
    if not path.is_file():
        sys.exit(f"{path}: there is no such file here, in {Path.cwd()}")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_module(name: str) -> ModuleType:
    """Import a module by its name, from this folder or what is installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise
        sys.exit(
            f"there is no module {brief(exc.name)}; a file is written with its ending, as app.py"
        )


if __name__ == "__main__":
    command(sys.argv[1:])
