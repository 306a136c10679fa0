"""The page in a real browser: it comes up, can be moved through by keys, and fits the window.

A browser takes seconds to begin: these run under COROLIB_SWEEP=full, where Chromium is installed.
"""

import re

import pytest

from corolib import Event, Lock, Sleep, move_on_after, run, spawn
from corolib.trace import Trace, write
from corolib.trace.events import EVENTS
from corolib.trace.page import pack, packed
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.driving import FULL, turns

pytestmark = [
    pytest.mark.skipif(not FULL, reason="a browser is started under COROLIB_SWEEP=full"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


def program():
    def worker(one, other, money):
        with (yield from one):
            yield Sleep(0.001)
            with (yield from other):
                money -= 1

    def main():
        a, b = Lock("a"), Lock("b")
        spawn(worker, a, b, 10, name="ann")
        spawn(worker, b, a, 20, name="bob")
        with move_on_after(0.002):
            yield from Event().wait()
        yield from Event("never").wait()

    return main


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    trace = Trace(folder / "out.html", values=True)
    try:
        run(program(), trace=trace)
    except RuntimeError:
        pass
    with Browser(folder / "profile") as browser:
        browser.url = f"file://{folder / 'out.html'}"
        browser.events = trace.events
        browser.open(browser.url)
        yield browser
    assert browser.complaints == []
    assert all(url.startswith(("file:", "about:")) for url in browser.requests)


def now(page):
    return page.ask("page.now")


def at(page):
    return page.events[now(page)]


def test_keys_alone_move_through_the_trace(page):
    page.ask("page.go(0)")
    page.press("ArrowRight", "ArrowRight")
    assert now(page) == 2
    page.press("ArrowLeft")
    assert now(page) == 1
    page.press("Shift+ArrowRight")
    assert at(page)["kind"] == "step"
    page.press("PageDown")
    assert at(page)["kind"] == "turn"
    first = now(page)
    page.ask("document.getElementById('unit').focus()")
    page.ask("document.getElementById('unit').value = 'turn'")
    page.ask("document.getElementById('unit').dispatchEvent(new Event('change'))")
    page.press("ArrowRight")
    assert at(page)["kind"] == "turn"
    assert now(page) > first
    page.ask("document.getElementById('unit').value = 'event'")
    page.press("End")
    assert at(page)["kind"] == "end"
    page.press("ArrowRight")
    assert at(page)["kind"] == "end"
    page.press("Home")
    assert now(page) == 0
    for key, attribute in (("d", "document.documentElement.dataset.theme"), ("?", "page_help()")):
        page.ask("window.page_help = () => document.getElementById('keys').hidden")
        before = page.ask(attribute)
        page.press(key)
        assert page.ask(attribute) != before


def test_a_search_finds_events_and_tasks(page):
    page.ask("page.go(0)")
    page.press("/")
    page.write("kind:cancel.ask")
    page.press("Enter")
    assert at(page)["kind"] == "cancel.ask"
    first = now(page)
    page.press("n")
    assert now(page) > first
    page.press("Shift+N")
    assert now(page) == first
    page.press("j")
    page.write("bob")
    page.press("Enter")
    assert at(page)["task"] == 3 == page.ask("page.selected")
    page.press("t", "ArrowRight", "ArrowRight")
    assert at(page)["task"] == 3
    page.press("t")
    page.ask("page.selected = null")
    page.ask("document.getElementById('follow').click()")
    assert page.ask("page.selected") == 3  # the one that ran last
    assert page.ask("document.getElementById('follow').ariaPressed") == "true"
    page.press("t")
    page.press("/")
    page.ask("document.getElementById('search').value = ''")
    page.write("nothing that there is")
    page.press("Enter")
    assert page.ask("document.getElementById('hits').textContent") == "no hit"


def test_an_address_holds_event_and_task(page):
    page.open(f"{page.url}#i=9&t=2")
    assert now(page) == 9
    assert page.ask("page.selected") == 2
    page.press("ArrowRight")
    page.wait_for("location.hash === '#i=10&t=2'")


def test_the_cycle_of_a_deadlock_is_shown(page):
    page.open(page.url)
    found = next(event["i"] for event in page.events if event["kind"] == "deadlock")
    page.ask(f"page.go({found})")
    page.ask("document.getElementById('tab-waits').click()")
    page.wait_for("document.getElementById('panel').textContent.includes('cycle')")
    text = page.ask("document.getElementById('panel').textContent")
    assert "A cycle, none of which can ever go on" in text
    assert "ann#2" in text
    assert "bob#3" in page.ask("document.getElementById('sentence').textContent")
    page.ask("document.getElementById('tab-events').click()")
    assert page.ask("document.querySelectorAll('.event').length") < len(page.events)
    row = page.ask("document.querySelector('.event.now').textContent")
    assert row.startswith(str(found))  # the number that the head and the address have
    position = page.ask("document.getElementById('position').textContent")
    assert position.startswith(f"event {found} of {len(page.events) - 1},")
    assert "A deadlock: ann#2 waits" in row
    page.ask("document.getElementById('tab-tasks').click()")


def test_the_table_of_tasks_says_how_each_has_ended(page):
    page.open(page.url)
    page.press("End")
    page.ask("page.showTab(page.last.state)")
    states = page.ask(
        "[...document.querySelectorAll('#panel tbody td:nth-child(2)')].map((it) => it.textContent)"
    )
    assert states == ["cancelled"] * 3


def test_a_task_that_waits_for_its_children_is_shown_until_it_is_done(page, tmp_path):
    def parent():
        spawn(turns, 3, name="child")
        yield

    trace = Trace(tmp_path / "out.html")
    run(parent, trace=trace)
    page.open(f"file://{tmp_path / 'out.html'}")
    over = next(e["i"] for e in trace.events if e["kind"] == "over" and e["task"] == 1)
    done = next(e["i"] for e in trace.events if e["kind"] == "done" and e["task"] == 2)
    shown = "[...document.querySelectorAll('#waits .row')].map((row) => row.textContent)"
    page.ask(f"page.go({over})")
    assert "parent#1returned; waits for its childchild#2" in page.ask(shown)
    page.ask(f"page.go({done})")
    assert "parent#1returned; is not done yet" in page.ask(shown)
    page.press("End")
    assert page.ask("page.final.task(1).waiting > page.final.task(2).busy")
    kinds = "page.lanes.parts.get({}).filter((part) => part[2] === 3).map((part) => part[4])"
    assert page.ask(kinds.format(1)) == ["children"]
    assert page.ask(kinds.format(2)) == ["none"]
    page.open(page.url)


def test_the_source_says_what_it_means_that_a_task_stands_in_a_line(page):
    def tags():
        return page.ask(
            "[...document.querySelectorAll('#source .tags > span')].map((it) => it.textContent)"
        )

    def go(wanted):
        found = next(e["i"] for e in page.events if wanted.items() <= e.items())
        page.ask(f"page.selected = null, page.go({found})")

    page.open(f"{page.url}#i=0")
    assert tags() == []
    go({"kind": "spawn", "task": 2})
    assert "#2spawned here" in tags()
    go({"kind": "timer.fire"})  # of ann, who is about to be ready
    assert "#2#3waiting here" in tags()
    go({"kind": "wake", "why": "timer", "task": 2})
    assert "#2will go on here" in tags()
    go({"kind": "step", "n": 2, "task": 2})
    assert "#2went on from here" in tags()
    page.ask("page.selected = 3")
    page.press("End")
    assert "#3last waited here" in tags()


@pytest.mark.parametrize("width", [400, 1400])
def test_sentence_and_controls_stay_in_sight(page, width):
    page.resize(width, 900)
    page.open(f"{page.url}#i=30")
    page.wait_for("document.querySelector('#panel td') !== null")
    page.ask("scrollTo(0, 1e6)")
    box = "document.getElementById('{}').getBoundingClientRect().{}"
    top, bottom = page.ask(box.format("sentence", "top")), page.ask(box.format("moves", "bottom"))
    assert page.ask("scrollY") > 100
    assert top >= 0
    assert bottom < 300  # a third
    page.resize(1400, 900)


def test_the_source_begins_at_its_first_line_and_keeps_the_marked_one_in_sight(page):
    top = "document.getElementById('source').scrollTop"
    page.resize(400, 900)
    page.open(f"{page.url}#i=0")
    page.press("End", "Home")
    assert page.ask(top) == 0
    deadlock = next(event["i"] for event in page.events if event["kind"] == "deadlock")
    page.ask(f"page.go({deadlock})")
    page.ask("document.getElementById('source').scrollTop = 0")
    page.resize(390, 900)
    page.wait_for(f"{top} > 0")
    page.resize(1400, 900)


def test_the_variables_of_all_who_stand_in_the_source_are_shown_if_they_say_something(page):
    deadlock = next(event["i"] for event in page.events if event["kind"] == "deadlock")
    page.open(f"{page.url}#i={deadlock}")
    tables = page.ask(
        "[...document.querySelectorAll('#variables table')].map((table) => [...table.rows]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent)))"
    )
    assert tables == [[["in worker", "money"], ["#2", "10"], ["#3", "20"]]]  # no `<Lock>`


def test_a_variable_may_have_a_name_that_each_object_has(page, tmp_path):
    def worker(number):
        if number:
            constructor = number
            yield
            return constructor
        yield

    def main():
        for number in range(2):
            spawn(worker, number)
        yield Sleep(0.001)

    trace = Trace(tmp_path / "odd.html", values=True)
    run(main, trace=trace)
    last = max(each["i"] for each in trace.events if each["kind"] == "yield" and each["task"] == 3)
    page.open(f"file://{tmp_path / 'odd.html'}#i={last}&t=3")
    rows = page.ask("[...document.querySelectorAll('#variables tr')].map((row) => row.innerText)")
    found = [row.split() for row in rows]
    assert ["#2", "0"] in found  # it has no such variable
    assert ["#3", "1", "1"] in found


def test_the_help_is_open_at_the_first_visit_until_it_is_closed(page):
    hidden = "document.getElementById('keys').hidden"
    page.ask("localStorage.clear()")
    page.open(page.url)
    assert page.ask(hidden) is False
    shown = page.ask("document.querySelector('#keys p').textContent")
    assert len(re.findall(r"[.]( |$)", shown.partition("page. ")[2])) == 8
    below = "document.getElementById('sentence').getBoundingClientRect().top"
    assert page.ask(f"document.getElementById('keys').getBoundingClientRect().bottom < {below}")
    page.open(page.url)
    assert page.ask(hidden) is False
    page.open(f"{page.url}#i=3")  # who comes for one event is not held up
    assert page.ask(hidden) is True
    page.open(page.url)
    for _ in range(20):
        page.press("Tab")
        if page.ask("document.activeElement.id") == "close":
            break
    page.press("Enter")
    assert page.ask(hidden) is True
    page.open(page.url)
    assert page.ask(hidden) is True
    page.press("?")
    assert page.ask(hidden) is False
    page.press("Escape")
    assert page.ask(hidden) is True


def test_a_browser_that_remembers_nothing_shows_the_page_all_the_same(page):
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })"
    script = page.tell("Page.addScriptToEvaluateOnNewDocument", source=refuse)["identifier"]
    page.open(page.url)
    assert page.ask("document.getElementById('keys').hidden") is False
    page.press("Escape")
    assert page.ask("document.getElementById('keys').hidden") is True
    page.tell("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


@pytest.mark.parametrize("kind", ["yield", "step"])
def test_a_long_time_in_which_no_task_runs_is_drawn_short(page, tmp_path, kind):
    trace = Trace(values=True)
    run(turns, 20, trace=trace)
    begins = next(n for n, e in enumerate(trace.events) if n > 50 and e["kind"] == kind)
    began = trace.events[begins]["ns"]
    late = [{**e, "ns": e["ns"] + 10**12 * (n > begins)} for n, e in enumerate(trace.events)]
    write(str(tmp_path / "late.html"), trace.header, late)
    page.open(f"file://{tmp_path / 'late.html'}")
    ended = late[begins + 1]["ns"]
    part = f"page.lanes.where({ended}) - page.lanes.where({began})"
    shown_short = kind == "yield"  # and never a step
    assert ([began, ended] in page.ask("page.lanes.short")) == shown_short
    assert (page.ask(part) < 0.5) == shown_short
    page.ask("document.getElementById('squeeze').click()")
    assert page.ask("page.lanes.short") == []
    assert page.ask(part) > 0.9
    page.open(page.url)


def test_the_lanes_can_be_zoomed_into_until_single_events_are_seen(page):
    page.open(page.url)
    page.press(*["+"] * 40)
    assert page.ask("Math.round(page.lanes.width / page.lanes.zoom)") == 10_000  # ns
    page.press(*["-"] * 40)
    assert page.ask("page.lanes.zoom") == 1


def test_no_name_in_the_table_is_broken_in_a_narrow_window(page):
    page.resize(400, 900)
    page.open(f"{page.url}#i=30")
    page.wait_for("document.querySelector('#panel td') !== null")
    heights = "[...document.querySelectorAll('#panel td .chip')].map((it) => it.offsetHeight)"
    assert max(page.ask(heights)) < 30
    assert page.ask("(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth)(panel)")
    page.resize(1400, 900)


def test_a_window_too_small_for_the_lanes_harms_nothing(page):
    page.open(page.url)
    page.resize(20, 900)
    page.press("ArrowRight")
    page.ask("page.lanes.draw(null)")
    page.resize(1400, 900)
    assert "damaged" not in page.ask("document.getElementById('sentence').textContent")


def test_what_is_worth_a_look_leads_there(page):
    page.open(page.url)
    assert page.ask("document.getElementById('looks').firstChild.textContent") == (
        "ann#2in a deadlock"
    )
    page.ask("document.getElementById('looks').firstChild.click()")
    assert at(page)["kind"] == "deadlock"
    assert page.ask("page.ran") == 2  # its source is shown, and that of who runs next
    held = page.ask("document.getElementById('waits').textContent")
    assert "Lock ais held byann#2" in held
    assert "Lock bis held bybob#3" in held
    line = page.ask("document.querySelector('#source .here').textContent")
    assert line.startswith("2\N{MULTIPLICATION SIGN}")  # both wait here


def test_who_was_ready_for_long_is_said_with_the_reason(page, tmp_path):
    def main():
        spawn(turns, 5, name="ann")
        spawn(turns, 5, name="bob")
        spawn(pause, name="eve", daemon=True)
        yield

    def pause():
        yield Sleep(900)

    trace = Trace()
    run(main, trace=trace)
    step = {"kind": "step", "task": 2, "n": 3}
    begins = next(n for n, e in enumerate(trace.events) if step.items() <= e.items())
    late = [{**e, "ns": e["ns"] + 10**12 * (n > begins)} for n, e in enumerate(trace.events)]
    write(str(tmp_path / "late.html"), trace.header, late)
    page.open(f"file://{tmp_path / 'late.html'}")
    looks = "[...document.getElementById('looks').children].map((it) => it.textContent)"
    ran, ready = page.ask(looks)
    assert re.fullmatch(r"ann#2ran for 100\d\.\d s without a wait: nothing else could run", ran)
    assert re.fullmatch(r"bob#3was ready for 100\d\.\d s, while ann#2 ran", ready)
    # Who sleeps meanwhile is overdue; and the end of a task waits for no daemon.
    waits = "((state) => page.waitIn(state.task(4), state))(page.stateAt({}).state)"
    before, after = (page.ask(waits.format(n)).strip() for n in (begins, begins + 1))
    assert before.startswith("waits until 900.")
    assert after == f"{before}: overdue"
    ended = f"((state) => stateOf(state.task(1), state))(page.stateAt({begins}).state)"
    assert page.ask(ended) == "returned; waits for the end of ann#2, bob#3"
    page.open(page.url)


def test_every_control_has_a_name_and_can_be_reached(page):
    nameless = page.ask(
        "[...document.querySelectorAll('button, input, select, [role=tabpanel]')].filter((each) =>"
        " !(each.textContent.trim() || each.ariaLabel || each.labels?.length"
        " || each.getAttribute('aria-labelledby'))).map((each) => each.outerHTML)"
    )
    assert nameless == []
    hidden = page.ask(
        "[...document.querySelectorAll('#controls button, #controls input, #controls select')]"
        ".filter((each) => each.tabIndex < 0).length"
    )
    assert hidden == 0


FOCUSED = """(() => {
    const it = document.activeElement, box = it.getBoundingClientRect();
    const style = getComputedStyle(it);
    const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
    return [it.id, seen && box.width > 0 && box.bottom > 0 && box.top < innerHeight];
})()"""
REACHABLE = """[...document.querySelectorAll('button, input, select, summary, [tabindex="0"]')]
    .filter((it) => it.tabIndex >= 0 && it.checkVisibility()).length"""


@pytest.mark.parametrize("width", [320, 1400])
def test_the_keyboard_alone_reaches_everything_and_is_seen(page, width):
    page.resize(width, 900)
    page.open(f"{page.url}#i=30&t=2")
    page.press("?")
    page.wait_for("document.querySelector('#panel td') !== null")
    reached = []
    for _ in range(page.ask(REACHABLE)):
        page.press("Tab")
        reached.append(page.ask(FOCUSED))
    assert [name for name, seen in reached if not seen] == []
    names = [name for name, _ in reached if name]
    assert len(set(names)) == len(names)
    assert {"close", "forth", "slider", "search", "source", "lanes", "panel"} <= set(names)
    page.press("Escape")


COVERED = """[...document.querySelectorAll('#source .text')].flatMap((line) => {
    const range = document.createRange();
    range.selectNode(line.firstChild);
    const hits = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom - 2
        && b.top < a.bottom - 2;
    return [...line.querySelectorAll('.tags *')].filter((tag) => [...range.getClientRects()]
        .some((text) => hits(text, tag.getBoundingClientRect()))).map((tag) => tag.textContent);
})"""  # tags that lie over the text


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 400, 900, 1400])
def test_the_page_fits_the_window(page, width, dark):
    page.resize(width, 900, dark)
    page.open(f"{page.url}#i=30&t=2")
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask("document.getElementById('source').scrollWidth") <= width
    assert page.ask(COVERED) == []
    assert page.ask("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert page.picture().startswith(b"\x89PNG")


@pytest.mark.parametrize("what", ["torn", "foreign", "an event without its fields"])
def test_a_damaged_trace_is_said_to_be_one(tmp_path, what):
    trace = Trace(tmp_path / "out.html")
    run(turns, 3, trace=trace)
    whole = pack(trace.header, trace.events)
    rows = [[list(EVENTS).index("deadlock"), 0]]
    foreign = {"header": {"code": [], "tasks": {}}, "first": 0, "kinds": EVENTS, "rows": rows}
    data = {"torn": whole[: len(whole) // 8 * 4], "foreign": packed([1, {}])}.get(what)
    page = (tmp_path / "out.html").read_text("utf-8")
    (tmp_path / "bad.html").write_text(page.replace(whole, data or packed(foreign)), "utf-8")
    said = "document.getElementById('sentence')?.textContent.startsWith('This trace is damaged')"
    with Browser(tmp_path / "profile") as browser:
        browser.tell("Page.navigate", url=f"file://{tmp_path / 'bad.html'}")
        browser.wait_for(said)
