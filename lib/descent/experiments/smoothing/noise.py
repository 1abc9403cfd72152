"""Noise of the search direction of networks, measured directly: its level, what it is made of, the paper's bounds.

Plain, averaged and heavy-ball descent train the same networks on the same batches. ω = d − ∇f is taken apart on their
paths: how large it is beside the noise of a batch, how much of it the past foretells, how far the bounds lie above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.data.draws import Draws
from descent.engine import ArmRun, Arms, Params, Streams, Watch, ema, stack
from descent.engine.stack import rows_of
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import (
    NAMES,
    RULES,
    Arm,
    Task,
    listed,
    over_draws,
    rules,
    search_noise,
    task,
    whole,
)
from descent.measure.noise import batch_noise, example_squares, flat
from descent.nets import Supervised
from descent.stats import draw_ratio, draw_statistic, smallest
from descent.theory.search_noise import Variant, bound, degree, flat_power

LEVELS = ("power", "noise", "variance", "memory", "along", "gradient")
PARTS = ("fresh", "carried", "lag")
NONE = 1e-30
"""In the place of a power of 0, which is that of a rule without momentum at full batch."""


@dataclass(frozen=True)
class Noise:
    """A two-layer net on digits, batches drawn with replacement; the last "batch" is all examples.

    Of a net all arms, rates and batch sizes share the initial weights, and all arms and rates of a batch size the
    batches.
    """

    draws: int = 16  # of the training set
    replicas: Share = Share(over=30, most=32)
    rates: tuple[float, ...] = (0.01, 0.03)
    batch_sizes: tuple[int, ...] = (4, 16, 64)
    examples: int = 250
    hidden: int = 32
    redrawn: float = 0.2  # of the labels, so that the gradient noise of no arm dies out within the run
    burn: int = 100
    steps: int = 300
    every: int = 4  # steps between two looks after `burn`
    every_full: int = 20  # of the arms at full batch
    batches: int = 8  # of plain descent at every look: its noise is all fresh, and another batch costs little
    dissected: int = 16  # nets of the smallest rate that are taken apart at the end, …
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
    """Means over the looks, (L, S, A, N) over rates, batch sizes, arms and nets; net i is of draw i mod D of the sets.

    power: |ω|², that of plain descent over several batches at every look; noise: C²/B on the path; variance: C²;
    memory: |E[ω | past]|²; along: ⟨ω, ∇f⟩; gradient: |∇f|²; peak: the largest mean |∇f|² of a draw's nets at any look,
    (L, S, A, D); parts: |·|² of fresh, carried and lag and |ω|² at the smallest rate, (S, A, 4, M). A net that diverged
    anywhere is not a number anywhere.
    """

    config: Noise
    lab: Lab
    sets: Draws
    power: Array
    noise: Array
    variance: Array
    memory: Array
    along: Array
    gradient: Array
    peak: Array
    parts: Array

    def bound(self, arm: Arm, variant: Variant = "submission") -> Array:
        """Return the paper's bound on the power of an arm from C²/B and |∇f|² as measured, (L, S, N)."""
        noise = self.noise[:, :, arm]
        gradient = np.sqrt(self.peaks(arm))
        return bound(RULES[arm], noise, momentum=self.lab.momentum, gradient=gradient, variant=variant)

    def peaks(self, arm: Arm) -> Array:
        """Return the peak of an arm by net, (L, S, N)."""
        return np.tile(self.peak[:, :, arm], self.noise.shape[-1] // len(self.sets))


def run(config: Noise, lab: Lab) -> NoiseResult:
    """Train all arms at every batch size."""
    images = task(lab, "digits", config.redrawn, config.hidden, config.draws, config.examples)
    rule, count = stack(*(rules(lr, lab.momentum) for lr in config.rates)), lab.per_draw(config.replicas, config.draws)
    arms, problems = lab.arms(rule, count), [*map(images.batches, config.batch_sizes), images.full]
    runs = [_watched(config, images, arms, problem) for problem in problems]
    lost = np.stack([done.lost for done in runs])
    shape = (-1, len(config.rates), len(RULES), count)  # (T, L, A, N)
    seen = {name: [whole(_looks(done, name).reshape(shape), lost) for done in runs] for name in LEVELS}
    means = {name: np.stack([look.mean(axis=0) for look in looks], axis=1).copy("C") for name, looks in seen.items()}
    of_draws = [np.nanmean(images.sets.by_draw(look), axis=-1) for look in seen["gradient"]]  # (T, L, A, D)
    peak = np.stack([look.max(axis=0) for look in of_draws], axis=1)
    parts = np.stack([_dissected(config, *pair) for pair in zip(problems, runs, strict=True)])
    parts = whole(parts, lost[..., : config.dissected])
    return NoiseResult(config, lab, images.sets, **means, peak=peak, parts=parts)


def _looks(done: ArmRun, name: str) -> Array:
    """Return a quantity at every look, (T, A, N)."""
    return np.moveaxis(done[f".{name}"], -1, 0)


def _watched(config: Noise, images: Task, arms: Arms, problem: Supervised) -> ArmRun:
    """Train all rates and arms at one batch size, and look."""
    noise = search_noise(problem, arms, config.every if problem.batch_size else config.every_full)
    plain = (arms.spread(torch.arange(len(arms))) % len(RULES) == Arm.PLAIN).nonzero().squeeze(1)

    def look(step: int, params: Params, velocity: Params) -> Mapping[str, Tensor]:
        parts = noise.parts(step, params, velocity)
        found = parts.powers()
        if problem.batch_size:
            steps = range(step, step + config.batches * config.steps, config.steps)  # of no other look
            some, streams = rows_of(params, plain), arms.streams.subset(plain)
            found["power"][plain] = _fresh(problem, some, streams, parts.gradient[plain], steps)
        variance = (example_squares(problem, params).mean(dim=1) - found["gradient"]).clamp_min(0.0)
        return found | {"variance": variance, "noise": batch_noise(problem, variance)}

    settled = arms.run(problem, images.model.initial, config.burn)
    return settled.then(config.steps, probes={"": Watch(noise.every, look)})


def _fresh(problem: Supervised, params: Params, streams: Streams, full: Tensor, steps: Sequence[int]) -> Tensor:
    """Return the mean |ξ|² of the batches of several steps, all at these parameters, whose full gradient is (R, p)."""
    noises = (flat(problem.gradient(params, streams, step)) - full for step in steps)
    return torch.stack([noise.square().sum(dim=1) for noise in noises]).mean(dim=0)


def _dissected(config: Noise, problem: Supervised, end: ArmRun) -> Array:
    """Return |·|² of the parts of ω and of ω at the smallest rate, (A, 4, M)."""
    first = config.slowest * len(RULES)
    some, params, velocity = end.few(config.dissected, slice(first, first + len(RULES)))
    powers = search_noise(problem, some, 1, config.window)(config.steps, params, velocity)
    return np.stack([some.split(powers[name]) for name in (*PARTS, "power")], axis=1)


def estimates(result: NoiseResult) -> Estimates:
    """Return what digits say about P1-C1 to C7, C13 to C15, C23 to C25, X1 and X2."""
    plain, averaged, heavy = Arm.PLAIN, Arm.AVERAGED, Arm.HEAVY
    power, batches = result.power, result.power[:, :-1]
    ratio = partial(each, over_draws(result.sets, draw_ratio))
    sum_gain, sum_slack = gain(result, heavy), slack(result, heavy)
    average_gain, average_slack = gain(result, averaged), slack(result, averaged)
    code_slack = slack(result, averaged, "repository")
    left = ratio(power[:, -1], result.gradient[:, -1])  # at full batch
    direct = ratio(result.variance[:, :, averaged], result.variance[:, :, plain])
    limit = float(flat_power(ema(1.0, result.lab.momentum))[0])  # of a flat objective
    slowest = batches[result.config.slowest]
    found: dict[str, Array] = {
        "P1-C1.power": ratio(batches[:, :, plain], result.noise[:, :-1, plain]),
        "P1-C2.bound": sum_slack,
        "P1-C3.ordinary": average_slack[:, :-1],
        "P1-C4.larger": sum_gain,
        "P1-C5.nshb_vanishes": left[:, averaged],
        "P1-C5.shb_floor": left[:, heavy],
        "P1-C6.equal": average_gain,
        "P1-C7.momentum": foretold(result, heavy),
        "P1-C13.direct": direct,
        "P1-C14.direct": direct,
        "P1-C15.shb": sum_gain,
        "P1-C15.nshb": average_gain,
        "P1-C23.covariant": conventions(result, "submission"),
        "P1-C24.bound": code_slack,
        "P1-C25.covariant": conventions(result, "repository"),
        "P1-X1.shb": sum_slack[:, :-1],
        "P1-X1.nshb": average_slack[:, :-1],
        "P1-X1.nshb_repository": code_slack[:, :-1],
        "P1-X1.scale": _cosines(result),
        "P1-X2.network": ratio(slowest[:, averaged], limit * slowest[:, plain]),
    }
    first = ratio(power[:, :, heavy], np.maximum(power[:, :, plain], NONE))
    return {"P1-C4.larger_first": smallest(first), **{key: listed(cells) for key, cells in found.items()}}


def gain(result: NoiseResult, arm: Arm) -> Array:
    """Return the power of an arm over that of plain descent, in batches, (L, S − 1) Estimates."""
    power, plain = result.power[:, :-1, arm], result.power[:, :-1, Arm.PLAIN]
    return np.asarray(each(over_draws(result.sets, draw_ratio), power, plain))


def slack(result: NoiseResult, arm: Arm, variant: Variant = "submission") -> Array:
    """Return the paper's bound over the measured power, (L, S) Estimates."""
    power = np.maximum(result.power[:, :, arm], NONE)
    return np.asarray(each(over_draws(result.sets, draw_ratio), result.bound(arm, variant), power))


def foretold(result: NoiseResult, arm: Arm) -> Array:
    """Return the root mean square of the mean of ω given the past over that of ω, in batches, (L, S − 1) Estimates."""

    def share(memory: Array, power: Array) -> Array:
        return np.asarray(np.sqrt(_mean(memory) / _mean(power)))

    parts = (part[:, :-1, arm] for part in (result.memory, result.power))
    return np.asarray(each(over_draws(result.sets, partial(draw_statistic, share)), *parts))


def conventions(result: NoiseResult, variant: Variant) -> Array:
    """Return the formula's degree of the averaged arm's path, written as a heavy ball, over that as an average.

    The heavy ball at lr·(1 − momentum) takes the very same path. In batches, (L, S − 1) Estimates.
    """
    beta = result.lab.momentum

    def ratio(noise: Array, peak: Array) -> Array:
        s2, k = _mean(noise), np.sqrt(_mean(peak))
        ball = degree(1 - beta, bound("heavy_ball", s2, momentum=beta, gradient=k))
        return np.asarray(ball / degree(1.0, bound("ema", s2, momentum=beta, gradient=k, variant=variant)))

    arms = result.noise[:, :-1, Arm.AVERAGED], result.peaks(Arm.AVERAGED)[:, :-1]
    return np.asarray(each(over_draws(result.sets, partial(draw_statistic, ratio)), *arms))


def _cosines(result: NoiseResult) -> Array:
    """Return the cosine of the heavy ball's ω with the gradient at full batch, (L,) Estimates."""

    def cosine(along: Array, power: Array, gradient: Array) -> Array:
        return np.asarray(_mean(along) / np.sqrt(_mean(power) * _mean(gradient)))

    along, power, gradient = (part[:, -1, Arm.HEAVY] for part in (result.along, result.power, result.gradient))
    statistic = over_draws(result.sets, partial(draw_statistic, cosine))
    return np.asarray(each(statistic, along, np.maximum(power, NONE), gradient))


def _mean(samples: Array) -> Array:
    """Return the mean of samples (B, draws, replicas) over draws and replicas, (B,)."""
    return np.asarray(np.nanmean(samples, axis=(1, 2)))


def tables(result: NoiseResult) -> Tables:
    """Return one row per rate, batch size and arm; and the parts of ω at the smallest rate."""
    config, names = result.config, NAMES[: len(RULES)]
    mean = {name: np.nanmean(getattr(result, name), axis=-1) for name in LEVELS}
    power, peak = mean["power"], np.nanmean(result.peak, axis=-1)
    bounds = np.stack([np.nanmean(result.bound(Arm(arm)), axis=-1) for arm in range(len(RULES))], axis=2)
    levels = tidy(
        {"lr": config.rates, "batch_size": config.sizes, "arm": names},
        **{name: mean[name] for name in ("power", "noise", "variance", "gradient")}, bound=bounds, peak=peak,
        level=_over(power, mean["noise"]), foreseen=_over(mean["memory"], power),
        cosine=_over(mean["along"], np.sqrt(power * mean["gradient"])),
    )  # fmt: skip
    parts = dict(zip((*PARTS, "power"), np.moveaxis(np.nanmean(result.parts, axis=-1), 2, 0), strict=True))
    return {"noise": levels, "noise_parts": tidy({"batch_size": config.sizes, "arm": names}, **parts)}


def _over(x: Array, y: Array) -> Array:
    """Return x/y, not a number where y is 0."""
    return np.divide(x, y, out=np.full_like(x, np.nan), where=y > 0)


LARGE = Noise(
    draws=32, replicas=Share(over=8, least=64), rates=(0.003, 0.01, 0.03), batch_sizes=(4, 16, 64, 256), examples=1000,
    steps=1000, every=10, dissected=64,
)  # fmt: skip
NOISE = Experiment("noise", small=Noise(), large=LARGE, run=run, estimates=estimates, tables=tables)
