"""The same net on images used as patches: digits, MNIST where it is present, and glyphs, fresh for every seed.

An image is the signal patch, a tenth of them at a tenth of their contrast. Does momentum gain on the small margins of
every pair of classes in which an effect is expected, and on the first pair with both at their best learning rate?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from pandas import concat
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.data.image_patches import ImagePatches, Split
from descent.data.images import ImageSet, load, pair, pooled
from descent.engine import Streams, ema
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, each, tidy
from descent.experiments.margins.arms import AtLoss, of_sets, tuned_gap
from descent.problems.glyphs import glyphs
from descent.problems.patches import Patches, random_start
from descent.stats import bounded_difference

KEYS = {name: (f"P4-C14.{name}", f"P4-N5.{name}") for name in ("digits", "mnist", "glyphs")}
"""The tests that a data set answers: at one rate, and at the best of several."""


@dataclass(frozen=True)
class Pair:
    """Two classes and the amplitude A of their images."""

    first: str
    second: str
    amplitude: float

    @property
    def name(self) -> str:
        """What the pair is called."""
        return f"{self.first} or {self.second}"


ALL = tuple(Pair(first, second, 3.0) for first, second in combinations("0123456789", 2))
GLYPH_PAIRS = (Pair("2", "3", 3.0), Pair("4", "6", 3.0))
"""The pairs of glyphs whose mean heights differ most: where a glyph stands differs, so that little else is shared. At
this amplitude half the distance of their class means is about one, as that of the digits 0 and 1."""


@dataclass(frozen=True)
class Images:
    """Pairs raced at one rate; the first pair at many rates as well, for each arm's best."""

    data: str
    pairs: tuple[Pair, ...]
    seeds: int = 32
    examples: int = 150
    momenta: tuple[float, ...] = (0.0, 0.9, 0.98)
    lr: float = 1.0
    plain_lrs: tuple[float, ...] = (2.0, 4.0, 8.0)  # beside lr
    strong_lrs: tuple[float, ...] = (4.0, 16.0)  # of the last momentum
    neurons: int = 8
    scale: float = 0.1
    steps: int = 1200
    near: float = 0.1  # a pair counts where plain descent errs on fewer large margins than this …
    apart: float = 0.8  # … and the class means lie this far apart

    @property
    def rates(self) -> tuple[tuple[float, tuple[float, ...]], ...]:
        """Plain descent and the strongest momentum, each with its rates on the first pair."""
        return (0.0, (self.lr, *self.plain_lrs)), (self.momenta[-1], (self.lr, *self.strong_lrs))


@dataclass(frozen=True, eq=False)
class ImagesResult:
    """Errors on small and on large margins at equal loss, (P, M, S) over pairs and momenta.

    gaps, overlap (P,): of the pairs' splits, see there. tuned (rates, 2, S): small-margin errors on the first pair of
    plain descent and of the strongest momentum over their rates, `lr` first; where one has fewer rates the rest repeats
    its first.
    """

    config: Images
    lab: Lab
    err2: Array
    err1: Array
    gaps: Array
    overlap: Array
    tuned: Array

    @property
    def counted(self) -> BoolArray:
        """The pairs in which an effect is expected, (P,); all of them where it is expected in none."""
        found = (self.gaps >= self.config.apart) & (self.err1[:, 0].mean(axis=-1) < self.config.near)
        return np.asarray(found if found.any() else ~found)


def run(config: Images, lab: Lab) -> ImagesResult:
    """Race every pair, then the first one at other rates."""
    splits = _splits(config, lab)
    raced = np.stack([_race(config, lab, split, [config.lr] * len(config.momenta), config.momenta) for split in splits])
    rates, cut = [*config.plain_lrs, *config.strong_lrs], len(config.plain_lrs)
    momenta = [0.0] * cut + [config.momenta[-1]] * len(config.strong_lrs)
    base, (found, _) = raced[0, 0], _race(config, lab, splits[0], rates, momenta)
    parts = np.concatenate([base[:1], found[:cut]]), np.concatenate([base[-1:], found[cut:]])
    count = max(map(len, parts))
    tuned = [np.concatenate([part, np.repeat(part[:1], count - len(part), axis=0)]) for part in parts]
    gaps, overlap = np.array([(split.gap, split.overlap) for split in splits]).T
    return ImagesResult(config, lab, raced[:, 0], raced[:, 1], gaps, overlap, np.stack(tuned, axis=1))


def _splits(config: Images, lab: Lab) -> list[Split]:
    """Return every pair's training and test sets, one per seed: parts of the same images, or glyphs made for it."""
    streams, made = lab.streams(config.seeds), [ImagePatches(config.examples, item.amplitude) for item in config.pairs]
    both = list(zip(made, config.pairs, strict=True))
    if config.data == "glyphs":
        drawn = lab.streams(config.seeds, apart=1)  # what is drawn for glyphs is none of the noise patches
        return [patches.of(*_glyphs(drawn, item, patches.examples + patches.tests), streams) for patches, item in both]
    data = _loaded(config.data)
    return [patches.split(pair(data, item.first, item.second), streams) for patches, item in both]


def _loaded(name: str) -> ImageSet:
    data = load(name)
    return pooled(data) if name == "mnist" else data


def _glyphs(streams: Streams, item: Pair, count: int) -> tuple[Tensor, Tensor]:
    """Return the first `count` glyphs of two classes, (S, count, 40), and which of the two they are, (S, count)."""
    inputs, targets = glyphs(streams, 8 * count)  # a fifth of them are of the two classes
    others = (targets != int(item.first)) & (targets != int(item.second))
    order = others.to(torch.int8).argsort(dim=1, stable=True)[:, :count]
    if bool(others.gather(1, order).any()):
        raise ValueError(f"there are fewer than {count} glyphs of the classes {item.name}; draw more of all classes")
    chosen = inputs.gather(1, order.unsqueeze(-1).expand(-1, -1, inputs.shape[-1]))
    return chosen, (targets.gather(1, order) == int(item.second)).long()


def _race(config: Images, lab: Lab, split: Split, lrs: Sequence[float], momenta: Sequence[float]) -> Array:
    """Return the errors on small and on large margins at equal loss, (2, A, S)."""
    problem, arms = Patches(split.train, len(lrs)), lab.arms(ema(lrs, momenta), config.seeds)
    start = random_start(lab.streams(config.seeds), config.neurons, split.small.shape[-1] + 1, config.scale)
    keeper = AtLoss(problem)
    keeper.train(arms, problem, start, config.steps)
    errors = [problem.test_error(keeper.kept[0], 0.0, tests) for tests in (split.small, split.large)]
    return np.stack([arms.split(error) for error in errors])


def estimates(result: ImagesResult) -> Estimates:
    """Return what the images say about P4-C14 and P4-N5."""
    every_pair, best_rate = KEYS[result.config.data]
    counted = result.err2[result.counted]
    grid = np.moveaxis(result.tuned, -1, 0)  # (S, rates, 2): plain descent first
    gains = each(bounded_difference, counted[:, 0], counted[:, -1])
    return of_sets({every_pair: gains, best_rate: tuned_gap(grid, result.lab.seed)})


def tables(result: ImagesResult) -> Tables:
    """Return mean errors, one row per pair and momentum, and over the rates of the first pair."""
    config, err2 = result.config, result.err2
    pairs = tidy(
        {"pair": [item.name for item in config.pairs], "momentum": config.momenta},
        amplitude=[[item.amplitude] for item in config.pairs], gap=result.gaps[:, None],
        overlap=result.overlap[:, None], err2=err2.mean(axis=-1),
        err1=result.err1.mean(axis=-1), gain=(err2[:, :1] - err2).mean(axis=-1),
    )  # fmt: skip
    rates = [
        tidy({"momentum": [momentum], "lr": lrs}, err2=result.tuned[: len(lrs), j].mean(axis=-1))
        for j, (momentum, lrs) in enumerate(config.rates)
    ]
    return {f"{config.data}_pairs": pairs, f"{config.data}_rates": concat(rates, ignore_index=True)}


ZERO, THREE, FOUR = Pair("0", "1", 2.0), Pair("3", "8", 4.0), Pair("4", "9", 4.0)
DIGITS = Experiment(
    "digits", small=Images("digits", (ZERO, THREE, FOUR)), large=Images("digits", ALL, seeds=64),
    run=run, estimates=estimates, tables=tables,
)  # fmt: skip
MNIST = Experiment(  # at 14 × 14 pixels; of many more examples, memorising takes so long that plain descent learns too
    "mnist", large=Images("mnist", ALL, seeds=64, examples=200), run=run, estimates=estimates, tables=tables,
    small=Images("mnist", (ZERO, THREE), momenta=(0.0, 0.98), plain_lrs=(4.0, 8.0), strong_lrs=(16.0,)),
)  # fmt: skip
GLYPHS = Experiment(
    "glyphs", run=run, estimates=estimates, tables=tables,
    small=Images("glyphs", GLYPH_PAIRS, momenta=(0.0, 0.98), plain_lrs=(0.5, 2.0, 4.0)),
    large=Images("glyphs", GLYPH_PAIRS, seeds=64, plain_lrs=(0.5, 2.0, 4.0)),
)  # fmt: skip
