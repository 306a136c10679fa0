"""The data of the key-value server, and the commands that work on them.

A key whose time is up is removed when somebody asks for it. `sweep()` removes those that nobody
asks for, a few at a time, so that nobody waits for it. The time is that of the scheduler: a test
with `virtual_time()` lets it fly.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from corolib import Coro, Sleep, now
from demos.keyvalue.protocol import Refused

STRING = 512 * 1024  # bytes of a key, of a value, and of an element of a list
ENTRY = 200  # bytes that each of them costs besides, about
SWEPT = 100  # keys that are looked at in a sweep
PAUSE = 0.1  # seconds between two sweeps

Value = bytes | list[bytes]  # a list is kept with its head at the end: that is where it grows


class Store:
    """Keys with their values. Some have a deadline; the time in which they live is left of it."""

    def __init__(self, memory: int) -> None:
        self.memory = memory  # bytes that all of it may take
        self.used = 0
        self.expired = 0
        self.values: dict[bytes, Value] = {}
        self.deadlines: OrderedDict[bytes, float] = OrderedDict()

    # Commands -------------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        return self.string_at(key)

    def set(self, key: bytes, value: bytes, *options: bytes) -> str | None:
        only = seconds = None
        words = iter(options)
        for word in words:
            name = word.upper()
            if name in (b"NX", b"XX") and only is None:
                only = name
            elif name in (b"EX", b"PX") and seconds is None:
                seconds = number(next(words, b"")) / (1 if name == b"EX" else 1000)
            else:
                raise Refused("ERR syntax error")
        if seconds is not None and seconds <= 0:
            raise Refused("ERR invalid expire time in 'set' command")
        if only is not None and (only == b"XX") != (self.find(key) is not None):
            return None
        self.put(key, value)
        self.deadlines.pop(key, None)
        if seconds is not None:
            self.deadlines[key] = now() + seconds
        return "OK"

    def delete(self, key: bytes, *keys: bytes) -> int:
        return sum(self.find(each) is not None and self.remove(each) for each in (key, *keys))

    def incr(self, key: bytes, by: bytes = b"1") -> int:
        old = self.string_at(key)
        value = (0 if old is None else number(old)) + number(by)
        if not -1 << 63 <= value < 1 << 63:
            raise Refused("ERR increment or decrement would overflow")
        self.put(key, b"%d" % value)
        return value

    def lpush(self, key: bytes, value: bytes, *values: bytes) -> int:
        items = self.list_at(key)
        values = (value, *values)
        self.charge(cost(key, [*values]) - (cost(key, []) if items else 0), key, *values)
        items += values
        self.values[key] = items
        return len(items)

    def lrange(self, key: bytes, start: bytes, stop: bytes) -> list[bytes]:
        items = self.list_at(key)
        size = len(items)
        first, last = (n + size if n < 0 else n for n in (number(start), number(stop)))
        return items[max(0, size - 1 - last) : max(0, size - max(0, first))][::-1]

    def expire(self, key: bytes, seconds: bytes) -> int:
        left = number(seconds)
        if self.find(key) is None:
            return 0
        if left > 0:
            self.deadlines[key] = now() + left
        else:
            self.remove(key)
        return 1

    def ttl(self, key: bytes) -> int:
        if self.find(key) is None:
            return -2
        return round(self.deadlines[key] - now()) if key in self.deadlines else -1

    # What they are made of ------------------------------------------------------------------------

    def find(self, key: bytes) -> Value | None:
        """Return what a key has, if its time is not up."""
        if key in self.deadlines and self.deadlines[key] <= now():
            self.expired += self.remove(key)
        return self.values.get(key)

    def string_at(self, key: bytes) -> bytes | None:
        value = self.find(key)
        if isinstance(value, list):
            raise Refused(WRONG_TYPE)
        return value

    def list_at(self, key: bytes) -> list[bytes]:
        value = self.find(key)
        if isinstance(value, bytes):
            raise Refused(WRONG_TYPE)
        return value or []

    def put(self, key: bytes, value: bytes) -> None:
        old = self.find(key)
        self.charge(cost(key, value) - (0 if old is None else cost(key, old)), key, value)
        self.values[key] = value

    def charge(self, count: int, *strings: bytes) -> None:
        """Note that so many bytes more will be used, or refuse it."""
        if any(len(string) > STRING for string in strings):
            raise Refused(f"ERR string exceeds maximum allowed size ({STRING} bytes)")
        if count > 0 and self.used + count > self.memory:
            raise Refused("OOM command not allowed when used memory > 'maxmemory'.")
        self.used += count

    def remove(self, key: bytes) -> int:
        """Remove a key that is there."""
        self.used -= cost(key, self.values.pop(key))
        self.deadlines.pop(key, None)
        return 1

    # Time -----------------------------------------------------------------------------------------

    def sweep(self) -> Coro[None]:
        """Remove, for ever, keys whose time is up. As long as many are found there is no pause."""
        while True:
            before = self.expired
            for key in list(islice(self.deadlines, SWEPT)):
                self.deadlines.move_to_end(key)  # the next sweep begins behind these
                self.find(key)
            yield Sleep(PAUSE if self.expired - before < SWEPT // 4 else 0)


WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


def cost(key: bytes, value: Value) -> int:
    """Return how many bytes a key and its value take, about."""
    return ENTRY + len(key) + size(value)


def size(value: object) -> int:
    """Return how many bytes a value takes, about. What is neither string nor list is small."""
    if isinstance(value, bytes):
        return len(value)
    return sum(map(len, value)) + ENTRY * len(value) if isinstance(value, list) else 0


def number(text: bytes) -> int:
    """Return the number that a text is, of 64 bits, and in one way of writing it only."""
    if len(text) <= 20:
        try:
            value = int(text)
        except ValueError:
            pass
        else:
            if b"%d" % value == text and -1 << 63 <= value < 1 << 63:
                return value
    raise Refused("ERR value is not an integer or out of range")
