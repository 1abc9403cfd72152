"""When two measurements of one quantity are the same: three classes, used by every comparison there is.

*Same* is what two runs must be that agree in seed, versions, library, processor and kernels: bit for bit. *Numerics* is
what the same seed gives with other arithmetic: last digits differ, so estimates may lie a quarter of their interval
apart, and numbers without an interval agree to half their digits. *Statistical* is another seed or number of replicas;
so is other arithmetic where runs are chaotic: what it changes in the last digit grows until the runs have parted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from descent.results.provenance import Provenance
from descent.stats.estimate import Estimate, critical_t
from descent.stats.sameness import near

__all__ = ["Comparison", "Kind", "Measured", "compare"]

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Distance from one to the next number, by the type of the training runs."""

ELSEWHERE = "another setting"
"""What stands where two configurations differ: no number of one speaks for or against the other's."""
ERRORS = 3.0
"""Standard errors within which two statistical runs agree."""


class Kind(StrEnum):
    """How strictly two runs may be compared.

    Same: one configuration, seed, processor, set of kernels, versions and library, so that digits must agree.
    Numerics: one seed, other arithmetic or code. Statistical: other seed, registration or number of replicas, or other
    arithmetic in chaotic runs. Incompatible: other configuration.
    """

    SAME = "same"
    NUMERICS = "numerics"
    STATISTICAL = "statistical"
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True)
class Measured:
    """An estimate with its configuration's digest, its conditions, and the registration its numbers were drawn from."""

    key: str
    estimate: Estimate
    config: str  # digest of the configuration
    provenance: Provenance
    registration: str = ""
    chaotic: bool = False  # its runs amplify last digits until they part


@dataclass(frozen=True)
class Comparison:
    """One line of "published interval | your interval | compatible?"; None where there is no answer."""

    key: str
    kind: Kind
    published: str
    yours: str
    compatible: bool | None  # None where it cannot be told
    remark: str = ""  # why not, or what to know
    parted: bool = False  # chaotic runs that other arithmetic has driven apart

    @property
    def answer(self) -> str:
        """The word for `compatible`, else why there is none."""
        return {True: "yes", False: "no", None: self.remark or ELSEWHERE}[self.compatible]

    @property
    def how(self) -> str:
        """How strictly the two were compared, and what is to be remarked; "–" where they were not."""
        return "–" if self.compatible is None else "; ".join(filter(None, (str(self.kind), self.remark)))


def compare(published: Measured, yours: Measured) -> Comparison:
    """Compare two measurements.

    Same: bit for bit. Numerics: see `_agree_numerically`. Statistical: |a − b| <= 3·√(s_a² + s_b²) on standard errors.
    """
    kind = kind_of(published, yours)
    compatible = _agrees(kind, published, yours)
    shown = (str(published.estimate), str(yours.estimate))
    remark = _remark(kind, published, yours)
    return Comparison(published.key, kind, *shown, compatible, remark, _parted(published, yours))


def kind_of(published: Measured, yours: Measured) -> Kind:
    """Return how strictly the two may be compared."""
    a, b = published.provenance, yours.provenance
    if (published.key, published.config, a.scale) != (yours.key, yours.config, b.scale):
        return Kind.INCOMPATIBLE
    if not _one_draw(published, yours) or _parted(published, yours):
        return Kind.STATISTICAL
    return Kind.SAME if replace(a, date="") == replace(b, date="") else Kind.NUMERICS


def _parted(a: Measured, b: Measured) -> bool:
    """Tell whether two measurements come of chaotic runs that other arithmetic has driven apart."""
    return (a.chaotic or b.chaotic) and a.provenance.arithmetic != b.provenance.arithmetic


def _remark(kind: Kind, published: Measured, yours: Measured) -> str:
    """Return what to know of a comparison beside its answer."""
    if kind is Kind.INCOMPATIBLE:
        return ""
    if published.registration != yours.registration:
        return "other rules, so other random numbers"
    if kind is Kind.STATISTICAL and _one_draw(published, yours):
        return "chaotic, and other arithmetic"
    if kind is Kind.SAME and not _agrees(kind, published, yours) and _agrees(Kind.NUMERICS, published, yours):
        return "digits differ though nothing that was recorded does: a kernel without fixed order"
    return ""


def _one_draw(a: Measured, b: Measured) -> bool:
    """Tell whether two measurements share every random number."""
    first, second = a.provenance, b.provenance
    return (first.seed, first.replicas, a.registration) == (second.seed, second.replicas, b.registration)


def _agree_numerically(a: Estimate, b: Estimate, eps: float) -> bool:
    """Tell whether two estimates are one but for arithmetic whose numbers have the relative error eps.

    Value and both ends lie within a quarter of the (narrower) interval's width, within half the digits, or both within
    round-off of zero.
    """
    width = min(a.high - a.low, b.high - b.low)
    pairs = ((a.value, b.value), (a.low, b.low), (a.high, b.high))
    return all(near(x, y, width, math.sqrt(eps)) for x, y in pairs)


def standard_error(estimate: Estimate) -> float:
    """Return the interval's half-width over its critical value; infinite for an unbounded interval."""
    dof = estimate.dof if estimate.dof > 0 else math.inf
    return (estimate.high - estimate.low) / 2 / critical_t(estimate.level, dof)


def _agrees(kind: Kind, published: Measured, yours: Measured) -> bool | None:
    a, b = published.estimate, yours.estimate
    if kind is Kind.INCOMPATIBLE:
        return None
    if kind is Kind.SAME:
        return a == b
    eps = max(EPS[side.provenance.dtype] for side in (published, yours))
    if kind is Kind.NUMERICS:
        return _agree_numerically(a, b, eps)
    error = math.hypot(standard_error(a), standard_error(b))
    return abs(a.value - b.value) <= ERRORS * error or near(a.value, b.value, 0.0, math.sqrt(eps))
