"""How a program starts and ends: its options, one line for what cannot be, and a quiet end.

Every demo is started so, and `python3 -m corolib`. What a program does is in its own file:

    if __name__ == "__main__":
        start(main, __doc__, port=7007)

The first line of the docstring is what `--help` and `python3 -m demos` say of the program.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

N = TypeVar("N", int, float)

# What the person at the terminal can mend by another option: the address, or the port.
NOT_HERE = {
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
    errno.EACCES,
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
}

# What only `ulimit -n` mends.
NO_FILES = {errno.EMFILE, errno.ENFILE}


def start(
    main: Callable[[argparse.Namespace], object],
    doc: str | None,
    *,
    port: int | None = None,
    arguments: dict[str, dict[str, Any]] | None = None,
    name: str | None = None,
    given: Sequence[str] | None = None,
) -> NoReturn:
    """Read the options, call `main(options)`, and exit.

    Args: `port` is the default of `--port`, which comes with `--host` (None: neither is there);
    `arguments` are further ones, as `{"--size": {"type": at_least(1, 99), "default": 9}}`; `name`
    is how the program is called, and `given` what it was given, if that is not all of the line.

    Exit status: 0; 1, with one line, for an address that is not to be had; 2 for a wrong option;
    130 after Ctrl-C; 141 when nobody reads on what it prints, as after `| head -1`.
    """
    if sys.stdin is None:  # as after `<&-`: then it is empty, as after `</dev/null`
        sys.stdin = vars(sys)["__stdin__"] = io.TextIOWrapper(
            io.BufferedReader(io.FileIO(os.devnull))
        )
    if sys.stdout is not None and not sys.stdout.isatty():
        output = io.BufferedWriter(Output(sys.stdout.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(output, sys.stdout.encoding, sys.stdout.errors, None, True)
    options = parser_for(doc, port, arguments or {}, name).parse_args(given)
    try:
        main(options)
    except KeyboardInterrupt:
        if sys.stderr is not None and sys.stderr.isatty():
            print(file=sys.stderr)  # behind the ^C that the terminal shows
        sys.exit(130)
    except (OSError, OverflowError, UnicodeError) as exc:
        if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror):
            if exc.errno not in NOT_HERE | NO_FILES:
                raise
        text = getattr(exc, "strerror", None) or str(exc)
        here = getattr(exc, "errno", None) not in NO_FILES
        where = "" if port is None or not here else f"{options.host} port {options.port}"
        sys.exit(text if where in text else f"{where}: {text}")
    sys.exit(0)


class Output(io.FileIO):
    """Standard output that ends the program, in whichever task, when it cannot be written to."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as exc:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())  # for what is still to come
            gone = exc.errno == errno.EPIPE
            raise SystemExit(141 if gone else f"cannot print: {exc.strerror}") from None


def parser_for(
    doc: str | None, port: int | None, arguments: dict[str, dict[str, Any]], name: str | None
) -> argparse.ArgumentParser:
    """Return the reader of a demo's options."""
    about = (doc or "").strip().partition("\n")[0]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if name is None and spec is not None:
        name = f"python3 -m {spec.name.removesuffix('.__main__')}"
    parser = argparse.ArgumentParser(
        name,
        usage=argparse.SUPPRESS,
        description=f"{about} Ctrl-C ends it.",
        epilog=example_of(doc or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if port is not None:
        parser.add_argument("--host", default="127.0.0.1", type=host, help="default: %(default)s")
        ports = at_least(0, 65535)
        parser.add_argument("--port", default=port, type=ports, help="default: %(default)s; 0: any")
    for option, settings in arguments.items():
        parser.add_argument(option, **settings)
    return parser


def example_of(doc: str) -> str:
    """Return what the docstring shows of a terminal, for `--help`."""
    lines = [line for line in doc.splitlines() if line.startswith("    ")]
    return "\n".join(["example:", *(line[2:] for line in lines)]) if lines else ""


def host(text: str) -> str:
    """Return a host, which is the `type=` of an option; all addresses have to be asked for."""
    if not text:
        raise argparse.ArgumentTypeError("give an address; 0.0.0.0 or :: for all of this machine")
    return text


def at_least(least: N, most: N) -> Callable[[str], N]:
    """Return the `type=` of an option: a number of this kind that is not less, nor more.

    There is always a most: what is far too much is refused here, in one line, and not by a program
    that has begun.
    """

    def number(text: str) -> N:
        value = type(least)(text)
        if not least <= value <= most:
            limits = f"at least {least}, at most {most}"
            raise argparse.ArgumentTypeError(f"{text}: give a number that is {limits}")
        return value

    number.__name__ = type(least).__name__  # what argparse calls what is no number at all
    return number
