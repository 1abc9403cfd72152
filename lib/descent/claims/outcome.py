"""One test as it was measured: its estimates, and the verdict and the words that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from descent.claims.verdict import FLAGS, Test, Verdict, family_wise, judge, replicas_needed, rule_from, rule_to
from descent.claims.verdict import deciding as deciding_of
from descent.stats.estimate import Estimate

__all__ = ["Outcome", "estimate_from", "estimate_to"]


@dataclass(frozen=True)
class Outcome:
    """One test with its estimates, or the reason why it was not tested.

    With estimates a reason says that they are not all there yet, "4 of 10 draws": they decide nothing.

    registration: what the random numbers were drawn from beside the seed; "" in records from before there was one.
    """

    test: Test
    family: int
    estimates: tuple[Estimate, ...] = ()
    reason: str = ""  # why it was not tested, or not fully
    experiment: str = ""
    config: str = ""  # digest of the experiment's configuration
    seconds: float = 0.0
    registration: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict, computed."""
        if not self.estimates:
            return Verdict.NOT_TESTED
        return Verdict.INCONCLUSIVE if self.reason else judge(self.test, self.estimates, self.family)

    @property
    def text(self) -> str:
        """A finished string for prose, such as "13.1 [12.6, 13.6], 1000 replicas"."""
        if not self.estimates:
            return f"{Verdict.NOT_TESTED}: {self.reason}"
        estimate, count = self.deciding[0], len(self.estimates)
        lead = f"weakest of {count}: " if count > 1 else ""
        doubt = f"; not decided: {self.undecided}" if self.undecided else ""
        return f"{lead}{estimate}, {estimate.source}{doubt}"

    @property
    def undecided(self) -> str:
        """Why what was measured decides nothing, such as "too few replicas: 2, at least 5"; "" where it may."""
        open = self.verdict is Verdict.INCONCLUSIVE
        return self.reason or self.deciding[1].insufficient if open else ""

    @property
    def quote(self) -> str:
        """The estimate with its interval for the middle of a sentence, such as "13.1 [12.6, 13.6]"."""
        return str(self.deciding[0]) if self.estimates else str(Verdict.NOT_TESTED)

    @property
    def quoted(self) -> dict[str, str]:
        """What prose may quote, by key: the estimate, and of a logarithm the factor it stands for ("….factor")."""
        found = {self.test.key: self.quote}
        if self.test.unit.startswith("log "):
            found[f"{self.test.key}.factor"] = str(_raised(self.deciding[0])) if self.estimates else self.quote
        return found

    @property
    def family_estimates(self) -> tuple[Estimate, ...]:
        """The estimates with intervals that hold for all tests of the family jointly."""
        return family_wise(self.estimates, self.family)

    @property
    def family_text(self) -> str:
        """The estimate with its family-wise interval, without the replicas."""
        return str(self.deciding[1]) if self.estimates else "—"

    @property
    def deciding(self) -> tuple[Estimate, Estimate]:
        """The estimate that decides, and the same with the interval of the family."""
        index = deciding_of(self.test, self.estimates, self.family)
        return self.estimates[index], self.family_estimates[index]

    def summary(self) -> dict[str, Any]:
        """Return the fields that a claim takes over from its headline test."""
        raw, wide = self.deciding if self.estimates else (None, None)
        region = self.test.rule.region
        return {
            "rule": rule_to(self.test.rule),
            "predicted": {"text": str(self.test.rule), "low": _end(region.low), "high": _end(region.high)},
            "estimate": _end(raw.value) if raw else None,
            "interval": [_end(raw.low), _end(raw.high)] if raw else None,
            "family_interval": [_end(wide.low), _end(wide.high)] if wide else None,
            "text": self.text,
            "replicas": raw.n if raw else None,
            "config": self.config,
        }

    @property
    def replicas_to_settle(self) -> int | None:
        """How many replicas would settle an inconclusive test; None when settled, not all there, or when none would."""
        return None if self.reason else replicas_needed(self.test, self.estimates, self.family)

    def to_json(self) -> dict[str, Any]:
        """Return the test as JSON values: what it was computed from, and what was computed."""
        return {
            "key": self.test.key, "quantity": self.test.quantity, "scales": list(self.test.scales),
            "unit": self.test.unit, "because": self.test.because, "family": self.family,
            "reason": self.reason, "undecided": self.undecided, "experiment": self.experiment,
            "seconds": self.seconds, "verdict": str(self.verdict), **self.summary(),
            "replicas_to_settle": self.replicas_to_settle,
            "estimates": [estimate_to(item) for item in self.estimates],
            **({"registration": self.registration} if self.registration else {}),
            **{name: True for name in FLAGS if getattr(self.test, name)},
        }  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Outcome:
        """Read the primary fields of what to_json wrote."""
        rule, scales = rule_from(content["rule"]), tuple(content["scales"])
        estimates = tuple(estimate_from(item) for item in content["estimates"])
        others = {name: content[name] for name in ("family", "reason", "experiment", "config", "seconds")}
        said: dict[str, Any] = {name: content.get(name, "") for name in ("unit", "because")}
        said |= {name: bool(content.get(name, False)) for name in FLAGS}
        test = Test(content["key"], content["quantity"], rule, scales, **said)
        return cls(test, estimates=estimates, registration=content.get("registration", ""), **others)


def estimate_to(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON values; an infinite number is written as null."""
    numbers = {name: _end(getattr(estimate, name)) for name in ("value", "low", "high", "dof", "level")}
    return {**numbers, "n": int(estimate.n), "method": estimate.method, "draws": int(estimate.draws)}


def estimate_from(content: Mapping[str, Any]) -> Estimate:
    """Read an estimate; null is infinite, −∞ for the lower end.

    content: what `estimate_to` wrote.
    """
    infinite = {"value": math.inf, "low": -math.inf, "high": math.inf, "dof": math.inf}
    values: dict[str, Any] = {name: infinite[name] if x is None else x for name, x in content.items()}
    return Estimate(**values)


def _raised(estimate: Estimate) -> Estimate:
    """Return the factor whose logarithm is estimated: 0.69 [0.6, 0.8] becomes 2 [1.8, 2.2]."""
    value, low, high = (math.exp(number) for number in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)


def _end(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None
