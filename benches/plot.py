#!/usr/bin/env python3
"""Draws the table that benches/compare.sh makes, as an SVG on standard output.

    benches/plot.py TABLE > docs/compare.svg

One group of bars for each mode and number of clients: throughput as a part of PostgreSQL's without a proxy. It is legible on light and dark pages.
"""
import sys
from html import escape

SERIES = [("PgBouncer", "pgbouncer"), ("HeliosProxy, no cache", "off"), ("HeliosProxy, cache on", "on")]
ROW, BAR, LEFT, WIDTH, TOP = 46, 11, 170, 740, 64


def read(path):
    """The first line of the file, and for each row: label, and the ratios by series (None where there is none)."""
    rows, title = [], None
    for line in open(path, encoding="utf-8"):
        title = title or line.strip()
        words = line.split()
        if len(words) < 6 or words[0] not in ("simple", "extended", "prepared") or not words[1].isdigit():
            continue
        hot = words[3] == "-"
        label = f"{words[0]}, {words[1]} client{'s' if words[1] != '1' else ''}{', hot' if hot else ''}"
        ratios = [None if word == "-" else float(word) for word in words[3:6]]
        rows.append((label, ratios))
    return title, rows


def draw(title, rows):
    most = max(1.0, *(ratio for _, ratios in rows for ratio in ratios if ratio))
    ticks = [tick / 4 for tick in range(int(most * 4) + 2)]
    scale = (WIDTH - LEFT - 50) / ticks[-1]
    height = TOP + ROW * len(rows) + 30
    x = lambda ratio: LEFT + ratio * scale
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           'font-family="sans-serif" font-size="12" role="img">')
    yield f"<title>{escape(title)}</title>"
    yield ("<style>text{fill:#333}.grid{stroke:#8886}.one{stroke:#888;stroke-width:1.5}.pgbouncer{fill:#8a8f98}.off{fill:#4c8ed9}.on{fill:#d9793a}"
           "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>")
    yield f'<text x="8" y="18" font-size="13">{escape(title)}</text>'
    at = 8
    for name, kind in SERIES:
        yield f'<rect class="{kind}" x="{at}" y="30" width="11" height="11"/><text x="{at + 16}" y="40">{name}</text>'
        at += 16 + 7 * len(name) + 24
    for tick in ticks:
        kind = "one" if tick == 1 else "grid"
        yield f'<line class="{kind}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP - 6}" y2="{height - 26}"/>'
        yield f'<text x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle">{tick:g}</text>'
    for number, (label, ratios) in enumerate(rows):
        y = TOP + number * ROW
        yield f'<text x="{LEFT - 8}" y="{y + 21}" text-anchor="end">{escape(label)}</text>'
        for place, ((_, kind), ratio) in enumerate(zip(SERIES, ratios)):
            if ratio is not None:
                top = y + place * (BAR + 1)
                yield f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{ratio * scale:.1f}" height="{BAR}"/>'
                yield f'<text x="{x(ratio) + 5:.1f}" y="{top + 10}" font-size="10">{ratio:.2f}</text>'
    yield f'<text x="{WIDTH - 8}" y="40" text-anchor="end">PostgreSQL directly = 1</text>'
    yield "</svg>"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    title, rows = read(sys.argv[1])
    if not rows:
        sys.exit(f"{sys.argv[1]} is not a table of benches/compare.sh")
    print("\n".join(draw(title, rows)))
