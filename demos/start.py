"""How every demo starts and ends: its options, one line for what cannot be, and a quiet Ctrl-C.

What a demo shows is in its own file; this one is only its handle:

    if __name__ == "__main__":
        start(main, __doc__, port=7007)

The first line of the docstring is what `--help` and `python3 -m demos` say of the program.
"""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

# What the person at the terminal can mend by another option: the address, or the port.
NOT_HERE = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.ECONNREFUSED}


def start(
    main: Callable[[argparse.Namespace], object],
    doc: str | None,
    *,
    port: int | None = None,
    arguments: dict[str, dict[str, Any]] | None = None,
) -> NoReturn:
    """Read the options, call `main(options)`, and exit.

    Args: `port` is the default of `--port`, which comes with `--host` (None: neither is there);
    `arguments` are further ones, as `{"--size": {"type": int, "default": 10}}`.

    Exit status: 0; 1, with one line, for an address that is not to be had; 2 for a wrong option;
    130 after Ctrl-C.
    """
    options = parser_for(doc, port, arguments or {}).parse_args()
    try:
        main(options)
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, OverflowError, UnicodeError) as exc:
        if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror):
            if exc.errno not in NOT_HERE:
                raise
        where = f"{options.host} port {options.port}: " if port is not None else ""
        sys.exit(f"{where}{exc}")
    sys.exit(0)


def parser_for(
    doc: str | None, port: int | None, arguments: dict[str, dict[str, Any]]
) -> argparse.ArgumentParser:
    """Return the reader of a demo's options."""
    about = (doc or "").strip().partition("\n")[0]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = f"python3 -m {spec.name.removesuffix('.__main__')}" if spec else None
    parser = argparse.ArgumentParser(name, argparse.SUPPRESS, f"{about} Ctrl-C ends it.")
    if port is not None:
        parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
        parser.add_argument("--port", default=port, type=int, help="default: %(default)s; 0: any")
    for option, settings in arguments.items():
        parser.add_argument(option, **settings)
    return parser
