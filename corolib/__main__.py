"""Serve with a handler of yours, or run a function, from the command line.

    $ python3 -m corolib serve app.py:echo --port 7007
    echo on 127.0.0.1 port 7007, in debug mode; Ctrl-C ends it
    ^C
    stopped: 2 finished, 0 had to be cancelled

`app.py:echo` is the function `echo` of that file, and `package.module:echo` that of a module which
can be imported. `serve` gives it to a server, each connection a `Stream`; what it takes sockets
from is, in this order: systemd, `--unix`, or `--host` and `--port`. `run` does `run(main)`.

Both have debug mode on, which a service leaves out with `--production`. It is decided when corolib
is imported: if the environment wants another one, this program starts itself anew.

Exit status: 0, after SIGTERM too; 1, with one line, for what cannot be; 2 for a wrong option; 130
after Ctrl-C. What the servers and runs do is in `net/` and `kernel/`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from corolib import (
    Coro,
    Listener,
    inherited_listeners,
    listen_tcp,
    listen_unix,
    run,
    run_workers,
)
from corolib.demo import daytime, echo
from corolib.demo.start import at_least, start
from corolib.kernel.safely import brief
from corolib.kernel.waits import DEBUG, TRACE
from corolib.net.network import address_text

if TYPE_CHECKING:
    import ssl

HELP = """\
corolib: network servers as plain generators.

  python3 -m corolib serve app.py:echo --port 7007    serve with the handler `echo` of app.py
  python3 -m corolib run app.py:main                  run the function `main` of app.py
  python3 -m corolib demo echo                        an echo server on port 7007; `time`: two more
  python3 -m corolib trace app.py                     a page to step through what app.py does

Each has --help. `serve` and `run` have debug mode on, which finds a forgotten `yield from`;
--production leaves it out. To begin: python3 -c "import corolib; help(corolib)"
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
    "--workers": {"type": at_least(1), "default": 1, "help": "processes; default: %(default)s"},
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
        case ["serve", *given]:
            doc = "Serve with a handler of yours.\n\n    $ python3 -m corolib serve app.py:echo\n"
            begin(serve, doc, "serve", given, port=7007, arguments=SERVE)
        case ["run", *given]:
            doc = "Run a function of yours.\n\n    $ python3 -m corolib run app.py:main\n"
            begin(run_function, doc, "run", given, arguments=RUN)
        case ["demo", "echo", *given]:
            begin(echo.main, echo.__doc__, "demo echo", given, port=7007)
        case ["demo", "time", *given]:
            extra = daytime.ARGUMENTS
            begin(daytime.main, daytime.__doc__, "demo time", given, port=7037, arguments=extra)
        case ["trace" | "convert" as name, *given]:
            from corolib.trace.command import convert, record

            (record if name == "trace" else convert)(given)
        case [] | ["-h" | "--help"]:
            print(HELP, end="")
            sys.exit(0)
        case _:
            print(HELP, end="", file=sys.stderr)
            sys.exit(2)


def begin(main: Any, doc: str | None, name: str, given: Sequence[str], **more: Any) -> NoReturn:
    start(main, doc, name=f"python3 -m corolib {name}", given=given, **more)


# Serve and run ------------------------------------------------------------------------------------


def serve(options: argparse.Namespace) -> None:
    """Serve with the handler, until Ctrl-C or SIGTERM."""
    ensure_mode(options.production)
    if options.trace and options.workers > 1:
        sys.exit("--trace records one process: leave --workers out")
    handler = load(options.handler)
    tls = None if options.tls is None else tls_context(options.tls)
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
            said = run(serve_all, listeners, handler, tls, trace=options.trace or TRACE)
        else:
            run_workers(options.workers, serve_all, listeners, handler, tls)
    except KeyboardInterrupt as exc:
        status = 130
        said = str(exc) or said
    # Behind the ^C that a terminal shows, this is a line of its own.
    print(f"\n{said}" if sys.stdout.isatty() else said, flush=True)
    sys.exit(status)


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
        return [listen_unix(options.unix)]
    return [listen_tcp(options.host, options.port)]


def tls_context(path: str) -> ssl.SSLContext:
    """Return the context of a server that shows the certificate of a file."""
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(path)
    except OSError as exc:
        sys.exit(f"--tls {path}: {exc.strerror or exc}")
    return context


def run_function(options: argparse.Namespace) -> None:
    """Run the function, as `run()` does."""
    ensure_mode(options.production)
    run(load(options.function), trace=options.trace or TRACE)


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
    module = load_file(Path(place)) if place.endswith(".py") else load_module(place)
    found = getattr(module, function, None)
    if not callable(found):
        there = [each for each, thing in vars(module).items() if callable(thing)]
        own = [each for each in there if vars(module)[each].__module__ == module.__name__]
        sys.exit(f"{place} has no function {brief(function)}; it has: {', '.join(own) or 'none'}")
    return found


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
