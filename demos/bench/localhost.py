"""A certificate for localhost, signed by itself, so that the TLS echo has one to show.

Made by `openssl ca -selfsign`, valid from 2020 to 2120. Its key, in the same file, is known to
everybody: it protects nothing.
"""

from __future__ import annotations

import ssl
from pathlib import Path

PEM = str(Path(__file__).with_name("localhost.pem"))


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context
