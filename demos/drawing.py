"""Pictures as SVG: one set of colours for light and for dark, and the shapes that they are made of.

A picture is 480 units wide, so that its text can be read on a telephone too. Its colours follow the
reader's preference (`prefers-color-scheme`). It has a ground of its own: any page may surround it.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH = 480
MARGIN = 16
SIZES = {"title": 17, "head": 13, "text": 13, "code": 12, "small": 12, "inside": 12}

# What a colour is for: on a light ground, on a dark one. All text is at least 4.5 to 1 against what
# it stands on, and what is only seen at least 3 to 1.
COLOURS = {
    "ground": ("#ffffff", "#11161c"),
    "panel": ("#f2f5f8", "#1b222b"),
    "ink": ("#1b2129", "#e9eef4"),
    "soft": ("#55606c", "#a3afbc"),
    "edge": ("#75808c", "#7d8996"),
    "wait": ("#7d8792", "#76828f"),
    "work": ("#1d63c4", "#74aef8"),
    "ready": ("#1b7a4b", "#57c48d"),
    "stuck": ("#b4491c", "#f0945f"),
    "inside": ("#ffffff", "#11161c"),
}
TEXTS = ("ink", "soft", "work", "ready", "stuck")  # colours that text may have on a ground
SOLIDS = ("work", "ready", "stuck")  # colours that "inside" may stand on


def picture_file(text: str) -> Path:
    """Return where to draw, which is the `type=` of an option: refused before the work is done."""
    path = Path(text)
    try:
        path.open("a").close()
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"cannot draw {path}: {exc.strerror}") from None
    return path


def style() -> str:
    """Return the style sheet of every picture."""
    sizes = "\n".join(
        f".{name} {{ font-size: {size}px{'; font-weight: 600' if name in ('title', 'head') else ''}"
        f"{'; font-family: ui-monospace, Menlo, DejaVu Sans Mono, monospace' * (name == 'code')} }}"
        for name, size in SIZES.items()
    )
    light, dark = (
        "\n".join(rules(name, pair[at]) for name, pair in COLOURS.items()) for at in (0, 1)
    )
    return (
        'text { font-family: system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif }\n'
        f"{sizes}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
    )


def rules(name: str, colour: str) -> str:
    return f".{name} {{ fill: {colour} }} .{name}-line {{ stroke: {colour}; fill: none }}"


def document(height: float, title: str, about: str, parts: Sequence[str]) -> str:
    """Return a whole picture; `about` is what is said of it to who cannot see it."""
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" \
width="{WIDTH}" height="{height:g}" role="img" aria-labelledby="title about">
<title id="title">{escape(title)}</title>
<desc id="about">{escape(about)}</desc>
<style>
{style()}
</style>
{rect(0.5, 0.5, WIDTH - 1, height - 1, "ground", 8)}
{chr(10).join([*heading(title), *parts])}
</svg>
"""


def title_lines(title: str) -> list[str]:
    return textwrap.wrap(title, int((WIDTH - 2 * MARGIN) / width_of("m", "title")))


def heading(title: str) -> list[str]:
    """Return the title, in as many lines as it needs; the first is at y = 30."""
    return [text(MARGIN, 30 + 21 * n, words, "title") for n, words in enumerate(title_lines(title))]


def text(
    x: float, y: float, words: str, kind: str = "text", colour: str = "ink", anchor: str = "start"
) -> str:
    """Return a text whose base line begins (or ends, or has its middle) at a point."""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text class="{kind} {colour}" x="{x:.4g}" y="{y:.4g}"{place}>{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, colour: str, round_by: float = 3) -> str:
    shape = f'x="{x:.5g}" y="{y:.5g}" width="{width:.5g}" height="{height:.5g}"'
    return f'<rect class="{colour}" {shape} rx="{round_by:g}"/>'


def line(
    points: Sequence[tuple[float, float]], colour: str, width: float = 1.5, dashed: bool = False
) -> str:
    """Return a line through points."""
    path = " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<polyline class="{colour}-line" stroke-width="{width:g}"{dashes} points="{path}"/>'


def dot(x: float, y: float, colour: str, radius: float = 4) -> str:
    return f'<circle class="{colour}" cx="{x:.5g}" cy="{y:.5g}" r="{radius:g}"/>'


def width_of(words: str, kind: str = "text") -> float:
    """Return a width that a text hardly exceeds, in common fonts."""
    share = {"code": 0.602, "title": 0.6, "head": 0.6}.get(kind, 0.56)
    return len(words) * SIZES[kind] * share


def shortened(words: str, width: float, kind: str = "text") -> str:
    """Return a text that is not wider, with an ellipsis if something was left out."""
    if width_of(words, kind) <= width:
        return words
    return words[: max(int(width / width_of("m", kind)) - 1, 0)] + "…"


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, from 0 to 1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
