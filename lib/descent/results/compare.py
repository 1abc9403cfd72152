"""Compare two measurements of one quantity, as strictly as the conditions of the two runs allow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

import torch

from descent.estimate import Estimate, critical_t
from descent.results.provenance import Provenance

__all__ = ["Comparison", "Kind", "Measured", "compare"]

ERRORS = 3.0


class Kind(StrEnum):
    """How two runs may be compared.

    Exact: same configuration, seed, device class, versions, library; digits must agree. Cross-numerics: same
    seed, other arithmetic. Statistical: other seed or number of replicas. Incompatible: other configuration.
    """

    EXACT = "exact"
    CROSS_NUMERICS = "cross-numerics"
    STATISTICAL = "statistical"
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True)
class Measured:
    """An estimate with its configuration's digest and its conditions."""

    key: str
    estimate: Estimate
    config: str
    provenance: Provenance


@dataclass(frozen=True)
class Comparison:
    """One line of "published interval | your interval | compatible?"; None where there is no answer."""

    key: str
    kind: Kind
    published: str
    yours: str
    compatible: bool | None
    remark: str = ""

    @property
    def answer(self) -> str:
        """The word for `compatible`."""
        return {True: "yes", False: "no", None: "not comparable"}[self.compatible]


def compare(published: Measured, yours: Measured) -> Comparison:
    """Compare two measurements.

    Exact: bitwise. Cross-numerics and statistical: |a − b| <= 3·√(s_a² + s_b²) on standard errors; two
    deterministic numbers from different arithmetic must agree to half the digits of their dtype.
    """
    kind = kind_of(published, yours)
    compatible = _agrees(kind, published, yours)
    remark = ""
    if kind is Kind.EXACT and not compatible and _within_errors(published, yours):
        remark = "digits differ though intervals agree: another processor, or a kernel without fixed order"
    return Comparison(published.key, kind, str(published.estimate), str(yours.estimate), compatible, remark)


def kind_of(published: Measured, yours: Measured) -> Kind:
    """Return how strictly the two may be compared."""
    a, b = published.provenance, yours.provenance
    if (published.key, published.config, a.scale) != (yours.key, yours.config, b.scale):
        return Kind.INCOMPATIBLE
    if (a.seed, a.replicas) != (b.seed, b.replicas):
        return Kind.STATISTICAL
    return Kind.EXACT if replace(a, date="") == replace(b, date="") else Kind.CROSS_NUMERICS


def standard_error(estimate: Estimate) -> float:
    """Return the interval's half-width over its critical value; infinite for an unbounded interval."""
    dof = estimate.dof if estimate.dof > 0 else math.inf
    return (estimate.high - estimate.low) / 2 / critical_t(estimate.level, dof)


def _agrees(kind: Kind, published: Measured, yours: Measured) -> bool | None:
    if kind is Kind.INCOMPATIBLE:
        return None
    if kind is Kind.EXACT:
        return published.estimate == yours.estimate
    return _within_errors(published, yours)


def _within_errors(published: Measured, yours: Measured) -> bool:
    a, b = published.estimate, yours.estimate
    error = math.hypot(standard_error(a), standard_error(b))
    if error == 0:
        eps = max(torch.finfo(getattr(torch, side.provenance.dtype)).eps for side in (published, yours))
        return math.isclose(a.value, b.value, rel_tol=math.sqrt(eps), abs_tol=eps)
    return abs(a.value - b.value) <= ERRORS * error or a.value == b.value
