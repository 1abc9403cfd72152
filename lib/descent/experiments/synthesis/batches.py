"""When does momentum extend linear scaling? The same samples in larger batches, at equal effective step over batch.

The reference is SGD(η, B). Linear scaling multiplies η and B by the same factor. By the equivalence of the kernel's
diagonal heavy ball ((1 + β)η, β) at batch (1 + β)/(1 − β)·B should do the same, on the same samples in as many fewer
steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.experiments.synthesis.lineup import Arm, rule_of
from descent.experiments.synthesis.task import DataSet, Task
from descent.stats import Estimate, draw_mean

HEAD = 0.9
RECORDS = ("sharpness", "accuracy", "loss")


class Setting(NamedTuple):
    """A loss, the reference's learning rate and batch, the share of mislabelled images, and which draws they are of."""

    name: str
    loss: Literal["square", "logistic"]
    lr: float
    batch: int
    flips: float
    family: int
    scan: bool = False  # whether other momenta are tried at the batch of the headline one
    data: DataSet = "digits"

    @property
    def reference(self) -> Arm:
        """SGD(η, B)."""
        return Arm(self.lr, 0.0, batch=self.batch)

    def twin(self, momentum: float) -> Arm:
        """Return the heavy ball that should do what the reference does, at a whole batch and the same e/B."""
        return self.at(momentum, round(factor(momentum) * self.batch))

    def at(self, momentum: float, batch: int) -> Arm:
        """Return the arm of a momentum and batch with the reference's e/B."""
        return Arm(self.lr / self.batch * batch * (1 - momentum), momentum, batch=batch)

    def task(self, lab: Lab, draws: int, hidden: int) -> Task:
        """Return the draws and the net."""
        return Task.of(
            lab, draws, skip=self.family * draws, hidden=hidden, flips=(self.flips,), faint=0.0, loss=self.loss,
            data_set=self.data,
        )  # fmt: skip


class Case(IntEnum):
    """The settings that claims are stated for, which come first in every configuration."""

    CLEAN = 0
    FLIPS = 1
    SMALL_STEP = 2
    LOGISTIC = 3
    GLYPHS = 4


SETTINGS = (  # those of one family and kind of data share their draws
    Setting("square, large step", "square", 0.05, 2, 0.0, 0),
    Setting("square, large step, flips", "square", 0.05, 2, 0.1, 1, scan=True),
    Setting("square, small step", "square", 0.005, 2, 0.1, 1),
    Setting("logistic", "logistic", 0.1, 2, 0.1, 1),
    Setting("square, large step, glyphs, flips", "square", 0.05, 2, 0.1, 1, data="glyphs"),
)


def factor(momentum: float) -> float:
    """Return (1 + β)/(1 − β), the factor on the batch."""
    return (1 + momentum) / (1 - momentum)


@dataclass(frozen=True)
class Batches:
    """Two-layer tanh nets on draws of digits or glyphs; every arm of a setting sees the same number of samples."""

    draws: int = 32  # with one net each: the draw is what counts in an interval
    replicas: Share | int = 32
    samples: int = 20_000
    settings: tuple[Setting, ...] = SETTINGS
    momenta: tuple[float, ...] = (0.5, 0.8, HEAD)  # of the equivalence, each at its own batch
    scan: tuple[float, ...] = (0.3, 0.5, 0.7, 0.8, 0.95, 0.98)  # at the batch of the headline momentum
    hidden: int = 24

    def arms(self, setting: Setting) -> tuple[Arm, ...]:
        """Return every arm of a setting: reference, twins, linear scaling at their batches, and the scan."""
        twins = [setting.twin(m) for m in self.momenta]
        scaled = [setting.at(0.0, arm.batch) for arm in twins]
        scan = [setting.at(m, twins[-1].batch) for m in self.scan if setting.scan]
        return tuple(dict.fromkeys((setting.reference, *twins, *scaled, *scan)))


@dataclass(frozen=True, eq=False)
class BatchesResult(Result[Batches]):
    """RECORDS of every setting and arm at the end, (A, D, N/D) by draw; a diverged net is not a number."""

    ends: tuple[dict[str, Array], ...]

    def of(self, case: int, arm: Arm, record: str) -> Array:
        """Return a record of one arm of a setting, (D, N/D)."""
        return np.asarray(self.ends[case][record][self.config.arms(self.config.settings[case]).index(arm)])

    def against(self, case: int, arm: Arm, record: str = "sharpness") -> Estimate | None:
        """Return log λ₁ (or another record, as it is) less the reference's, over draws; None where none are left."""
        a, b = (self.of(case, which, record) for which in (arm, self.config.settings[case].reference))
        if record in ("sharpness", "loss"):
            a, b = np.log(a), np.log(b)
        gap = a - b
        return draw_mean(gap) if np.isfinite(gap).any(axis=1).sum() > 1 else None

    def edge(self, case: int) -> Array:
        """Return e·λ₁ of the reference's end at the headline batch: above 2 SGD cannot keep its sharpness, (D, N/D)."""
        setting = self.config.settings[case]
        return setting.lr * factor(HEAD) * self.of(case, setting.reference, "sharpness")


def run(config: Batches, lab: Lab) -> BatchesResult:
    """Train every arm of every setting, those of one batch together, and measure them at the end."""
    ends = []
    for setting in config.settings:
        task = setting.task(lab, config.draws, config.hidden)
        looks = {"sharpness": task.sharpness, "accuracy": task.accuracy, "loss": task.value}
        arms = config.arms(setting)
        found: dict[Arm, Array] = {}
        for batch in sorted({arm.batch for arm in arms}):
            group = [arm for arm in arms if arm.batch == batch]
            stack = lab.arms(rule_of(group), lab.per_draw(config.replicas, config.draws))
            done = stack.run(task.objective(batch), task.start, config.samples // batch, check=10, limit=1e3)
            seen = np.stack([np.where(done.lost, np.nan, done.end(looks[name])) for name in RECORDS], axis=1)
            found |= dict(zip(group, task.sets.by_draw(seen), strict=True))
        ends.append(dict(zip(RECORDS, np.stack([found[arm] for arm in arms], axis=1), strict=True)))
    return BatchesResult(config, lab, tuple(ends))


def estimates(result: BatchesResult) -> Estimates:
    """Return what fixed samples say about S-23 and S-29 to S-31; of nets that diverge nothing is said."""
    settings, against = result.config.settings, result.against
    twin = {case: settings[case].twin(HEAD) for case in Case}
    plain = {case: settings[case].at(0.0, twin[case].batch) for case in Case}
    weaker, stronger = (settings[Case.FLIPS].at(m, twin[Case.FLIPS].batch) for m in (0.7, 0.95))
    found = {
        "S-23.clean_momentum": against(Case.CLEAN, twin[Case.CLEAN]),
        "S-23.clean_scaling": against(Case.CLEAN, plain[Case.CLEAN]),
        "S-23.clean_edge": draw_mean(result.edge(Case.CLEAN)),
        "S-23.flips_momentum": against(Case.FLIPS, twin[Case.FLIPS]),
        "S-23.flips_scaling": against(Case.FLIPS, plain[Case.FLIPS]),
        "S-23.flips_edge": draw_mean(result.edge(Case.FLIPS)),
        "S-29.small_step_momentum": against(Case.SMALL_STEP, twin[Case.SMALL_STEP]),
        "S-29.small_step_scaling": against(Case.SMALL_STEP, plain[Case.SMALL_STEP]),
        "S-29.small_step_edge": draw_mean(result.edge(Case.SMALL_STEP)),
        "S-29.logistic_momentum": against(Case.LOGISTIC, twin[Case.LOGISTIC]),
        "S-29.logistic_scaling": against(Case.LOGISTIC, plain[Case.LOGISTIC]),
        "S-29.logistic_edge": draw_mean(result.edge(Case.LOGISTIC)),
        "S-30.clean": against(Case.CLEAN, twin[Case.CLEAN], "loss"),
        "S-30.flips": against(Case.FLIPS, twin[Case.FLIPS], "loss"),
        "S-30.glyphs": against(Case.GLYPHS, twin[Case.GLYPHS], "loss"),
        "S-31.weaker": against(Case.FLIPS, weaker),
        "S-31.stronger": against(Case.FLIPS, stronger),
    }
    return {key: value for key, value in found.items() if value is not None}


def tables(result: BatchesResult) -> Tables:
    """Return every arm of every setting against the reference."""
    config, rows = result.config, []
    for case, arm in [(case, arm) for case, setting in enumerate(config.settings) for arm in config.arms(setting)]:
        row: dict[str, object] = {
            "setting": config.settings[case].name, "lr": arm.lr, "momentum": arm.momentum, "batch": arm.batch,
            "steps": config.samples // arm.batch, "edge": np.nanmean(result.edge(case)),
            "diverged": np.isnan(result.of(case, arm, "loss")).sum(),
        }  # fmt: skip
        for name in RECORDS:
            shift = result.against(case, arm, name)
            ends = (shift.value, shift.low, shift.high) if shift else (np.nan,) * 3
            row[name] = np.nanmean(result.of(case, arm, name)) if shift else np.nan
            row |= zip((f"{name}_{end}" for end in ("shift", "low", "high")), ends, strict=True)
        rows.append(row)
    return {"batches": DataFrame(rows)}


BATCHES = Experiment(
    "batches", small=Batches(), run=run, estimates=estimates, tables=tables,
    large=Batches(replicas=Share(over=8, least=64), samples=96_000, hidden=64),
)  # fmt: skip
