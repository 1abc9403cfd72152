"""A small inline picture of a test: estimate and interval drawn against the region its rule demands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from descent.book.pages import html
from descent.claims import Outcome

WIDTH, HEIGHT = 220, 26
MARGIN = 8
TALL = 9
"""Height of one further estimate, where a rule is over each of several."""


def picture(outcome: Outcome, large: Outcome | None = None) -> str:
    """Return an SVG, "" where nothing was measured.

    The region is shaded, with its ends in numbers; per estimate a dot, its 95 % interval thick, the joint one thin.
    large: the same test at paper scale, drawn below on the same axis, with open circles.
    """
    seen = [
        (kind, raw, joint)
        for kind, found in (("here", outcome), ("large", large))
        if found
        for raw, joint in zip(found.estimates, found.family_estimates, strict=True)
    ]
    if not seen:
        return ""
    region = outcome.test.rule.region
    low, high = _window(
        [region.low, region.high, *(end for _, _, wide in seen for end in (wide.low, wide.high))],
        [raw.value for _, raw, _ in seen],
    )
    height = HEIGHT + TALL * (len(seen) - 1)

    def x(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return MARGIN + (WIDTH - 2 * MARGIN) * share

    shapes = [_box(x(region.low), x(region.high), height)]
    for row, (kind, raw, joint) in enumerate(seen):
        y = 9 + TALL * row
        shapes += [
            _line("joint", x(joint.low), x(joint.high), y),
            _line("raw", x(raw.low), x(raw.high), y),
            f'<circle class="{kind}" cx="{x(raw.value):.1f}" cy="{y}" r="3.2"/>',
        ]
    ends = [(x(end), side, end) for end, side in ((region.low, "end"), (region.high, "start")) if math.isfinite(end)]
    marks = "".join(_mark(place, side if len(ends) == 2 else "middle", end, height) for place, side, end in ends)
    verdict, label = html.kind(outcome.verdict), escape(_said(outcome, large))
    return (
        f'<svg class="outcome {verdict}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{label}">{"".join(shapes)}{marks}</svg>'
    )


def _said(outcome: Outcome, large: Outcome | None) -> str:
    """Return what the picture shows, in words."""
    here = f"{outcome.quote}; " if outcome.estimates else ""
    there = f"; at paper scale {large.quote}, {large.verdict}" if large and large.estimates else ""
    return f"{here}demanded {outcome.test.rule}; {outcome.verdict}{there}"


def _window(ends: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return the range drawn: all finite ends with some air, and air beyond a region without end."""
    finite = [end for end in (*ends, *values) if math.isfinite(end)]
    low, high = min(finite), max(finite)
    air = 0.12 * (high - low) or max(abs(low), 1.0) * 0.1
    return low - air, high + air


def _box(left: float, right: float, height: float) -> str:
    return f'<rect x="{left:.1f}" y="1" width="{max(right - left, 1.5):.1f}" height="{height - 11:.1f}"/>'


def _line(kind: str, left: float, right: float, y: float) -> str:
    return f'<line class="{kind}" x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>'


def _mark(place: float, side: str, value: float, height: float) -> str:
    """Write an end of the region below it, inside the picture."""
    side = "start" if place < 2 * MARGIN else "end" if place > WIDTH - 2 * MARGIN else side
    return f'<text x="{place:.1f}" y="{height - 1}" text-anchor="{side}">{_short(value)}</text>'


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
