"""The pictures: each is what a run gives today; its words are apart, its colours can be told."""

import re
import sys
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from demos import drawing
from demos.drawing import COLOURS, MARGIN, SIZES, SOLIDS, TEXTS, WIDTH, contrast, width_of
from demos.models import phases
from demos.models.ready import CALLS, Cost
from demos.pictures import compute, draw, edge, lanes, replay, story
from demos.pictures.__main__ import OTHERS
from demos.pictures.moment import NAMES, Moment, Wait, moments, steps, title_of
from tests.helpers.browser import CHROMIUM
from tests.helpers.driving import FULL
from tests.helpers.programs import ROOT, outcome

TOUR = ROOT / "demos" / "tour"
PICTURES = ROOT / "demos" / "pictures"
MODELS = ROOT / "demos" / "models"
SVG = "{http://www.w3.org/2000/svg}"
DRAWN = [*sorted(PICTURES.glob("*.svg")), *sorted(MODELS.glob("*.svg"))]
LOOPS = ("callbacks", "handlers", "generators", "timers", "corolib")
AGAIN = "draw them anew: python3 -m demos.pictures"

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is read from /proc")


def read(path):
    return path.read_text("utf-8")


def normalised(picture):
    """Return a picture without its numbers, which are times, or come from times."""
    return re.sub(r"\d+(\.\d+)?( m?s\b)?", "#", picture)


def boxes(picture):
    """Return each text with the box in which it is: left, top, right, bottom."""
    found = []
    for each in ElementTree.fromstring(picture).iter(f"{SVG}text"):
        kind = each.get("class", "").split()[0]
        width = width_of(each.text, kind)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[each.get("text-anchor", "start")]
        left, base = float(each.get("x")) - shift * width, float(each.get("y"))
        top, bottom = base - 0.75 * SIZES[kind], base + 0.22 * SIZES[kind]
        found.append((each.text, left, top, left + width, bottom))
    return found


def assert_apart(picture):
    """Find that no text reaches over another one, or over the edge."""
    placed = boxes(picture)
    height = float(ElementTree.fromstring(picture).get("height"))
    for number, (words, left, top, right, bottom) in enumerate(placed):
        assert left >= MARGIN - 4 and right <= WIDTH - MARGIN + 4, words
        assert top >= 0 and bottom <= height, words
        for other, *box in placed[:number]:
            beside = right <= box[0] or box[2] <= left
            assert beside or bottom <= box[1] or box[3] <= top, (words, other)


# Colours ------------------------------------------------------------------------------------------


def test_contrast_is_that_of_wcag():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == contrast("#ffffff", "#777777")
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # known to fail, just
    assert contrast("#ff0000", "#ffffff") == pytest.approx(4.0, abs=0.005)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_from_what_they_stand_on(scheme):
    """WCAG 2 AA: 4.5 to 1 for text, 3 to 1 for what has a meaning."""
    colour = {name: pair[scheme] for name, pair in COLOURS.items()}
    for ground in ("ground", "panel"):
        for name in TEXTS:
            assert contrast(colour[name], colour[ground]) >= 4.5, (name, ground)
        for name in {*SOLIDS, "wait", "edge"}:
            assert contrast(colour[name], colour[ground]) >= 3, (name, ground)
    for name in SOLIDS:
        assert contrast(colour["inside"], colour[name]) >= 4.5, name


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_a_picture_has_colours_for_both_schemes_words_for_all_and_room_for_its_text(path):
    picture = read(path)
    root = ElementTree.fromstring(picture)
    assert (root.find(f"{SVG}title").text or "") != ""
    assert len(root.find(f"{SVG}desc").text) > 40
    assert drawing.style() in picture.replace("&gt;", ">")
    assert "prefers-color-scheme: dark" in picture
    used = {
        name.removesuffix("-line") for each in root.iter() for name in each.get("class", "").split()
    }
    assert used - set(SIZES) <= set(COLOURS)
    texts = [each.get("class", "").split()[-1] for each in root.iter(f"{SVG}text")]
    assert set(texts) <= {*TEXTS, "inside"}
    assert_apart(picture)


def test_words_that_reach_over_others_are_found():
    good = drawing.document(100, "Title", "about", [drawing.text(MARGIN, 60, "some words")])
    assert_apart(good)
    for bad in ((MARGIN, 66, "other words"), (MARGIN, 120, "below"), (400, 90, "w" * 20)):
        with pytest.raises(AssertionError):
            parts = [drawing.text(MARGIN, 60, "some words"), drawing.text(*bad)]
            assert_apart(drawing.document(100, "Title", "about", parts))
    assert drawing.shortened("a long story", width_of("a long")) == "a lon…"
    assert drawing.shortened("a long story", 1000) == "a long story"
    assert drawing.shortened("a long story", 0) == "…"


# The steps ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_of():
    """One run of all steps, each in a process of its own."""
    return moments()


def test_every_step_has_its_picture_and_there_are_no_others():
    assert len(steps()) + len(OTHERS) - 1 == len(sorted(TOUR.glob("step*_*.py"))) - 1
    assert {path.stem for path in PICTURES.glob("*.svg")} == {*steps(), *OTHERS}
    for words in re.split(r"^## ", read(TOUR / "README.md"), flags=re.MULTILINE):
        assert not words.startswith("Step") or ".svg)" in words, words[:60]


@pytest.mark.parametrize("name", story.STORIES)
def test_a_story_is_told_by_each_run_alike(name):
    assert story.draw(name) == read(PICTURES / f"{name}.svg"), AGAIN


@linux
def test_level_and_edge_are_drawn_from_the_step():
    assert edge.draw() == read(PICTURES / "edge.svg"), AGAIN
    buffers = [[look.buffer for look in looks] for looks in edge.record().values()]
    assert buffers[0] == ["HelloWorld", "World", "", "Again"]
    assert buffers[1] == ["HelloWorld", "World", "World", "WorldAgain"]
    assert buffers[2] == ["HelloWorld", "", "", "Again"]


def test_a_task_that_computes_keeps_the_other_one_from_its_ticks():
    at_once, giving_way = ways = compute.measure(3000)
    assert at_once.ticks == 0
    assert [step.task for step in at_once.steps].count("at_once") == 1
    assert [step.task for step in giving_way.steps].count("giving_way") == 31
    without = r"<rect[^>]*>|\d+"
    drawn, kept = compute.draw(ways), read(PICTURES / "compute.svg")
    assert re.sub(without, "", drawn).split() == re.sub(without, "", kept).split(), AGAIN


@linux
@pytest.mark.parametrize("name", steps())
def test_the_picture_of_a_step_is_what_its_run_gives(run_of, name):
    assert draw.draw(run_of[name]) == read(PICTURES / f"{name}.svg"), AGAIN


@linux
def test_what_is_seen_of_a_run_is_so(run_of):
    first = run_of["one_at_a_time"]
    assert [(wait.on, wait.call) for wait in first.waits] == [("Ann", "conn.recv(65536)")]
    assert first.queue == ("Bob", "Cleo", "Dan") and first.unheard() == ["listener"]
    for name, kind in (("processes", "process"), ("threads", "thread")):
        waits = {wait.on: (wait.kind, wait.call) for wait in run_of[name].waits}
        assert waits == {
            "listener": (kind, "listener.accept()"),
            "Ann": (kind, "conn.recv(65536)"),
            "Bob": (kind, "conn.sendall(data)"),
            "Cleo": (kind, "conn.recv(65536)"),
        }
        assert not run_of[name].selector
    assert run_of["polling"].asked() == {} and run_of["polling"].unheard() == [
        "listener",
        "Bob",
        "Cleo",
    ]
    for name in LOOPS:
        found = run_of[name]
        assert list(found.selector) == ["listener", "Ann", "Bob", "Cleo"]
        assert {"listener", "Cleo"} <= set(found.ready())
    ways = {name: found.selector["Bob"][0] for name, found in run_of.items() if found.selector}
    assert ways["select"] == ways["poll"] == ("read", "write")  # its queue grows
    assert ways["callbacks"] == ("read",)  # what did not fit is lost
    assert ways["handlers"] == ways["generators"] == ways["corolib"] == ("write",)


@linux
def test_the_selector_has_what_the_tasks_wait_for(run_of):
    """Two sources: the frames of the generators, and what the kernel says of epoll."""
    for name in ("generators", "timers", "corolib"):
        tasks = {
            wait.on: ("write" if "Write" in wait.call else "read",)
            for wait in run_of[name].waits
            if wait.kind == "task" and wait.on
        }
        assert tasks == {who: ways for who, (ways, _) in run_of[name].selector.items()}


def test_a_title_has_neither_a_number_nor_marks():
    for name, module in steps().items():
        assert not re.search(r"[Ss]tep|`|;", title_of(module)), name


def test_a_picture_of_any_moment_has_room_for_its_text():
    long = "a_function_of_a_very_long_name"
    call = "yield ReadWait(a_socket_of_a_very_long_name)"
    everyone = dict.fromkeys(NAMES, (True, False))
    for waits in ((), (Wait(long[:14], call, call, "Ann", "task"),) * 2):
        selector = dict.fromkeys(("listener", *NAMES), (("read", "write"), ""))
        for asked in ({}, selector):
            for queue in ((), NAMES[:3]):
                found = Moment("A title " * 10, waits, asked, everyone, queue)
                assert_apart(draw.draw(found))
    empty = draw.draw(Moment("Nothing", (), {}, {}, ()))
    assert "its queue is empty" in empty and "There is no selector." in empty
    assert "Ready" not in empty and "Nobody" not in empty


@linux
def test_the_command_draws_what_it_is_asked_for(tmp_path):
    into = f"--into={tmp_path}"
    status, out, err = outcome("demos.pictures", "generators", into)
    assert (status, out, err) == (0, "generators.svg\n", "")
    assert read(tmp_path / "generators.svg") == read(PICTURES / "generators.svg")
    status, out, err = outcome("demos.pictures", "missing", into)
    assert (status, out) == (1, "") and err.startswith("missing is not among ")
    nowhere = tmp_path / "nowhere"
    told = (1, "", f"{nowhere}: there is no such folder\n")
    assert outcome("demos.pictures", "edge", f"--into={nowhere}") == told


# Lanes, phases, costs -----------------------------------------------------------------------------


def test_the_page_of_a_run_is_shown_where_an_echo_goes_on(tmp_path):
    event = replay.record(tmp_path / "page.html")
    assert event["kind"] == "step"
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.skipif(not FULL, reason="a browser is started under COROLIB_SWEEP=full")
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_of_a_run_is_drawn(tmp_path):
    assert outcome("demos.pictures.replay", f"--into={tmp_path}") == (0, "replay.png\n", "")
    drawn = (tmp_path / "replay.png").read_bytes()
    assert drawn[16:24] == (PICTURES / "replay.png").read_bytes()[16:24], "it is as large as that"


def test_three_tasks_in_three_lanes():
    alone, threads, events = found = lanes.measure(0.1)
    assert normalised(lanes.draw(found)) == normalised(read(PICTURES / "lanes.svg")), AGAIN
    for lane in found:
        assert [s.task for s in lane.segments] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert max(s.ended for s in lane.segments) <= lane.seconds
    waits = [0.1 * sum(pauses) for pauses in lanes.WAITS]
    assert alone.seconds >= sum(waits)
    assert threads.seconds >= max(waits) and events.seconds >= max(waits)
    for lane in (alone, events):  # one thread: never two at the same time
        times = sorted((s.began, s.ended) for s in lane.segments)
        assert all(one[1] <= two[0] for one, two in pairwise(times))
    order = [s.task for s in sorted(events.segments, key=lambda s: s.began)]
    assert order[:3] == [0, 1, 2]  # each begins before the first one's wait is over


def test_two_phases_in_five_models():
    five = phases.measure(0.005)
    assert normalised(phases.draw(five)).replace("helper threads", "io_uring") == normalised(
        read(MODELS / "phases.svg")
    ), "draw it anew: python3 -m demos.models.phases --svg demos/models/phases.svg"
    assert [each.name for each in five] == [
        "blocking",
        "non-blocking",
        "multiplexing",
        "signal-driven",
        "asynchronous",
    ]
    assert [each.first for each in five] == ["asleep", "asking", "asleep", "free", "free"]
    assert all(each.waited > 0 and each.copied > 0 for each in five)
    assert [each.number > 0 for each in five] == [False, True, False, True, True]
    blocked = [each.second == "recv() copies" for each in five]
    assert blocked == [True, True, True, True, False]  # what POSIX calls synchronous
    assert phases.spell(0.0304) == "30.4 ms" and phases.spell(0.00003) == "0.030 ms"


def test_labels_of_curves_that_end_together_are_apart():
    from demos.models.lines import draw as draw_lines

    for last in ((30.0, 31.0, 32.0), (32.0, 31.0, 1.0), (None, 90.0, 89.0)):
        rows = [Cost(10, (3.0, 2.9, 1.0)), Cost(400, (29.0, 30.0, 31.0)), Cost(1500, last)]
        assert_apart(draw_lines(rows, CALLS))


# Pages --------------------------------------------------------------------------------------------


def images(page):
    """Return the pictures of a page, each with the words that stand for it."""
    found = re.findall(r"!\[([^\]]*)\]\(([^)]+\.svg)\)", read(page))
    return [(words, (page.parent / path).resolve()) for words, path in found]


def test_the_pages_of_the_tour_show_each_picture_once_with_words():
    found = [each for page in sorted(TOUR.glob("**/*.md")) for each in images(page)]
    assert sorted(path for _, path in found) == sorted(PICTURES.glob("*.svg"))
    assert all(len(words) > 20 for words, _ in found)


def test_the_first_picture_of_the_front_page_is_one_of_them():
    words, path = images(ROOT / "README.md")[0]
    assert path in PICTURES.glob("*.svg") and len(words) > 20
    assert {MODELS / "phases.svg", MODELS / "ready.svg", MODELS / "picture.svg"} == {
        path for _, path in images(MODELS / "README.md")
    }
