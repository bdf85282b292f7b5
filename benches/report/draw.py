#!/usr/bin/env python3
"""Draws the pictures of benches/README.md from the saved results of the benchmarks.

    benches/report/draw.py [TARGET_DIRECTORY]

Reads TARGET_DIRECTORY/bench-results/*.tsv (default: $CARGO_TARGET_DIR, then target) and writes an SVG
for each picture whose results exist. The colours follow the reader's light or dark theme. Needs
Python 3 and nothing else.
"""
import math
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent

# A picture for each: file, results, title, metric, label of y, label of x.
PICTURES = [
    ("fan_out_single.svg", "fan_out", "Time per delivery, events one by one", "single",
     "nanoseconds per delivery", "clients (tasks on one thread)"),
    ("fan_out_burst16.svg", "fan_out", "Time per delivery, bursts of 16 events", "burst16",
     "nanoseconds per delivery", "clients (tasks on one thread)"),
    ("end_to_end.svg", "end_to_end", "Processor time per delivery, over TCP", None,
     "microseconds per delivery", "connections"),
]

# The hub stands out; the peers have quieter colours. Light theme, dark theme.
COLOURS = [("#c2410c", "#fb923c"), ("#1d4ed8", "#7aa2f7"), ("#0f766e", "#5eead4"),
           ("#7e22ce", "#c4a7f7"), ("#a16207", "#fcd34d"), ("#475569", "#cbd5e1")]

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 52, 56


def read(path, metric):
    """Returns the points of each peer: {peer: {clients: value}}."""
    series = {}
    for line in path.read_text().splitlines():
        _, peer, clients, of, value, unit = line.split("\t")
        if unit == "x" or (metric and of != metric) or float(clients) <= 0:
            continue
        if metric is None and not ("cpu" in of.lower() and "deliver" in (of + unit).lower()):
            continue
        scale = {"ns": 1e-3, "us": 1, "µs": 1, "ms": 1e3}[unit.split("/")[0]] if metric is None else 1
        series.setdefault(peer, {})[float(clients)] = float(value) * scale
    return dict(sorted(series.items(), key=lambda item: "hub" not in item[0]))


def ticks(most):
    """Returns round numbers from 0 on that cover `most`."""
    step = 10 ** math.floor(math.log10(most))
    step = next(step * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if most / (step * part) <= 6)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def short(number):
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def draw(title, series, label_y, label_x):
    numbers = sorted({clients for points in series.values() for clients in points})
    low, high = math.log10(numbers[0]), math.log10(numbers[-1])
    scale_y = ticks(max(max(points.values()) for points in series.values()))

    def x(clients):
        share = 0.5 if low == high else (math.log10(clients) - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - value / scale_y[-1] * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title)}">', "<style>",
           "text { font: 13px system-ui, sans-serif; fill: #1f2328 }",
           ".title { font-size: 16px; font-weight: 600 } .axis { fill: #59636e }",
           ".back { fill: #ffffff } .grid { stroke: #d1d9e0; stroke-width: 1 }",
           "polyline { fill: none; stroke-width: 2.5; stroke-linejoin: round }"]
    for at, (light, _) in enumerate(COLOURS):
        out.append(f".l{at} {{ stroke: {light} }} .t{at} {{ fill: {light} }}")
    out += ["@media (prefers-color-scheme: dark) {", "text { fill: #f0f6fc } .axis { fill: #9198a1 }",
            ".back { fill: #0d1117 } .grid { stroke: #3d444d }"]
    for at, (_, dark) in enumerate(COLOURS):
        out.append(f".l{at} {{ stroke: {dark} }} .t{at} {{ fill: {dark} }}")
    out += ["}", "</style>", f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
            f'<text class="axis" x="{LEFT}" y="44">{escape(label_y)}</text>']
    for value in scale_y:
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        out.append(f'<text class="axis" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for clients in numbers:
        out.append(f'<text class="axis" x="{x(clients):.1f}" y="{HEIGHT - BOTTOM + 20}" '
                   f'text-anchor="middle">{short(clients)}</text>')
    out.append(f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 12}" '
               f'text-anchor="middle">{escape(label_x)}</text>')
    # Labels at the ends of the lines, moved apart where lines meet.
    ends = sorted(((y(points[max(points)]), at) for at, points in enumerate(series.values())))
    places, above = {}, -math.inf
    for end, at in ends:
        places[at] = above = max(end, above + 17)
    excess = max(0, above - (HEIGHT - BOTTOM))
    for at, (peer, points) in enumerate(series.items()):
        colour = at % len(COLOURS)
        line = " ".join(f"{x(clients):.1f},{y(value):.1f}" for clients, value in sorted(points.items()))
        out.append(f'<polyline class="l{colour}" points="{line}"/>')
        out += [f'<circle class="t{colour}" cx="{x(clients):.1f}" cy="{y(value):.1f}" r="3.5"/>'
                for clients, value in sorted(points.items())]
        last = points[max(points)]
        shown = f"{last:.0f}" if last >= 100 else f"{last:.3g}"
        out.append(f'<text class="t{colour}" x="{x(max(points)) + 10:.1f}" '
                   f'y="{places[at] - excess + 4:.1f}">{escape(peer)}, {shown}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("CARGO_TARGET_DIR", "target")
    for name, results, title, metric, label_y, label_x in PICTURES:
        path = pathlib.Path(target) / "bench-results" / f"{results}.tsv"
        series = read(path, metric) if path.exists() else {}
        if not series:
            print(f"{name}: no results in {path}")
            continue
        (HERE / name).write_text(draw(title, series, label_y, label_x))
        print(f"{name}: drawn from {path}")


main()
