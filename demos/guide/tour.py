"""The tour on the site: a page for each step, with its exercises at the end.

In the repository the tour is one text, `demos/tour/README.md`, and the exercises are another. Here
both are cut at their headings. A page of the site that is no file of its own is named by the place
that the file would have: `demos/tour/step-03.md`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from demos.guide.rendering import Heading, headings

FOLDER = "demos/tour"
TOUR, EXERCISES = f"{FOLDER}/README.md", f"{FOLDER}/exercises.md"
STEP = re.compile(r"Step (\d+): ")


class Cut(NamedTuple):
    """A stretch of a text from one heading of the second level to the next: its title, its text
    without that heading, and all headings in it.
    """

    title: str
    anchor: str
    text: str
    headings: list[Heading]


class Tour(NamedTuple):
    """The pages: `texts` and `titles` by their files, and where the headings of the two texts have
    gone, each a file and an address in it.
    """

    texts: dict[str, str]
    titles: dict[str, str]
    moved: dict[tuple[str, str], tuple[str, str]]


def cut(text: str) -> tuple[str, list[Cut]]:
    """Return what stands before the first heading of the second level, and the rest cut at these.
    What follows such a heading moves up one level.
    """
    found = headings(text)
    lines = text.splitlines()
    for each in found:
        lines[each.line] = lines[each.line].removeprefix("#")
    starts = [each for each in found if each.level == 2]
    ends = [each.line for each in starts[1:]] + [len(lines)]
    begin = "\n".join(text.splitlines()[: starts[0].line]) + "\n"
    parts = []
    for start, end in zip(starts, ends, strict=True):
        inside = [each for each in found if start.line <= each.line < end]
        body = "\n".join(lines[start.line + 1 : end]) + "\n"
        parts.append(Cut(start.title, start.anchor, body, inside))
    return begin, parts


def tour(root: Path) -> Tour:
    """Return the pages of the tour."""
    begin, parts = cut((root / TOUR).read_text("utf-8"))
    about, exercises = cut((root / EXERCISES).read_text("utf-8"))
    tasks = {number_of(each.title): each for each in exercises}
    texts, titles, moved = {TOUR: begin}, dict[str, str](), dict[tuple[str, str], tuple[str, str]]()
    for part in parts:
        number = number_of(part.title)
        if not number and not titles:  # what is before the first step stands on the first page
            texts[TOUR] += f"## {part.title}\n{part.text}\n"
            continue
        file = f"{FOLDER}/step-{number:02}.md" if number else f"{FOLDER}/{part.anchor}.md"
        text = f"# {part.title}\n{part.text}"
        programs = dict.fromkeys(re.findall(r"^<!-- from (\w+\.py) -->$", part.text, re.MULTILINE))
        if programs:
            links = ", ".join(f"[{name}]({name})" for name in programs)
            text += f"\n**The whole program:** {links}.\n"
        if number in tasks:
            text += f"\n## Exercises\n{tasks[number].text}"
            moved[EXERCISES, tasks[number].anchor] = file, "exercises"
        texts[file], titles[file] = text, part.title.replace("`", "")
        moved |= {(TOUR, each.anchor): (file, each.anchor) for each in part.headings}
        moved[TOUR, part.anchor] = file, ""
    listed = "\n".join(
        f"- [{title}]({file.removeprefix(f'{FOLDER}/')})" for file, title in titles.items()
    )
    about = about.partition("\n")[2]
    texts[TOUR] += f"\n## The Steps\n\n{listed}\n\n## The exercises\n{about}"
    moved[EXERCISES, ""] = TOUR, "the-exercises"
    return Tour(texts, titles, moved)


def number_of(title: str) -> int:
    """Return the number of the step that a heading is about, or 0."""
    found = STEP.match(title)
    return int(found[1]) if found else 0
