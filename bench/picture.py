"""Horizontal bar charts as SVG, readable on a light and on a dark background."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH = 820
LABEL = 370
"""The horizontal position at which the bars begin."""
ROOM = 70
"""The width to the right of the longest bar, for its figure."""
BAR = 14
GAP = 8
HEAD = 52
COLOURS = (("#7c8896", "#b4bdc8"), ("#d9480f", "#f0a37c"))
"""For the other clients and for ours: the colours of the first and the second figure."""


def bars_svg(title: str, figures: Sequence[str], rows: Sequence[tuple[str, Sequence[float], bool]]) -> str:
    """A bar chart.

    Args:
        title: the title.
        figures: the names of the figures that each row has.
        rows: a label, the figures, and whether to highlight the row.
    """
    most = max((value for _, values, _ in rows for value in values), default=0.0) or 1.0
    step = BAR * len(figures) + GAP
    height = HEAD + step * len(rows) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="600" fill="#1c2430">{escape(title)}</text>',
    ]
    x = 12
    for index, name in enumerate(figures):
        parts.append(f'<rect x="{x}" y="32" width="10" height="10" fill="{COLOURS[0][index]}"/>')
        parts.append(f'<rect x="{x + 12}" y="32" width="10" height="10" fill="{COLOURS[1][index]}"/>')
        parts.append(f'<text x="{x + 28}" y="41" font-size="12" fill="#4a5563">{escape(name)}</text>')
        x += 60 + 7 * len(name)
    for number, (label, values, stressed) in enumerate(rows):
        top = HEAD + step * number
        weight = "600" if stressed else "400"
        middle = top + BAR * len(figures) / 2 + 4
        parts.append(
            f'<text x="{LABEL - 10}" y="{middle:g}" text-anchor="end" font-weight="{weight}" fill="#1c2430">'
            f"{escape(label)}</text>"
        )
        for index, value in enumerate(values):
            width = max(1.0, (WIDTH - LABEL - ROOM) * value / most)
            y = top + BAR * index
            colour = COLOURS[stressed][index]
            parts.append(f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 1}" fill="{colour}"/>')
            parts.append(
                f'<text x="{LABEL + width + 5:.1f}" y="{y + 11}" font-size="11" fill="#1c2430">{value:,.3g}</text>'
                if value < 1000
                else f'<text x="{LABEL + width + 5:.1f}" y="{y + 11}" font-size="11" fill="#1c2430">{value:,.0f}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"
