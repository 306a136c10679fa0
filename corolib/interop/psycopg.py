"""PostgreSQL: connections of psycopg 3 whose methods wait with `yield from` and with `await`.

    conn = yield from Connection.connect("dbname=shop")
    cursor = yield from conn.execute("select name from items where id = %s", (7,))
    row = yield from cursor.fetchone()

    pool = Pool("dbname=shop", size=4)
    total = yield from pool.run(count_items)        count_items(conn) runs in a transaction

psycopg is used as it is: its protocol is generators, which a `ReadinessDriver` drives. These are
its asynchronous classes with other waits, so what psycopg documents of `AsyncConnection` and
`AsyncCursor` holds here. Its blocks (`conn.transaction()`, `conn.pipeline()`, `cursor.copy()`) are
`async with`, so they stand in an `async def`, which a generator calls with `yield from
spawn(f, conn)`.

Needs psycopg 3.3: `pip install '.[postgres]'`, in a checkout.
"""

from __future__ import annotations

import functools
import logging
import select
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from math import inf
from types import CoroutineType
from typing import Any, ParamSpec, Self, TypeVar, TypeVarTuple, overload

try:
    import psycopg
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        "corolib.interop.psycopg needs psycopg 3: pip install '.[postgres]' in a checkout of "
        "corolib, or pip install 'psycopg[binary]>=3.3,<3.4'",
        name=exc.name,
    ) from exc
from psycopg import AsyncConnection, AsyncCursor, AsyncServerCursor, Notify, errors, generators, pq
from psycopg._conninfo_attempts import conninfo_attempts
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo
from psycopg.rows import Row, tuple_row

from corolib.coordination.locks import Lock, Semaphore
from corolib.coordination.threads import to_thread
from corolib.coordination.timeouts import move_on_after
from corolib.interop.readiness import ReadinessDriver
from corolib.kernel import (
    Cancelled,
    ClosedError,
    Runnable,
    Waiting,
    body_of,
    check_count,
    now,
    waits,
)

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger("corolib.psycopg")

IDLE, ACTIVE = pq.TransactionStatus.IDLE, pq.TransactionStatus.ACTIVE

CANCEL = 5.0
"""Seconds that a query may take to end after it was cancelled on the server."""


def _for_both(method: Callable[P, Awaitable[T]]) -> Callable[P, Waiting[T]]:
    """Return an `async def` as a function for `yield from` and for `await`."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, T]:
        return (yield from method(*args, **kwargs).__await__())

    return waits(call)


class Cursor(AsyncCursor[Row]):
    """A cursor: `execute`, `executemany`, `fetchone`, `fetchmany`, `fetchall`, `scroll`, `close`.

    `async for row in cursor`, `cursor.stream()` and `cursor.copy()` are for an `async def`. Who
    leaves `stream()` early does so in `contextlib.aclosing(cursor.stream(...))`: else it keeps the
    connection.
    """

    execute = _for_both(AsyncCursor.execute)
    executemany = _for_both(AsyncCursor.executemany)
    fetchone = _for_both(AsyncCursor.fetchone)
    fetchmany = _for_both(AsyncCursor.fetchmany)
    fetchall = _for_both(AsyncCursor.fetchall)
    scroll = _for_both(AsyncCursor.scroll)
    close = _for_both(AsyncCursor.close)
    set_result = _for_both(AsyncCursor.set_result)


class ServerCursor(AsyncServerCursor[Row]):
    """A cursor on the server, `conn.cursor("name")`; with the same methods."""

    execute: Any = _for_both(AsyncServerCursor.execute)
    executemany: Any = _for_both(AsyncServerCursor.executemany)
    fetchone: Any = _for_both(AsyncServerCursor.fetchone)
    fetchmany: Any = _for_both(AsyncServerCursor.fetchmany)
    fetchall: Any = _for_both(AsyncServerCursor.fetchall)
    scroll: Any = _for_both(AsyncServerCursor.scroll)
    close: Any = _for_both(AsyncServerCursor.close)
    set_result: Any = _for_both(AsyncServerCursor.set_result)


class Connection(AsyncConnection[Row]):
    """A connection to a PostgreSQL server: `conn = yield from Connection.connect(conninfo)`.

    A wait that is cancelled cancels the query on the server, and waits until it has ended. Then the
    connection can be used again; as after any error, a transaction has to be rolled back first. If
    that takes longer than the clean-up of the task may (see `grace`) or five seconds, or fails,
    the connection is closed. It is never left half-way.

    Tasks may share a connection: one waits until the other's query is over. They share its
    transaction too, so most programs give each task its own, from a `Pool`.

    Raises (all methods that wait):
        psycopg.Error: see psycopg. OperationalError: the connection is lost.
        Cancelled: the wait was cancelled; see above.

    Example:
        >>> from corolib.interop.psycopg import Connection
        >>> def main():
        ...     conn = yield from Connection.connect("dbname=shop", autocommit=True)
        ...     cursor = yield from conn.execute("select 1 + 1")
        ...     (two,) = yield from cursor.fetchone()
        ...     yield from conn.close()
        ...     return two
    """

    def __init__(self, pgconn: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(pgconn, *args, **kwargs)
        self.lock: Any = Lock("connection to PostgreSQL")
        self.cursor_factory = Cursor
        self.server_cursor_factory = ServerCursor
        self._driver = ReadinessDriver()
        self._received: deque[Notify] | None = None

    @classmethod
    @waits
    def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        row_factory: Any = None,
        cursor_factory: Any = None,
        **params: Any,
    ) -> Generator[Any, Any, Self]:
        """Wait until a connection is made. For the arguments see `psycopg.AsyncConnection.connect`.

        The hosts are tried one after another, each address of each for `connect_timeout` seconds.

        Raises:
            psycopg.OperationalError: none could be reached, with what each said.
            psycopg.ProgrammingError: `conninfo` is not understood.
            Cancelled: the wait was cancelled; nothing is left open.
        """
        asked = conninfo_to_dict(conninfo, **params)
        seconds = timeout_from_conninfo(asked)
        failures = []
        for attempt in (yield from to_thread(conninfo_attempts, asked)):
            with ReadinessDriver() as driver, move_on_after(seconds):
                try:
                    made = cls._connect_gen(make_conninfo("", **attempt))
                    conn = yield from driver.drive(made)
                except psycopg.Error as exc:
                    failures.append(exc)
                    continue
                conn._autocommit = bool(autocommit)
                conn.prepare_threshold = prepare_threshold
                conn.row_factory = row_factory or conn.row_factory
                conn.cursor_factory = cursor_factory or conn.cursor_factory
                return conn
            where = attempt.get("host") or attempt.get("hostaddr")
            failures.append(errors.ConnectionTimeout(f"{where}: no answer in {seconds} s"))
        if len(failures) == 1:
            raise failures[0]
        raise type(failures[-1])("; ".join(map(str, failures)))

    @overload  # type: ignore[override]
    def cursor(self, **options: Any) -> Cursor[Row]: ...
    @overload
    def cursor(self, name: str, **options: Any) -> ServerCursor[Row]: ...
    def cursor(self, name: str = "", **options: Any) -> Cursor[Row] | ServerCursor[Row]:
        """Return a new cursor; with a name, one on the server. See `psycopg.AsyncConnection`."""
        made: Any = super().cursor(name, **options)
        return made  # type: ignore[no-any-return]

    @waits
    def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> Generator[Any, Any, Cursor[Row]]:
        """Wait until a query was made; return a new cursor with its results.

        See `psycopg.AsyncConnection.execute` for the arguments.
        """
        call = super().execute(query, params, prepare=prepare, binary=binary)
        cursor: Any = yield from call.__await__()
        return cursor  # type: ignore[no-any-return]

    # Waiting ----------------------------------------------------------------------------------

    @waits
    def wait(
        self,
        gen: Generator[Any, Any, T],
        interval: float = inf,
        timeout: float | None = None,
    ) -> Generator[Any, Any, T]:
        """Wait until a generator of psycopg's has ended: all waits of a connection come here.

        Args:
            gen: yields for what it waits, see `psycopg.generators`.
            interval: seconds after which it is resumed though nothing came.
            timeout: seconds for all of it; then `psycopg.errors._WaitTimeout` is raised.
        """
        end = inf if timeout is None else now() + timeout
        try:
            while True:
                with move_on_after(min(interval, max(end - now(), 0))):
                    return (yield from self._driver.drive(gen, self.pgconn.socket))
                if now() >= end:
                    raise errors._WaitTimeout("wait timeout expired")
        except (Cancelled, KeyboardInterrupt):
            if self.pgconn.transaction_status == ACTIVE:
                yield from self._end_query(gen)
            raise
        except ClosedError:
            text = "the connection was closed while a query ran on it"
            raise psycopg.OperationalError(text) from None
        except GeneratorExit:
            if self.pgconn.transaction_status == ACTIVE:
                self.finish()
            raise

    def _end_query(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, None]:
        """Cancel on the server what runs there, and wait until it has ended; or close."""
        try:
            yield from self.cancel_safe(timeout=CANCEL)
            with move_on_after(CANCEL):
                yield from self._driver.drive(gen, self.pgconn.socket)
                return
            logger.warning("a query that was cancelled did not end: the connection is closed")
        except errors.QueryCanceled:
            return
        except psycopg.Error as exc:
            logger.warning("a query could not be cancelled, the connection is closed: %s", exc)
        except BaseException:
            self.finish()
            raise
        self.finish()

    @waits
    def cancel_safe(self, *, timeout: float = 30.0) -> Generator[Any, Any, None]:
        """Wait until the server was told to cancel what runs on this connection.

        Raises psycopg.errors.CancellationTimeout if that takes longer than `timeout` seconds.
        """
        if not self._should_cancel():
            return
        if not psycopg.capabilities.has_cancel_safe():
            yield from to_thread(self.cancel)
            return
        with ReadinessDriver() as driver, move_on_after(timeout):
            yield from driver.drive(self._cancel_gen())
            return
        raise errors.CancellationTimeout("cancellation timeout expired")

    @waits
    def notification(self) -> Generator[Any, Any, Notify]:
        """Wait for the next notification on the channels that were named with LISTEN.

        `notify = yield from conn.notification()`, then `notify.channel`, `notify.payload`. They
        come in the order in which they were sent, also those that came beside other queries. The
        connection is busy meanwhile: listen on one of its own, with autocommit.

        Raises:
            psycopg.OperationalError: the connection is lost.
            Cancelled: the wait was cancelled; nothing is lost.
        """
        if self._received is None:
            self._received = deque(self._notifies_backlog or ())
            self.add_notify_handler(self._received.append)
        while not self._received:
            with (yield from self.lock):
                if not self._received:  # else the query that was waited for has brought some
                    yield from self.wait(generators.notifies(self.pgconn))
        return self._received.popleft()

    def finish(self) -> None:
        """Close the connection; does not wait. A query that runs is left to the server."""
        self._driver.close()
        self._closed = True
        self.pgconn.finish()

    @waits
    def close(self) -> Generator[Any, Any, None]:
        """Close the connection. What was not committed is rolled back by the server.

        A task that waits for a query on it gets `psycopg.OperationalError`.
        """
        self.finish()
        return
        yield

    commit = _for_both(AsyncConnection.commit)
    rollback = _for_both(AsyncConnection.rollback)
    set_autocommit = _for_both(AsyncConnection.set_autocommit)
    set_isolation_level = _for_both(AsyncConnection.set_isolation_level)
    set_read_only = _for_both(AsyncConnection.set_read_only)
    set_deferrable = _for_both(AsyncConnection.set_deferrable)
    tpc_begin = _for_both(AsyncConnection.tpc_begin)
    tpc_prepare = _for_both(AsyncConnection.tpc_prepare)
    tpc_commit = _for_both(AsyncConnection.tpc_commit)
    tpc_rollback = _for_both(AsyncConnection.tpc_rollback)
    tpc_recover = _for_both(AsyncConnection.tpc_recover)


class Pool:
    """Up to `size` connections, lent for one transaction each, in the order of asking.

    `value = yield from pool.run(f, *args)` runs `f(conn, *args)`; in an `async def` also `async
    with pool.connection() as conn:`. It commits at the end, and rolls back after an error.
    Connections are made when they are needed. One that was lost between two uses, as by a restart
    of the server, is replaced. If one is lost in use, its task gets the error.

    Args:
        conninfo, params: as for `Connection.connect`.
        size: how many connections there are at most; a task that needs one more waits.

    Raises:
        ValueError: with `autocommit` there would be no transaction.

    Example:
        >>> from corolib.interop.psycopg import Pool
        >>> def transfer(conn, source, target, amount):
        ...     move = "update account set amount = amount + %s where name = %s"
        ...     yield from conn.execute(move, (-amount, source))
        ...     yield from conn.execute(move, (amount, target))
        >>> def main():
        ...     with Pool("dbname=bank", size=4) as pool:
        ...         yield from pool.run(transfer, "ann", "bob", 10)
    """

    def __init__(self, conninfo: str = "", *, size: int = 4, **params: Any) -> None:
        self._conninfo = conninfo
        if params.get("autocommit"):
            raise ValueError("Pool(autocommit=True): what a pool lends is a transaction")
        self._params = params
        self._row_factory = params.get("row_factory") or tuple_row
        self.size = check_count(size, "Pool()", 1)
        self._permits = Semaphore(size, "pool of connections to PostgreSQL")
        self._idle: list[Connection[Any]] = []
        self._closed = False

    @waits
    def run(
        self, f: Callable[[Connection[Any], *Ts], Runnable[T]], *args: *Ts
    ) -> Generator[Any, Any, T]:
        """Wait until `f(conn, *args)` has run in a transaction on one of the connections.

        Args:
            f: a generator function or an `async def`. It may commit in between.

        Returns:
            What `f` returned; the transaction is committed then.

        Raises:
            What left `f`; the transaction was rolled back. What `Connection.connect` raises.
            RuntimeError: the pool is closed.
            Cancelled: the wait was cancelled, and the transaction rolled back; it is committed only
                if the cancel came while that was being done.
        """
        conn = yield from self._take()
        failed = True
        try:
            body = body_of("pool.run", f, (conn, *args))
            value: T
            value = yield from body.__await__() if isinstance(body, CoroutineType) else body
            failed = False
            return value
        finally:
            yield from self._give_back(conn, failed)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection[Any]]:
        """Take a connection for an `async with` block, which is a transaction."""
        conn = await self._take()
        failed = True
        try:
            yield conn
            failed = False
        finally:
            await self._give_back(conn, failed)

    @waits
    def _take(self) -> Generator[Any, Any, Connection[Any]]:
        """Wait for a connection that works."""
        yield from self._permits.acquire()
        try:
            if self._closed:
                raise RuntimeError("this pool of connections is closed")
            while self._idle:
                conn = self._idle.pop()
                if _is_alive(conn):
                    return conn
                conn.finish()
            return (yield from Connection.connect(self._conninfo, **self._params))
        except BaseException:
            self._permits.release()
            raise

    @waits
    def _give_back(self, conn: Connection[Any], failed: bool) -> Generator[Any, Any, None]:
        """End the transaction, and keep the connection if it works."""
        try:
            if conn.lock.locked() or conn.pgconn.transaction_status == ACTIVE:
                conn.finish()  # something that was left half-way still uses it
            elif not conn.closed:
                yield from conn.rollback() if failed else conn.commit()
        except psycopg.Error as exc:
            if not failed:
                raise
            logger.warning("a transaction could not be rolled back: %s", exc)
        finally:
            changed = conn.autocommit or conn.row_factory is not self._row_factory
            if self._closed or changed or not _is_alive(conn):
                conn.finish()
            else:
                self._idle.append(conn)
            self._permits.release()

    def close(self) -> None:
        """Close the connections that nobody has, and each other one when it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _is_alive(conn: Connection[Any]) -> bool:
    """Return whether a connection works and is in no transaction.

    If the server has closed it, it can be read.
    """
    try:
        asker = select.poll()
        asker.register(conn.pgconn.socket, select.POLLIN)
        while asker.poll(0):
            conn.pgconn.consume_input()
    except psycopg.Error:
        return False
    return conn.pgconn.transaction_status == IDLE
