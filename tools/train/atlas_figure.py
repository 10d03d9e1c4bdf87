#!/usr/bin/env python3
"""Draw what the atlas's small models learn against what they remember, from the tables in tools/atlas/README.md.

    tools/train/atlas_figure.py     # writes quality.svg, recall.svg and copy.svg in tools/atlas

quality.svg: a disc for each mechanism; to the right more bytes of cache or state after 2,048 tokens, upward more quality,
the disc's area the tokens a second of decoding there. recall.svg and copy.svg: a dot for each mechanism and size of its
state; to the right more bytes after 128 tokens, upward more of 32 values recalled or of 64 symbols copied; sizes of one
mechanism are joined. The tables are the only source; a file with too few rows of them is an error."""

import math
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ATLAS = os.path.join(HERE, '..', 'atlas')
TABLE = os.path.join(ATLAS, 'README.md')
WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 30, 64, 48
MOST_AREA = 11 ** 2  # of the fastest row's disc, over pi
NUMBER = r'([\d,.]+)'

STYLE = '''
  .paper { fill: #ffffff } .ink { fill: #1f2328 } .grey { fill: #59636e } .rule { stroke: #d1d9e0 }
  .disc { fill: #0969da; fill-opacity: .3; stroke: #0969da } .line { fill: none; stroke: #0969da; stroke-opacity: .5 }
  text { font: 12px system-ui, sans-serif } .title { font-size: 15px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .ink { fill: #f0f6fc } .grey { fill: #9198a1 } .rule { stroke: #3d444d }
    .disc { fill: #4493f8; stroke: #4493f8 } .line { stroke: #4493f8 }
  }
'''


def read_rows(after, pattern, least):
    """The numbers of the table's rows that fit the pattern, behind the line that begins so; a name first."""
    rows, inside = [], False
    with open(TABLE, encoding='utf-8') as f:
        for line in f:
            inside = line.startswith(after) or inside and line.startswith('|')
            match = re.match(pattern, line.strip()) if inside else None
            if match:
                rows.append((match[1], *(float(x.replace(',', '')) for x in match.groups()[1:])))
    if len(rows) < least:
        sys.exit(f'{TABLE}: expected {least} rows or more behind "{after}", found {len(rows)}')
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


class Chart:
    """Bytes on a logarithmic scale to the right, a share in % upward."""

    def __init__(self, sizes, low, high, step, title, subtitle, below):
        self.low, self.high = low, high
        self.first, self.last = math.log2(min(sizes)) - .4, math.log2(max(sizes)) + 1
        self.out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
            f'<style>{STYLE}</style>', f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
            f'<text class="ink title" x="{LEFT}" y="24">{title}</text>',
            f'<text class="grey" x="{LEFT}" y="43">{subtitle}</text>']
        for share in range(int(math.ceil(low / step)) * step, int(high) + 1, step):
            y = self.y(share)
            self.out.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
                            f'<text class="grey" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share} %</text>')
        for power in range(math.ceil(self.first), math.floor(self.last) + 1):
            label = f'{2 ** (power - 10)} KiB' if power < 20 else f'{2 ** (power - 20)} MiB'
            self.out.append(f'<text class="grey" x="{self.x(2 ** power):.1f}" y="{HEIGHT - BOTTOM + 18}" '
                            f'text-anchor="middle">{label}</text>')
        self.out.append(f'<text class="grey" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
                        f'{below}</text>')

    def x(self, size):
        return LEFT + (math.log2(size) - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, share):
        return TOP + (self.high - share) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def disc(self, size, share, radius):
        self.out.append(f'<circle class="disc" cx="{self.x(size):.1f}" cy="{self.y(share):.1f}" r="{radius:.1f}"/>')

    def name(self, text, x, y):
        self.out.append(f'<text class="ink" x="{x:.1f}" y="{y + 4:.1f}">{text}</text>')

    def write(self, name):
        with open(os.path.join(ATLAS, name), 'w', encoding='utf-8') as f:
            f.write('\n'.join(self.out) + '\n</svg>\n')


def draw_quality():
    rows = read_rows('| mechanism | bits per byte', rf'^\| (\w+) \| [\d.]+ \| \d+ \| {NUMBER} % \| {NUMBER} \| {NUMBER} \| '
                     rf'{NUMBER} \|$', 5)
    shares, fastest = [r[1] for r in rows], max(r[3] for r in rows)
    chart = Chart([r[2] for r in rows], min(shares) - 5, max(shares) + 5, 10,
                  'Quality of small trained models against what they remember',
                  'share of the way from piece frequencies to MHA in bits per byte; a disc\'s area is the decode speed',
                  'keys and values, or state, of a text of 2,048 tokens')
    columns = {}
    for row in rows:
        columns.setdefault(round(math.log2(row[2])), []).append(row)
    for column in columns.values():
        heights = spread([chart.y(r[1]) for r in column], 14)
        label_x = max(chart.x(r[2]) + math.sqrt(MOST_AREA * r[3] / fastest) for r in column) + 5
        for (name, quality, size, speed, _), height in zip(column, heights):
            chart.disc(size, quality, math.sqrt(MOST_AREA * speed / fastest))
            chart.name(name, label_x, height)
    chart.write('quality.svg')


def draw_task(task, title, shares):
    """Of the table's accuracies that of the longest text, the last with a percent sign."""
    rows = read_rows(f'| {task}: mechanism', rf'^\| (\w+) \| \d+ \| {NUMBER} \|(?: [\d.]+ % \|)* {NUMBER} % \| [\d., ]+ \| [\d, ]+ \|$', 5)
    chart = Chart([r[1] for r in rows], -6, 104, 20, title, shares,
                  'keys and values, or state, of a text of 128 tokens')
    kinds = {}
    for name, size, share in rows:
        kinds.setdefault(name, []).append((size, share))
    columns = {}
    for name, points in kinds.items():
        points.sort()
        path = 'L'.join(f'{chart.x(size):.1f} {chart.y(share):.1f}' for size, share in points)
        chart.out.append(f'<path class="line" d="M{path}"/>')
        for size, share in points:
            chart.disc(size, share, 4)
        columns.setdefault(round(math.log2(size)), []).append((name, size, share))
    for column in columns.values():
        for (name, size, _), height in zip(column, spread([chart.y(r[2]) for r in column], 13)):
            chart.name(name, chart.x(size) + 9, height)
    chart.write(task + '.svg')


if __name__ == '__main__':
    draw_quality()
    draw_task('recall', 'Recall against what is remembered',
              'share of 32 values recalled in 128 tokens, mean of the seeds; lines join the sizes of one mechanism\'s state')
    draw_task('copy', 'Copying against what is remembered', 'share of 64 symbols copied in 128 tokens, mean of the seeds')
