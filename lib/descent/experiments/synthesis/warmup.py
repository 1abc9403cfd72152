"""The first steps of an average of gradients: its lag, and what correcting the bias of the empty buffer gives back.

Digits, plain SGD against averages at the same effective step, with and without bias correction, on the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass

from descent.arrays import Array
from descent.engine import Factors, Schedule, constant, ema, every
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.task import Task
from descent.stats import Estimate, draw_difference

ARMS = ("plain", "average", "corrected", "strong average", "strong corrected")


@dataclass(frozen=True)
class Warmup:
    """Accuracy after budgets of a few steps, over draws of digits."""

    draws: int = 32
    replicas: Share = Share(times=4, over=25, least=32)
    lr: float = 0.1
    batch: int = 128
    momenta: tuple[float, float] = (0.9, 0.99)
    budgets: tuple[int, ...] = (20, 40, 80, 160)


@dataclass(frozen=True, eq=False)
class WarmupResult(Result[Warmup]):
    """Test accuracy in per cent by arm, budget and net by draw, (A, T, D, N/D)."""

    accuracy: Array

    def gain(self, arm: str, budget: int) -> Estimate:
        """Return the accuracy of an arm less plain SGD's after some steps."""
        look = self.config.budgets.index(budget)
        return draw_difference(self.accuracy[ARMS.index(arm), look], self.accuracy[0, look])


def corrected(momentum: float) -> Schedule:
    """Return the schedule of Adam's bias correction: the buffer over 1 − momentum^t."""
    return lambda step: Factors(lr=1 / (1 - momentum ** (step + 1)))


def run(config: Warmup, lab: Lab) -> WarmupResult:
    """Train all arms on the same batches, and look at every budget."""
    task = Task.of(lab, config.draws, flips=(0.1,))
    one, two = config.momenta
    arms = lab.arms(ema(config.lr, [0.0, one, one, two, two]), lab.per_draw(config.replicas, config.draws))
    schedules = (constant(), constant(), corrected(one), constant(), corrected(two))
    objective, probes = task.objective(config.batch), {"accuracy": every(min(config.budgets), task.accuracy)}
    done = arms.run(objective, task.start, max(config.budgets), schedule=schedules, probes=probes)
    places = [done.at("accuracy").tolist().index(budget) for budget in config.budgets]
    return WarmupResult(config, lab, task.sets.by_draw(done["accuracy"].swapaxes(1, 2)[:, places]))


def estimates(result: WarmupResult) -> Estimates:
    """Return what short budgets say about S-17."""
    return {
        "S-17.deficit": result.gain("average", 20),
        "S-17.strong_deficit": result.gain("strong average", 20),
        "S-17.corrected": result.gain("corrected", 20),
        "S-17.strong_corrected": result.gain("strong corrected", 20),
    }


def tables(result: WarmupResult) -> Tables:
    """Return the accuracy gained over plain SGD by arm and budget."""
    budgets = result.config.budgets
    gains = [[result.gain(arm, budget) for budget in budgets] for arm in ARMS[1:]]
    return {"warmup": tidy({"arm": ARMS[1:], "steps": budgets}, value=gains)}


WARMUP = Experiment(
    "warmup", small=Warmup(), run=run, estimates=estimates, tables=tables,
    large=Warmup(replicas=Share(), budgets=(10, 20, 40, 80, 160, 320, 640)),
)  # fmt: skip
