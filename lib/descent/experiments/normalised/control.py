"""The control: plain descent that takes, at every moment, the step that momentum would take where it is.

Three rules, each in three arms: with momentum, plain, and plain at a rate that is measured on the way, so that the
mean step descends as far as momentum's would from the same parameters. With the noise of batches as it is, and with the
same noise made symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pandas import DataFrame, concat

from descent.arrays import Array, IntArray
from descent.engine import Arms, by_leaf, every, muon, normalised, sign, stack, train
from descent.engine.rule import AnyRule, Rule
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Tables, tidy
from descent.experiments.normalised.nets import Net, Task, fading
from descent.measure.step import Reaching, Symmetrised
from descent.stats import Estimate, draw_difference

ARMS = ("momentum", "matched", "plain")
MOMENTUM, MATCHED, PLAIN = range(3)
Kind = Literal["sign", "muon", "normalised"]


@dataclass(frozen=True)
class Case:
    """A rule, its rate and length, whether its noise is made symmetric, and which family of draws it is on."""

    name: str
    kind: Kind
    lr: float
    steps: int
    symmetric: bool
    family: int = 0

    def rule(self, momentum: float) -> Rule:
        """Return the rule with a momentum."""
        if self.kind == "sign":
            return sign(self.lr, momentum)
        if self.kind == "normalised":
            return normalised(self.lr, momentum)
        flat = muon(self.lr * 5, momentum, nesterov=False, scale="rms")  # 5: the scale is then √(longer side)
        return by_leaf(flat, otherwise=sign(self.lr, momentum), where=_is_matrix)


def _is_matrix(name: str, shape: torch.Size) -> bool:
    return len(shape) > 1


SHORT, LONG = 400, 700
CASES = (
    Case("sign, symmetric, short", "sign", 3e-3, SHORT, True),
    Case("sign, symmetric, other draws", "sign", 3e-3, SHORT, True, family=1),
    Case("Muon, symmetric", "muon", 3e-3, 300, True),
    Case("normalised, symmetric", "normalised", 0.1, SHORT, True),
    Case("sign, raw, long", "sign", 3e-3, LONG, False),
    Case("sign, symmetric, long", "sign", 3e-3, LONG, True),
)
"""The cases in the order in which the claims ask for them."""


@dataclass(frozen=True)
class Control:
    """Small nets on few images, rates that fade to nothing."""

    net: Net = field(default_factory=lambda: Net(examples=256, hidden=24))
    cases: tuple[Case, ...] = CASES
    momentum: float = 0.9
    batch_size: int = 8
    look: int = 20  # steps between two measurements of the step
    burn: int = 30
    frozen: int = 100  # gradients of a measurement
    most: float = 40.0  # the largest factor on the rate

    def rules(self, case: Case) -> AnyRule:
        """Return the three arms of a case."""
        strong, weak = case.rule(self.momentum), case.rule(0.0)
        return stack(strong, weak, weak)


@dataclass(frozen=True, eq=False)
class Followed:
    """A case: log losses (3, D, N/D, T) by ARMS at steps (T,), accuracies (3, D, N/D) at the end.

    factors (D, N/D, L): on the matched arm's rate, at looks (L,); nan where no rate matches.
    """

    steps: IntArray
    losses: Array
    accuracy: Array
    looks: IntArray
    factors: Array

    def less(self, a: int, b: int) -> Estimate:
        """Return the difference of two arms in the log loss at the end."""
        return draw_difference(self.losses[a, ..., -1], self.losses[b, ..., -1])


@dataclass(frozen=True, eq=False)
class ControlResult(Result[Control]):
    """What every case left behind."""

    found: tuple[Followed, ...]


def run(config: Control, lab: Lab) -> ControlResult:
    """Follow every case."""
    return ControlResult(config, lab, tuple(_follow(config, lab, case) for case in config.cases))


def _follow(config: Control, lab: Lab, case: Case) -> Followed:
    """Train the three arms on all draws as one stack."""
    skip = case.family * config.net.draws
    return follow(config, case, config.net.task(lab, skip=skip), config.net.arms(lab, config.rules(case), skip=skip))


def follow(config: Control, case: Case, task: Task, arms: Arms[AnyRule]) -> Followed:
    """Train three arms, those of `Control.rules`, on the draws of a task."""
    n = arms.replicas
    control = Reaching(
        slice(n, 2 * n), case.rule(config.momentum), config.look, config.burn, config.frozen, config.most
    )
    batches = task.objective(config.batch_size)
    objective: Any = Symmetrised(batches) if case.symmetric else batches
    done = train(
        objective, arms.stack(task.net.initial), arms.hyper, case.steps, arms.streams,
        probes={"loss": every(config.look, task.log_loss)}, schedule=fading(case.steps), control=control, check=10,
    )  # fmt: skip
    losses = np.moveaxis(task.by_draw(np.moveaxis(arms.split(done.records["loss"].values.mT), -1, 0)), 0, -1)
    factors = done.records["control"]
    return Followed(
        done.records["loss"].steps.numpy(), losses, task.by_draw(arms.split(task.accuracy(done.params))),
        factors.steps.numpy(), np.moveaxis(task.by_draw(factors.values[:, n : 2 * n].double().cpu().numpy()), 0, -1),
    )  # fmt: skip


def estimates(result: ControlResult) -> Estimates:
    """Return what the control says about N-10 and N-11."""
    short, again, *others = result.found
    return {**said(short, *others), "N-10.sign_again": again.less(MATCHED, MOMENTUM)}


def said(short: Followed, flat: Followed, unit: Followed, raw: Followed, fair: Followed) -> Estimates:
    """Return what N-10 and N-11 ask: of signs, polar factors and norms, and of signs for long, noise raw and fair."""
    return {
        "N-10.sign": short.less(MATCHED, MOMENTUM),
        "N-10.muon": flat.less(MATCHED, MOMENTUM),
        "N-10.normalised": unit.less(MATCHED, MOMENTUM),
        "N-10.effect": [found.less(PLAIN, MOMENTUM) for found in (short, flat, unit)],
        "N-11.left": raw.less(MATCHED, MOMENTUM),
        "N-11.bias": draw_difference(*(_left(found) for found in (raw, fair))),
    }


def _left(found: Followed) -> Array:
    """Return what the match leaves of momentum in every net, (D, N/D)."""
    return np.asarray(found.losses[MATCHED, ..., -1] - found.losses[MOMENTUM, ..., -1])


def tables(result: ControlResult) -> Tables:
    """Return differences to momentum at the end, and the factors on the rate along the way."""
    names = [case.name for case in result.config.cases]
    return {"control": ends(names, result.found), "control_factors": factors(names, result.found)}


def ends(names: Sequence[str], several: Sequence[Followed]) -> DataFrame:
    """Return what the other arms of every case are less momentum at the end, log loss and accuracy."""
    less = [[found.less(arm, MOMENTUM) for arm in (MATCHED, PLAIN)] for found in several]
    points = [
        [draw_difference(found.accuracy[arm], found.accuracy[MOMENTUM]) for arm in (MATCHED, PLAIN)]
        for found in several
    ]
    values = {"log_loss": np.array(less, dtype=object), "accuracy": np.array(points, dtype=object)}
    return tidy({"case": names, "arm": ARMS[1:]}, **values)


def factors(names: Sequence[str], several: Sequence[Followed]) -> DataFrame:
    """Return the factors on the rate along every case."""
    return concat([_factors(*one) for one in zip(names, several, strict=True)], ignore_index=True)


def _factors(name: str, found: Followed) -> DataFrame:
    """Return the median factor on the rate at every look, and how many nets no rate matches there."""
    unmatched = np.isnan(found.factors).sum(axis=(0, 1))
    return tidy(
        {"case": [name], "step": found.looks},
        factor=np.array([_median(one[np.isfinite(one)]) for one in np.moveaxis(found.factors, -1, 0)])[None],
        unmatched=unmatched[None],
    )


def _median(values: Array) -> float:
    return float(np.median(values)) if values.size else float("nan")


CONTROL = Experiment(
    "control", small=Control(), run=run, estimates=estimates, tables=tables,
    large=Control(net=Net(draws=32, examples=256, hidden=64)),
)  # fmt: skip
