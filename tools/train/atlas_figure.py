#!/usr/bin/env python3
"""Draw the quality of the atlas's models against what they remember, from the table in tools/atlas/README.md.

    tools/train/atlas_figure.py [OUT.svg]      (default: tools/atlas/quality.svg)

A disc for each mechanism: to the right more bytes of cache or state after 2,048 tokens, upward more quality, the disc's
area the tokens a second of decoding there. The table is the only source; a row that lacks a column is an error."""

import math
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = os.path.join(HERE, '..', 'atlas', 'README.md')
WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 30, 64, 48
MOST_AREA = 16 ** 2  # of the fastest row's disc, over pi

STYLE = '''
  .paper { fill: #ffffff } .ink { fill: #1f2328 } .grey { fill: #59636e } .rule { stroke: #d1d9e0 }
  .disc { fill: #0969da; fill-opacity: .3; stroke: #0969da }
  text { font: 12px system-ui, sans-serif } .title { font-size: 15px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .ink { fill: #f0f6fc } .grey { fill: #9198a1 } .rule { stroke: #3d444d }
    .disc { fill: #4493f8; stroke: #4493f8 }
  }
'''


def read_rows():
    """[(name, quality in %, bytes, tokens/s)] of the rows that have all of them."""
    number = r'([\d,.]+)'
    row = re.compile(rf'^\| (\w+) \| {number} \| \d+ \| {number} % \| {number} \| {number} \| {number} \|$')
    rows = []
    with open(TABLE, encoding='utf-8') as f:
        for line in f:
            match = row.match(line.strip())
            if not match:
                continue
            quality, size, speed = (float(match[i].replace(',', '')) for i in (3, 4, 5))
            rows.append((match[1], quality, size, speed))
    if len(rows) < 5:
        sys.exit(f'{TABLE}: expected the table of quality, found {len(rows)} rows of it')
    return rows


def spread(wanted, gap):
    """Heights near those wanted, each at least gap below the one before."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    heights = [wanted[i] for i in order]
    for _ in range(100):
        for i in range(1, len(heights)):
            lack = gap - (heights[i] - heights[i - 1])
            if lack > 0:
                heights[i - 1] -= lack / 2
                heights[i] += lack / 2
    placed = [0.0] * len(wanted)
    for i, height in zip(order, heights):
        placed[i] = height
    return placed


def draw(rows):
    low, high = min(r[1] for r in rows) - 5, max(r[1] for r in rows) + 5
    first, last = math.log2(min(r[2] for r in rows)) - .4, math.log2(max(r[2] for r in rows)) + 1
    fastest = max(r[3] for r in rows)

    def x_of(size):
        return LEFT + (math.log2(size) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y_of(quality):
        return TOP + (high - quality) / (high - low) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
           f'<style>{STYLE}</style>', f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
           f'<text class="ink title" x="{LEFT}" y="24">Quality of small trained models against what they remember</text>',
           f'<text class="grey" x="{LEFT}" y="43">share of the way from piece frequencies to MHA in bits per byte; '
           'a disc\'s area is the decode speed</text>']
    for quality in range(int(math.ceil(low / 10)) * 10, int(high) + 1, 10):
        y = y_of(quality)
        out.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
                   f'<text class="grey" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{quality} %</text>')
    for power in range(math.ceil(first), math.floor(last) + 1):
        label = f'{2 ** (power - 10)} KiB' if power < 20 else f'{2 ** (power - 20)} MiB'
        x = x_of(2 ** power)
        out.append(f'<text class="grey" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>')
    out.append(f'<text class="grey" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
               'keys and values, or state, of a text of 2,048 tokens</text>')
    columns = {}
    for row in rows:
        columns.setdefault(round(math.log2(row[2])), []).append(row)
    for column in columns.values():
        heights = spread([y_of(r[1]) for r in column], 14)
        label_x = max(x_of(r[2]) + math.sqrt(MOST_AREA * r[3] / fastest) for r in column) + 5
        for (name, quality, size, speed), height in zip(column, heights):
            radius = math.sqrt(MOST_AREA * speed / fastest)
            out.append(f'<circle class="disc" cx="{x_of(size):.1f}" cy="{y_of(quality):.1f}" r="{radius:.1f}"/>'
                       f'<text class="ink" x="{label_x:.1f}" y="{height + 4:.1f}">{name}</text>')
    return '\n'.join(out) + '\n</svg>\n'


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, '..', 'atlas', 'quality.svg')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(draw(read_rows()))


if __name__ == '__main__':
    main()
