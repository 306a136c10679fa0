"""The page in a real browser: it comes up, can be moved through by keys, and fits the window.

A browser takes seconds to begin: these run under COROLIB_SWEEP=full, where Chromium is installed.
"""

import pytest

from corolib import Event, Lock, Sleep, move_on_after, run, spawn
from corolib.trace import Trace
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.driving import FULL

pytestmark = [
    pytest.mark.skipif(not FULL, reason="a browser is started under COROLIB_SWEEP=full"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


def program():
    def worker(one, other):
        with (yield from one):
            yield Sleep(0.001)
            with (yield from other):
                pass

    def main():
        a, b = Lock("a"), Lock("b")
        spawn(worker, a, b, name="ann")
        spawn(worker, b, a, name="bob")
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
    assert {url.partition("#")[0] for url in browser.requests} <= {browser.url, "about:blank"}


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
    page.ask("document.getElementById('tab-tasks').click()")


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


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 900, 1400])
def test_the_page_fits_the_window(page, width, dark):
    page.resize(width, 900, dark)
    page.open(f"{page.url}#i=30&t=2")
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert page.picture().startswith(b"\x89PNG")
