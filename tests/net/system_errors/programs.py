"""The programs of the matrix: `python -m tests.net.system_errors.programs corolib server`.

Each is what people write who have read the documentation, once with corolib and once with asyncio.
The servers print their port. The client is given the port of a server, and asks it again and again.
"""

import asyncio
import ctypes
import functools
import logging
import math
import ssl
import sys
import tempfile

import corolib
from tests.helpers.certificates import PEM

ANYBODY = 0x59616D61, -1
"""PR_SET_PTRACER, PR_SET_PTRACER_ANY: where only a parent may trace its children, `strace` may."""

PAUSE = 0.02
"""Seconds between two questions of the client."""

PLACES = 2
"""Connections that the servers take at once: so their listener is told to wait, and to go on."""

MESSAGE = b"x" * 100


def context():
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(PEM)
        file.flush()
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(file.name)
    return made


# With corolib -------------------------------------------------------------------------------------


def corolib_echo(stream):
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)


def corolib_server(handler=corolib_echo, tls=None):
    def main():
        with corolib.listen_tcp("127.0.0.1", 0) as listener:
            server = listener.serve(handler, max_connections=PLACES, tls=tls)
            print(listener.addresses[0][1], flush=True)
            yield from server

    corolib.run(main)


def corolib_tls():
    corolib_server(tls=context())


def corolib_threads():
    def echo(stream):
        while data := (yield from stream.recv(65536)):
            yield from stream.sendall((yield from corolib.to_thread(bytes, data)))

    corolib_server(echo)


def corolib_udp():
    def main():
        with (yield from corolib.open_udp(local=("127.0.0.1", 0))) as sock:
            print(sock.local[1], flush=True)
            yield from sock.serve(lambda data, sender: data, rate=math.inf)

    corolib.run(main)


def corolib_client(port):
    def ask():
        with corolib.timeout(1), (yield from corolib.open_tcp("127.0.0.1", port)) as stream:
            yield from stream.sendall(MESSAGE)
            yield from stream.readexactly(len(MESSAGE))
            yield from stream.send_eof()

    def main():
        while True:
            try:
                yield from ask()
            except (OSError, EOFError):
                pass
            yield corolib.Sleep(PAUSE)

    corolib.run(main)


# With asyncio -------------------------------------------------------------------------------------


async def same(data):
    return data


def asyncio_server(work=same, tls=None):
    async def echo(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(await work(data))
                await writer.drain()
        finally:
            writer.close()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


def asyncio_tls():
    asyncio_server(tls=context())


def asyncio_threads():
    asyncio_server(functools.partial(asyncio.to_thread, bytes))


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


def asyncio_udp():
    async def main():
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
        print(transport.get_extra_info("sockname")[1], flush=True)
        await loop.create_future()

    asyncio.run(main())


def asyncio_client(port):
    async def ask():
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(MESSAGE)
                await reader.readexactly(len(MESSAGE))
                writer.write_eof()
            finally:
                writer.close()

    async def main():
        while True:
            try:
                await ask()
            except (OSError, EOFError):
                pass
            await asyncio.sleep(PAUSE)

    asyncio.run(main())


if __name__ == "__main__":
    logging.basicConfig(format="LOG %(name)s: %(message)s")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(*ANYBODY)
    library, kind, *rest = sys.argv[1:]
    globals()[f"{library}_{kind}"](*map(int, rest))
