"""Three people print, one after the other. All three should get their pages."""

from corolib import Coro, Lock, Sleep, run, spawn
from corolib.trace import mark


def person(printer: Lock, pages: int) -> Coro[None]:
    yield from printer.acquire()
    if pages > 20:
        mark("too many pages", pages=pages)
        return
    yield Sleep(pages / 1000)
    mark("printed", pages=pages)
    printer.release()


def office() -> Coro[None]:
    printer = Lock("printer")
    for name, pages in (("ann", 3), ("bob", 40), ("cleo", 2)):
        spawn(person, printer, pages, name=name)
    yield


if __name__ == "__main__":
    run(office)
