"""Noise of the search direction of networks, measured directly: its level, what it is made of, the paper's bounds.

Plain, averaged and heavy-ball descent train the same networks on the same batches. ω = d − ∇f is taken apart on their
paths: how large it is beside the noise of a batch, how much of it the past foretells, how far the bounds lie above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from descent.arrays import Array
from descent.engine import ArmRun, Arms, Params, Watch, ema, stack
from descent.engine.arms import survivors
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import NAMES, RULES, Arm, Task, rules, search_noise, task
from descent.measure.noise import batch_noise, example_squares
from descent.nets import Supervised
from descent.stats import Estimate, bootstrap, furthest, largest, ratio_of_means, smallest
from descent.theory.search_noise import bound, degree, flat_power

LEVELS = ("power", "noise", "variance", "memory", "along", "gradient")
PARTS = ("fresh", "carried", "lag")
NONE = np.finfo(np.float64).tiny
"""In the place of a power of 0, which is that of a rule without momentum at full batch."""


@dataclass(frozen=True)
class Noise:
    """A two-layer net on digits, batches drawn with replacement; the last "batch" is all examples.

    Of a seed all arms, rates and batch sizes share the initial weights, and all arms and rates of a batch size the
    batches.
    """

    replicas: Share = Share(over=25, least=32)
    rates: tuple[float, ...] = (0.01, 0.03)
    batch_sizes: tuple[int, ...] = (4, 16, 64)
    examples: int = 250
    hidden: int = 32
    redrawn: float = 0.2  # of the labels, so that the gradient noise of no arm dies out within the run
    burn: int = 100
    steps: int = 300
    every: int = 5  # steps between two looks after `burn`
    every_full: int = 20  # of the arms at full batch
    dissected: int = 16  # seeds of the smallest rate that are taken apart at the end, …
    window: int = 50  # … this many steps later

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes with all examples as the last."""
        return (*self.batch_sizes, self.examples)

    @property
    def slowest(self) -> int:
        """The index of the smallest rate."""
        return int(np.argmin(self.rates))


@dataclass(frozen=True, eq=False)
class NoiseResult:
    """Means over the looks, (L, S, A, N) over rates, batch sizes, arms and seeds.

    power: |ω|²; noise: C²/B on the path; variance: C²; memory: |E[ω | past]|²; along: ⟨ω, ∇f⟩; gradient: |∇f|²;
    peak: the largest mean |∇f|² of all seeds at any look, (L, S, A); parts: |·|² of fresh, carried and lag and |ω|² at
    the smallest rate, (S, A, 4, M). A seed that diverged anywhere is dropped everywhere.
    """

    config: Noise
    lab: Lab
    power: Array
    noise: Array
    variance: Array
    memory: Array
    along: Array
    gradient: Array
    peak: Array
    parts: Array

    def bound(self, arm: Arm) -> Array:
        """Return the paper's bound on the power of an arm from C²/B and |∇f|² as measured, (L, S, N)."""
        peak = np.sqrt(self.peak[:, :, arm, None])
        return bound(RULES[arm], self.noise[:, :, arm], momentum=self.lab.momentum, gradient=peak)


def run(config: Noise, lab: Lab) -> NoiseResult:
    """Train all arms at every batch size."""
    images = task(lab, "digits", config.redrawn, config.hidden, config.examples)
    arms = lab.arms(stack(*(rules(lr, lab.momentum) for lr in config.rates)), config.replicas)
    problems = [*map(images.batches, config.batch_sizes), images.full]
    runs = [_watched(config, images, arms, problem) for problem in problems]
    alive = survivors(np.stack([done.lost for done in runs]))
    shape = (-1, len(config.rates), len(RULES), len(alive))  # (T, L, A, N)
    seen = {name: [np.moveaxis(done[f".{name}"], -1, 0).reshape(shape)[..., alive] for done in runs] for name in LEVELS}
    means = {name: np.stack([look.mean(axis=0) for look in looks], axis=1).copy("C") for name, looks in seen.items()}
    peak = np.stack([look.mean(axis=-1).max(axis=0) for look in seen["gradient"]], axis=1)
    parts = np.stack([_dissected(config, *pair) for pair in zip(problems, runs, strict=True)])
    return NoiseResult(config, lab, **means, peak=peak, parts=parts[..., alive[: parts.shape[-1]]])


def _watched(config: Noise, images: Task, arms: Arms, problem: Supervised) -> ArmRun:
    """Train all rates and arms at one batch size, and look."""
    noise = search_noise(problem, arms, config.every if problem.batch_size else config.every_full)

    def look(step: int, params: Params, velocity: Params) -> Mapping[str, Tensor]:
        found = noise(step, params, velocity)
        variance = (example_squares(problem, params).mean(dim=1) - found["gradient"]).clamp_min(0.0)
        return found | {"variance": variance, "noise": batch_noise(problem, variance)}

    settled = arms.run(problem, images.model.initial, config.burn)
    return settled.then(config.steps, probes={"": Watch(noise.every, look)})


def _dissected(config: Noise, problem: Supervised, end: ArmRun) -> Array:
    """Return |·|² of the parts of ω and of ω at the smallest rate, (A, 4, M)."""
    first = config.slowest * len(RULES)
    some, params, velocity = end.few(config.dissected, slice(first, first + len(RULES)))
    powers = search_noise(problem, some, 1, config.window)(config.steps, params, velocity)
    return np.stack([some.split(powers[name]) for name in (*PARTS, "power")], axis=1)


def estimates(result: NoiseResult) -> Estimates:
    """Return what digits say about P1-C1 to C7, C13 to C15, C23, X1 and X2."""
    seed, power, plain, averaged, heavy = result.lab.seed, result.power, Arm.PLAIN, Arm.AVERAGED, Arm.HEAVY
    ratio = partial(each, ratio_of_means, seed=seed)
    sum_gain, average_gain = gain(result, heavy), gain(result, averaged)
    sum_slack, average_slack = slack(result, heavy), slack(result, averaged)[:, :-1]
    left = ratio(power[:, -1], result.gradient[:, -1])  # at full batch
    direct = ratio(result.variance[:, :, averaged], result.variance[:, :, plain])
    share = partial(bootstrap, lambda m, p: np.sqrt(m.mean(1) / p.mean(1)), seed=seed)  # of ω that the past foretells
    flat = float(flat_power(ema(1.0, result.lab.momentum))[0])
    slowest = power[result.config.slowest, :-1]
    return {
        "P1-C1.power": furthest(ratio(power[:, :-1, plain], result.noise[:, :-1, plain])),
        "P1-C2.bound": smallest(sum_slack),
        "P1-C3.ordinary": smallest(average_slack),
        "P1-C4.larger": smallest(sum_gain),
        "P1-C5.nshb_vanishes": largest(left[:, averaged]),
        "P1-C5.shb_floor": smallest(left[:, heavy]),
        "P1-C6.equal": largest(average_gain),
        "P1-C7.momentum": smallest(each(share, result.memory[:, :-1, heavy], power[:, :-1, heavy])),
        "P1-C13.direct": smallest(direct),
        "P1-C14.direct": furthest(direct),
        "P1-C15.shb": smallest(sum_gain),
        "P1-C15.nshb": largest(average_gain),
        "P1-C23.covariant": furthest([conventions(result, *cell) for cell in np.ndindex(sum_gain.shape)]),
        "P1-X1.shb": smallest(sum_slack[:, :-1]),
        "P1-X1.nshb": smallest(average_slack),
        "P1-X1.scale": smallest(_cosines(result)),
        "P1-X2.network": furthest(ratio(slowest[:, averaged], flat * slowest[:, plain])),
    }


def gain(result: NoiseResult, arm: Arm) -> Array:
    """Return the power of an arm over that of plain descent, in batches, (L, S − 1) Estimates."""
    power, plain = result.power[:, :-1, arm], result.power[:, :-1, Arm.PLAIN]
    return np.asarray(each(ratio_of_means, power, plain, seed=result.lab.seed))


def slack(result: NoiseResult, arm: Arm) -> Array:
    """Return the paper's bound over the measured power, (L, S) Estimates."""
    power = np.maximum(result.power[:, :, arm], NONE)
    return np.asarray(each(ratio_of_means, result.bound(arm), power, seed=result.lab.seed))


def conventions(result: NoiseResult, rate: int, size: int) -> Estimate:
    """Return the formula's degree of the averaged arm's path, written as a heavy ball, over that as an average.

    The heavy ball at lr·(1 − momentum) takes the very same path.
    """
    lr, beta = result.config.rates[rate], result.lab.momentum
    known = {"momentum": beta, "gradient": np.sqrt(float(result.peak[rate, size, Arm.AVERAGED]))}

    def ratio(noise: Array) -> Array:
        s2 = noise.mean(axis=1)
        ball = degree(lr * (1 - beta), bound("heavy_ball", s2, **known))
        return np.asarray(ball / degree(lr, bound("ema", s2, **known)))

    return bootstrap(ratio, result.noise[rate, size, Arm.AVERAGED], seed=result.lab.seed)


def _cosines(result: NoiseResult) -> Array:
    """Return the cosine of the heavy ball's ω with the gradient at full batch, (L,) Estimates."""

    def cosine(along: Array, power: Array, gradient: Array) -> Array:
        return np.asarray(along.mean(1) / np.sqrt(power.mean(1) * gradient.mean(1)))

    along, power, gradient = (part[:, -1, Arm.HEAVY] for part in (result.along, result.power, result.gradient))
    power = np.maximum(power, NONE)
    return np.asarray(each(partial(bootstrap, cosine), along, power, gradient, seed=result.lab.seed))


def tables(result: NoiseResult) -> Tables:
    """Return one row per rate, batch size and arm; and the parts of ω at the smallest rate."""
    config, names = result.config, NAMES[: len(RULES)]
    mean = {name: getattr(result, name).mean(axis=-1) for name in LEVELS}
    power, bounds = mean["power"], np.stack([result.bound(Arm(arm)).mean(axis=-1) for arm in range(len(RULES))], axis=2)
    levels = tidy(
        {"lr": config.rates, "batch_size": config.sizes, "arm": names},
        **{name: mean[name] for name in ("power", "noise", "variance", "gradient")}, bound=bounds, peak=result.peak,
        level=_over(power, mean["noise"]), foreseen=_over(mean["memory"], power),
        cosine=_over(mean["along"], np.sqrt(power * mean["gradient"])),
    )  # fmt: skip
    parts = dict(zip((*PARTS, "power"), np.moveaxis(result.parts.mean(axis=-1), 2, 0), strict=True))
    return {"noise": levels, "noise_parts": tidy({"batch_size": config.sizes, "arm": names}, **parts)}


def _over(x: Array, y: Array) -> Array:
    """Return x/y, not a number where y is 0."""
    return np.divide(x, y, out=np.full_like(x, np.nan), where=y > 0)


LARGE = Noise(
    Share(over=8, least=64), rates=(0.003, 0.01, 0.03), batch_sizes=(4, 16, 64, 256), examples=1000, steps=1000,
    every=10, dissected=64,
)  # fmt: skip
NOISE = Experiment("noise", small=Noise(), large=LARGE, run=run, estimates=estimates, tables=tables)
