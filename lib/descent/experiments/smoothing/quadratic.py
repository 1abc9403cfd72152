"""Search-direction noise where it is known in closed form: on a noisy parabola, and in shuffled epochs.

A running average is put on x²/2 with unit gradient noise, in cells of momentum and z = lr × curvature, and before the
gradients of a few examples at parameters that stand still, in batches drawn anew or in shuffled epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Params, Purpose, Streams, Watch, ema
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.measure.noise import SearchNoise
from descent.nets import MLP, SquaredError, Supervised
from descent.nets.supervised import Sampling
from descent.problems.saddle import Quadratic
from descent.stats import bootstrap, ratio_of_means
from descent.theory.search_noise import bound, flat_power, shuffled_power, stationary_ratio

SAMPLINGS: tuple[Sampling, ...] = ("shuffled_epochs", "with_replacement")
SHUFFLED, FRESH = range(2)
Cells = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Parabola:
    """Cells of the parabola; the examples see the lab's momentum alone."""

    replicas: Share = Share()
    momenta: tuple[float, ...] = (0.5, 0.9)  # and the headline
    places: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 4.0, 10.0, 20.0)  # z
    curved: tuple[float, float] = (20.0, 0.9)  # the cell in which the paper's bound is tried
    looks: int = 250
    every: int = 4
    samplers: Share = Share(over=10, least=32)
    examples: int = 200
    batch_sizes: tuple[int, ...] = (5, 10, 20, 50)
    dimensions: int = 64
    epochs: int = 50

    def cells(self, momenta: Sequence[float]) -> Cells:
        """Return the pairs (z, momentum) within nine tenths of the stability limit z < 2(1 + β)/(1 − β)."""
        moving = (m for m in momenta if m > 0)
        return tuple((z, m) for m, z in product(moving, self.places) if z < 0.9 * 2 * (1 + m) / (1 - m))

    def burn(self, cells: Cells) -> int:
        """Return the steps after which the start has lost all but e⁻¹⁰ of its weight, in every cell."""
        return round(10 * max(1 / min(self.places), *(2 / (1 - momentum) for _, momentum in cells)))


@dataclass(frozen=True, eq=False)
class ParabolaResult:
    """Power over the noise of one step, time averages per replica: parabola (C, N) over cells, plain 1.

    resting (S, B, M): at parameters that stand still, over samplings, batch sizes and samplers, in units of C²/B.
    """

    config: Parabola
    lab: Lab
    power: Array
    resting: Array

    @property
    def cells(self) -> Cells:
        """The pairs (z, momentum)."""
        return self.config.cells(self.lab.momenta(self.config.momenta))

    @property
    def law(self) -> Array:
        """The closed form of every cell, (C,)."""
        z, momentum = zip(*self.cells, strict=True)
        return stationary_ratio(z, momentum)

    @property
    def resting_law(self) -> Array:
        """The closed forms at parameters that stand still, shuffled and drawn anew, (S, B)."""
        rule, sizes = ema(1.0, self.lab.momentum), self.config.batch_sizes
        shuffled = [float(shuffled_power(rule, size, self.config.examples)[0]) for size in sizes]
        return np.array([shuffled, [float(flat_power(rule)[0])] * len(sizes)])


@dataclass(frozen=True, eq=False)
class _Resting:
    """Gradients (n, D) of the examples at parameters that stand still; `draws` says which make up a batch."""

    gradients: Tensor
    draws: Supervised

    def gradient(self, params: Params, streams: Streams, step: int) -> Tensor:
        """Return the mean over the batch, (R, D), wherever the parameters may be."""
        return self.gradients[self.draws.indices(streams, step)].mean(dim=1)


def run(config: Parabola, lab: Lab) -> ParabolaResult:
    """Simulate all cells as one stack, then the samplings."""
    drawn = lab.streams(1, torch.float64).normal(Purpose.DATA, 0, (config.examples, config.dimensions))[0]
    gradients = drawn - drawn.mean(dim=0)
    resting = [[_rest(config, lab, gradients, way, size) for size in config.batch_sizes] for way in SAMPLINGS]
    return ParabolaResult(config, lab, _power(config, lab), np.array(resting))


def _power(config: Parabola, lab: Lab) -> Array:
    """Return the mean power over the looks, (C, N)."""
    cells = config.cells(lab.momenta(config.momenta))
    arms = lab.arms(ema(*zip(*cells, strict=True)), config.replicas, torch.float64)
    problem, begin = Quadratic((1.0,)), config.burn(cells)
    noise = SearchNoise(problem, lambda params: params, arms.hyper, arms.streams, config.every)  # ∇(x²/2) = x
    power = Watch(config.every, lambda *at: noise(*at)["power"])  # alone: the parts would take several times the memory
    settled = arms.run(problem, torch.zeros(1, 1, dtype=torch.float64), begin)
    return settled.then(begin + config.looks * config.every, probes={"power": power}).average("power")


def _rest(config: Parabola, lab: Lab, gradients: Tensor, sampling: Sampling, size: int) -> Array:
    """Return the mean power over whole epochs, in units of C²/B, (M,)."""
    draws = Supervised(MLP((1, 1)), SquaredError(), gradients, gradients, size, sampling)
    arms, length = lab.arms(ema(1.0, lab.momentum), config.samplers, torch.float64), config.examples // size
    burn = -(-round(10 / (1 - lab.momentum)) // length) * length
    # the buffer is ω itself, since the full gradient vanishes and the rule is an average
    power: Watch[Tensor] = Watch(1, lambda step, params, velocity: velocity.square().sum(dim=1))
    problem, steps = _Resting(gradients, draws), burn + config.epochs * length
    done = arms.run(problem, gradients[:1] * 0, steps, probes={"power": power}, check=length)
    unit = gradients.square().sum(dim=1).mean() / size
    return np.asarray(done.average("power", since=burn + 1)[0] / unit.item())


def estimates(result: ParabolaResult) -> Estimates:
    """Return what closed forms and simulation say about P1-X2, P1-X7 and P1-X10."""
    config, seed, cells = result.config, result.lab.seed, result.cells
    mean = partial(bootstrap, lambda a: a.mean(1), seed=seed)
    bounded, curved = float(bound("ema", 1.0, momentum=config.curved[1])), cells.index(config.curved)
    quarter = config.batch_sizes.index(config.examples // 4)
    return {
        "P1-X2.law": list(each(mean, result.power / result.law[:, None])),
        "P1-X2.boundary": list(each(mean, result.power[[z == 2 for z, _ in cells]])),
        "P1-X7.formula": list(each(mean, result.resting[SHUFFLED] / result.resting_law[SHUFFLED, :, None])),
        "P1-X7.less": ratio_of_means(result.resting[SHUFFLED, quarter], result.resting[FRESH, quarter], seed),
        "P1-X10.curved": bootstrap(lambda a: bounded / a.mean(1), result.power[curved], seed=seed),
    }


def tables(result: ParabolaResult) -> Tables:
    """Return one row per cell; and one per sampling and batch size."""
    z, momentum = zip(*result.cells, strict=True)
    cells = tidy({"z": z}, momentum=momentum, power=result.power.mean(axis=-1), law=result.law)
    resting = tidy(
        {"sampling": SAMPLINGS, "batch_size": result.config.batch_sizes},
        momentum=result.lab.momentum, power=result.resting.mean(axis=-1), law=result.resting_law,
    )  # fmt: skip
    return {"quadratic": cells, "shuffled": resting}


LARGE = Parabola(
    Share(times=20), momenta=(0.5, 0.8, 0.9, 0.99), places=(0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 10.0, 20.0),
    every=32, samplers=Share(least=32), examples=1000, batch_sizes=(5, 20, 50, 250),
)  # fmt: skip
QUADRATIC = Experiment("quadratic", small=Parabola(), large=LARGE, run=run, estimates=estimates, tables=tables)
