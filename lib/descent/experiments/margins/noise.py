"""Is it the noise? Batches of every size, isotropic noise in momentum's place, and the batch size at one λ.

If momentum helped by quietening gradient noise, its gain would go with full batches, and noise of the same strength
would give plain descent what momentum has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Params, Watch, ema
from descent.engine.probes import Leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, each, tidy
from descent.experiments.margins.arms import LARGE, Task, compete, of_sets
from descent.problems.patches import PatchData, Patches
from descent.stats import bounded_difference


@dataclass(frozen=True)
class Noise:
    """Arms of every batch size with and without momentum; plain descent with isotropic noise; then arms of fixed λ."""

    task: Task = Task()
    lr: float = 1.0
    batch_sizes: tuple[int | None, ...] = (5, 10, 20, 50, None)
    sample: int = 10  # the batch whose search-direction noise is replaced, and that of the arms around `half`
    watch: int = 200  # steps over which the noise of the search direction is averaged
    half: float = 3.2  # the λ at which momentum's benefit is half
    gentle: float = 0.8  # momentum of the arms around it
    steps: int = 800
    patience: float = 900.0  # steps allowed times learning rate

    @property
    def around(self) -> tuple[tuple[float, int | None], ...]:
        """Learning rate and batch size of the arms around the half-value: a third of it, itself twice, three times."""
        lr = self.half * (1 - self.gentle)
        return (lr / 3, self.sample), (lr, self.sample), (lr, None), (3 * lr, self.sample)


@dataclass(frozen=True, eq=False)
class NoiseResult:
    """Small-margin errors at equal loss.

    by_batch (2, B, S): plain and momentum; replaced (2, S): without and with isotropic noise of deviation `size` per
    coordinate; around (4, S).
    """

    config: Noise
    lab: Lab
    by_batch: Array
    replaced: Array
    size: float
    around: Array


def run(config: Noise, lab: Lab) -> NoiseResult:
    """Race all arms."""
    task, data, count = config.task, config.task.data(lab), len(config.batch_sizes)
    sampled = Patches(data, 2 * count, batch_sizes=config.batch_sizes * 2)
    rule = ema(config.lr, [0.0] * count + [lab.momentum] * count)
    (found,), _ = compete(task, lab, sampled, rule, config.steps)
    size = _search_noise(config, lab, data)
    noisy = Patches(data, 2, isotropic=(0.0, size))
    (replaced,), _ = compete(task, lab, noisy, ema([config.lr] * 2, 0.0), config.steps)
    around = []
    for arms in (config.around[:1], config.around[1:]):  # the slowest arm runs alone: none waits for it
        lrs, batches = zip(*arms, strict=True)
        problem, steps = Patches(data, len(arms), batch_sizes=batches), int(config.patience / min(lrs))
        around += [stand.err2 for stand in compete(task, lab, problem, ema(lrs, config.gentle), steps)[0]]
    by_batch = found.err2.reshape(2, count, -1)
    return NoiseResult(config, lab, by_batch, replaced.err2, size, np.concatenate(around))


def _search_noise(config: Noise, lab: Lab, data: PatchData) -> float:
    """Return the root mean square of m − ∇L per coordinate along momentum's run with small batches."""
    task, whole, beta = config.task, Patches(data), lab.momentum
    problem, arms = Patches(data, batch_sizes=(config.sample,)), lab.arms(ema(config.lr, beta), task.seeds)

    def power(step: int, params: Params, velocity: Params) -> Tensor:
        """Return ‖m − ∇L‖², m the direction about to be taken, (rows,)."""
        fresh, buffer = problem.gradient(params, arms.streams, step), cast(Leaves, velocity)
        exact = whole.gradient_of(params)
        apart = [beta * buffer[name] + (1 - beta) * fresh[name] - leaf for name, leaf in exact.items()]
        return torch.stack([part.flatten(1).square().sum(1) for part in apart]).sum(0)

    done = arms.run(problem, task.start(lab), config.watch, probes={"power": Watch(5, power)}, limit=1e4)
    return float(np.sqrt(np.mean(done["power"]) / (task.neurons * task.dimension)))


def estimates(result: NoiseResult) -> Estimates:
    """Return what noise does, for P4-C3, N1 and N2."""
    plain, momentum = result.by_batch
    third, same, full, thrice = result.around
    found: Estimates = {
        "P4-C3.gap": each(bounded_difference, plain, momentum),
        "P4-C3.noise": each(bounded_difference, plain[:-1], plain[-1]),
        "P4-N1.gain": bounded_difference(*result.replaced),
        "P4-N2.batch": bounded_difference(same, full),
        "P4-N2.lambda": bounded_difference(third, thrice),
    }
    return of_sets(found)


def tables(result: NoiseResult) -> Tables:
    """Return mean errors of all arms."""
    config, (plain, momentum) = result.config, result.by_batch.mean(axis=-1)
    around = [f"lr {lr:.3g}, momentum {config.gentle:g}, batch {size or 'full'}" for lr, size in config.around]
    errors = np.concatenate([result.replaced, result.around]).mean(axis=-1)
    sizes = [str(size or "full") for size in config.batch_sizes]
    return {
        "noise": tidy({"batch_size": sizes}, plain=plain, momentum=momentum),
        "noise_arms": tidy({"arm": ["plain", "plain, isotropic noise", *around]}, err2=errors),
    }


NOISE = Experiment(
    "noise", small=Noise(), run=run, estimates=estimates, tables=tables,
    large=Noise(LARGE, batch_sizes=(50, 100, 200, 500, None), sample=100, steps=4000, patience=4000.0),
)  # fmt: skip
