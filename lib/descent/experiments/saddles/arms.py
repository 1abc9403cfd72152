"""The arms of schedules and of networks: their names, what each runs at, and how three of them become six."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from descent.arrays import Array, BoolArray, IntArray
from descent.engine import ArmRun, Arms, Hyper, Params, Probe, heavy_ball
from descent.engine.rules import Options
from descent.experiments.lab import Lab
from descent.nets import Supervised


class Arm(StrEnum):
    """An arm by its name in tables and figures.

    Where it says "matched", the effective step lr/(1 − momentum) is that of plain descent and momentum made equal.
    """

    PLAIN = "plain"
    HALF = "momentum one half"
    HEAD = "momentum"
    STRONG = "momentum 0.99"
    STEP = "step annealed"
    SWITCHED = "momentum annealed"
    DECAYED = "momentum decayed"
    LATE = "step annealed late"
    SLOWED = "momentum, matched step"
    MATCHED = "plain, matched step"
    ANNEALED = "plain, matched, annealed"


def rule(
    arms: Sequence[Arm], lr: float, momentum: float, *, annealed: bool = False, **options: Unpack[Options]
) -> Hyper:
    """Return heavy balls of the arms around one learning rate and the headline momentum.

    annealed: as they run after the switch, for arms that have one.
    """
    cut, plain, matched = lr * (1 - momentum), (lr, 0.0), (lr / (1 - momentum), 0.0)
    special = {
        Arm.PLAIN: plain, Arm.HALF: (lr, 0.5), Arm.STRONG: (lr, 0.99), Arm.SLOWED: (cut, momentum),
        Arm.MATCHED: matched, Arm.ANNEALED: matched,
    }  # fmt: skip
    if annealed:
        special |= {Arm.STEP: (cut, momentum), Arm.SWITCHED: plain, Arm.ANNEALED: plain}
    rates, momenta = zip(*(special.get(arm, (lr, momentum)) for arm in arms), strict=True)
    return heavy_ball(rates, momenta, **options)


class ByMomentum:
    """A result with an arm per momentum: those of its configuration, 0 and the headline, in rising order."""

    config: Any
    lab: Lab

    @property
    def momentum(self) -> tuple[float, ...]:
        """The momenta of the arms."""
        return self.lab.momenta(self.config.momentum)

    def arm(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.momentum.index(momentum)


BEFORE = (Arm.PLAIN, Arm.HEAD, Arm.MATCHED)
SIX = (Arm.PLAIN, Arm.HEAD, Arm.STEP, Arm.SWITCHED, Arm.MATCHED, Arm.ANNEALED)
"""What three arms become at the switch."""
PARENTS = (0, 1, 1, 1, 2, 2)


@dataclass(frozen=True, eq=False)
class Race:
    """Three arms up to the early look, on to the switch, and six from there to the end; same weights and batches.

    A replica that diverged in any arm is not a number in all, so that it keeps its place among the draws of the data.
    """

    start: ArmRun
    first: ArmRun
    last: ArmRun

    def early(self, measure: Callable[[Params], Tensor]) -> Array:
        """Return what plain descent and momentum have reached at the early look, (2, N)."""
        return self.whole(self.start.end(measure)[:2])

    def end(self, measure: Callable[[Params], Tensor]) -> Array:
        """Return what the six arms have reached in the end, (6, N)."""
        return self.whole(self.last.end(measure))

    def curve(self, probe: str) -> Array:
        """Return the record of a probe over the last two legs, (6, N, T); the switch is in it once."""
        legs = [self.first[probe][list(PARENTS), :, :-1], self.last[probe]]
        return self.whole(np.concatenate(legs, axis=2))

    def whole(self, values: Array) -> Array:
        """Return values (A, N, …) with those of replicas that diverged in some arm not a number."""
        return np.where(self.alive.reshape(-1, *[1] * (values.ndim - 2)), values, np.nan)

    @property
    def alive(self) -> BoolArray:
        """Which replicas lived in all arms, (N,); ValueError below two of several, whereas a lone one may be lost."""
        lost = self.last.lost
        return self.last.alive if lost.shape[-1] > 1 else np.asarray(~lost.any(axis=0))

    def at(self, probe: str) -> IntArray:
        """Return its steps (T,)."""
        return np.concatenate([self.first.at(probe)[:-1], self.last.at(probe)])


def race(
    problem: Supervised,
    before: Arms,
    after: Hyper,
    legs: tuple[int, int, int],
    probes: Mapping[str, Probe],
    late: Mapping[str, Probe] | None = None,
    check: int = 1,
) -> Race:
    """Run the arms of BEFORE, and by the rules `after` those of SIX.

    legs: the steps of the early look, of the switch and of the end. late: probes of the last leg alone; check: steps
    between two looks for divergence.
    """
    early, switch, end = legs
    start = before.run(problem, problem.model.initial, early, check=check)
    first = start.then(switch, probes=probes)
    return Race(start, first, first.fork(after, PARENTS).then(end, probes={**probes, **(late or {})}))
