"""What is one number but for arithmetic, in numbers and in print: the class *numerics* of `results.compare`.

In print only what stands there as an estimate is a number: "1.03 [0.98, 1.08]", "0.9864, deterministic", "1, 40
replicas" or "1, 10 draws × 4". Where draws differ in how many of their replicas count, as in "16 draws, 153 replicas",
that number was measured, too. Everything else, a rule, another count or the name of a claim, is words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

__all__ = ["FLOOR", "SHARE", "as_printed", "near"]

SHARE = 0.25
"""Of an interval's width, that other arithmetic may move value and ends by."""
FLOOR = 1e-11
"""What is closer to zero than this is round-off, and as good as any other round-off."""

_NUMBER = r"[−-]?(?:∞|\d+(?:\.\d+)?(?:e[−-]?\d+)?)"
_ESTIMATE = re.compile(
    rf"({_NUMBER}) \[({_NUMBER}), ({_NUMBER})\]|({_NUMBER})(?=, (?:deterministic|\d+ (?:replica|draw)))"
    r"|(?<=draws, )(\d+)(?= replica)"
)


def near(a: float, b: float, width: float, digits: float) -> bool:
    """Tell whether two numbers are one but for arithmetic, given the width of the interval around them.

    digits: the relative error of a number that has no interval. a, b: the numbers; width: of the interval.
    """
    if a == b or (math.isnan(a) and math.isnan(b)):
        return True
    allowed = max(SHARE * width if math.isfinite(width) else 0.0, digits * max(abs(a), abs(b)), FLOOR)
    return abs(a - b) <= allowed


def as_printed(reference: str, text: str) -> str:
    """Return a text with every estimate that agrees with the reference's spelt as there; all of it, if all agree.

    Where numbers have other lengths columns are set otherwise: the white space then counts as the reference's.

    reference: the text that is to be reached.

    >>> as_printed("gain 1.7 [1.2, 2.2], 32 replicas, holds", "gain  1.7 [1.1, 2.2], 32 replicas, holds")
    'gain 1.7 [1.2, 2.2], 32 replicas, holds'
    >>> as_printed("gain 1.7 [1.2, 2.2], holds", "gain 2.2 [1.7, 2.7], holds")
    'gain 2.2 [1.7, 2.7], holds'
    """
    expected, found = list(_ESTIMATE.finditer(reference)), list(_ESTIMATE.finditer(text))
    if len(expected) != len(found):
        return text
    same = [_agree(a, b) for a, b in zip(expected, found, strict=True)]
    if all(same) and _words(reference) == _words(text):
        return reference
    spelt = (a[0] if one else b[0] for a, b, one in zip(expected, found, same, strict=True))
    return _ESTIMATE.sub(lambda _: next(spelt), text)


def _words(text: str) -> list[str]:
    """Return the words around the estimates, however far apart they are set."""
    return _ESTIMATE.sub("§", text).split()


def _agree(a: re.Match[str], b: re.Match[str]) -> bool:
    """Tell whether two printed estimates are one but for arithmetic, and for the rounding of what is printed."""
    if a[5] or b[5]:  # a run that stands on the edge of what is counted may fall on either side
        return bool(a[5] and b[5]) and near(float(a[5]), float(b[5]), 0.0, 10 ** (-len(a[5]) / 2))
    if (a[4] is None) != (b[4] is None):
        return False
    if a[4] is not None:  # a number on the edge between two roundings may be printed either way
        (x,), (y,) = _values((a[4],)), _values((b[4],))
        counts = _whole(a[4]) and _whole(b[4])
        return x == y or (not counts and abs(x - y) <= 1.001 * max(_unit(a[4]), FLOOR))
    first, second = _values(a.groups()[:3]), _values(b.groups()[:3])
    width = min(first[2] - first[1], second[2] - second[1])
    width = width if math.isfinite(width) else 0.0
    rounding = max(map(_unit, a.groups()[:3]))
    return all(near(x, y, width + rounding / SHARE, 0.0) for x, y in zip(first, second, strict=True))


def _whole(number: str) -> bool:
    """Tell whether a number is a count."""
    return number.lstrip("−-").isdigit()


def _values(numbers: Sequence[str]) -> list[float]:
    return [float(number.replace("−", "-").replace("∞", "inf")) for number in numbers]


def _unit(number: str) -> float:
    """Return what one in the last printed place is worth."""
    mantissa, _, exponent = number.replace("−", "-").partition("e")
    if "∞" in mantissa:
        return 0.0
    return math.pow(10.0, int(exponent or 0) - len(mantissa.partition(".")[2]))
