"""Surgery on what momentum remembers: the part of the history that carries the benefit.

Arms of one rate and momentum differ in what enters or stays in the buffer alone, and go to equal loss. Is it the
gradients of large margins along the feature, and is it enough to have had them until large margins are fitted?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from descent.arrays import Array
from descent.engine import ema
from descent.engine.probes import Leaves
from descent.engine.surgery import Bypass, Erase, Operation, Part, Surgery, Withhold
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, tidy
from descent.experiments.margins.arms import LARGE as LARGE_TASK
from descent.experiments.margins.arms import Race, Task, compete
from descent.problems.patches import Patches
from descent.stats import furthest, paired_difference, smallest

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
    """Arms of one EMA rate and the lab's momentum, one per history."""

    task: Task = Task()
    lr: float = 1.0
    fitted: float = 0.1  # means of 1/(1 + e^(yf)) over large margins that start an operation
    later: float = 0.03
    late: float = 0.05
    steps: int = 800


@dataclass(frozen=True, eq=False)
class SurgeryResult:
    """Where every history stands at equal loss, (A, S)."""

    config: SurgerySettings
    lab: Lab
    stand: Race

    def err2(self, history: str) -> Array:
        """Return the small-margin error of an arm, (S,)."""
        return np.asarray(self.stand.err2[HISTORIES.index(history)])


def run(config: SurgerySettings, lab: Lab) -> SurgeryResult:
    """Operate on every arm, so that it remembers its own history only, and run it to equal loss."""
    problem = Patches(config.task.data(lab), len(HISTORIES))
    rows, one = {name: problem.rows(arm) for arm, name in enumerate(HISTORIES)}, Patches(problem.data)
    fitted, later, late = map(one.fitted, (config.fitted, config.later, config.late))
    large, small = _of(one, ~one.data.small), _of(one, one.data.small)
    inflow = 1 - lab.momentum  # the weight of a gradient in the buffer
    forgotten: dict[str, Part] = {
        FEATURE: lambda _, gradient: {"v": gradient["v"]},
        NOISE: lambda _, gradient: {"s": gradient["s"]},
        LARGE: small,
        SMALL: large,
        LARGE_FEATURE: lambda params, gradient: {"v": gradient["v"], "s": small(params, gradient)["s"]},
    }
    operations: list[Operation] = [
        *(Bypass(rows[name], part, inflow) for name, part in forgotten.items()),
        Bypass(rows[LATE], _whole, inflow, late, ends=True),
        Erase(rows[DROPPED], fitted), Bypass(rows[DROPPED], _whole, inflow, fitted),
        Erase(rows[ERASED], fitted), Erase(rows[ERASED_LATE], later), Withhold(rows[COAST], large, fitted),
    ]  # fmt: skip
    rule = ema(config.lr, [0.0 if name == PLAIN else lab.momentum for name in HISTORIES])
    (stand,), _ = compete(config.task, lab, problem, rule, config.steps, objective=Surgery(problem, operations))
    return SurgeryResult(config, lab, stand)


def _of(problem: Patches, examples: Tensor) -> Part:
    """Return the part of the gradient that comes from some examples, (N,) bool."""
    return lambda params, _: problem.gradient_of(params, examples.to(problem.data.signal))


def _whole(_: Leaves, gradient: Leaves) -> Leaves:
    return dict(gradient)


def estimates(result: SurgeryResult) -> Estimates:
    """Return what the histories say about P4-C10 and P4-N3."""
    plain, full = result.err2(PLAIN), result.err2(ALL)
    kept = [paired_difference(plain, result.err2(name)) for name in KEPT]
    without = [paired_difference(plain, result.err2(name)) for name in WITHOUT]
    return {
        "P4-C10.kept": smallest(kept),
        "P4-C10.without": furthest(without, 0.0),
        "P4-N3.coast": paired_difference(result.err2(COAST), full),
        "P4-N3.dropped": paired_difference(result.err2(DROPPED), full),
    }


def tables(result: SurgeryResult) -> Tables:
    """Return mean errors and features, one row per history."""
    stand = result.stand
    return {
        "surgery": tidy(
            {"history": HISTORIES}, err2=stand.err2.mean(axis=-1), feature=np.nanmean(stand.feature, axis=-1),
            step=np.median(stand.step, axis=-1),
        )
    }  # fmt: skip


SURGERY = Experiment(
    "surgery", small=SurgerySettings(), large=SurgerySettings(LARGE_TASK, steps=4000),
    run=run, estimates=estimates, tables=tables,
)  # fmt: skip
