"""The catalogue of faults, `demos/guide/faults.md`, is held against the tests.

- Every number that a test bears, as a hazard or as a found fault, stands on the page.
- Every hazard, and every found fault, has a test that bears its number.
- The modules that hold something are there, and the functions are public.

The sources of the tests are read with `ast`. A mark counts for the test function that it decorates,
also if it stands in a `pytest.param`.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

import corolib

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "demos" / "guide" / "faults.md"
PAGE = FILE.read_text("utf-8")
MARKS = ("pytest.mark.hazard", "pytest.mark.found")
LETTERS = "NTDE"  # of the numbers of found faults, in the order of the page
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+) \| (.+) \| ([ABC]) \|$", re.MULTILINE)


class Section(NamedTuple):
    """The part of the page that is about one hazard."""

    number: str
    title: str
    text: str

    @property
    def places(self):
        """What it names after `Held in`: modules, as `kernel/poller`, and public functions."""
        (line,) = re.findall(r"^\*\*Held\*\* in (.+)\.$", self.text, re.MULTILINE)
        return re.findall(r"`([^`]+)`", line)


def sections_of(text):
    """Return the sections of a page, by number."""
    found = {}
    for part in re.split(r"^(?=##)", text, flags=re.MULTILINE):
        heading = re.match(r"### ([A-Z]\d+) · (.+)\n", part)
        if heading:
            assert heading[1] not in found, f"{heading[1]} has two sections"
            found[heading[1]] = Section(*heading.groups(), part)
    return found


def numbers_in(node):
    """Return the numbers that marks give in a piece of source."""
    return {
        ast.literal_eval(call.args[0])
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)  # what is written out below takes its time
        and ast.unparse(call.func) in MARKS
    }


def bearers(sources):
    """Return who bears each number: the names of test functions. A mark that decorates none leaves
    its number without a name.
    """
    found = defaultdict(set)
    for source in sources:
        if "pytest.mark." not in source:
            continue
        tree = ast.parse(source)
        for number in numbers_in(tree):
            found[number] |= set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for decorator in node.decorator_list:
                    for number in numbers_in(decorator):
                        found[number].add(node.name)
    return dict(found)


HAZARDS = sections_of(PAGE)
FOUND = [row[0] for row in ROW.findall(PAGE)]
BORNE = bearers(path.read_text("utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))


def test_the_numbers_count_up_without_a_gap():
    assert list(HAZARDS) == [f"H{n:02}" for n in range(1, 80)]
    counts = [sum(number[0] == letter for number in FOUND) for letter in LETTERS]
    expected = [
        f"{letter}{n}"
        for letter, count in zip(LETTERS, counts, strict=True)
        for n in range(1, count + 1)
    ]
    assert len(FOUND) >= 65
    assert expected == FOUND


def test_what_stands_on_the_page_has_a_test_and_the_other_way_round():
    borne = {number for number, names in BORNE.items() if names}
    assert sorted({*HAZARDS, *FOUND} - borne) == []
    assert sorted(BORNE.keys() - {*HAZARDS, *FOUND}) == []


def test_functions_that_hold_something_are_public():
    places = {place for section in HAZARDS.values() for place in section.places}
    functions = {place.removesuffix("()") for place in places if "/" not in place}
    assert functions <= set(corolib.__all__)


def test_modules_that_are_named_exist():
    package = ROOT / "corolib"
    there = {str(path.relative_to(package).with_suffix("")) for path in package.rglob("*.py")}
    places = {place for section in HAZARDS.values() for place in section.places}
    assert sorted(place for place in places if "/" in place and place not in there) == []


def test_every_section_has_its_parts():
    for section in HAZARDS.values():
        parts = re.findall(r"^\*\*(.+?)\*\*", section.text, re.MULTILINE)
        assert parts == ["Wrong:", "Here:", "Held"], section.number


def test_numbers_that_the_text_refers_to_exist():
    named = set(re.findall(rf"\b(?:H\d\d|[{LETTERS}]\d+)\b", PAGE))
    assert sorted(named - {*HAZARDS, *FOUND}) == []


def anchor(heading):
    """Return where a link to a heading leads, as GitHub makes it."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_contents_lead_to_the_headings():
    _, contents, rest = re.split(r"^## Contents$|^(?=## A · )", PAGE, flags=re.MULTILINE)
    headings = re.findall(r"^##+ (.+)$", rest, re.MULTILINE)
    links = re.findall(r"\[([^]]+)\]\((#[^)]+)\)", contents)
    assert links == [(heading, anchor(heading)) for heading in headings]


def test_links_lead_to_files_that_exist():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE)
    assert targets
    for target in targets:
        assert (FILE.parent / target).exists(), target


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("@pytest.mark.hazard('H01')\ndef test_a(): ...", {"H01": {"test_a"}}),
        ("@pytest.mark.found('T1')\n@other\ndef test_a(): ...", {"T1": {"test_a"}}),
        (
            "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.hazard('H01'))])\n"
            "def test_a(x): ...",
            {"H01": {"test_a"}},
        ),
        (
            "class TestA:\n    @pytest.mark.found('N1')\n    def test_a(self): ...",
            {"N1": {"test_a"}},
        ),
        ("pytestmark = pytest.mark.hazard('H01')\ndef test_a(): ...", {"H01": set()}),
        ("def test_a(): ...", {}),
    ],
)
def test_the_reader_of_marks_sees_every_kind(source, found):
    assert bearers([source]) == found
