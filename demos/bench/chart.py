"""The results of one workload as a picture: bars, the cheapest contestant on top, as SVG."""

from __future__ import annotations

from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, TOP, ROW, BAR, FOOT = 760, 218, 140, 74, 27, 17, 40

# Colours for a light page and, where the reader's system asks for it, for a dark one. The picture
# has a ground of its own, so it is legible on any.
STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #57606a }
  .ground { fill: #ffffff; stroke: #d0d7de }
  .title { font-size: 16px; font-weight: 600; fill: #1f2328 }
  .name, .value { fill: #1f2328 }
  .ours { font-weight: 600 }
  .ratio { fill: #57606a; font-weight: 400 }
  .bar { fill: #a9b4c0 }
  .bar.ours { fill: #1a7f64 }
  .line { stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 }
    .ground { fill: #0d1117; stroke: #3d444d }
    .title, .name, .value { fill: #f0f6fc }
    .ratio { fill: #9198a1 }
    .bar { fill: #4b5665 }
    .bar.ours { fill: #2fbf95 }
    .line { stroke: #30363d }
  }
"""


def svg(workload: dict[str, Any], about: str) -> str:
    """Return the picture; `about` is what is written below it."""
    good = [each for each in workload["results"] if not each["failed"]]
    rows = sorted(good, key=lambda each: float(each["fair"]["medians"]["cost"]))
    memory = workload["kind"].startswith("Idle")
    scale = 1.0 if memory else 1e6
    unit = "bytes" if memory else "µs"
    most = max(each["fair"]["medians"]["cost"] for each in rows) * scale
    height = TOP + ROW * len(rows) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-labelledby="title">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" id="title" x="20" y="32">{escape(heading(workload))}</text>',
        f'<text x="20" y="53">{unit} for each {escape(workload["unit"])}; shorter is better</text>',
    ]
    for number, each in enumerate(rows):
        parts += bar(TOP + number * ROW, each, each["fair"]["medians"]["cost"] * scale, most)
    bottom = TOP + ROW * len(rows)
    parts.append(f'<line class="line" x1="{LEFT}" y1="{TOP - 4}" x2="{LEFT}" y2="{bottom}"/>')
    parts.append(f'<text x="20" y="{height - 15}">{escape(about)}</text></svg>')
    return "\n".join(parts) + "\n"


def heading(workload: dict[str, Any]) -> str:
    title = str(workload["title"])
    what = {"Exchanges": "Server's CPU time: ", "Repeated": "CPU time: "}
    return what.get(workload["kind"], "") + title


def bar(y: int, result: dict[str, Any], value: float, most: float) -> list[str]:
    """Return one contestant's line: its name, its bar, and the figure."""
    ours = " ours" if result["contestant"].startswith("corolib") else ""
    length = max((WIDTH - LEFT - RIGHT) * value / most, 1)
    middle = y + BAR - 4
    of_it = result["fair"]["ratio"]
    ratio = "" if of_it is None else f"\N{MULTIPLICATION SIGN} {1 / of_it:.2f}"
    return [
        f'<text class="name{ours}" x="{LEFT - 10}" y="{middle}" text-anchor="end">'
        f"{escape(result['title'])}</text>",
        f'<rect class="bar{ours}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
        f'<text class="value{ours}" x="{LEFT + length + 8:.1f}" y="{middle}">{value:,.1f}'
        f'<tspan class="ratio" dx="9">{ratio}</tspan></text>',
    ]
