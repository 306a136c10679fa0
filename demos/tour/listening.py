"""How every step of the tour opens its port, and says which one it is."""

from __future__ import annotations

import argparse
import socket


def listen(options: argparse.Namespace) -> socket.socket:
    """Return a socket to which clients can connect; those not yet accepted wait in a queue."""
    family = socket.getaddrinfo(options.host, None)[0][0]  # IPv4 or IPv6
    listener = socket.create_server((options.host, options.port), family=family, backlog=1000)
    host, port = listener.getsockname()[:2]
    print(f"echo on {host} port {port}; try: nc {host} {port}", flush=True)
    return listener
