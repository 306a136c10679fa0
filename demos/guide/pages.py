"""Which pages the site has, where each stands, and how they are written.

A page is a Markdown file of this repository, or made by `reference.py`. A link to a page leads to
its place on the site. A link to another file of the repository takes that along: a picture as it
is, a program as a page of its own.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

from corolib.trace.page import script
from demos.guide import bugs, reference, runs
from demos.guide.names import names
from demos.guide.rendering import Page, code, render

ROOT = Path(__file__).resolve().parents[2]
GUIDE = Path(__file__).parent
ASSETS = GUIDE / "assets"
INDEX = "demos/guide/index.md"
TOUR = "demos/tour/README.md"
PICTURES = (".svg", ".png")
AMBIGUOUS = {"close", "first", "test", "write"}  # most often the methods or words of that name
BUGS = {f"demos/guide/bugs/{name}.py": f"bugs/{name}.html" for name in bugs.NAMES}
OUTSIDE = re.compile(r"[a-z]+:")


class Place(NamedTuple):
    """A page: its file in the repository, its text, and where it stands on the site."""

    source: str
    text: str
    target: str


def chapters() -> Iterator[tuple[str, dict[str, str]]]:
    """Give each part of the guide: its title, and the files of its pages with their short titles,
    as `index.md` lists them.
    """
    for part in re.split(r"^## ", (ROOT / INDEX).read_text("utf-8"), flags=re.MULTILINE)[1:]:
        found = re.findall(r"^- \[(.*?)\]\(([^)#]+)\)", part, re.MULTILINE)
        files = {posixpath.normpath(f"demos/guide/{target}"): title for title, target in found}
        yield part.partition("\n")[0], files


def place_of(source: str) -> str:
    """Return where a page stands on the site."""
    folder, _, name = source.removesuffix(".md").rpartition("/")
    if name == "README":
        name = folder.rpartition("/")[2] or "first-page"
    return f"{'reference/' if folder == 'reference' else ''}{name.lower()}.html"


class Site:
    """All pages, and what they are found by."""

    def __init__(self) -> None:
        self.names = names()
        self.parts = [*chapters(), ("Reference", {"reference/contents.md": "All names"})]
        self.short = {file: title for _, files in self.parts for file, title in files.items()}
        self.order = list(self.short)
        made = {"reference/contents.md": reference.contents(self.names)}
        made |= {f"reference/{n.name}.md": reference.page_of(n) for n in self.names.values()}
        self.texts = {INDEX: (ROOT / INDEX).read_text("utf-8")}
        for file in self.order:
            if file not in made:
                self.texts[file] = (ROOT / file).read_text("utf-8")
        self.texts |= made
        self.places = {source: place_of(source) for source in self.texts}
        # The reference's names are spelled as they are; two may differ in their case alone.
        self.places |= {f"reference/{name}.md": self.place(name) for name in self.names}
        self.taken: dict[str, str] = {}  # other files of the repository, and where they stand

    def place(self, name: str) -> str:
        alike = [other for other in self.names if other.lower() == name.lower()]
        return f"reference/{name.lower()}{'-' * alike.index(name)}.html"

    def link(self, source: str, target: str) -> str:
        """Return where a link leads that stands on the page of a file."""
        here = posixpath.dirname(self.places[source])
        if target.startswith("name:"):
            file = f"reference/{target[5:]}.md"
            return "" if file == source else posixpath.relpath(self.places[file], here or ".")
        if OUTSIDE.match(target) or target.startswith("#"):
            return target
        path, mark, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = self.places.get(file)
        if place is None:
            if file in BUGS:  # the page of a run has the source, too
                return posixpath.relpath(BUGS[file], here or ".") + mark + anchor
            place = file if file.endswith(PICTURES) else f"source/{file}.html"
            self.taken[file] = place
        return posixpath.relpath(place, here or ".") + mark + anchor

    def pages(self) -> Iterator[tuple[str, Page]]:
        """Give each page that is rendered, with its file."""
        for source, text in self.texts.items():
            page = render(
                text,
                lambda target, source=source: self.link(source, target),  # type: ignore[misc]
                self.names.keys() - AMBIGUOUS,
                html=not source.startswith("reference/"),
            )
            yield source, page

    def build(self, folder: Path) -> int:
        """Write the site into a folder; return how many pages it has."""
        template = Template((ASSETS / "page.html").read_text("utf-8"))
        pages = dict(self.pages())
        entries = []
        for source, page in pages.items():
            place = self.places[source]
            body = page.html
            if source != INDEX:
                own = contents_of(page, methods=source.startswith("reference/"))
                body = body.replace("</h1>\n", "</h1>\n" + own, 1)
            body += self.neighbours(source)
            self.write(folder, template, place, page.title, body)
            for section in page.sections:
                address = place if section.level == 1 else f"{place}#{section.anchor}"
                entries.append((section.title, page.title, address, section.words))
        for file, place in sorted(self.taken.items()):
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.endswith(PICTURES):
                target.write_bytes((ROOT / file).read_bytes())
            else:
                text = (ROOT / file).read_text("utf-8")
                kind = "python" if file.endswith(".py") else "text"
                body = f"<h1>{escape(file)}</h1>\n{code(text, kind)}"
                self.write(folder, template, place, file, body)
        self.write(folder, template, "find.html", "Find", finder(entries))
        for asset in ("style.css", "find.js"):
            (folder / asset).write_bytes((ASSETS / asset).read_bytes())
        (folder / "bugs").mkdir(exist_ok=True)
        for name, text in bugs.pages():
            (folder / "bugs" / f"{name}.html").write_text(text, "utf-8")
        data = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
        (folder / "entries.js").write_text(f"const ENTRIES = {data};\n", "utf-8")
        (folder / "runs.js").write_text(runs.script_of(runs.runs()), "utf-8")
        player = script("reducer.js", "view.js") + (ASSETS / "player.js").read_text("utf-8")
        (folder / "player.js").write_text(player, "utf-8")
        return len(pages) + len(BUGS) + 1 + sum(not file.endswith(PICTURES) for file in self.taken)

    def write(self, folder: Path, template: Template, place: str, title: str, body: str) -> None:
        up = "../" * place.count("/")
        text = template.substitute(
            title=escape(title),
            up=up,
            body=body,
            navigation=self.navigation(place, up),
            scripts=SCRIPTS.get(place, ""),
        )
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")

    def navigation(self, place: str, up: str) -> str:
        """Return the list of all chapters; that of this page is marked."""
        parts = []
        for title, files in self.parts:
            parts.append(f"<h2>{escape(title)}</h2>\n<ul>")
            for file, words in files.items():
                here = ' aria-current="page"' if self.places[file] == place else ""
                href = up + self.places[file]
                parts.append(f'<li><a href="{href}"{here}>{escape(words)}</a></li>')
            parts.append("</ul>")
        return "\n".join(parts)

    def neighbours(self, source: str) -> str:
        """Return links to the chapter before and the one after."""
        if source not in self.order:
            return ""
        index, links = self.order.index(source), []
        for step, word in ((-1, "Before"), (1, "Next")):
            if 0 <= index + step < len(self.order):
                file = self.order[index + step]
                href = posixpath.relpath(
                    self.places[file], posixpath.dirname(self.places[source]) or "."
                )
                rel = "prev" if step < 0 else "next"
                title = escape(self.short[file])
                links.append(f'<a rel="{rel}" href="{href}">{word}: {title}</a>')
        return f'<nav class="neighbours" aria-label="Neighbours">{" ".join(links)}</nav>\n'


PART = ' class="part"'
SCRIPTS = {  # that a page has
    place: "".join(f'<script src="{name}.js"></script>\n' for name in scripts)
    for place, scripts in {
        "find.html": ("entries", "find"),
        place_of(TOUR): ("runs", "player"),
    }.items()
}


def contents_of(page: Page, *, methods: bool) -> str:
    """Return the list of what is on a page, where that is worth one; of methods, for a class."""
    found = [s for s in page.sections if s.level == 2 and (not methods or "." in s.title)]
    if len(found) < 4:
        return ""
    if len(found) <= 5 and not methods:
        found = [s for s in page.sections if s.level in (2, 3)]
    mixed = {s.level for s in found} == {2, 3}
    opened = " open" if len(found) <= 40 else ""
    items = "".join(
        f"<li{PART if mixed and s.level == 2 else ''}>"
        f'<a href="#{s.anchor}">{escape(s.title)}</a></li>\n'
        for s in found
    )
    return (
        f'<details class="contents"{opened}><summary>On this page</summary>\n<ul>\n{items}</ul>\n'
        "</details>\n"
    )


def finder(entries: list[tuple[str, str, str, str]]) -> str:
    """Return the page of the search: without scripts it is an index of all headings."""
    items = "".join(
        f'<li><a href="{address}">{escape(title)}</a>'
        + (f" <small>{escape(page)}</small></li>\n" if page != title else "</li>\n")
        for title, page, address, _ in sorted(entries, key=lambda e: (e[0].lower(), e[1]))
    )
    return (
        '<h1>Find</h1>\n<p id="found" role="status">All headings and all public names.</p>\n'
        f'<ul id="results">\n{items}</ul>\n'
    )
