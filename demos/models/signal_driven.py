"""Signal-driven I/O: the kernel sends SIGIO when there is data, and the program need not ask.

    $ python3 -m demos.models.signal_driven
    totals on 127.0.0.1 port 7050; try: nc 127.0.0.1 7050

In phase 1 the program is free to do something else, until the signal comes; phase 2 is an ordinary
`recv()`. As `strace` shows it:

    rt_sigtimedwait([IO], {si_signo=SIGIO, ..}, NULL, 8) = 29     phase 1 is over
    recvfrom(4, "41\n", 4096, 0, NULL, NULL) = 3                  phase 2

But SIGIO does not say which socket it is about, nor how many there are: signals that come together
are merged into one. So each client is asked, and those who had something again until they have no
more; count the EAGAIN. (Linux can send another signal that names the socket, with F_SETSIG; Python
does not show the name.) On TCP, where connections, answers taken and closes signal as well, it is
the least useful of the five; on UDP it is at its best.

A handler would run between any two instructions of the program. This program has nothing else to
do, so the signal is kept back, and `sigwaitinfo()` fetches it: none is lost, none comes too early.
Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl

from corolib.demo.start import start
from demos.models.job import listen
from demos.models.nonblocking import Client, newcomers


def watch(sock: socket.socket) -> None:
    """Have the kernel send this process SIGIO from now on, when something happens to a socket."""
    fcntl(sock, F_SETOWN, os.getpid())
    fcntl(sock, F_SETFL, fcntl(sock, F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)


def serve(clients: list[Client]) -> list[Client]:
    """Ask all, and those who had something again; return those who stay."""
    busy = clients
    while busy := [client for client in busy if client.step()]:
        pass
    return [client for client in clients if not client.gone]


def main(options: argparse.Namespace) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    clients: list[Client] = []
    with listen(options) as listener:
        watch(listener)
        os.kill(os.getpid(), signal.SIGIO)  # for those who connected before it was watched
        while True:
            signal.sigwaitinfo({signal.SIGIO})  # phase 1, for all
            clients = serve(clients)  # phase 2; who leaves makes room for who has just come
            while fresh := newcomers(listener):
                for client in fresh:
                    watch(client.conn)
                clients += serve(fresh)  # perhaps they said something before they were watched


if __name__ == "__main__":
    start(main, __doc__, port=7050)
