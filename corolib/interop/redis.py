"""Redis, or a server that speaks its protocol: calls, and messages of channels.

    with Redis("127.0.0.1", 6379) as redis:
        value = yield from redis.call("GET", "key")
        with (yield from redis.subscribe("room")) as messages:
            channel, data = yield from messages.get()

One connection carries all of it, for all tasks: what several ask at once goes out together, and the
replies come in the order of the calls. A connection that is lost is made anew, and what was
subscribed to is subscribed to again. hiredis reads and writes the protocol.

Needs hiredis 3 and Redis 6 (RESP3): `pip install '.[redis]'`, in a checkout.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Any, NamedTuple, Self

try:
    import hiredis
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        "corolib.interop.redis needs hiredis: pip install '.[redis]' in a checkout of corolib, or "
        "pip install 'hiredis>=3.0'",
        name=exc.name,
    ) from exc

from corolib.coordination.groups import TaskGroup
from corolib.coordination.locks import Event, Result
from corolib.coordination.queues import Queue, QueueFull
from corolib.coordination.timeouts import timeout
from corolib.kernel import Sleep, Task, spawn, waits
from corolib.net.connecting import open_tcp
from corolib.net.streams import Stream

FIRST_PAUSE = 0.05
"""Seconds until a lost connection is made anew. After each failure it is twice as long."""

LONGEST_PAUSE = 0.4
"""Seconds between two attempts at most: with it a server that is back has all clients in a second,
and a thousand clients of one that is away cost it 2500 attempts a second."""

CONNECT = 5.0
"""Seconds that one attempt may take."""

KEEPALIVE = 30.0
"""Seconds of silence until a server is asked for a sign of life, and until it is given up then."""

CHUNK = 65536
"""Bytes that are read at once."""

BACKLOG = 1000
"""Messages that wait to be taken, for each subscription."""

_MORE = object()  # what the parser returns when a reply is not complete

_MESSAGES = {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"}
_MESSAGES |= {"UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"}
# What these bring are no replies: who waits for the next one would get a wrong one.

Argument = str | bytes | int | float
Command = Sequence[Argument]

logger = logging.getLogger("corolib.redis")


class RedisError(Exception):
    """The server has refused a command, in its words."""


class ConnectionLost(ConnectionError):
    """The connection was lost before the reply came. Whether the command was carried out, nobody
    knows: repeat what can be done twice.
    """


class Message(NamedTuple):
    """A message of a channel."""

    channel: str
    data: bytes


class Redis:
    """A client of a Redis server, as a `with` block: `with Redis(host, port) as redis: ...`.

    The connection is made in the background, and made anew whenever it is lost: after 0.05 seconds,
    then 0.1, 0.2, and each 0.4. Calls made meanwhile wait for it; put `with timeout(...)` around
    what must not wait. Calls that were under way then raise `ConnectionLost`.

    A command that blocks on the server (BLPOP, or WATCH with its transaction) keeps all calls of
    this client waiting, or mixes with them: use a client of its own.

    Args:
        host, port: of the server.
        username, password: sent with HELLO, if there is a password.
        db: the number of the database.
        tls: see `open_tcp`.

    Example:
        >>> from corolib.interop.redis import Redis
        >>> def main():
        ...     with Redis("127.0.0.1", 6379) as redis:
        ...         yield from redis.call("SET", "answer", 42)
        ...         return int((yield from redis.call("GET", "answer")))

    Source: RESP3 (antirez/RESP3); https://redis.io/docs/latest/develop/reference/protocol-spec/
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 6379,
        *,
        username: str = "default",
        password: str | None = None,
        db: int = 0,
        tls: SSLContext | bool | None = None,
    ) -> None:
        if "://" in host:
            raise ValueError('Redis() takes host and port apart: Redis("127.0.0.1", 6379), no URL')
        self._address = (host, port)
        self._tls = tls
        hello: list[Argument] = ["HELLO", 3]
        if password is not None:
            hello += ["AUTH", username, password]
        self._greeting: list[Command] = [hello, ["SELECT", db]] if db else [hello]
        self._link: _Link | None = None
        self._next: Result[_Link] = Result(f"a connection to Redis at {host}:{port}")
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._confirmed: set[str] = set()  # channels, on this connection
        self._pause = FIRST_PAUSE
        self._is_told = False  # that there is no connection
        self._task: Task[None] | None = None
        self._closed = False
        self.connections = 0
        """How many connections were made so far."""

    def __enter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("this client of Redis was used before: make a new one")
        self._task = spawn(self._run, name="redis", daemon=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel("the client of Redis was closed")
        self._closed = True
        self._link = None
        if not self._next.done:  # else it has failed before
            self._next.fail(ConnectionLost("the client of Redis was closed"))
        for listeners in list(self._subscriptions.values()):
            for subscription in list(listeners):
                subscription.close()

    @waits
    def call(self, *command: Argument) -> Generator[Any, Any, Any]:
        """Wait for the reply to one command: `yield from redis.call("INCR", "visits")`.

        Returns:
            bytes, int, float, bool, None, or lists and dicts of them, as the command has it.

        Raises:
            RedisError: the server refuses it. ConnectionLost: see there.
            TypeError: an argument is neither str, bytes, int nor float.
            ValueError: the command is for messages, as SUBSCRIBE is: use `subscribe`.
            RuntimeError: the `with` block has not begun.
            Cancelled: the wait was cancelled. The server may carry it out all the same.
        """
        (reply,) = yield from self.call_all([command])
        if isinstance(reply, RedisError):
            raise reply
        return reply

    @waits
    def call_all(self, commands: Sequence[Command]) -> Generator[Any, Any, list[Any]]:
        """Wait for the replies to several commands, sent together: no other call comes in between.

        Between MULTI and EXEC they are a transaction. A command that is refused has its
        `RedisError` in the list. For the rest see `call`.
        """
        yield from self._check_begun()
        for command in commands:
            _refuse_messages(command)
        packed = [_pack(command) for command in commands]
        if not packed:
            return []
        link = self._link
        while link is None or link.lost:
            link = yield from self._next
        return (yield from link.send(packed))

    @waits
    def subscribe(
        self, *channels: str, backlog: int = BACKLOG
    ) -> Generator[Any, Any, Subscription]:
        """Wait until the server has confirmed that messages of some channels will come.

        `with (yield from redis.subscribe("room")) as messages:`, and in the block `message = yield
        from messages.get()`. When the connection is made anew they are subscribed to again; what
        was published in between is lost, as Redis keeps nothing.

        Args:
            channels: their names.
            backlog: how many messages wait to be taken. Further ones are dropped, and counted in
                `messages.dropped`: no slow task keeps the others waiting.

        Raises:
            ValueError: no channel. ConnectionLost: the client was closed.
            RuntimeError: the `with` block has not begun.
            RedisError: the server refuses it, or refuses us.
            Cancelled: the wait was cancelled; nothing is subscribed to.
        """
        yield from self._check_begun()
        if not channels:
            raise ValueError("subscribe() needs the name of a channel")
        made = Subscription(self, channels, backlog)
        for channel in made.channels:
            listeners = self._subscriptions.setdefault(channel, [])
            listeners.append(made)
            if len(listeners) == 1:
                self._ask("SUBSCRIBE", channel)
            elif channel in self._confirmed:
                made.confirm(channel)
        try:
            yield from made.confirmed
        except BaseException:
            made.close()
            raise
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take a subscription away; see `Subscription.close`."""
        for channel in subscription.channels:
            listeners = self._subscriptions.get(channel, [])
            if subscription in listeners:
                listeners.remove(subscription)
                if not listeners:
                    del self._subscriptions[channel]
                    self._confirmed.discard(channel)
                    self._ask("UNSUBSCRIBE", channel)

    # The connection ---------------------------------------------------------------------------

    def _check_begun(self) -> Generator[Any, Any, None]:
        if self._task is None:
            raise RuntimeError("Redis is a `with` block: `with Redis(...) as redis:`")
        if self._closed:
            yield  # a task that is to end is ended by that
            raise ConnectionLost("the client of Redis was closed")

    def _ask(self, command: str, channel: str) -> None:
        """Ask for messages, or for no more, if there is a connection: a new one begins with it."""
        if self._link is not None:
            refused = partial(self._refuse, channel)
            self._link.ask(_pack((command, channel)), refused)

    def _refuse(self, channel: str, error: RedisError) -> None:
        """The server refuses what was asked of a channel."""
        for subscription in list(self._subscriptions.get(channel, ())):
            subscription.refuse(error)

    def _run(self) -> Generator[Any, Any, None]:
        """Make connections, one after another, for ever."""
        try:
            while True:
                yield from self._connect()
                yield Sleep(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
        except Exception as exc:  # a fault of ours: nobody is to wait for ever
            self._next.fail(exc)
            raise

    def _connect(self) -> Generator[Any, Any, None]:
        """Make one connection, and serve it until it is lost."""
        try:
            with timeout(CONNECT):
                stream = yield from open_tcp(
                    *self._address, tls=self._tls, keepalive=KEEPALIVE, user_timeout=KEEPALIVE
                )
            with stream:
                yield from self._serve(stream)
        except (OSError, hiredis.ProtocolError) as exc:
            if not self._is_told:
                self._is_told = True
                logger.warning("no connection to Redis at %s:%d: %s", *self._address, exc)

    def _serve(self, stream: Stream) -> Generator[Any, Any, None]:
        """Carry calls and messages over one connection until that is lost, which is an OSError."""
        link = _Link(stream, self._deliver)
        try:
            with TaskGroup() as group:
                group.spawn(link.write)
                group.spawn(self._greet, link)
                yield from link.read()
        finally:
            self._link = None
            self._confirmed.clear()
            link.lose()

    def _greet(self, link: _Link) -> Generator[Any, Any, None]:
        """Agree with the server on the protocol, and open the connection to calls."""
        commands = [_pack(command) for command in self._greeting]
        try:
            with timeout(CONNECT):
                replies = yield from link.send(commands)
        except OSError as exc:  # also of the timeout
            link.fail(exc)
            return
        for reply in replies:
            if isinstance(reply, RedisError):
                refused, self._next = self._next, Result(self._next.name)
                refused.fail(reply)
                for channel in list(self._subscriptions):
                    self._refuse(channel, reply)
                link.fail(ConnectionLost(f"it refuses us: {reply}"))
                return
        if self._closed:
            return
        self._pause = FIRST_PAUSE
        self._is_told = False
        self.connections += 1
        self._link = link
        for channel in self._subscriptions:
            self._ask("SUBSCRIBE", channel)
        made, self._next = self._next, Result(self._next.name)
        made.set(link)

    def _deliver(self, kind: bytes, channel: str, data: Any) -> None:
        """Act on a message, or on what the server confirms."""
        if kind == b"message":
            for subscription in self._subscriptions.get(channel, ()):
                subscription.put(Message(channel, data))
        elif kind == b"subscribe":
            self._confirmed.add(channel)
            for subscription in self._subscriptions.get(channel, ()):
                subscription.confirm(channel)


class Subscription:
    """Messages of some channels: `message = yield from messages.get()`; made by `subscribe`.

    Attributes:
        dropped: how many messages came while `backlog` of them were waiting.
    """

    def __init__(self, redis: Redis, channels: Sequence[str], backlog: int) -> None:
        self.channels = tuple(dict.fromkeys(channels))
        self.confirmed: Result[None] = Result(f"subscription to {', '.join(self.channels)}")
        self.dropped = 0
        self._redis = redis
        self._queue: Queue[Message] = Queue(backlog, "messages of Redis")
        self._missing = set(self.channels)

    @waits
    def get(self) -> Generator[Any, Any, Message]:
        """Wait for the next message, a pair of the channel and the data.

        Raises:
            QueueShutDown: the subscription is closed, and no message is left.
            Cancelled: the wait was cancelled; no message is lost.
        """
        return (yield from self._queue.get())

    def getting(self) -> Any:
        """Return the trap itself, for `first`."""
        return self._queue.getting()

    def put(self, message: Message) -> None:
        """Take a message, or count it if there is no room."""
        try:
            self._queue.put_nowait(message)
        except QueueFull:
            self.dropped += 1

    def confirm(self, channel: str) -> None:
        """The server has confirmed one channel."""
        self._missing.discard(channel)
        if not (self._missing or self.confirmed.done):
            self.confirmed.set(None)

    def refuse(self, error: RedisError) -> None:
        """The server refuses a channel: tell who waits for it, or take no more messages."""
        if not self.confirmed.done:
            self.confirmed.fail(error)
            return
        logger.warning("Redis refuses %s, which was subscribed to: %s", self.channels, error)
        self.close()

    def close(self) -> None:
        """Take no more messages; does not wait. Those that have come can still be taken."""
        self._redis.unsubscribe(self)
        self._queue.shutdown()
        if not self.confirmed.done:
            self.confirmed.fail(ConnectionLost("the client of Redis was closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Batch:
    """Commands that were sent together, and their replies so far."""

    __slots__ = ("missing", "refused", "replies", "result")

    def __init__(
        self, count: int, refused: Callable[[RedisError], object] = lambda error: None
    ) -> None:
        self.missing = count
        self.refused = refused  # called with each error among the replies
        self.replies: list[Any] = []
        self.result: Result[list[Any]] = Result("replies of Redis")


class _Link:
    """One connection: what is to be sent, and who waits for which reply."""

    def __init__(self, stream: Stream, deliver: Callable[[bytes, str, Any], object]) -> None:
        self.lost = False
        self._stream = stream
        self._deliver = deliver
        self._outbox: list[bytes] = []
        self._filled = Event()
        self._waiting: deque[_Batch] = deque()  # each as often as it misses replies
        self._cause: OSError | None = None

    def ask(self, command: bytes, refused: Callable[[RedisError], object]) -> None:
        """Send what is answered by a push, or refused; does not wait."""
        self._put([command], _Batch(1, refused))

    def send(self, commands: Sequence[bytes]) -> Generator[Any, Any, list[Any]]:
        """Send commands, and wait for their replies."""
        batch = _Batch(len(commands))
        self._put(commands, batch)
        return (yield from batch.result)

    def _put(self, commands: Sequence[bytes], batch: _Batch) -> None:
        self._outbox += commands
        self._filled.set()
        self._waiting.extend([batch] * len(commands))

    def write(self) -> Generator[Any, Any, None]:
        """Send what is to be sent, all there is at once."""
        with suppress(OSError):  # the reader finds that, too
            while True:
                yield from self._filled.wait()
                self._filled.clear()
                data, self._outbox = b"".join(self._outbox), []
                yield from self._stream.sendall(data)

    def read(self) -> Generator[Any, Any, None]:
        """Take in replies and messages until the connection is lost."""
        reader = hiredis.Reader(replyError=RedisError, notEnoughData=_MORE)
        while data := (yield from self._receive()):
            reader.feed(data)
            while (reply := _parsed(reader)) is not _MORE:
                if isinstance(reply, hiredis.PushNotification):
                    self._take_push(reply)
                else:
                    self._settle(reply)
        raise ConnectionLost("the server has closed the connection")

    def _receive(self) -> Generator[Any, Any, bytes]:
        try:
            return (yield from self._stream.recv(CHUNK))
        except OSError:
            if self._cause is not None:
                raise self._cause from None
            raise

    def _take_push(self, push: list[Any]) -> None:
        """Take what comes beside the replies. Of it, that to SUBSCRIBE and UNSUBSCRIBE is one."""
        match push:
            case [b"subscribe" | b"unsubscribe" as kind, bytes() as name, int() as data]:
                self._settle(data)
            case [b"message" as kind, bytes() as name, bytes() as data]:
                pass
            case _:
                return  # nothing that was asked for here
        self._deliver(kind, name.decode("utf-8", "surrogateescape"), data)

    def _settle(self, reply: Any) -> None:
        if not self._waiting:
            raise hiredis.ProtocolError("the server has answered what nobody has asked")
        batch = self._waiting.popleft()
        batch.replies.append(reply)
        if isinstance(reply, RedisError):
            batch.refused(reply)
        batch.missing -= 1
        if not batch.missing:
            batch.result.set(batch.replies)

    def fail(self, cause: OSError) -> None:
        """End the connection for a reason of our own."""
        self._cause = cause
        self._stream.close()

    def lose(self) -> None:
        """The connection is lost: tell who waits for a reply."""
        self.lost = True
        for batch in dict.fromkeys(self._waiting):
            batch.result.fail(ConnectionLost("the connection to Redis was lost before the reply"))
        self._waiting.clear()


def _parsed(reader: hiredis.Reader) -> Any:
    """Return the next reply, or `_MORE`. What Python cannot have, as a dict whose keys are lists,
    is as wrong as what the protocol does not allow.
    """
    try:
        return reader.gets()
    except (TypeError, ValueError) as exc:
        raise hiredis.ProtocolError(f"the server's reply cannot be read: {exc}") from None


def _refuse_messages(command: Command) -> None:
    """Refuse a command whose answer is messages."""
    name = command[0] if command else ""
    text = (name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).upper()
    if text in _MESSAGES:
        raise ValueError(
            f"{text} is no call: messages come with (yield from redis.subscribe(channel)), and end "
            "with its block"
        )


def _pack(command: Command) -> bytes:
    """Return a command as it is sent."""
    # Its types say that a command has a single item.
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    return packed
