"""Surgery on what momentum remembers: the part of the history that carries the benefit."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Leaves
from descent.engine.surgery import Bypass, Erase, Operation, Part, Rule, Surgery, Withhold
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import Race, Task, arms_hyper, compete
from descent.experiments.margins.race import EQUAL
from descent.problems.patches import PatchData, Patches
from descent.stats.intervals import mean, paired_difference

PLAIN, ALL = "nothing (plain descent)", "everything"
FEATURE, NOISE = "along the feature", "along the noise"
LARGE, SMALL, LARGE_FEATURE = "of large margins", "of small margins", "of large margins, along the feature"
DROPPED = "everything until fitted, then nothing"
ERASED, ERASED_LATE = "everything, erased once when fitted", "everything, erased once a little later"
LATE = "everything since fitted, from an empty buffer"
COAST = "everything, large margins withheld once fitted"
HISTORIES = (PLAIN, ALL, FEATURE, LARGE, LARGE_FEATURE, COAST, NOISE, SMALL, LATE, DROPPED, ERASED, ERASED_LATE)
"""What each arm remembers."""
KEPT, WITHOUT = (FEATURE, LARGE, LARGE_FEATURE), (NOISE, SMALL, LATE)
"""The histories of which the claim says that they carry the benefit, and that they do not."""


@dataclass(frozen=True)
class SurgerySettings:
    """Arms of one EMA rate and momentum that differ in what enters or stays in the buffer.

    fitted, later, late: means of 1/(1 + e^(yf)) over large margins that start an operation.
    """

    task: Task
    momentum: float
    lr: float = 1.0
    fitted: float = 0.1
    later: float = 0.03
    late: float = 0.05
    steps: int = 800

    @classmethod
    def cpu(cls, settings: Settings) -> SurgerySettings:
        """Take a few dozen seeds."""
        return cls(Task.cpu(settings, 32), settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> SurgerySettings:
        """Take the large task."""
        return cls(Task.paper(settings), settings.momentum, steps=4000)


@dataclass(frozen=True, eq=False)
class SurgeryResult:
    """Where every history stands at equal loss, (A, S)."""

    config: SurgerySettings
    stand: Race
    seconds: float

    def err2(self, history: str) -> Array:
        """Return the small-margin error of an arm, (S,)."""
        return np.asarray(self.stand.err2[HISTORIES.index(history)])


def run(config: SurgerySettings) -> SurgeryResult:
    """Operate on every arm and run it to equal loss."""
    clock = time.perf_counter()
    task = config.task
    data = task.data()
    problem = Patches(data, len(HISTORIES))
    momentum = [0.0 if name == PLAIN else config.momentum for name in HISTORIES]
    operations = [op for name in HISTORIES for op in _operations(config, data, name)] if config.momentum else []
    (stand,), _ = compete(
        task,
        problem,
        arms_hyper([config.lr] * len(HISTORIES), momentum, task),
        config.steps,
        (EQUAL,),
        objective=Surgery(problem, operations),
    )
    return SurgeryResult(config, stand, time.perf_counter() - clock)


def _operations(config: SurgerySettings, data: PatchData, history: str) -> list[Operation]:
    """Return what makes an arm remember that history only."""
    arm = HISTORIES.index(history) * config.task.seeds
    rows, inflow, one = slice(arm, arm + config.task.seeds), 1 - config.momentum, Patches(data, 1)
    fitted, later, late = (_unfitted_below(one, level) for level in (config.fitted, config.later, config.late))
    large, small = _of(one, ~data.small), _of(one, data.small)
    forgotten: dict[str, Part] = {
        FEATURE: lambda _, gradient: {"v": gradient["v"]},
        NOISE: lambda _, gradient: {"s": gradient["s"]},
        LARGE: small,
        SMALL: large,
        LARGE_FEATURE: lambda params, gradient: {"v": gradient["v"], "s": small(params, gradient)["s"]},
    }
    if history in forgotten:
        return [Bypass(rows, forgotten[history], inflow)]
    otherwise: dict[str, list[Operation]] = {
        LATE: [Bypass(rows, _whole, inflow, late, ends=True)],
        DROPPED: [Erase(rows, fitted), Bypass(rows, _whole, inflow, fitted)],
        ERASED: [Erase(rows, fitted)],
        ERASED_LATE: [Erase(rows, later)],
        COAST: [Withhold(rows, large, fitted)],
    }
    return otherwise.get(history, [])


def _unfitted_below(problem: Patches, level: float) -> Rule:
    return lambda params: problem.unfitted(params)[0] < level


def _of(problem: Patches, examples: Tensor) -> Part:
    """Return the part of the gradient that comes from some examples."""
    return lambda params, _: problem.gradient_of(params, examples.to(problem.data.signal))


def _whole(_: Leaves, gradient: Leaves) -> Leaves:
    return dict(gradient)


def estimates(result: SurgeryResult) -> Estimates:
    """Return what the histories say about P4-C10 and P4-N3; without momentum there is nothing to operate on."""
    if result.config.momentum == 0:
        return {}
    plain, full = result.err2(PLAIN), result.err2(ALL)
    kept = [paired_difference(plain, result.err2(name)) for name in KEPT]
    without = [paired_difference(plain, result.err2(name)) for name in WITHOUT]
    return {
        "P4-C10.kept": min(kept, key=lambda gain: gain.value),
        "P4-C10.without": max(without, key=lambda gain: abs(gain.value)),
        "P4-N3.coast": paired_difference(result.err2(COAST), full),
        "P4-N3.dropped": paired_difference(result.err2(DROPPED), full),
    }


def tables(result: SurgeryResult) -> dict[str, DataFrame]:
    """Return mean errors and features, one row per history."""
    stand = result.stand
    rows = [
        {
            "history": name,
            "err2": mean(stand.err2[i]).value,
            "feature": np.nanmean(stand.feature[i]),
            "step": float(np.median(stand.step[i])),
        }
        for i, name in enumerate(HISTORIES)
    ]
    return {"surgery": DataFrame(rows)}


SURGERY = Experiment(
    "surgery", ("P4-C10", "P4-N3"), lambda settings: run(configure(SurgerySettings, settings)), estimates, tables
)
