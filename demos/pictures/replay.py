"""Draws the picture of the page that a trace is, from a run: a server with two clients.

    $ python3 -m demos.pictures.replay
    replay.png

It is written into this folder, or into `--into FOLDER`. Needs Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from corolib import Coro, Listener, Sleep, Stream, listen_tcp, open_tcp, run, spawn
from corolib.trace import Trace
from corolib.trace.events import Event
from demos.start import start

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1280, 900


def echo(stream: Stream) -> Coro[None]:
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)


def client(host: str, port: int, *words: bytes) -> Coro[None]:
    with (yield from open_tcp(host, port)) as stream:
        for word in words:
            yield from stream.sendall(word)
            yield from stream.recv(100)
            yield Sleep(0.01)


def serve_two(listener: Listener) -> Coro[None]:
    server = listener.serve(echo)
    host, port = listener.addresses[0][:2]
    ann = spawn(client, host, port, b"hello", b"there", name="ann")
    bob = spawn(client, host, port, b"good", b"evening", b"all", name="bob")
    yield from ann
    yield from bob
    yield from server.stop()


def record(page: Path) -> Event:
    """Write the page of a run; return the event to show: an echo is stepped, and not at first."""
    trace = Trace(page)
    run(serve_two, listen_tcp("127.0.0.1", 0), trace=trace)
    names = {number: task[0] for number, task in trace.header["tasks"].items()}
    steps = (event for event in trace.events if event["kind"] == "step")
    return [event for event in steps if names[event["task"]] == "echo"][3]


def main(options: argparse.Namespace) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("Chromium draws this picture, and none is installed")
    picture = options.into.resolve() / "replay.png"
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder, "warm.html"))  # what is imported when it is first used is imported now
        event = record(Path(folder, "page.html"))
        subprocess.run(
            [
                *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                "--virtual-time-budget=5000",  # until nothing fades in any more
                *(f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={folder}/profile"),
                *(f"--screenshot={picture}", f"file://{folder}/page.html#i={event['i']}"),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    print(picture.name)


if __name__ == "__main__":
    into = {"type": Path, "default": HERE, "metavar": "FOLDER", "help": "where to write it"}
    start(main, __doc__, arguments={"--into": into})
