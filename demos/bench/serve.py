"""Start one contestant's server, by itself:

    $ python3 -m demos.bench.serve curio echo 7007
    curio: echo on 127.0.0.1 port 7007, process 4711

The services are echo, tls, busy, lines, bulk and udp. Without a port it takes any that is free.
With `--memory` it answers each line of its input with the bytes that Python has in use, as
`tracemalloc` counts them. With `--as-shipped` the C library's allocator is left as it is.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import socket
import sys
import threading
import tracemalloc
from typing import TextIO

from demos.bench import allocator


def serve(name: str, job: str, port: int, out: TextIO) -> None:
    server = importlib.import_module(f"demos.bench.servers.{name}")
    with opened(job, port) as sock:
        where = f"127.0.0.1 port {sock.getsockname()[1]}, process {os.getpid()}"
        print(f"{name}: {job} on {where}", file=out, flush=True)
        if job == "tls":
            from demos.bench.localhost import server_context

            server.echo(sock, server_context())
        else:
            getattr(server, job)(sock)


def opened(job: str, port: int) -> socket.socket:
    """Return the socket that every contestant starts from."""
    if job == "udp":
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind(("127.0.0.1", port))
        return sock
    sock = socket.create_server(("127.0.0.1", port), backlog=4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
    return sock


def tell_memory(out: TextIO) -> None:
    tracemalloc.start()

    def answer() -> None:
        for _ in sys.stdin:
            gc.collect()  # what happens to lie about from the beginning is no client's
            print(tracemalloc.get_traced_memory()[0], file=out, flush=True)

    threading.Thread(target=answer, daemon=True).start()


def allow_many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word not in ("--memory", "--as-shipped")]
    if len(words) not in (2, 3):
        sys.exit(__doc__)
    if "--as-shipped" not in sys.argv:
        allocator.settle()
    allow_many_files()
    out, sys.stdout = sys.stdout, sys.stderr  # for libraries that have something to say
    if "--memory" in sys.argv:
        tell_memory(out)
    try:
        serve(words[0], words[1], int(words[2]) if words[2:] else 0, out)
    except KeyboardInterrupt:
        sys.exit(130)
