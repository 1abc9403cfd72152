"""Surgery on what momentum remembers: the part of the history that carries the benefit.

Arms of one rate and momentum differ in what enters or stays in the buffer alone, and go to equal loss. Is it the
gradients of large margins along the feature, and is it enough to have had them until large margins are fitted?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from descent.arrays import Array
from descent.engine import ema
from descent.engine.probes import Leaves
from descent.engine.surgery import Bypass, Erase, Operation, Part, Surgery, Withhold
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.margins.arms import LARGE as LARGE_TASK
from descent.experiments.margins.arms import MORE, Race, Task, compete, of_sets
from descent.problems.patches import Patches
from descent.stats import bounded_difference

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
BURST = (ALL, COAST)
"""Those that may all end without an error: their difference needs many sets."""


@dataclass(frozen=True)
class SurgerySettings:
    """Arms of one EMA rate and the lab's momentum, one per history."""

    task: Task = Task()
    many: Share | int = MORE  # sets of the histories of BURST
    lr: float = 1.0
    fitted: float = 0.1  # means of 1/(1 + e^(yf)) over large margins that start an operation
    later: float = 0.03
    late: float = 0.05
    steps: int = 800


@dataclass(frozen=True, eq=False)
class SurgeryResult:
    """Where every history stands at equal loss, (A, S); errors of those of BURST on many sets, (2, S')."""

    config: SurgerySettings
    lab: Lab
    stand: Race
    burst: Array

    def err2(self, history: str) -> Array:
        """Return the small-margin error of an arm, (S,)."""
        return np.asarray(self.stand.err2[HISTORIES.index(history)])


def run(config: SurgerySettings, lab: Lab) -> SurgeryResult:
    """Run every history to equal loss, and those of a burst on many more sets."""
    burst = operate(config, lab, replace(config.task, seeds=config.many), BURST)
    return SurgeryResult(config, lab, operate(config, lab, config.task, HISTORIES), burst.err2)


def operate(config: SurgerySettings, lab: Lab, task: Task, histories: Sequence[str]) -> Race:
    """Operate on an arm per history, so that it remembers that one only, and run it to equal loss."""
    problem = Patches(task.data(lab), len(histories))
    surgeons = _surgeons(config, 1 - lab.momentum, Patches(problem.data))
    done = [surgeons[name](problem.rows(arm)) for arm, name in enumerate(histories) if name in surgeons]
    operations = [operation for each_arm in done for operation in each_arm]
    rule = ema(config.lr, [0.0 if name == PLAIN else lab.momentum for name in histories])
    (stand,), _ = compete(task, lab, problem, rule, config.steps, objective=Surgery(problem, operations))
    return stand


def _surgeons(config: SurgerySettings, inflow: float, one: Patches) -> dict[str, Callable[[slice], list[Operation]]]:
    """Return what is done to the rows of each history; inflow: the weight of a gradient in the buffer."""
    fitted, later, late = map(one.fitted, (config.fitted, config.later, config.late))
    large, small = _of(one, ~one.data.small), _of(one, one.data.small)

    def bypass(part: Part) -> Callable[[slice], list[Operation]]:
        return lambda rows: [Bypass(rows, part, inflow)]

    return {
        FEATURE: bypass(lambda _, gradient: {"v": gradient["v"]}),
        NOISE: bypass(lambda _, gradient: {"s": gradient["s"]}),
        LARGE: bypass(small),
        SMALL: bypass(large),
        LARGE_FEATURE: bypass(lambda params, gradient: {"v": gradient["v"], "s": small(params, gradient)["s"]}),
        LATE: lambda rows: [Bypass(rows, _whole, inflow, late, ends=True)],
        DROPPED: lambda rows: [Erase(rows, fitted), Bypass(rows, _whole, inflow, fitted)],
        ERASED: lambda rows: [Erase(rows, fitted)],
        ERASED_LATE: lambda rows: [Erase(rows, later)],
        COAST: lambda rows: [Withhold(rows, large, fitted)],
    }


def _of(problem: Patches, examples: Tensor) -> Part:
    """Return the part of the gradient that comes from some examples, (N,) bool."""
    return lambda params, _: problem.gradient_of(params, examples.to(problem.data.signal))


def _whole(_: Leaves, gradient: Leaves) -> Leaves:
    return dict(gradient)


def estimates(result: SurgeryResult) -> Estimates:
    """Return what the histories say about P4-C10 and P4-N3."""
    plain, full = result.err2(PLAIN), result.err2(ALL)
    kept, without = (np.array([result.err2(name) for name in names]) for names in (KEPT, WITHOUT))
    everything, coasting = result.burst
    found: Estimates = {
        "P4-C10.kept": each(bounded_difference, plain, kept),
        "P4-C10.without": each(bounded_difference, plain, without),
        "P4-N3.coast": bounded_difference(coasting, everything),
        "P4-N3.dropped": bounded_difference(result.err2(DROPPED), full),
    }
    return of_sets(found)


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
