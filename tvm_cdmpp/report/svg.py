"""Small charts as inline SVG, coloured by the page's variables, so that they follow its theme."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 12, 12, 44
_TICKS = 5
_FEWEST_LOG_TICKS = 3
"""A logarithmic axis with fewer has those of a linear one, which are closer to each other."""
_COLOURS = 6
"""Of marks; the page has one for each of the classes `g0`, `g1`, ..."""
_SHAPES = (
    "m-2.5,0a2.5,2.5 0 1 0 5,0a2.5,2.5 0 1 0-5,0z",  # circle
    "m-2.5-2.5h5v5h-5z",  # square
    "m0-3.5l3.2,5.5h-6.4z",  # triangle
    "m0-3.6l3.6,3.6l-3.6,3.6l-3.6-3.6z",  # diamond
    "m-1-3.4h2v2.4h2.4v2h-2.4v2.4h-2v-2.4h-2.4v-2h2.4z",  # plus
    "m0,3.5l3.2-5.5h-6.4z",  # triangle on its tip
    "m0-1.4l1.8-1.8l1.4,1.4l-1.8,1.8l1.8,1.8l-1.4,1.4l-1.8-1.8l-1.8,1.8l-1.4-1.4l1.8-1.8l-1.8-1.8"
    "l1.4-1.4z",  # cross
)
"""From the centre of a mark; as many as have no divisor in common with the number of colours."""
NUM_MARKS = 2 * _COLOURS * len(_SHAPES)
"""Groups of points that can be told apart; filled marks come first, then hollow ones."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart, linear or logarithmic."""

    label: str
    low: float
    high: float
    log: bool = False
    whole: bool = False
    """Whether its values are counts, of which only whole ones are labelled; of a linear axis."""

    def place(self, value: float) -> float:
        """Return where a value lies, from 0 to 1."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return (at - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[float]:
        """Return round values to label."""
        if self.log and len(ticks := self._log_ticks()) >= _FEWEST_LOG_TICKS:
            return ticks
        step = 10 ** math.floor(math.log10(max(self.high - self.low, 1e-300) / _TICKS))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= _TICKS)
        step = max(step, 1.0) if self.whole else step
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step) + 1)]

    def _log_ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        few = len(decades) < _TICKS
        values = [m * 10.0**d for d in decades for m in ((1, 2, 5) if few else (1,))]
        return [value for value in values if self.low <= value <= self.high]


def line_chart(title: str, x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    """Return a line through points, in steps: a value holds until the next one.

    A dot is where it begins, without which a single point would not be seen.
    """
    path = []
    for number, point in enumerate(points):
        left, top = _at(x, y, *point)
        path.append(f"{'H' if number else 'M'}{left:.1f}{'V' if number else ','}{top:.1f}")
    left, top = _at(x, y, *points[0])
    begin = f'<circle class="begin" cx="{left:.1f}" cy="{top:.1f}" r="3"/>'
    return _chart(title, x, y, f'<path class="line" d="{"".join(path)}"/>{begin}')


def scatter_chart(
    title: str, x: Axis, y: Axis, groups: Sequence[tuple[str, Sequence[tuple[float, float]]]]
) -> str:
    """Return groups of points, each with its `mark` and a tooltip, and the line of equal x, y."""
    begin, end = max(x.low, y.low), min(x.high, y.high)
    parts = []
    if begin < end:
        (left, bottom), (right, top) = _at(x, y, begin, begin), _at(x, y, end, end)
        parts.append(
            f'<line class="diagonal" x1="{left:.1f}" y1="{bottom:.1f}" x2="{right:.1f}" '
            f'y2="{top:.1f}"/>'
        )
    for number, (name, points) in enumerate(groups):
        dots = "".join(
            f'<path d="M{left:.1f},{top:.1f}{_SHAPES[number % len(_SHAPES)]}"/>'
            for left, top in (_at(x, y, *point) for point in points)
        )
        parts.append(f'<g class="{_classes(number)}"><title>{html.escape(name)}</title>{dots}</g>')
    return _chart(title, x, y, "".join(parts))


def mark(number: int) -> str:
    """Return the mark of a group of points, for a legend; colours and shapes take turns."""
    shape = _SHAPES[number % len(_SHAPES)]
    return (
        '<svg class="mark" viewBox="-5 -5 10 10" aria-hidden="true">'
        f'<path class="{_classes(number)}" d="M0,0{shape}"/></svg>'
    )


def _classes(number: int) -> str:
    hollow = number % NUM_MARKS >= NUM_MARKS // 2
    return f"{'hollow' if hollow else 'dots'} g{number % _COLOURS}"


def _at(x: Axis, y: Axis, across: float, up: float) -> tuple[float, float]:
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return _LEFT + width * x.place(across), _TOP + height * (1 - y.place(up))


def _chart(title: str, x: Axis, y: Axis, content: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    grid = []
    for tick in y.ticks():
        _, top = _at(x, y, x.low, tick)
        grid.append(f'<line class="grid" x1="{_LEFT}" y1="{top:.1f}" x2="{right}" y2="{top:.1f}"/>')
        grid.append(f'<text class="left" x="{_LEFT - 6}" y="{top + 4:.1f}">{tick:.4g}</text>')
    for tick in x.ticks():
        left, _ = _at(x, y, tick, y.low)
        grid.append(
            f'<line class="grid" x1="{left:.1f}" y1="{_TOP}" x2="{left:.1f}" y2="{bottom}"/>'
        )
        grid.append(f'<text class="below" x="{left:.1f}" y="{bottom + 16}">{tick:.4g}</text>')
    middle = (_TOP + bottom) / 2
    labels = (
        f'<text class="below" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}">{html.escape(x.label)}'
        f'</text><text class="below" transform="rotate(-90 14 {middle})" x="14" y="{middle}">'
        f"{html.escape(y.label)}</text>"
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(grid)}{labels}{content}</svg>"
    )
