"""Several clients talk to one person at the terminal, who answers whom and when he likes.

    $ python3 -m demos.cookbook.operator_chat
    operator_chat on 127.0.0.1 port 8801; try: nc 127.0.0.1 8801, in two terminals
    client 1: is anybody there?
    client 2: hello
    2 good morning                                             (typed: an answer to client 2)

The old shape, `old/operator_chat.py`, called `input()` for each line that had come, which stopped
all other clients; and when a client had left meanwhile, the answer to it killed the server. Here
the terminal is one more stream, and a task reads it.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import count

from corolib import Coro, Listener, Stream, listen_tcp, open_stdin, run, spawn, timeout
from corolib.demo.start import start

PATIENCE = 5.0  # seconds that a client has to take an answer; the operator waits meanwhile

Clients = dict[str, Stream]


def talk(clients: Clients, numbers: count[int], stream: Stream) -> Coro[None]:
    """Show what a client says."""
    name = str(next(numbers))
    clients[name] = stream
    try:
        while line := (yield from stream.readline()):
            text = "".join(filter(str.isprintable, line.decode("utf-8", "replace")))
            print(f"client {name}: {text}", flush=True)
    finally:
        del clients[name]
        print(f"client {name} has left", flush=True)


def operate(clients: Clients) -> Coro[None]:
    """Send what is typed: `2 good morning` goes to client 2."""
    with open_stdin() as typed:
        while line := (yield from typed.readline()):
            number, _, reply = line.partition(b" ")
            name = number.decode("utf-8", "replace").strip()
            if name not in clients:
                print(f"there is no client {name}; write: NUMBER ANSWER", flush=True)
                continue
            try:
                with timeout(PATIENCE):
                    yield from clients[name].sendall(reply)
            except OSError:  # gone, or it does not read: then `talk` learns it by this
                clients[name].close()


def serve(listener: Listener) -> Coro[None]:
    clients: Clients = {}
    spawn(operate, clients)
    yield from listener.serve(partial(talk, clients, count(1)), grace=0)


def main(options: argparse.Namespace) -> None:
    with listen_tcp(options.host, options.port) as listener:
        host, port, *_ = listener.addresses[0]
        try_it = f"try: nc {host} {port}, in two terminals"
        print(f"operator_chat on {host} port {port}; {try_it}", flush=True)
        run(serve, listener)


if __name__ == "__main__":
    start(main, __doc__, port=8801)
