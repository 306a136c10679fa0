"""The guide's site: it is built and served once, and walked through."""

import base64
import http.client
import importlib
import json
import re
import socket
import zlib
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest

from corolib.trace import State
from corolib.trace.sentences import WORDS, chosen
from demos.drawing import contrast
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.driving import FULL
from tests.helpers.programs import Program, python

pytest.importorskip("markdown_it")
pytest.importorskip("pygments")
pytest.importorskip("h11")

import pytest_corolib
from corolib.__main__ import RUN, SERVE
from demos.guide import messages, mistakes, other_names, pages, reference, runs
from demos.guide.names import OTHERS, OWN_MODULES
from demos.guide.pages import GUIDE, Site
from demos.guide.rendering import headings, render
from demos.guide.tour import EXERCISES, TOUR

VOID = {"meta", "link", "input", "img", "br", "hr"}


class Looked(HTMLParser):
    """What a page has."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.links, self.anchors, self.levels, self.open = [], set(), [], []
        self.nameless, self.loaded, self.faults = [], [], []
        self.title, self.words, self.link_words, self.scripts = "", [], None, 0
        self.labels, self.fields, self.around = set(), set(), {}
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]
        self.faults += [f"{name} has no label" for name in self.fields - self.labels]

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
        if tag == "a" and "href" in attrs:
            self.link_words = attrs.get("aria-label", "") + attrs.get("alt", "")
            if "rel" in attrs:
                self.around[attrs["rel"]] = attrs["href"]
        if self.link_words is not None and tag == "img":
            self.link_words += attrs.get("alt", "")
        if tag == "label" and "for" in attrs:
            self.labels.add(attrs["for"])
        if tag == "input" and "label" not in self.open and "aria-label" not in attrs:
            self.fields.add(attrs["id"])
        self.scripts += tag == "script"
        # What is wider than the window is moved by the keyboard, too; no place is before its turn.
        if tag == "pre" or attrs.get("class") == "table":
            if (attrs.get("tabindex"), "aria-label" in attrs) != ("0", True):
                self.faults.append(f"<{tag}> cannot be reached by the keyboard")
        elif attrs.get("tabindex") not in (None, "-1", "0"):
            self.faults.append(f"<{tag}> has its own turn")
        for name in attrs:
            if name.startswith("on"):
                self.faults.append(f"<{tag}> needs a script")

    def handle_data(self, data):
        if self.open[-1:] == ["title"]:
            self.title += data
        elif "nav" not in self.open and self.open[-1:] != ["script"]:
            self.words.append(data)
        if self.link_words is not None:
            self.link_words += data

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if tag in ("p", "li", "tr", "td", "th") and tag not in self.open:
            self.faults.append(f"</{tag}> was not open")
        if tag == "a" and self.link_words is not None:
            if not self.link_words.strip():
                self.faults.append("a link has no words")
            self.link_words = None
        while self.open and self.open.pop() != tag:
            pass


@pytest.fixture(scope="module")
def made():
    """The site, as it is made here; its pages are made anew by the program that serves them."""
    return Site()


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
            content = answer.read()
            if answer.status != 200:
                missing.append(page)
            elif page.endswith(".html"):
                found[page] = Looked(content.decode())
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


def test_each_page_has_a_title_of_its_own_and_a_way_past_the_head(site):
    own = {page: looked for page, looked in site[0].items() if not page.startswith("/bugs/")}
    titles = [looked.title for looked in own.values()]
    assert len(set(titles)) == len(titles)
    for page, looked in own.items():
        assert looked.text.startswith('<!DOCTYPE html>\n<html lang="en">'), page
        assert "#text" in looked.links[:4], page  # after the style and the icon
        assert {"text", "chapters", "query"} <= looked.anchors, page


def test_the_search_lists_all_without_its_script(site, made):
    found, _ = site
    with_scripts = {page for page, looked in found.items() if looked.scripts}
    runs_are_shown = ("/bugs/", "/step-09", "/step-1")
    assert {each for each in with_scripts if not each.startswith(runs_are_shown)} == {"/find.html"}
    listed = {link.partition("#")[0] for link in found["/find.html"].links}
    assert set(made.places.values()) <= listed


def test_each_public_name_has_its_page(site, made):
    found, _ = site
    for module in ("corolib", *OTHERS, *OWN_MODULES):
        package = importlib.import_module(module)
        classes = [n for n, t in vars(package).items() if isinstance(t, type) and n[0] != "_"]
        own = [n for n in classes if getattr(package, n).__module__ == module]
        listed = getattr(package, "__all__", own)
        assert listed
        for name in listed:
            keys = [
                key for key in (name, f"{module.rpartition('.')[2]}.{name}") if key in made.names
            ]
            assert getattr(package, name) in [made.names[key].thing for key in keys], name
            for key in keys:
                assert "/" + made.places[f"reference/{key}.md"] in found, key
                assert made.names[key].line, key
    assert len(set(made.places.values())) == len(made.places)
    assert {f"/{place}" for place in made.places.values()} <= found.keys()


def test_the_commands_and_the_plugin_have_their_pages(made):
    line = made.texts["reference/command-line.md"]
    commands = set(re.findall(r"^  python3 -m corolib (demo \w+|\w+)", line, re.MULTILINE))
    assert commands | {"demo time"} == set(re.findall(r"^## `python3 -m corolib (.*)`", line, re.M))
    assert set(re.findall(r"--[a-z]+", " ".join([*SERVE, *RUN]))) <= set(
        re.findall(r"--[a-z]+", line)
    )
    assert line.count("--help") >= 7
    plugin = made.texts["reference/pytest-plugin.md"]
    fixtures = ("corolib_runner", "free_tcp_port", "network_pair")
    for name in (*pytest_corolib.INI, *fixtures, "clock=, timeout=, wall=, leaks="):
        assert name in plugin


# Errors ------------------------------------------------------------------------------------------


def test_every_exception_of_corolib_has_its_cure():
    rows = re.findall(
        r"^\| `(\w+)` \| `([\w.]+)` \| .+ \| .+ \|$", (GUIDE / "errors.md").read_text("utf-8"), re.M
    )
    found = {}
    for module in ("corolib", *OTHERS, *OWN_MODULES):
        for name, thing in vars(importlib.import_module(module)).items():
            if isinstance(thing, type) and issubclass(thing, BaseException) and name[0] != "_":
                if thing.__module__.startswith("corolib"):
                    found[name] = thing.__mro__[1].__name__
    assert {name: base.removeprefix("queue.") for name, base in rows} == found


def test_what_is_on_the_site_alone_is_linked_there(site):
    text = site[0]["/errors.html"].text
    for name, title in (("mistakes", "Wrong lines, right lines"), ("messages", "All messages")):
        assert f'<li><a href="reference/{name}.html">{title}</a>' in text.partition("<nav")[0]


def as_pattern(text):
    return ".*".join(map(re.escape, text.split("…")))


ELSE = re.compile(  # what Python itself says, and what is but the right line
    r"object|not defined|unsupported operand|too many values|argument|cannot 'yield from'"
    r"|not enough values|temporarily unavailable|event loop|Errno 98|no task can ever run again"
    r"|^  |context manager protocol|^In corolib[:,] |^Write `|^What needs asyncio's loop"
)


def test_each_mistake_has_its_right_line_and_what_is_said_is_among_all_messages(made):
    found = [each for part in made.mistakes.values() for each in part]
    assert len(found) == sum(map(len, mistakes.MISTAKES.values())) >= 80
    known = re.compile("|".join(as_pattern(each.text) for each in made.messages), re.DOTALL)
    for each in found:
        assert each.right, each.wrong
        assert not re.search("0x[0-9a-f]{6}|/tmp/", each.message)
        for line in each.message.splitlines():
            assert ELSE.search(line) or known.search(line), line
            shown = f"### `{each.wrong.splitlines()[-1].strip()}`"
            assert shown in made.texts["reference/mistakes.md"]


def test_most_of_what_explains_errors_is_shown_with_a_mistake(made):
    """What is left are parts of reports, and what takes more than a few lines to be told."""
    said = "\n".join(each.message for part in made.mistakes.values() for each in part)
    advice = [
        each.text
        for each in made.messages
        if each.kind == messages.SAID and each.module.startswith(messages.ADVICE)
    ]
    assert len(advice) >= 40
    unsaid = [each for each in advice if not re.search(as_pattern(each), said)]
    assert len(unsaid) <= len(advice) / 6, unsaid


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x):\n    raise ValueError(f'give {x} as a number')", "give … as a number"),
        ("def f(x):\n    text = 'give a number'\n    raise ValueError(text)", "give a number"),
        (
            "class C:\n    def m(self):\n"
            "        raise OSError(1, 'one' + ' file' if x else 'no such file')",
            "no such file",
        ),
        ("def f():\n    log().warning('%s: it ended at %.3f s', x)", "…: it ended at … s"),
    ],
)
def test_how_messages_are_found_in_sources(source, found):
    import ast

    texts = [
        text
        for _, function in messages.functions(ast.parse(source))
        for _, text in messages.in_function(function)
    ]
    assert found in texts


def test_names_of_other_libraries_are_all_there(made):
    page = made.texts["reference/other-names.md"]
    rows = list(other_names.rows())
    assert {"create_task", "start_soon", "maxsize", "ssl"} <= {name for _, name, _ in rows}
    assert page.count("\n| `") == len(rows)


# The tour -----------------------------------------------------------------------------------------


def test_the_tour_has_a_page_for_each_step_in_order(site, made):
    found, _ = site
    steps = [made.places[TOUR], *(made.places[file] for file in made.tour.titles)]
    assert len(steps) == 20
    for before, place, after in zip(steps, steps[1:], steps[2:], strict=False):
        assert found[f"/{place}"].around == {"prev": before, "next": after}
        assert {*steps} <= set(found[f"/{place}"].links)
    for number in range(1, 18):
        text = made.texts[f"demos/tour/step-{number:02}.md"]
        assert text.startswith(f"# Step {number}: ")
        for part in ("What it shows.", "What will it print?", "\n## Exercises\n", "**3.**"):
            assert part in text, (number, part)


def test_the_names_of_the_tour_are_its_own(site):
    linked = re.compile('class="name"')
    assert not linked.search(site[0]["/step-10.html"].text)
    assert linked.search(site[0]["/waits.html"].text)


def test_no_heading_of_the_tour_is_lost(made):
    for source in (TOUR, EXERCISES):
        for each in headings((pages.ROOT / source).read_text("utf-8")):
            if each.level > 1 and each.title != "The job":
                file, anchor = made.tour.moved[source, each.anchor]
                inside = {found.anchor for found in headings(made.texts[file])}
                assert not anchor or anchor in inside, each
                link = made.link(TOUR, f"{source.rpartition('/')[2]}#{each.anchor}")
                assert link.removesuffix(f"#{anchor}") == made.places[file]


def test_each_chapter_stands_in_the_index():
    files = {f"demos/guide/{path.name}" for path in GUIDE.glob("*.md")} - {pages.INDEX}
    assert files <= {file for _, part in pages.chapters() for file in part}


@pytest.mark.parametrize("library", ["markdown_it", "pytest"])
def test_a_package_that_is_missing_is_named(library):
    status, _, err = python(
        f"import sys; sys.modules[{library!r}] = None; import demos.guide.__main__"
    )
    assert (status, err.count("\n")) == (1, 1), err
    assert err.startswith(f"this demo needs {library}; in this checkout: pip install -e '.[")


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


# The players ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(made):
    return made.runs


def test_each_step_from_the_handlers_on_has_a_run(recorded):
    text = (pages.ROOT / TOUR).read_text("utf-8")
    steps = re.split(r"^## Step ", text, flags=re.MULTILINE)[9:]
    assert len(steps) == 9
    for step in steps:
        pictures = re.findall(r"^!.*/(\w+)\.svg", step, re.MULTILINE)
        assert any(run.picture in pictures for run in recorded), step.partition("\n")[0]
    assert all(f"/{run.picture}.svg" in text for run in recorded)


def test_a_recorded_step_says_what_has_happened(recorded):
    told = {}
    for run in recorded:
        state = State(run.tasks)
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
    # Bob's handler is not called to read before he has taken what he is owed: back-pressure.
    bob = re.findall(r"Client#3 wants to be called when fd \d+ can be (\w+)", told["handlers"][0])
    assert bob[:2] == ["read", "written"]
    assert set(bob[2:]) == {"written"}
    for picture in ("timers", "corolib"):
        assert re.search(r"The time that tick#\d waited for has come", told[picture][0])
    assert "resumes it at story.py:" in told["errors"][0]
    assert "by raising BusyError" in told["errors"][0]
    assert "main#2 cancels sleeper#1." in told["cancel"][0]
    assert "main#1 waited for the end of double#2, and" in told["join"][0]
    assert "as the thread asked for." in told["thread_wakes"][0]
    at_once, giving_way = (text.count("time that tick#") for text in told["compute"])
    assert at_once <= 1 < giving_way


def test_a_run_is_recorded_alike_each_time(recorded):
    def told(found):
        return {
            run.picture: [
                (event["kind"], event.get("task"), event.get("line")) for event in run.events
            ]
            for run in found
            if run.picture in ("errors", "cancel", "join")  # no times, no network
        }

    assert told(runs.runs()) == told(recorded)


def test_the_players_know_no_path_of_this_machine(recorded):
    packed = re.fullmatch(r'const RUNS = "(.*)";\n', runs.script_of(recorded))[1]
    assert len(packed) < 50_000
    text = zlib.decompress(base64.b64decode(packed)).decode()
    assert str(pages.ROOT) not in text
    assert "demos/tour/step10_generators.py" in json.loads(text)["source"]


def test_the_steps_that_have_a_run_have_players(site):
    found, _ = site
    have = [page for page, looked in found.items() if "player.js" in looked.links]
    assert sorted(have) == [f"/step-{number:02}.html" for number in range(9, 18)]


# In a browser -------------------------------------------------------------------------------------

QUESTIONS = {  # of newcomers, and a page that should be among the first three
    "timeout": "cancelling.html#timeouts-and-shields",
    "close connection": "reference/stream.html#streamclose",
    "graceful shutdown": "servers.html#stopping",
    "thread": "programs.html",
    "how do I cancel a task": "cancelling.html#cancelling-a-task",
    "read a line": "streams.html",
    "ssl certificate": "tls.html#renewing-a-certificate",
    "unix socket": "answers.html#a-server-on-a-unix-socket",
    "udp server": "datagrams.html",
    "sleep": "reference/sleep.html",
    "queue": "reference/queue.html",
    "call blocking function": "answers.html#call-a-function-that-blocks",
    "broadcast message to all clients": "answers.html#broadcast-to-all-clients",
    "run blocking code": "programs.html#blocking-code-threads-processes-futures",
    "two servers": "answers.html#two-servers-in-one-program",
    "stop on Ctrl-C": "cancelling.html#ctrl-c",
    "unit tests": "testing.html#unit-tests-without-pytest",
    "queue between tasks": "queues.html",
    "backpressure": "streams.html#a-slow-client-backpressure",
    "slow client": "streams.html#a-slow-client-backpressure",
    "subprocess": "programs.html#subprocesses",
    "websockets": "demos.html#programs-to-start-from",
    "retry": "answers.html#retry-with-growing-pauses",
    "deploy": "deploying.html",
    "rate limit": "answers.html#a-rate-limit",
    "signal handler": "programs.html#signals",
    "test without waiting": "answers.html#a-test-that-does-not-wait",
    "mutex": "queues.html",
    "deadlock": "tasks.html#deadlock",
    "performance": "speed.html",
    "pytest": "testing.html#with-pytest",
    "command line": "reference/command-line.html",
    "create_task": "reference/mistakes.html#create_taskslow",
    "AttributeError: 'generator' object has no attribute 'decode'": (
        "reference/mistakes.html#text--datadecode"
    ),
    "RuntimeError: no scheduler runs in this thread: call this from a task": (
        "reference/messages.html#m*"
    ),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("site")
    made.build(folder)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not FULL:
        pytest.skip("a browser is started under COROLIB_SWEEP=full")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser
        assert browser.complaints == []
    assert all(address.startswith(("file:", "data:", "about:")) for address in browser.requests)


def show(browser, address):
    """Open a page that says nothing when it is ready."""
    browser.tell("Page.navigate", url="about:blank")
    browser.tell("Page.navigate", url=address)
    browser.wait_for(
        f"document.readyState === 'complete' && location.href.startsWith({address[:60]!r})"
    )


def test_no_page_is_wider_than_the_window(browser, built):
    for width in (320, 400, 1400):
        browser.resize(width, 900)
        for page in sorted(built.rglob("*.html")):
            browser.tell("Page.navigate", url=page.as_uri())
            loaded = "document.readyState === 'complete'"
            browser.wait_for(f"{loaded} && location.href === {page.as_uri()!r}")
            assert browser.ask("document.documentElement.scrollWidth") <= width, page


def test_the_search_finds_what_newcomers_ask_for(browser, built):
    browser.resize(1200, 900)
    show(browser, (built / "find.html").as_uri())
    browser.wait_for("typeof search === 'function'")
    missed = {}
    for question, expected in QUESTIONS.items():
        found = browser.ask(f"search({question!r}).slice(0, 3).map((entry) => entry[2])")
        pattern = expected.replace("*", r"\d+") + ("" if "#" in expected else "(#.*)?")
        if not any(re.fullmatch(pattern, address) for address in found):
            missed[question] = found
    assert missed == {}
    assert browser.ask("search('zzzyx').length") == 0


FOCUSED = """(() => {
    const it = document.activeElement, box = it.getBoundingClientRect();
    const style = getComputedStyle(it);
    const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
    const there = box.width > 0 && box.right > 0 && box.bottom > 0 && box.top < innerHeight;
    return [it.tagName, it.id || it.getAttribute('href') || '', seen && there];
})()"""
REACHABLE = """[...document.querySelectorAll('a[href], button, input, summary, [tabindex="0"]')]
    .filter((it) => it.checkVisibility()).length"""


@pytest.mark.parametrize("width", [400, 1300])
@pytest.mark.parametrize("page", ["index.html", "step-05.html", "reference/queue.html"])
def test_the_keyboard_alone_reaches_everything_in_order_and_is_seen(browser, built, page, width):
    browser.resize(width, 900)
    show(browser, (built / page).as_uri())
    count = browser.ask(REACHABLE)
    reached = []
    for _ in range(count):
        browser.press("Tab")
        reached.append(browser.ask(FOCUSED))
    assert reached[0][:2] == ["A", "#text"]
    assert [tag for tag, _, _ in reached[1:4]] == ["A", "INPUT", "BUTTON"]
    assert [each for each in reached if not each[2]] == []
    assert len(reached) == count > 30


def test_a_run_of_the_tour_is_gone_through_event_by_event(browser, built, recorded):
    browser.resize(1300, 900)
    count = 0
    for number in range(9, 18):
        browser.open((built / f"step-{number:02}.html").as_uri())
        count += browser.ask("document.querySelectorAll('.player').length")
    assert count == len(recorded)
    browser.open((built / "step-10.html").as_uri())
    says = "document.querySelector('.player .sentence').textContent"
    assert browser.ask(says) == "The run begins."
    browser.ask("document.querySelector('.player .forth').click()")
    assert browser.ask(says).startswith("accept_clients#1 is made at")
    browser.ask("document.querySelector('.player .forth').focus()")
    browser.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert browser.ask(says) == "accept_clients#1 is next: the scheduler starts it."


def test_the_page_of_each_bug_shows_what_its_answer_speaks_of(browser, built):
    def ask(name, wanted, what):
        browser.open(f"{(built / 'bugs' / f'{name}.html').as_uri()}#i=0")
        browser.ask(f"page.go(page.events.findIndex((e, n) => {wanted}))")
        return browser.ask(what)

    rows = "[...document.querySelectorAll('#variables tbody tr')].map((it) => it.textContent)"
    tags = "[...document.querySelectorAll('#source .tags > span')].map((it) => it.textContent)"
    browser.resize(1400, 900)
    # All three have read the same total.
    found = ask("till", "e.kind === 'yield' && e.task === 4", rows)
    assert found == ["#21000", "#31000", "#41000"]
    found = ask("till", "e.kind === 'mark' && e.task === 2", tags)
    assert "#2is here" in found
    assert "#1waiting here" in found
    found = ask("orders", "e.kind === 'yield' && e.task === 2", tags)
    assert found[0] == "#2waiting here"
    assert "#2is inside this call" in found
    found = ask("orders", "e.kind === 'lint'", tags)
    assert found[-2] == "#2will not run this call"
    assert sum("#2" in each and "waiting here" in each for each in found) == 1
    found = ask("printer", "e.kind === 'over' && e.task === 4", tags)
    assert "#4failed here" in found
    found = ask("sums", "e.kind === 'step' && e.task === 4 && e.n === 2", tags)
    assert found[:2] == ["#4went on from here", "#5#6will go on here"]
    found = ask("transfers", "e.kind === 'deadlock'", tags)
    assert found[0] == "#2#3waiting here"


def test_the_head_can_be_skipped_and_the_search_is_done_by_keyboard(browser, built):
    browser.resize(1300, 900)
    show(browser, (built / "tasks.html").as_uri())
    browser.press("Tab", "Enter")
    assert browser.ask("document.activeElement.id") == "text"
    show(browser, (built / "tasks.html").as_uri())
    browser.press("Tab", "Tab", "Tab")
    browser.write("deadlock")
    browser.press("Enter")
    browser.wait_for("document.getElementById('found')?.textContent.includes('places')")
    assert browser.ask("document.getElementById('query').value") == "deadlock"
    assert browser.ask("document.querySelector('#results a').textContent") == "Deadlock"


CONTRASTS = """(() => {
    const light = (text) => {
        const parts = text.match(/[\\d.]+/g).map(Number);
        const [r, g, b] = parts.slice(0, 3).map((each) => {
            const part = each / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return [0.2126 * r + 0.7152 * g + 0.0722 * b, parts[3] ?? 1];
    };
    const ground = (it) => {
        for (; it; it = it.parentElement) {
            const [sum, seen] = light(getComputedStyle(it).backgroundColor);
            if (seen === 1) return sum;
        }
        return 1;
    };
    const poor = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const it = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || !it.checkVisibility()) continue;
        const pair = [light(getComputedStyle(it).color)[0], ground(it)].sort((a, b) => b - a);
        if ((pair[0] + 0.05) / (pair[1] + 0.05) < 4.5) poor.push([it.tagName, it.className]);
    }
    return poor;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_each_word_can_be_read_on_its_ground(browser, built, dark):
    browser.resize(1200, 900, dark)
    for page in ("index", "step-10", "find", "faults", "reference/mistakes", "reference/contents"):
        show(browser, (built / f"{page}.html").as_uri())
        assert browser.ask(CONTRASTS) == [], page


def test_what_is_printed_is_the_text(browser, built):
    browser.resize(1000, 900)
    browser.tell("Emulation.setEmulatedMedia", media="print")
    try:
        show(browser, (built / "servers.html").as_uri())
        shown = "(it) => document.querySelector(it).checkVisibility()"
        seen = browser.ask(f"['main h1', 'main pre', 'header', '#chapters', '.skip'].map({shown})")
        assert seen == [True, True, False, False, False]
        cut = (
            "[...document.querySelectorAll('pre')].filter((it) => it.scrollWidth > it.clientWidth)"
        )
        assert browser.ask(f"{cut}.length") == 0
    finally:
        browser.tell("Emulation.setEmulatedMedia", media="")


# How it is made -----------------------------------------------------------------------------------


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
    assert 'href="&lt;name:spawn&gt;" class="name"><code class="short">spawn()</' in page.html
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
