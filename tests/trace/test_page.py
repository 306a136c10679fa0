"""The page: what is in it, and that its reducer and its sentences are those of Python."""

import base64
import json
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

import corolib.trace
from corolib import run, spawn
from corolib.trace import State, Trace, mark, sentence, write
from corolib.trace.events import EVENTS
from corolib.trace.sentences import WORDS, span
from tests.helpers.driving import FULL, turns
from tests.helpers.random_programs import program
from tests.trace.test_events import traced

PAGE = Path(corolib.trace.__file__).parent / "assets"
NODE = shutil.which("node")
MANY = 200 if FULL else 20

DRIVER = """
const fs = require("fs");
const load = new Function(fs.readFileSync(process.argv[2], "utf-8")
  + "; return { unpack, eventsOf, State, sentence, findCycle, span, untilInWords };");
const { unpack, eventsOf, State, sentence, findCycle, span, untilInWords } = load();
const sizes = [0, 1, 999, 1000, 1499, 1500, 999499, 999500, 2500000, 999949999, 999950000];
async function read(path) {
  const page = fs.readFileSync(path, "utf-8");
  const data = await unpack(page.match(/<script type="text.plain" id="data">([^<]*)</)[1].trim());
  data.events = eventsOf(data);
  const state = new State(data.header.tasks);
  const views = {}, sentences = [];
  for (const event of data.events) {
    state.apply(event);
    sentences.push(sentence(event, state, data));
    if (event.i % 37 === 0) views[event.i] = state.copy().view();
  }
  return { events: data.events, sentences, views, cycle: findCycle(state.waitsFor()),
           spans: sizes.map(span), sizes, last: state.view(),
           sleeps: [9e6, 6.9e6, NaN].map((now) => untilInWords(5e6, now)) };
}
(async () => {
  for (const path of process.argv.slice(3)) console.log(JSON.stringify(await read(path)));
})();
"""


def data_of(page):
    """Return what a page has packed."""
    packed = re.search(r'<script type="text/plain" id="data">([^<]*)<', page)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_page_asks_no_network_and_takes_nothing_of_the_program_for_markup(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"

    def main():
        spawn(turns, 2, name=evil)
        mark(evil, x=evil)
        yield

    path = tmp_path / "out.html"
    run(main, trace=path)
    page = path.read_text("utf-8")
    assert evil not in page
    assert "Content-Security-Policy\" content=\"default-src 'none';" in page
    for word in ("http", "//cdn", "import(", "fetch(", "innerHTML", "insertAdjacent", "eval("):
        assert word not in re.sub(r'id="data">[^<]*<|http-equiv', "", page), word
    data = data_of(page)
    assert data["header"]["tasks"]["2"][0] == evil
    assert list(data["kinds"]) == list(EVENTS)
    assert "@@" not in page


def test_a_page_keeps_the_last_events_only(tmp_path, monkeypatch):
    monkeypatch.setattr("corolib.trace.traces.PAGE_KEEPS", 30)
    run(turns, 50, trace=tmp_path / "out.html")
    data = data_of((tmp_path / "out.html").read_text("utf-8"))
    assert len(data["rows"]) == 30
    assert data["header"]["dropped"] == data["first"] > 0
    trace = Trace()
    assert data_of(Path(trace.dump(tmp_path / "none.html")).read_text("utf-8"))["rows"] == []


def test_every_kind_of_event_has_words():
    assert {key.split()[0] for key in WORDS} == set(EVENTS)


def odd_names():
    """A program with names that each object has in JavaScript."""

    def main():
        constructor = 1
        yield
        raise type("constructor", (Exception,), {})(constructor)

    return main


@pytest.mark.skipif(NODE is None, reason="the page's reducer is run by node, which is not here")
def test_the_pages_reducer_and_sentences_are_pythons(tmp_path):
    (tmp_path / "driver.js").write_text(DRIVER, "utf-8")
    traces = [traced(program(seed), trace=Trace(values=seed % 2 == 0)) for seed in range(MANY)]
    traces.append(traced(program(MANY), trace=Trace(last=50, stacks=True)))
    traces.append(traced(odd_names(), trace=Trace(values=True)))
    paths = []
    for n, trace in enumerate(traces):
        path = tmp_path / f"{n}.html"
        write(str(path), trace.header, trace.events)
        paths.append(path)
    command = [NODE, tmp_path / "driver.js", PAGE / "reducer.js", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(traces)
    for trace, line in zip(traces, lines, strict=True):
        theirs = json.loads(line)
        events, header = trace.events, trace.header
        assert theirs["events"] == json.loads(json.dumps(events))
        state = State(header["tasks"])
        for event, said in zip(events, theirs["sentences"], strict=True):
            state.apply(event)
            assert sentence(event, state, header["code"]) == said
            if event["i"] % 37 == 0:
                assert theirs["views"][str(event["i"])] == json.loads(json.dumps(state.view()))
        assert theirs["last"] == json.loads(json.dumps(state.view()))
        assert theirs["sleeps"] == ["until 5.0 ms: overdue", *["until 5.0 ms"] * 2]
        assert theirs["spans"] == [span(ns) for ns in theirs["sizes"]]


# Contrast -----------------------------------------------------------------------------------------


def luminance(color):
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one, other):
    """Return the contrast of two colours, as WCAG 2 defines it."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def hsl(hue, saturation, lightness):
    import colorsys

    return colorsys.hls_to_rgb(hue / 360, lightness / 100, saturation / 100)


def themes():
    """Yield the variables of each theme of the style sheet."""
    css = (PAGE / "page.css").read_text("utf-8")
    found = {}
    for selector in (r":root", r':root\[data-theme="dark"\]'):
        block = re.search(rf"^{selector} {{(.*?)^}}", css, re.MULTILINE | re.DOTALL)[1]
        found = {**found, **dict(re.findall(r"--([\w-]+): ([^;]+);", block))}
        yield found


def rgb(text):
    return [int(text[n : n + 2], 16) / 255 for n in (1, 3, 5)]


def test_all_text_has_enough_contrast_in_both_themes():
    for theme in themes():
        for back in ("back", "panel", "shade", "mark"):
            for text in ("text", "soft", "accent", "bad"):
                found = contrast(rgb(theme[text]), rgb(theme[back]))
                assert found >= 4.5, (text, back, found)
        assert contrast(rgb(theme["text"]), rgb(theme["line"])) >= 4.5  # a length in the lanes
        assert contrast(rgb(theme["back"]), rgb(theme["accent"])) >= 4.5  # a button that is pressed
        numbers = {
            name: float(theme[name].rstrip("%")) for name in theme if name.startswith("chip")
        }
        for hue in range(360):
            text = hsl(hue, 85, numbers["chip-text-l"])
            for saturation in (numbers["chip-s"], 0):
                found = contrast(text, hsl(hue, saturation, numbers["chip-l"]))
                assert found >= 4.5, (hue, found)
