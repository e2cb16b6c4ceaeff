"""Draws the table of peers in docs/benchmarks.md as bars: docs/images/peers.svg.

python -m benchmarks.chart
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
ROW = re.compile(r"^\| (?P<name>[^|]+) \| (?P<seconds>[\d.]+) s \|", re.MULTILINE)
HEADING = "### Beside other tools"

WIDTH, NAMES, BAR, GAP = 720, 190, 22, 14
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328 }
rect { fill: #8c959f } .ours { fill: #0f766e }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } rect { fill: #6e7681 } .ours { fill: #2dd4bf }
}
"""


def main() -> None:
    _, _, section = (DOCS / "benchmarks.md").read_text(encoding="utf-8").partition(HEADING)
    section, _, _ = section.partition("![")  # the first table
    found = [(row["name"], float(row["seconds"])) for row in ROW.finditer(section)]
    if not found:
        raise SystemExit(f"docs/benchmarks.md has no table of seconds below {HEADING!r}.")
    (DOCS / "images" / "peers.svg").write_text(chart(found), encoding="utf-8")


def chart(found: list[tuple[str, float]]) -> str:
    """Bars as long as the seconds; the first one is ours."""
    height = len(found) * (BAR + GAP) + GAP
    scale = (WIDTH - NAMES - 80) / max(seconds for _, seconds in found)
    bars = "\n".join(_bar(at, name, seconds, scale) for at, (name, seconds) in enumerate(found))
    said = "; ".join(f"{name} {seconds:g} s" for name, seconds in found)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="Seconds: {escape(said)}">\n<style>{STYLE}</style>\n{bars}\n</svg>\n'
    )


def _bar(at: int, name: str, seconds: float, scale: float) -> str:
    top = GAP + at * (BAR + GAP)
    length = max(seconds * scale, 1)
    return (
        f'<text x="{NAMES - 10}" y="{top + 16}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{"" if at else "ours"}" x="{NAMES}" y="{top}" '
        f'width="{length:.1f}" height="{BAR}" rx="3"/>'
        f'<text x="{NAMES + length + 8:.1f}" y="{top + 16}">{seconds:g} s</text>'
    )


if __name__ == "__main__":
    main()
