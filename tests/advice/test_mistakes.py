"""A note on an error that leaves a task: which line was meant. What it takes to be sure of it."""

import asyncio
import gc
import json
import math
import types

import pytest

import corolib
from corolib import (
    Event,
    Lock,
    Queue,
    Semaphore,
    Stream,
    first,
    gather,
    open_tcp,
    open_udp,
    run,
    run_process,
    spawn,
    timeout,
    waits,
)
from corolib.advice.foreign import GROUP, for_async
from corolib.kernel.diagnostics import explained
from tests.helpers.driving import go
from tests.helpers.wrong import COROUTINE, said_of


def notes(f, *args):
    """Return the notes on what leaves `f`."""
    with pytest.raises(Exception) as caught:
        go(f, *args)
    found = getattr(caught.value, "__notes__", [])
    del caught  # and what its frames hold: calls that were never run
    gc.collect()
    return found


def slow(x=1):
    yield
    return x


@waits
def marked(x=1):
    yield
    return x


async def coroutine(x=1):
    return x


class Holder:
    __slots__ = ("stream",)


@pytest.fixture
def stream(pair):
    with Stream(pair[0]) as stream:
        yield stream


# A call that was not run --------------------------------------------------------------------------


def assigned(stream):
    data = stream.recv(100)
    yield
    return data.decode()


def in_a_condition(stream):
    yield
    while len(stream.recv(100)) > 1:
        pass


def in_another_library(stream):
    yield
    return json.loads(slow())


def of_an_attribute(stream):
    holder = Holder()
    holder.stream = stream
    yield
    return holder.stream.recv(100) + b"!"


def unpacked(stream):
    yield
    a, b = gather(slow(), slow(), slow())
    return a, b


def of_ones_own(stream):
    x = slow(1)
    yield
    return x + 1


def of_ones_own_marked(stream):
    x = marked(1)
    yield
    return x + 1


def given_to_the_library(stream):
    yield
    yield from stream.sendall(stream.recv(5))


async def to_be_awaited(stream):
    x = marked(1)
    return x + 1


@pytest.mark.found("E1")
@pytest.mark.filterwarnings("ignore:.*never run")
@pytest.mark.parametrize(
    ("f", "right"),
    [
        (assigned, "data = yield from stream.recv(100)"),
        (in_a_condition, "while len((yield from stream.recv(100))) > 1:"),
        (in_another_library, "return json.loads((yield from slow()))"),
        (of_an_attribute, 'return (yield from holder.stream.recv(100)) + b"!"'),
        (of_ones_own, "x = yield from slow(1)"),
        (of_ones_own_marked, "x = yield from marked(1)"),
        (given_to_the_library, "yield from stream.sendall((yield from stream.recv(5)))"),
        (to_be_awaited, "x = await marked(1)"),
    ],
)
def test_a_generator_that_is_used_as_a_value_is_shown_with_the_right_line(f, right, stream):
    (note,) = notes(f, stream)
    assert note.endswith(f"() waits, and was not run. Write `{right}`")


RIGHT = {
    # What is made of its result is not waited for.
    'x = yield from slow() + b"!"': 'x = (yield from slow()) + b"!"',
    "x = yield slow()[0]": "x = (yield from slow())[0]",
    "x = yield from slow().decode()": "x = (yield from slow()).decode()",
    "x = yield from slow().recv(1)": "x = yield from (yield from slow()).recv(1)",
    "x = yield from -slow()": "x = -(yield from slow())",
    'x = yield from (slow() + b"!" or 5)': 'x = ((yield from slow()) + b"!" or 5)',
    # In what makes many calls.
    'x = b"".join([slow(i) for i in range(3)])': (
        'x = b"".join((yield from gather(*[slow(i) for i in range(3)])))'
    ),
    'x = b"".join([slow() for _ in range(3)])': "for _ in range(3): value = yield from slow()",
    "x = sum(slow(i) for i in range(3))": "for i in range(3): value = yield from slow(i)",
    "x = sum(map(slow, [1, 2]))": "for item in [1, 2]: yield from slow(item)",
    "x = sum(map(abs, ['generator']))": None,
    # Several calls.
    "x = slow() + slow()": "x = (yield from slow()) + (yield from slow())",
    "x = abs(slow(slow()))": "x = abs(slow((yield from slow())))",
    "x = yield from slow(1) + slow(2)": "x = (yield from slow(1)) + (yield from slow(2))",
    "x = {}[slow()]": "x = {}[(yield from slow())]",
    "x = {}[5]": None,
    # Of a run in a task.
    "x = run(slow, 3)": "x = yield from slow(3)",
    "print(run(slow(3)))": "print((yield from slow(3)))",
    "x = run(coroutine, 3)": "x = yield from spawn(coroutine(3))",
    "x = run(plain)": None,
    "yield from current_scheduler().run(slow, 3)": "yield from slow(3)",
    # What goes on when it has returned.
    'server = serve_tcp(echo, "::1", 0); server.stop()': (
        "server = listen_tcp(host, port).serve(handler)"
    ),
    "a, b = yield from gather(marked(1))": None,
    # In no thread.
    "x = yield from wait_future(slow())": "x = yield from slow()",
    "x = yield from to_thread(slow, 3)": "x = yield from slow(3)",
    "x = yield from to_thread(queue.get)": "x = yield from queue.get()",
    "x = yield from to_thread(coroutine, 3)": "x = yield from spawn(coroutine(3))",
}


@pytest.mark.found("E2")
@pytest.mark.filterwarnings("ignore:.*never")
@pytest.mark.parametrize("line", RIGHT)
def test_the_note_has_the_whole_line_as_it_should_be(line, tmp_path):
    _, notes = said_of(line, tmp_path, coroutine=coroutine)
    right = RIGHT[line]
    assert [each.partition("Write ")[2] for each in notes] == ([f"`{right}`"] if right else [])


@pytest.mark.found("E4")
@pytest.mark.filterwarnings("ignore:.*never")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("asyncio.create_task(slow())", "In corolib: task = spawn(f, *args)"),
        ("async with asyncio.timeout(1): pass", "In corolib: timeout is imported from corolib, to"),
        ("asyncio.get_running_loop()", "To sleep: `await Sleep(seconds)`"),
        ("queue = asyncio.Queue(); await queue.get()", "Queue is imported from corolib, too"),
    ],
)
def test_what_looks_for_the_loop_of_asyncio_is_named(line, said, tmp_path):
    _, notes = said_of(line, tmp_path, COROUTINE)
    assert said in notes[0]


@pytest.mark.found("E2")
def test_a_message_in_an_async_def_has_await_in_its_line(tmp_path):
    message, notes = said_of("spawn(slow).result", tmp_path, COROUTINE)
    assert (message, notes) == ("task slow#2 is not done yet: `result = await task` waits", [])
    own = 'raise TypeError("`yield from x`")'
    assert said_of(own, tmp_path, COROUTINE) == ("`yield from x`", [])
    message, notes = said_of("a, b = await gather(marked(1))", tmp_path, COROUTINE)
    assert notes == []


@pytest.mark.found("E2")
@pytest.mark.filterwarnings("ignore:.*never run")
def test_what_is_opened_is_entered_without_async(tmp_path):
    opened = "run_process(['true'])"
    long = f"run_process(['{'true' * 30}'])"
    for line, right in [
        (f"async with {opened} as done: pass", f"with (await {opened}) as done: pass"),
        (f"async with Lock(), {opened} as it: pass", f"with (await {opened}) as it: pass"),
        (f"async with {long} as done: pass", "with (await run_process(...)) as it:"),
    ]:
        message, _ = said_of(line, tmp_path, COROUTINE)
        assert message.endswith(f"that `with` could close. Write `{right}`")


@pytest.mark.found("E2")
@pytest.mark.filterwarnings("ignore:.*never")
def test_a_run_in_an_async_def_is_awaited(tmp_path):
    _, notes = said_of("x = run(coroutine, 3)", tmp_path, COROUTINE, coroutine=coroutine)
    assert notes == ["Write `x = await coroutine(3)`"]


@pytest.mark.found("E1")
@pytest.mark.filterwarnings("ignore:.*never run")
def test_what_is_unpacked_too(stream):
    """In debug mode it is refused at once."""
    with pytest.raises((ValueError, TypeError)) as caught:
        go(unpacked, stream)
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "Write `a, b = yield from gather(slow(), slow(), slow())`" in said


def test_what_a_loop_unpacks_is_no_call():
    def rows():
        yield 1, 2, 3

    def main():
        yield
        for a, b in rows():
            print(a, b)

    def collects():
        yield
        return {a: a + b for a, b in rows()}

    assert notes(main) == notes(collects) == []


@pytest.mark.found("E1")
def test_where_there_is_no_source_the_error_has_no_note():
    names = {"slow": slow}
    exec("def main():\n    yield\n    return slow() + 1\n", names)
    assert notes(names["main"]) == []


def test_a_call_in_another_line_is_not_blamed():
    def main():
        calls = []
        calls.append(slow())
        yield
        return "generator" + 1

    assert notes(main) == []


def test_a_call_that_was_run_is_not_blamed():
    def main():
        raise TypeError(f"no generator: {(yield from slow())}")

    assert notes(main) == []


def test_an_async_def_is_called_as_a_task():
    def main():
        x = coroutine(1)
        yield
        try:
            return x + 1
        finally:
            x.close()

    def delegates():
        x = coroutine(1)
        try:
            yield from x
        finally:
            x.close()

    def delegates_at_once():
        yield from coroutine(1)

    said = "coroutine() is an `async def`: a generator calls it with "
    assert notes(main) == [f"{said}`yield from spawn(coroutine, *args)`"]
    with pytest.warns(RuntimeWarning, match="never awaited"):
        assert notes(delegates_at_once) == [f"{said}`yield from spawn(coroutine, *args)`"]
    assert notes(delegates) == [f"{said}`yield from spawn(coroutine, *args)`"]


@pytest.mark.found("E4")
@pytest.mark.filterwarnings("ignore:.*never awaited")
def test_asyncio_is_named():
    def delegates():
        yield from asyncio.sleep(1)

    async def awaits():
        await asyncio.sleep(1)

    (note,) = notes(delegates)
    assert note == (
        "asyncio.sleep() is asyncio's, and corolib cannot wait for it. "
        "In corolib: yield Sleep(seconds)"
    )
    (note,) = notes(awaits)
    assert note.endswith("corolib cannot wait for it. In corolib: await Sleep(seconds)")


def test_a_method_of_asyncios_is_named_with_its_class():
    def made():
        yield from asyncio.Event().wait()

    def known():
        queue = asyncio.Queue()
        yield from queue.get()

    def another():
        raise TypeError("a generator") if slow else print().get()  # type: ignore[truthy-function]

    for f, kind, name in ((made, "Event", "wait"), (known, "Queue", "get")):
        with pytest.warns(RuntimeWarning, match="never awaited"):
            (note,) = notes(f)
        assert note == (
            f"asyncio.{kind}.{name}() is asyncio's, and corolib cannot wait for it. "
            f"In corolib: {kind} is imported from corolib, too"
        )
    assert notes(another) == []


def test_a_name_of_another_library_that_nobody_has_imported():
    def main():
        yield create_task(slow)  # noqa: F821

    async def waits_for():
        await sleep(1)  # noqa: F821

    def module():
        yield socket.socket()  # noqa: F821

    def unbound():
        yield
        sleep += 1  # noqa: F821, F841

    def ours():
        yield Sleep(1)  # noqa: F821

    def ours_in_a_clause():
        yield
        try:
            yield from open_tcp("127.0.0.1", None)
        except TaskCancelled:  # noqa: F821
            pass

    assert notes(main) == ["In corolib: task = spawn(f, *args)"]
    assert notes(waits_for) == ["In corolib: await Sleep(seconds)"]
    assert notes(module) == notes(unbound) == []
    assert notes(ours) == ["Write `from corolib import Sleep`"]
    assert notes(ours_in_a_clause) == ["Write `from corolib import TaskCancelled`"]


def test_a_block_that_needs_no_async():
    async def main(block):
        async with block:
            pass

    said = "It bounds a block without `async`: write `with timeout(...):`"
    assert notes(main, timeout(1)) == [said]
    assert notes(main, []) == []


def test_an_async_def_is_told_of_await(stream):
    async def joins():
        spawn(slow).join()

    async def reads():
        stream.read(100)

    async def calls():
        task = spawn(slow)
        await task
        task.result()

    assert notes(joins) == ["In corolib: result = await task"]
    assert notes(reads) == ["In corolib: data = await stream.recv(65536)"]
    assert notes(calls) == ["Task.result is no method. In corolib: result = await task"]
    assert for_async(GROUP) == "async with TaskGroup() as g: ...; results = await g"


@pytest.mark.filterwarnings("ignore:.*never run")
def test_what_the_library_calls_otherwise_has_the_name_that_programs_use():
    def yields():
        yield gather(slow())

    def asks():
        yield
        return gather(slow()).result

    with pytest.raises(TypeError, match=r"the generator gather\(\) instead.*yield from gather\("):
        go(yields)
    (note,) = notes(asks)
    assert note.startswith("gather() waits, and was not run. Write `return (yield from gather(")


def test_what_bounds_a_block_is_not_waited_for():
    def main():
        yield from timeout(1)

    assert notes(main) == ["timeout() bounds a block: write `with timeout(1):`"]


def test_a_generator_that_runs_where_no_function_of_the_programs_is():
    error = RuntimeError("no running event loop")
    (note,) = explained(error).__notes__
    assert note.endswith("`yield Sleep(seconds)`")


def test_a_generator_function_that_is_awaited_wants_a_mark():
    async def main():
        await slow()

    (note,) = notes(main)
    assert note == "slow() is a generator function: to await it, put `@waits` above it"


# What cannot wait, names, calls -------------------------------------------------------------------


@pytest.mark.found("E3")
def test_what_cannot_wait_is_called_without_yield_from():
    def main():
        event = Event()
        yield from event.set()

    def another():
        yield from print

    async def coroutine():
        event = Event()
        await event.set()

    def of_another():
        yield from [].clear()

    assert notes(main) == ["set() cannot wait: write `event.set()`, without `yield from`"]
    assert notes(coroutine) == ["set() cannot wait: write `event.set()`, without `await`"]
    assert notes(another) == ["print was not called, and cannot wait: write `print()`"]
    assert notes(of_another) == []


@pytest.mark.found("E3")
@pytest.mark.parametrize(
    ("thing", "name", "cure"),
    [
        (lambda stream: spawn(slow), "join", "result = yield from task"),
        (lambda stream: spawn(slow), "add_done_callback", "result = yield from task, in a task"),
        (lambda stream: Queue(1), "maxsize", "queue.size"),
        (lambda stream: stream, "write", "yield from stream.sendall(data)"),
        (lambda stream: stream, "read", "data = yield from stream.recv(65536)"),
        (lambda stream: corolib.to_thread, "run_sync", "yield from to_thread(f, *args)"),
    ],
)
def test_a_name_of_another_library_is_answered_with_ours(thing, name, cure, stream):
    def main():
        yield
        getattr(thing(stream), name)

    (note,) = notes(main)
    assert note.startswith(f"In corolib: {cure}")


@pytest.mark.found("E3")
def test_names_that_nobody_has_and_things_of_others_have_no_note():
    def ours():
        yield
        Queue(1).nonsense

    def others():
        yield
        "x".join_all

    assert notes(ours) == notes(others) == []


@pytest.mark.found("E3")
def test_a_plain_value_that_is_called():
    def main(name):
        task = spawn(slow)
        yield from task
        if name == "done":
            task.done()
        elif name == "result":
            task.result()
        elif name == "wait":
            task.wait()
        elif name == "size":
            Queue(1).size()
        elif name == "name":
            lock = Lock("x")
            lock.release if lock.locked() else lock.name()
        elif name == "itself":
            event = Event()
            event()
        else:
            number = 5
            number()

    assert notes(main, "done") == ["Task.done is no method. In corolib: task.done"]
    assert notes(main, "wait") == ["Task.wait is no method. In corolib: result = yield from task"]
    (note,) = notes(main, "result")
    assert note == "Task.result is no method. In corolib: result = yield from task"
    assert notes(main, "name") == ["Lock.name is no method. In corolib: name"]
    assert notes(main, "size") == notes(main, "itself") == notes(main, "") == []


# When it is looked at -----------------------------------------------------------------------------


def test_an_error_has_its_note_once_however_many_tasks_it_leaves():
    def inner():
        yield
        spawn(slow).join()

    def outer():
        yield from spawn(inner)

    assert len(notes(outer)) == 1


def test_an_error_of_main_that_is_no_generator_has_its_note_too():
    def main():
        Queue(1).maxsize

    with pytest.raises(AttributeError) as caught:
        run(main)
    assert caught.value.__notes__ == ["In corolib: queue.size"]


def test_messages_of_our_own_say_by_themselves_what_to_write():
    def main():
        yield from gather([slow(), slow()])

    def empty():
        yield from first()

    assert notes(main) == notes(empty) == []


def test_an_odd_error_stays_what_it_is():
    class Odd(TypeError):
        def __str__(self):
            raise ValueError("no")

    error = Odd()
    assert explained(error) is error
    assert not hasattr(error, "__notes__")


def test_other_errors_have_none():
    for error in (TypeError("x"), ValueError("x"), RuntimeError("x"), AttributeError("x"), OSError):
        explained(error)
        assert not hasattr(error, "__notes__")
    assert not hasattr(explained(AttributeError("x", name="y", obj=math)), "__notes__")
    assert not hasattr(explained(TypeError("a generator")), "__notes__")


# What opens something, in every mode --------------------------------------------------------------


@pytest.mark.found("E1")
def test_what_opens_something_says_that_it_has_not_been_run():
    def methods():
        s = open_tcp("127.0.0.1", 1)
        yield
        s.sendall(b"x")

    def block():
        yield
        with open_udp(local=("127.0.0.1", 0)) as sock:
            sock.close()

    async def asynchronous():
        async with open_udp(local=("127.0.0.1", 0)) as sock:
            sock.close()

    def result():
        done = run_process(["true"])
        yield
        return done.returncode

    def accepted():
        with corolib.listen_tcp("127.0.0.1", 0) as listener:
            stream = listener.accept()
            yield
            stream.close_it()

    said = "was called without `yield from`, so it has no"
    for f, text in [
        (methods, f"open_tcp() {said} 'sendall' yet. Write `s = yield from open_tcp("),
        (result, f"run_process() {said} 'returncode' yet. Write `done = yield from run_process("),
        (accepted, f"accept() {said} 'close_it' yet. Write `stream = yield from listener.accept()"),
    ]:
        with pytest.raises(AttributeError) as caught:
            go(f)
        assert str(caught.value).startswith(text)
    with pytest.raises(TypeError, match=r"Write `with \(yield from open_udp\(local=.*\)\) as sock"):
        go(block)
    with pytest.raises(TypeError, match=r"without `await`.* `with \(await open_udp\(local"):
        go(asynchronous)


def test_such_a_call_works_in_every_way_in_which_a_generator_does():
    done = ["true"]

    async def awaits():
        return (await run_process(done)).returncode

    def main():
        calls = [(yield from run_process(done)), (yield from spawn(run_process, done))]
        calls += [(yield from spawn(run_process(done)))]
        calls += yield from gather(run_process(done), spawn(run_process(done)))
        return [each.returncode for each in calls], (yield from spawn(awaits))

    assert run(main) == ([0] * 5, 0)


def test_its_frames_are_those_of_a_generator():
    def main():
        async def awaits():
            await run_process(["sleep", "60"])

        task = spawn(awaits)
        while task.state != "waiting":
            yield
        names = [frame.f_code.co_name for frame in task.stack()]
        yield from task.stop()
        return names

    assert run(main)[:2] == ["awaits", "run_process"]


def test_such_a_call_can_be_stepped_by_hand():
    @types.coroutine
    def waits_once():
        return (yield 5)

    from corolib.kernel import opens

    call = opens(waits_once)()
    assert repr(call) == (
        "<waits_once(), which has not been run: write `yield from` in front of it>"
    )
    assert (call.__name__, call.send(None)) == ("waits_once", 5)
    with pytest.raises(ZeroDivisionError):
        call.throw(ZeroDivisionError())
    other = opens(waits_once)()
    assert next(other) == 5
    other.close()
    with pytest.raises(StopIteration):
        next(other)


def test_such_a_call_is_refused_by_threads_and_where_it_is_yielded():
    def threads():
        yield from corolib.to_thread(open_tcp, "127.0.0.1", 1)

    def yields():
        s = yield open_tcp("127.0.0.1", 1)
        return s

    with pytest.raises(TypeError, match=r"its code would not run in there"):
        run(threads)
    with pytest.raises(TypeError, match=r'Write `s = yield from open_tcp\("127.0.0.1", 1\)`'):
        run(yields)


def test_what_has_no_name_of_its_own_in_the_program_is_called_f():
    def work():
        yield

    for f, call in ((work, "work"), (lambda: work(), "f")):
        with pytest.raises(TypeError, match=rf"Write `yield from spawn\({call}\(\)\)`"):
            run(corolib.to_thread, f)


# Methods that ask ---------------------------------------------------------------------------------


@pytest.mark.found("E3")
@pytest.mark.parametrize(
    ("thing", "name", "answer"),
    [
        (Event(), "is_set", False),
        (Lock(), "locked", False),
        (Semaphore(0), "locked", True),
        (corolib.Condition(), "locked", False),
        (Queue(0), "empty", True),
        (Queue(0), "full", True),
        (Queue(math.inf), "full", False),
        (Queue(1), "qsize", 0),
    ],
)
def test_a_method_that_asks_has_no_truth_without_its_call(thing, name, answer):
    ask = getattr(thing, name)
    assert ask() == answer
    with pytest.raises(TypeError, match=rf"{name} of <.*> is a method: write `{name}\(\)`"):
        bool(ask)
    assert getattr(type(thing), name).__doc__.startswith("Return ")


@pytest.mark.found("E3")
def test_a_queue_without_a_size_is_told_of_both_kinds():
    with pytest.raises(TypeError, match=r"`Queue\(10\)`, or `Queue\(math.inf\)` for one without"):
        Queue()


def test_what_is_received_and_sent_is_checked_in_words(stream):
    def recv(most):
        yield from stream.recv(most)

    def theirs():
        def recv():
            yield
            return "1" > 0

        yield from recv()

    for wrong in ("65536", None, b"1"):
        with pytest.raises(TypeError, match=rf"^recv\(\) takes a whole number, not {wrong!r}$"):
            go(recv, wrong)
    with pytest.raises(TypeError, match=r"^'>' not supported between instances"):
        go(theirs)

    for wrong, said in [(5, "buffers: .*'int'$"), (None, "buffers: "), ("x", "; text has encode")]:
        with pytest.raises(TypeError, match=rf"^sendall\(\) takes bytes, or a list of .*{said}"):
            go(stream.sendall, wrong)
