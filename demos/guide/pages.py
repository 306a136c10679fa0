"""Which pages the site has, where each stands, and how they are written.

A page is a Markdown file of this repository, a part of one, or made of the sources: see `tour.py`,
`reference.py`, `commands.py`, `mistakes.py`, `messages.py` and `other_names.py`. A link to a page
leads to its place on the site. A link to another file of the repository takes that along: a picture
as it is, a program as a page of its own.
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
from demos.guide import bugs, commands, messages, mistakes, other_names, reference, runs
from demos.guide.names import OWN_MODULES, names
from demos.guide.rendering import Page, code, render
from demos.guide.tour import TOUR, tour

ROOT = Path(__file__).resolve().parents[2]
GUIDE = Path(__file__).parent
ASSETS = GUIDE / "assets"
INDEX = "demos/guide/index.md"
PICTURES = (".svg", ".png")
AMBIGUOUS = {  # most often the methods, words or classes of others that have that name
    *("close", "first", "test", "write", "Connection", "Cursor", "Message", "Pool"),
}
REFERENCE = {
    "reference/contents.md": "All names",
    "reference/command-line.md": "The command line",
    "reference/pytest-plugin.md": "The plugin for pytest",
    "reference/mistakes.md": "Wrong lines, right lines",
    "reference/messages.md": "All messages",
    "reference/other-names.md": "Other names",
}
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


class Entry(NamedTuple):
    """What the search finds: a heading, with the words below it; `worth` is how much it counts."""

    title: str
    page: str
    address: str
    words: str
    worth: float

    def with_words(self, words: str) -> Entry:
        return self._replace(words=f"{self.words} {words}")


LISTS = ("reference/messages.md", "reference/other-names.md")
WORTHS = {  # of the pages whose names begin so; the first counts
    "demos/guide/index": 0.2,
    "demos/guide/faults": 0.5,
    "demos/guide/speed": 0.7,
    "demos/guide/": 1.3,
    "demos/": 0.7,
    "CHANGELOG": 0.2,
    ".github": 0.4,
    "reference/contents": 0.2,
    "reference/mistakes": 0.8,
}


class Site:
    """All pages, and what they are found by."""

    def __init__(self) -> None:
        self.names = names()
        self.tour = tour(ROOT)
        self.parts = [*chapters(), ("Reference", REFERENCE)]
        self.short = {file: title for _, files in self.parts for file, title in files.items()}
        self.order = list(self.short)
        steps = self.order.index(TOUR) + 1
        self.order[steps:steps] = self.tour.titles
        self.short |= self.tour.titles
        self.messages, self.mistakes = messages.messages(), mistakes.all_said()
        made = {
            "reference/contents.md": reference.contents(self.names),
            "reference/command-line.md": commands.command_line(),
            "reference/pytest-plugin.md": commands.plugin(),
            "reference/mistakes.md": mistakes.page(self.mistakes),
            "reference/messages.md": messages.page(self.messages, set(self.names)),
            "reference/other-names.md": other_names.page(),
        }
        made |= {f"reference/{key}.md": reference.page_of(key, n) for key, n in self.names.items()}
        made |= self.tour.texts
        self.texts = {INDEX: (ROOT / INDEX).read_text("utf-8")}
        for file in self.order:
            if file not in made:
                self.texts[file] = (ROOT / file).read_text("utf-8")
        self.texts |= made
        self.places = {source: place_of(source) for source in self.texts}
        # The reference's names are spelled as they are; two may differ in their case alone.
        self.places |= {f"reference/{name}.md": self.place(name) for name in self.names}
        self.worths = WORTHS | {
            f"reference/{key}.md": 0.6
            for key, name in self.names.items()
            if name.module in OWN_MODULES
        }
        self.runs = runs.runs()
        self.taken: dict[str, str] = {}  # other files of the repository, and where they stand

    def place(self, name: str) -> str:
        """Return where the page of a public name stands."""
        alike = [other for other in self.names if other.lower() == name.lower()]
        return f"reference/{name.lower()}{'-' * alike.index(name)}.html"

    def link(self, source: str, target: str) -> str:
        """Return where a link leads that stands on the page of a file."""
        here = posixpath.dirname(self.places[source])
        if target.startswith("name:"):
            file = f"reference/{target[5:]}.md"
            return "" if file == source else posixpath.relpath(self.places[file], here or ".")
        if OUTSIDE.match(target):
            return target
        path, _, anchor = target.partition("#")
        if path:
            file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        else:
            file = TOUR if source in self.tour.titles else source
        file, anchor = self.tour.moved.get((file, anchor), (file, anchor))
        mark = "#" if anchor else ""
        if file == source and mark:
            return mark + anchor
        place = self.places.get(file)
        if place is None:
            if file in BUGS:  # the page of a run has the source, too
                return posixpath.relpath(BUGS[file], here or ".") + mark + anchor
            place = file if file.endswith(PICTURES) else f"source/{file}.html"
            self.taken[file] = place
        return posixpath.relpath(place, here or ".") + mark + anchor

    def with_links(self, source: str) -> str:
        """Return the text of a page. What it calls by a title in quotes, since it is on the site
        alone, is linked here.
        """
        text = self.texts[source]
        for file, title in REFERENCE.items():
            up = "../" * source.count("/")
            text = text.replace(f'"{title}"', f"[{title}]({up}{file})")
        return text

    def pages(self) -> Iterator[tuple[str, Page]]:
        """Give each page that is rendered, with its file."""
        linked = self.names.keys() - AMBIGUOUS
        for source in self.texts:
            page = render(
                self.with_links(source),
                lambda target, source=source: self.link(source, target),  # type: ignore[misc]
                () if source in self.tour.texts else linked,  # the tour's names are its own
                html=not source.startswith("reference/") or source == "reference/messages.md",
            )
            yield source, page

    def build(self, folder: Path) -> int:
        """Write the site into a folder; return how many pages it has."""
        template = Template((ASSETS / "page.html").read_text("utf-8"))
        pages = dict(self.pages())
        entries: list[Entry] = []
        for source, page in pages.items():
            place = self.places[source]
            body = page.html
            if source != INDEX:
                own = contents_of(page, methods=source.startswith("reference/"))
                body = body.replace("</h1>\n", "</h1>\n" + own, 1)
            body += self.next_pages(source)
            self.write(folder, template, place, page.title, body, self.scripts_of(source))
            for section in page.sections:
                address = place if section.level == 1 else f"{place}#{section.anchor}"
                much = self.worth(source) * (
                    0.7 if section.level > 1 and self.is_name(source) else 1.0
                )
                entry = Entry(section.title, page.title, address, section.words, much)
                # What stands below `Args` is found as a part of the page, or of the method.
                if self.is_name(source) and section.level > 1 and "." not in section.title:
                    entries[-1] = entries[-1].with_words(section.words)
                elif source not in LISTS:
                    entries.append(entry)
        entries += self.single_entries()
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
        self.write(
            folder, template, "find.html", "Find", finder(entries), scripts("entries", "find")
        )
        for asset in ("style.css", "find.js"):
            (folder / asset).write_bytes((ASSETS / asset).read_bytes())
        (folder / "bugs").mkdir(exist_ok=True)
        for name, text in bugs.pages():
            (folder / "bugs" / f"{name}.html").write_text(text, "utf-8")
        data = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
        (folder / "entries.js").write_text(f"const ENTRIES = {data};\n", "utf-8")
        (folder / "runs.js").write_text(runs.script_of(self.runs), "utf-8")
        player = script("reducer.js", "view.js") + (ASSETS / "player.js").read_text("utf-8")
        (folder / "player.js").write_text(player, "utf-8")
        return len(pages) + len(BUGS) + 1 + sum(not file.endswith(PICTURES) for file in self.taken)

    def worth(self, source: str) -> float:
        """Return how much a page counts in the search."""
        return next((w for begin, w in self.worths.items() if source.startswith(begin)), 1.0)

    def is_name(self, source: str) -> bool:
        """Return whether a page is that of a public name."""
        return source.removeprefix("reference/").removesuffix(".md") in self.names

    def single_entries(self) -> Iterator[Entry]:
        """Give what the search finds of pages that are lists: each message, and each name."""
        place = self.places["reference/messages.md"]
        for number, each in enumerate(self.messages):
            where = f"{each.kind}, from {each.owner or each.module}"
            yield Entry(each.text, "All messages", f"{place}#m{number}", where, 0.5)
        place = self.places["reference/other-names.md"]
        for owner, name, cure in other_names.rows():
            of = f" of {owner}" if owner[:1].isupper() else f", a {owner}" if owner else ""
            yield Entry(name, "Other names", place, f"{name}{of}. In corolib: {cure}", 0.3)

    def scripts_of(self, source: str) -> str:
        """Return what loads the player, on a page of the tour that has the picture of a run."""
        if source not in self.tour.titles:
            return ""
        pictures = (f"/{run.picture}.svg" for run in self.runs)
        has_run = any(picture in self.texts[source] for picture in pictures)
        return scripts("runs", "player") if has_run else ""

    def write(
        self, folder: Path, template: Template, place: str, title: str, body: str, loads: str = ""
    ) -> None:
        up = "../" * place.count("/")
        text = template.substitute(
            title=escape(title),
            up=up,
            body=body,
            navigation=self.navigation(place, up),
            scripts=loads,
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
                here = CURRENT * (self.places[file] == place)
                href = up + self.places[file]
                steps = self.steps(place, up) if file == TOUR else ""
                parts.append(f'<li><a href="{href}"{here}>{escape(words)}</a>{steps}</li>')
            parts.append("</ul>")
        return "\n".join(parts)

    def steps(self, place: str, up: str) -> str:
        """Return the list of the steps of the tour, on its pages; that of this page is marked."""
        files = [TOUR, *self.tour.titles]
        if place not in (self.places[file] for file in files):
            return ""
        items = "".join(
            f'<li><a href="{up}{self.places[file]}"{CURRENT * (self.places[file] == place)}>'
            f"{escape(title)}</a></li>\n"
            for file, title in self.tour.titles.items()
        )
        return f"<ul>\n{items}</ul>"

    def next_pages(self, source: str) -> str:
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
        return (
            f'<nav class="around" aria-label="Chapters before and after">{" ".join(links)}</nav>\n'
        )


CURRENT = ' aria-current="page"'
PART = ' class="part"'


def scripts(*names: str) -> str:
    """Return what loads scripts of the site's folder."""
    return "".join(f'<script src="{name}.js"></script>\n' for name in names)


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


def finder(entries: list[Entry]) -> str:
    """Return the page of the search: without scripts it is an index of all headings."""
    items = "".join(
        f'<li><a href="{each.address}">{escape(each.title)}</a>'
        + (f" <small>{escape(each.page)}</small></li>\n" if each.page != each.title else "</li>\n")
        for each in sorted(entries, key=lambda each: (each.title.lower(), each.page))
    )
    return (
        '<h1>Find</h1>\n<p id="found" role="status">All headings and all public names.</p>\n'
        f'<ul id="results">\n{items}</ul>\n'
    )
