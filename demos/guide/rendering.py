"""Markdown becomes HTML: with addresses for headings, colours for code, links where they lead."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Container
from functools import cache
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

from demos.extra import extra

with extra("docs"):
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name


class Section(NamedTuple):
    """A heading, and the words below it, for the search."""

    level: int
    anchor: str
    title: str
    words: str


class Heading(NamedTuple):
    """A heading of a text: `line` counts from 0."""

    level: int
    title: str
    anchor: str
    line: int


class Page(NamedTuple):
    """A page that is rendered: `html` is what stands between head and foot."""

    title: str
    html: str
    sections: list[Section]


def render(
    text: str, link: Callable[[str], str], names: Container[str] = (), *, html: bool = True
) -> Page:
    """Render a page.

    Args:
        link: called with each target of a link or picture; returns where it leads on the site.
        names: code that is one of them becomes a link to the reference.
        html: whether `<` begins a tag of HTML.
    """
    markdown = MarkdownIt("commonmark", {"html": html}).enable("table")
    for kind, rule in RULES.items():
        markdown.add_render_rule(kind, rule)
    tokens = [token for token in markdown.parse(text) if not is_comment(token)]
    sections: list[Section] = []
    level, taken = 0, dict[str, int]()
    head = "th"
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if token.type == "th_open":
            head = (
                "th" if after is not None and after.content else "td"
            )  # an empty cell is the heading of nothing
        if token.type in ("th_open", "th_close"):
            token.tag = head
            if token.nesting > 0 and head == "th":
                token.attrSet("scope", "col")
        if token.type == "inline":
            inside = before is not None and before.type == "heading_open"
            resolve(token, link, () if inside else names)
            if inside and before is not None:
                title = words_of(token)
                anchor = anchor_of(title, taken)
                before.attrSet("id", anchor)
                level = int(before.tag[1:])
                sections.append(Section(level, anchor, title, ""))
                continue
        if sections and token.type in ("inline", "fence", "code_block"):
            last = sections[-1]
            words = words_of(token) if token.type == "inline" else token.content
            sections[-1] = last._replace(words=f"{last.words} {' '.join(words.split())}".strip())
    title = sections[0].title if sections else ""
    return Page(title, markdown.renderer.render(tokens, markdown.options, {}), sections)


def headings(text: str) -> list[Heading]:
    """Return the headings of a text, in order."""
    tokens = MarkdownIt("commonmark").parse(text)
    found, taken = [], dict[str, int]()
    for token, inside in pairwise(tokens):
        if token.type == "heading_open" and token.map is not None:
            title = words_of(inside)
            found.append(Heading(int(token.tag[1:]), title, anchor_of(title, taken), token.map[0]))
    return found


def is_comment(token: Token) -> bool:
    return token.type == "html_block" and token.content.lstrip().startswith("<!--")


def words_of(token: Token) -> str:
    """Return the words of a line, without their marks."""
    kept = {"text", "code_inline"}
    return "".join(t.content if t.type in kept else " " if t.type == "softbreak" else ""
                   for t in token.children or ())  # fmt: skip


def anchor_of(title: str, taken: dict[str, int]) -> str:
    """Return the address of a heading, made as forges make it."""
    anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    count = taken[anchor] = taken.get(anchor, -1) + 1
    return f"{anchor}-{count}" if count else anchor


def resolve(token: Token, link: Callable[[str], str], names: Container[str]) -> None:
    """Set the targets of links and pictures; make links of public names."""
    children: list[Token] = []
    depth = 0
    for child in token.children or ():
        depth += child.nesting if child.type in ("link_open", "link_close") else 0
        if child.type == "link_open":
            child.attrSet("href", link(str(child.attrGet("href"))))
        elif child.type == "image":
            child.attrSet("src", link(str(child.attrGet("src"))))
        name = child.content.removesuffix("()")
        if child.type == "code_inline" and depth == 0 and name in names:
            target = link(f"name:{name}")
            begin = Token("link_open", "a", 1, {"href": target, "class": "name"} if target else {})
            children += [begin, child, Token("link_close", "a", -1)] if target else [child]
        else:
            children.append(child)
    token.children = children


# How single tokens are shown -------------------------------------------------------------------


COLOURED = HtmlFormatter(nowrap=True)


@cache
def lexer_of(kind: str) -> Any:
    return get_lexer_by_name(kind, stripnl=False)


def code(text: str, kind: str) -> str:
    """Return a block of code, in colours. A second word says what it is, and is shown above it."""
    kind, _, shown = kind.partition(" ")
    if kind == "python":
        text = textwrap.dedent(text)  # some lines of a function are shown
    inside = highlight(text, lexer_of(kind or "text"), COLOURED)
    label = shown.capitalize() or ("Output" if kind == "text" else "Code")
    above = f'<p class="label">{label}</p>\n' if shown else ""
    style = f"{'output' if kind == 'text' else 'code'} {shown}".strip()
    return (
        f'{above}<pre class="{style}" tabindex="0" role="group" aria-label="{label}">'
        f"<code>{inside}</code></pre>\n"
    )


def fence(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    return code(tokens[index].content, tokens[index].info.strip())


def table_open(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    return '<div class="table" tabindex="0" role="group" aria-label="Table">\n<table>\n'


def table_close(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    return "</table>\n</div>\n"


SHORT = 20  # characters of code that stay in one line


def code_inline(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    text = tokens[index].content
    style = ' class="short"' if len(text) <= SHORT else ""
    return f"<code{style}>{escape(text)}</code>"


RULES = {
    "code_inline": code_inline,
    "fence": fence,
    "code_block": fence,
    "table_open": table_open,
    "table_close": table_close,
}
