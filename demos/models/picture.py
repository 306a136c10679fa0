"""The figures as a picture: four panels of bars beside one list of servers, as SVG.

Its colours follow the reader's preference for light or dark. Nothing but text is needed to draw it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from demos.models.measure import Figures

LEFT, GAP, BAR, ROOM = 218, 26, 96, 64  # x: the names; between panels; longest bar; its value
PANEL = BAR + ROOM + GAP
ROW, THICK, TOP, BETWEEN = 40, 18, 112, 44  # y: of a row, a bar, the first row, two groups
GROUPS = ("Five ways to wait for data", "Three ways to build a server")

REMARK = "Calls are counted with strace, which slows a server: polling gets to ask much less often."

STYLE = """
    text { font-family: system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; }
    .paper { fill: #ffffff; }
    .title { font-size: 19px; font-weight: 600; fill: #1b1f24; }
    .head { font-size: 14px; font-weight: 600; fill: #1b1f24; }
    .name { font-size: 14px; fill: #1b1f24; }
    .value { font-size: 13px; fill: #1b1f24; }
    .small { font-size: 11.5px; fill: #59636e; }
    .axis { stroke: #b6bec8; }
    .rule { stroke: #dfe3e8; }
    .track { fill: #f1f3f6; }
    .time { fill: #2f6fd0; }
    .cpu { fill: #c4562a; }
    .memory { fill: #2a8a5f; }
    .calls { fill: #8250c4; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #14181d; }
      .title, .head, .name, .value { fill: #e8ecf1; }
      .small { fill: #9aa5b1; }
      .axis { stroke: #56606b; }
      .rule { stroke: #2b323a; }
      .track { fill: #1d232a; }
      .time { fill: #6ba4f5; }
      .cpu { fill: #ee8a5c; }
      .memory { fill: #55c093; }
      .calls { fill: #b48bf2; }
    }
"""


class Panel(NamedTuple):
    kind: str  # the class of its bars
    title: str
    about: str
    figure: Callable[[Figures], float | None]
    spell: Callable[[float], str]


def spell_seconds(value: float) -> str:
    return f"{value:.3f} s"


def spell_milliseconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms"


def spell_megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def spell_count(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


PANELS = (
    Panel("time", "Time", "until all are served", lambda f: f.seconds, spell_seconds),
    Panel("cpu", "CPU", "with its children", lambda f: f.cpu, spell_milliseconds),
    Panel("memory", "Memory", "with its children", lambda f: f.memory, spell_megabytes),
    Panel("calls", "System calls", "in a run of their own", lambda f: f.calls, spell_count),
)


def text(x: float, y: float, kind: str, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def bar(x: float, y: float, panel: Panel, value: float | None, most: float) -> list[str]:
    """Return a bar on its track, and its value at its end."""
    track = f'<rect class="track" x="{x}" y="{y}" width="{BAR}" height="{THICK}" rx="3"/>'
    if value is None:
        return [track, text(x + 6, y + 13.5, "small", "no strace")]
    width = max(1.5, BAR * value / most) if most else 1.5
    shape = f'x="{x}" y="{y}" width="{width:.1f}" height="{THICK}" rx="{min(3, width / 2):.1f}"'
    return [
        track,
        f'<rect class="bar {panel.kind}" {shape}/>',
        text(x + BAR + 7, y + 13.5, "value", panel.spell(value)),
    ]


def draw(groups: Sequence[Sequence[Figures]], what: str, where: str) -> str:
    """Return the picture, a whole SVG document."""
    everyone = [figures for group in groups for figures in group]
    most = {panel: max(panel.figure(f) or 0 for f in everyone) for panel in PANELS}
    width = LEFT + len(PANELS) * PANEL + 8
    parts = [text(24, 34, "title", "The same clients, eight servers")]
    y = float(TOP)
    for place, panel in enumerate(PANELS):
        x = LEFT + place * PANEL
        parts += [text(x, 70, "head", panel.title), text(x, 86, "small", panel.about)]
    for title, group in zip(GROUPS, groups, strict=True):
        parts.append(f'<line class="rule" x1="24" x2="{width - 24}" y1="{y - 14}" y2="{y - 14}"/>')
        parts.append(text(24, y + 6, "head", title))
        y += 24
        for figures in group:
            parts.append(text(24, y + 9, "name", figures.server.name))
            parts.append(text(24, y + 24, "small", figures.server.waits))
            for place, panel in enumerate(PANELS):
                value = panel.figure(figures)
                parts += bar(LEFT + place * PANEL, y, panel, value, most[panel])
            y += ROW
        y += BETWEEN - 24
    parts.append(text(24, y + 4, "small", f"{what}. {where}."))
    parts.append(text(24, y + 21, "small", REMARK))
    height = y + 40
    body = "\n  ".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" \
width="{width}" height="{height:g}" role="img" aria-labelledby="title">
  <title id="title">Time, CPU, memory and system calls of eight servers</title>
  <style>{STYLE}  </style>
  <rect class="paper" width="100%" height="100%" rx="8"/>
  {body}
</svg>
"""
