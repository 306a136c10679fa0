"""The data of the key-value server, and the commands that work on them.

A key whose time is up is removed when somebody asks for it. `sweep()` removes those that nobody
asks for, a few at a time, so that nobody waits for it. The time is that of the scheduler: a test
with `virtual_time()` lets it fly.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import chain, islice
from typing import Any, TypeVar

from corolib import Coro, Sleep, now
from demos.keyvalue.protocol import Refused

STRING = 512 * 1024  # bytes of a key, of a value, and of an element of a list
ENTRY = 200  # bytes that each of them costs besides, about
SWEPT = 100  # keys that are looked at in a sweep
PAUSE = 0.1  # seconds between two sweeps
REAL = re.compile(rb"[+-]?(inf(inity)?|([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?)", re.IGNORECASE)

V = TypeVar("V")


class SortedSet:
    """Members with scores: least score first; among those of the same score, least member."""

    def __init__(self) -> None:
        self.order: list[tuple[float, bytes]] = []
        self.scores: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.scores)

    def put(self, member: bytes, score: float) -> None:
        if member in self.scores:
            del self.order[bisect_left(self.order, (self.scores[member], member))]
        self.scores[member] = score
        insort(self.order, (score, member))

    def pop(self) -> tuple[float, bytes]:
        score, member = self.order.pop(0)
        del self.scores[member]
        return score, member


Value = bytes | deque[bytes] | set[bytes] | dict[bytes, bytes] | SortedSet


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
        return self.at(key, bytes)

    def mget(self, *keys: bytes) -> list[bytes | None]:
        found = [self.find(key) for key in keys]
        return [value if isinstance(value, bytes) else None for value in found]

    def mset(self, *words: bytes) -> str:
        if len(words) % 2:
            raise Refused("ERR wrong number of arguments for 'mset' command")
        values = dict(pairs(words))
        self.put(values)
        for key in values:
            self.deadlines.pop(key, None)
        return "OK"

    def exists(self, *keys: bytes) -> int:
        return sum(self.find(key) is not None for key in keys)

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
        self.put({key: value})
        self.deadlines.pop(key, None)
        if seconds is not None:
            self.deadlines[key] = now() + seconds
        return "OK"

    def delete(self, key: bytes, *keys: bytes) -> int:
        return sum(self.find(each) is not None and self.remove(each) for each in (key, *keys))

    def incr(self, key: bytes, by: bytes = b"1") -> int:
        old = self.at(key, bytes)
        value = (0 if old is None else number(old)) + number(by)
        if not -1 << 63 <= value < 1 << 63:
            raise Refused("ERR increment or decrement would overflow")
        self.put({key: b"%d" % value})
        return value

    def decr(self, key: bytes, by: bytes = b"1") -> int:
        return self.incr(key, b"%d" % -number(by))

    def lpush(self, key: bytes, *values: bytes) -> int:
        items = self.open(key, deque, values)
        items.extendleft(values)
        return len(items)

    def rpush(self, key: bytes, *values: bytes) -> int:
        items = self.open(key, deque, values)
        items.extend(values)
        return len(items)

    def lpop(self, key: bytes) -> bytes | None:
        return self.take(key, deque, deque.popleft)

    def rpop(self, key: bytes) -> bytes | None:
        return self.take(key, deque, deque.pop)

    def llen(self, key: bytes) -> int:
        return len(self.at(key, deque) or ())

    def lrange(self, key: bytes, start: bytes, stop: bytes) -> list[bytes]:
        items = self.at(key, deque) or deque()
        return list(islice(items, *bounds(start, stop, len(items))))

    def sadd(self, key: bytes, *members: bytes) -> int:
        old = self.at(key, set) or set()
        new = [member for member in dict.fromkeys(members) if member not in old]
        if new:
            self.open(key, set, new).update(new)
        return len(new)

    def spop(self, key: bytes) -> bytes | None:
        """Take any one out."""
        return self.take(key, set, set.pop)

    def smembers(self, key: bytes) -> Set[bytes]:
        return set(self.at(key, set) or ())

    def hset(self, key: bytes, *words: bytes) -> int:
        if len(words) % 2:
            raise Refused("ERR wrong number of arguments for 'hset' command")
        fields, old = dict(pairs(words)), self.at(key, dict) or {}
        new = [field for field in fields if field not in old]
        # What a field had before is given back.
        more = size(fields) - sum(size({field: old[field]}) for field in fields if field in old)
        self.open(key, dict, words, more).update(fields)
        return len(new)

    def hget(self, key: bytes, field: bytes) -> bytes | None:
        return (self.at(key, dict) or {}).get(field)

    def hgetall(self, key: bytes) -> dict[bytes, bytes]:
        return dict(self.at(key, dict) or {})

    def zadd(self, key: bytes, *words: bytes) -> int:
        if len(words) % 2:
            raise Refused("ERR syntax error")
        scores = {member: real(score) for score, member in pairs(words)}
        old = self.at(key, SortedSet) or SortedSet()
        new = [member for member in scores if member not in old.scores]
        members = self.open(key, SortedSet, new)
        for member, score in scores.items():
            members.put(member, score)
        return len(new)

    def zpopmin(self, key: bytes) -> list[bytes | float]:
        scored: list[bytes | float] = []

        def take(members: SortedSet) -> bytes:
            score, member = members.pop()
            scored[:] = member, score
            return member

        self.take(key, SortedSet, take)
        return scored

    def zrange(self, key: bytes, start: bytes, stop: bytes) -> list[bytes]:
        members = self.at(key, SortedSet) or SortedSet()
        return [member for _, member in members.order[slice(*bounds(start, stop, len(members)))]]

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

    def at(self, key: bytes, kind: type[V]) -> V | None:
        """Return the value of a key, None if there is none; refuse one of another kind."""
        value = self.find(key)
        if value is not None and not isinstance(value, kind):
            raise Refused(WRONG_TYPE)
        return value

    def open(
        self, key: bytes, kind: type[V], strings: Iterable[bytes], more: int | None = None
    ) -> V:
        """Return a value of many elements, perhaps a new one, to which these are added now.

        They cost `more` bytes, if some of them take the place of others.
        """
        strings = [*strings]
        value: Any = self.at(key, kind)
        cost_of_key = 0 if value else cost(key, b"")
        self.charge(cost_of_key + (size(strings) if more is None else more), key, *strings)
        return self.values.setdefault(key, kind() if value is None else value)  # type: ignore

    def take(self, key: bytes, kind: type[V], out_of: Callable[[V], bytes]) -> bytes | None:
        """Take an element out of a value, None if there is none. No key has an empty value."""
        value: Any = self.at(key, kind)
        if value is None:
            return None
        element = out_of(value)
        self.used -= size([element])
        if not value:
            self.remove(key)
        return element

    def put(self, values: dict[bytes, bytes]) -> None:
        """Give keys these values; if one is refused, all are."""
        more = 0
        for key, value in values.items():
            old = self.find(key)
            more += cost(key, value) - (0 if old is None else cost(key, old))
        self.charge(more, *chain.from_iterable(values.items()))
        self.values.update(values)

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


def size(value: Any) -> int:
    """Return how many bytes a value takes, about. What has no elements is small."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        value = list(chain.from_iterable(value.items()))
    if isinstance(value, list | deque | set | SortedSet):
        return sum(map(size, value)) + ENTRY * len(value)
    return 0


def pairs(words: tuple[bytes, ...]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the first word with the second, the third with the fourth, and so on."""
    return zip(words[::2], words[1::2], strict=True)


def bounds(start: bytes, stop: bytes, length: int) -> tuple[int, int]:
    """Return from where, and up to where. Both may be counted from the end."""
    first, last = (n + length if n < 0 else n for n in (number(start), number(stop)))
    return min(max(0, first), length), min(max(0, last + 1), length)


def real(text: bytes) -> float:
    """Return the number that a score is."""
    if len(text) > 40 or REAL.fullmatch(text) is None:
        raise Refused("ERR value is not a valid float")
    return float(text)


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
