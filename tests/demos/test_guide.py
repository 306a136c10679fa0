"""The guide's site: it is built and served once, and walked through."""

import base64
import http.client
import json
import re
import socket
import zlib
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest

import corolib
import corolib.interop
import corolib.testing
import corolib.trace
from corolib.trace.sentences import WORDS, chosen
from demos.drawing import contrast
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.driving import FULL
from tests.helpers.programs import Program

pytest.importorskip("markdown_it")
pytest.importorskip("pygments")
pytest.importorskip("h11")

from demos.guide import pages, reference, runs
from demos.guide.pages import GUIDE, Site
from demos.guide.rendering import render

VOID = {"meta", "link", "input", "img", "br", "hr"}


class Looked(HTMLParser):
    """What a page has."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.levels, self.open = [], set(), [], []
        self.nameless, self.loaded, self.faults = [], [], []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in attrs:
            if attrs["id"] in self.anchors:
                self.faults.append(f"two are called {attrs['id']}")
            self.anchors.add(attrs["id"])
        for name in ("href", "src", "action"):
            if name in attrs:
                self.links.append(attrs[name])
                if tag in ("img", "script", "link"):
                    self.loaded.append(attrs[name])
        if re.fullmatch("h[1-6]", tag) and "nav" not in self.open:
            self.levels.append(int(tag[1]))
        if tag == "img" and not attrs.get("alt", "").strip():
            self.nameless.append(attrs["src"])

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if tag in ("p", "li", "tr", "td", "th") and tag not in self.open:
            self.faults.append(f"</{tag}> was not open")
        while self.open and self.open.pop() != tag:
            pass


@pytest.fixture(scope="module")
def site():
    """What each page has that a walk from the first one reaches, and what is missing there."""
    with Program("demos.guide") as server:
        client = http.client.HTTPConnection(server.host, server.port, timeout=60)
        found, missing, ahead, seen = {}, [], ["/index.html"], {"/", "/index.html"}
        while ahead:
            page = ahead.pop(0)
            client.request("GET", page)
            answer = client.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                missing.append(page)
            elif page.endswith(".html"):
                found[page] = Looked(text)
                for link in found[page].links:
                    parts = urlsplit(urljoin(page, link))
                    if not parts.scheme and parts.path not in seen:
                        seen.add(parts.path)
                        ahead.append(parts.path)
        client.close()
    return found, missing


def test_no_link_is_dead(site):
    found, missing = site
    assert missing == []
    dead = []
    for page, looked in found.items():
        for link in looked.links:
            parts = urlsplit(urljoin(page, link))
            assert parts.scheme in ("", "https", "http", "data"), link
            if not parts.scheme and parts.fragment:
                if parts.fragment not in found[parts.path].anchors:
                    dead.append((page, link))
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(site):
    for page, looked in site[0].items():
        assert not [each for each in looked.loaded if urlsplit(each).netloc], page


def test_pages_are_well_formed(site):
    """One heading of the first level, none that skips a level, words for each picture."""
    for page, looked in site[0].items():
        assert looked.faults == [], page
        assert looked.nameless == [], page
        assert (looked.levels[0], looked.levels.count(1)) == (1, 1), page
        for before, after in zip(looked.levels, looked.levels[1:], strict=False):
            assert after <= before + 1, page


def test_each_public_name_has_its_page(site):
    found, _ = site
    every = Site()
    for module in (corolib, corolib.testing, corolib.trace, corolib.interop):
        for name in module.__all__:
            assert "/" + every.places[f"reference/{name}.md"] in found, name
            assert every.names[name].line, name
    assert len(set(every.places.values())) == len(every.places)
    assert {f"/{place}" for place in every.places.values()} <= found.keys()


def test_each_chapter_stands_in_the_index():
    files = {f"demos/guide/{path.name}" for path in GUIDE.glob("*.md")} - {pages.INDEX}
    assert files <= {file for _, part in pages.chapters() for file in part}


def test_the_colours_can_be_read():
    css = (pages.ASSETS / "style.css").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    texts = set(re.findall(r"(?<![\w-])color: var\(--(\w+)\)", css))
    grounds = set(re.findall(r"background: var\(--(\w+)\)", css))
    assert grounds == {"ground", "panel", "mark"}
    assert {"ink", "link", "comment"} <= texts
    for scheme in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w{6});", scheme))
        for ground in grounds:
            for text in texts:
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for ground in ("ground", "panel"):
            assert contrast(colours["edge"], colours[ground]) >= 3  # of what can be pressed
    outside = re.sub(r":root \{.*?\}", "", css, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,6}\b", outside) == []


@pytest.fixture(scope="module")
def recorded():
    return runs.runs()


def test_each_step_that_has_tasks_has_a_run(recorded):
    text = (pages.ROOT / pages.TOUR).read_text("utf-8")
    steps = re.split(r"^## Step ", text, flags=re.MULTILINE)[10:]
    assert len(steps) == 8
    for step in steps:
        pictures = re.findall(r"^!.*/(\w+)\.svg", step, re.MULTILINE)
        assert any(run.picture in pictures for run in recorded), step.partition("\n")[0]
    assert all(f"/{run.picture}.svg" in text for run in recorded)


def test_a_recorded_step_says_what_has_happened(recorded):
    told = {}
    for run in recorded:
        state = corolib.trace.State(run.tasks)
        words = {**WORDS, **run.words}
        sentences = []
        for event in run.events:
            state.apply(event)
            key, values = chosen(event, state, run.code)
            sentences.append(words[key].format_map(values))
            busy = [task for task in state.tasks.values() if task.state == "running"]
            assert len(busy) <= (2 if run.picture == "generators" else 1)  # its `spawn` steps
        assert state.ended, run.picture
        assert state.ready == [], run.picture
        told.setdefault(run.picture, []).append("\n".join(sentences))
    # Bob does not read, so who writes to him is parked: in the second wait of `echo`.
    for picture in ("generators", "timers", "corolib"):
        assert "Outside, meanwhile: Bob sends a lot" in told[picture][0]
        assert "yielded WriteWait" in told[picture][0]
    for picture in ("timers", "corolib"):
        assert re.search(r"The time that tick#\d waited for has come", told[picture][0])
    assert "resumes it at story.py:" in told["errors"][0]
    assert "by raising BusyError" in told["errors"][0]
    assert "main#2 asks sleeper#1 to end" in told["cancel"][0]
    assert "double#2 is done, and main#1 waited for that" in told["join"][0]
    assert "A call from outside of the tasks is made (thread)" in told["thread_wakes"][0]
    at_once, giving_way = (text.count("time that tick#") for text in told["compute"])
    assert at_once <= 1 < giving_way


def test_a_run_is_recorded_alike_each_time(recorded):
    def told(found):
        return {
            run.picture: [
                (event["kind"], event.get("task"), event.get("line")) for event in run.events
            ]
            for run in found
            if run.picture in ("generators", "errors", "cancel", "join")
        }

    assert told(runs.runs()) == told(recorded)


def test_the_players_know_no_path_of_this_machine(recorded):
    packed = re.fullmatch(r'const RUNS = "(.*)";\n', runs.script_of(recorded))[1]
    assert len(packed) < 50_000
    text = zlib.decompress(base64.b64decode(packed)).decode()
    assert str(pages.ROOT) not in text
    assert "demos/tour/step10_generators.py" in json.loads(text)["source"]


def test_the_tour_alone_has_players(site):
    found, _ = site
    have = [page for page, looked in found.items() if "player.js" in looked.links]
    assert have == ["/tour.html"]


@pytest.mark.skipif(not FULL, reason="a browser is started under COROLIB_SWEEP=full")
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_no_page_is_wider_than_the_window(tmp_path):
    site = tmp_path / "site"
    Site().build(site)
    with Browser(tmp_path / "browser") as browser:
        for width in (320, 400, 1400):
            browser.resize(width, 900)
            for page in sorted(site.rglob("*.html")):
                browser.tell("Page.navigate", url=page.as_uri())
                loaded = "document.readyState === 'complete'"
                browser.wait_for(f"{loaded} && location.href === {page.as_uri()!r}")
                assert browser.ask("document.documentElement.scrollWidth") <= width, page
        find = (site / "find.html").as_uri()
        browser.tell("Page.navigate", url=f"{find}?q=a+rendezvous")
        browser.wait_for("document.getElementById('found')?.textContent.includes('places')")
        browser.open((site / "tour.html").as_uri())
        assert browser.ask("document.querySelectorAll('.player').length") == len(runs.runs())
        says = "document.querySelector('.player .sentence').textContent"
        assert browser.ask(says) == "The run begins."
        browser.ask("document.querySelector('.player .forth').click()")
        assert browser.ask(says).startswith("accept_clients#1 is made at")
        browser.ask("document.querySelector('.player .forth').focus()")
        browser.press("ArrowRight", "ArrowRight", "ArrowLeft")
        assert browser.ask(says) == "accept_clients#1 is next: the scheduler starts it."
        assert browser.complaints == []
    assert all(address.startswith(("file:", "data:", "about:")) for address in browser.requests)


def test_how_single_things_are_shown():
    page = render(
        "# A `b`\n\n## Same\n\n[x](y.md#z) `spawn()` `[1]`\n\n## Same\n\n<!-- gone -->\n\n"
        "|  | b |\n| --- | --- |\n| 1 | 2 |\n",
        lambda target: f"<{target}>",
        {"spawn"},
    )
    assert page.title == "A b"
    assert [section.anchor for section in page.sections] == ["a-b", "same", "same-1"]
    assert 'href="&lt;y.md#z&gt;"' in page.html
    assert 'href="&lt;name:spawn&gt;" class="name"><code>spawn()</code></a>' in page.html
    assert "gone" not in page.html
    assert '<td></td>\n<th scope="col">b</th>' in page.html


def test_how_a_call_is_shown():
    def short(self, a, *, b: "int | None" = None, clock=socket.socket) -> "str":
        return ""

    def long(one: int, *rest: "list[dict[str, tuple[float, ...]] | None]", another_one: "int" = 3):
        pass

    assert reference.signature("f", short) == (
        "f(a, *, b: int | None = None, clock=socket.socket) -> str"
    )
    lines = [
        "f(",
        "    one: int,",
        "    *rest: list[dict[str, tuple[float, ...]] | None],",
        "    another_one: int = 3,",
        ")",
    ]
    assert reference.signature("f", long).splitlines() == lines
