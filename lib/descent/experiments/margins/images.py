"""The same net on images used as patches: digits, and MNIST where it is present."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from descent.arrays import Array
from descent.data.image_patches import ImagePatches, Split
from descent.data.images import load, pair, pooled
from descent.engine.rules import ema, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import AtLoss, train_until
from descent.experiments.margins.phase import best_gap
from descent.experiments.margins.race import EQUAL
from descent.problems.patches import Patches, random_start
from descent.stats.intervals import bootstrap, mean, paired_difference


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


@dataclass(frozen=True)
class Images:
    """Pairs raced at one rate; the first pair at many rates as well, for each arm's best.

    near: a pair counts where plain descent errs on fewer large margins than this and the class means are `apart`.
    """

    data: str
    pairs: tuple[Pair, ...]
    seeds: int
    seed: int
    device: str
    examples: int
    momenta: tuple[float, ...] = (0.0, 0.9, 0.98)
    lr: float = 1.0
    plain_lrs: tuple[float, ...] = (2.0, 4.0, 8.0)  # beside lr
    strong_lrs: tuple[float, ...] = (4.0, 16.0)
    neurons: int = 8
    scale: float = 0.1
    steps: int = 1200
    near: float = 0.1
    apart: float = 0.8

    @classmethod
    def cpu(cls, settings: Settings) -> Images:
        """Take three pairs of digits."""
        pairs = (Pair("0", "1", 2.0), Pair("3", "8", 4.0), Pair("4", "9", 4.0))
        return cls("digits", pairs, 32, settings.seed, settings.device, 150)

    @classmethod
    def paper(cls, settings: Settings) -> Images:
        """Take all pairs of digits that lie apart."""
        pairs = tuple(Pair(str(i), str(j), 3.0) for i in range(10) for j in range(i + 1, 10))
        return cls("digits", pairs, 64, settings.seed, settings.device, 150)


class MnistImages(Images):
    """Pairs of MNIST at 14 × 14 pixels."""

    @classmethod
    def cpu(cls, settings: Settings) -> Images:
        """Take two pairs."""
        pairs = (Pair("0", "1", 2.0), Pair("3", "8", 4.0))
        return cls(
            "mnist",
            pairs,
            32,
            settings.seed,
            settings.device,
            150,
            momenta=(0.0, 0.98),
            plain_lrs=(4.0, 8.0),
            strong_lrs=(16.0,),
        )

    @classmethod
    def paper(cls, settings: Settings) -> Images:
        """Take all pairs; of many more examples, memorising takes so long that plain descent learns the feature too."""
        pairs = tuple(Pair(str(i), str(j), 3.0) for i in range(10) for j in range(i + 1, 10))
        return cls("mnist", pairs, 64, settings.seed, settings.device, 200)


@dataclass(frozen=True, eq=False)
class ImagesResult:
    """Errors on small and on large margins at equal loss, (P, M, S) over pairs and momenta, with the gaps (P,).

    tuned (rates, 2, S): small-margin errors on the first pair of plain descent and of the strongest momentum over
    their rates, `lr` first; where one has fewer rates the rest repeats its first.
    """

    config: Images
    err2: Array
    err1: Array
    gaps: Array
    tuned: Array
    seconds: float

    @property
    def counted(self) -> NDArray[np.bool_]:
        """The pairs in which an effect is expected, (P,)."""
        return np.asarray((self.gaps >= self.config.apart) & (self.err1[:, 0].mean(axis=-1) < self.config.near))


def run(config: Images) -> ImagesResult:
    """Race every pair, then the first one at other rates."""
    clock = time.perf_counter()
    streams = Streams(replica_seeds(config.seed, config.seeds, config.device))
    splits = [_split(config, item, streams) for item in config.pairs]
    raced = [_race(config, split, [config.lr] * len(config.momenta), config.momenta) for split in splits]
    strong = config.momenta[-1]
    rates = [*config.plain_lrs, *config.strong_lrs]
    momenta = [0.0] * len(config.plain_lrs) + [strong] * len(config.strong_lrs)
    found, _ = _race(config, splits[0], rates, momenta)
    cut, base = len(config.plain_lrs), raced[0][0]
    plain, fast = np.concatenate([base[:1], found[:cut]]), np.concatenate([base[-1:], found[cut:]])
    count = max(len(plain), len(fast))
    tuned = np.stack(
        [np.concatenate([part, np.repeat(part[:1], count - len(part), axis=0)]) for part in (plain, fast)], axis=1
    )
    return ImagesResult(
        config,
        np.stack([err2 for err2, _ in raced]),
        np.stack([err1 for _, err1 in raced]),
        np.array([split.gap for split in splits]),
        tuned,
        time.perf_counter() - clock,
    )


def _split(config: Images, item: Pair, streams: Streams) -> Split:
    data = load(config.data)
    images = pair(pooled(data) if config.data == "mnist" else data, item.first, item.second)
    return ImagePatches(config.examples, item.amplitude).split(images, streams)


def _race(config: Images, split: Split, lrs: Sequence[float], momenta: Sequence[float]) -> tuple[Array, Array]:
    """Return the errors on small and on large margins at equal loss, (A, S) each."""
    arms = len(lrs)
    streams = Streams(replica_seeds(config.seed, config.seeds, config.device).repeat(arms))
    problem = Patches(split.train, arms)
    seeds, dimension = streams.subset(slice(0, config.seeds)), split.small.shape[-1] + 1
    start = random_start(seeds, config.neurons, dimension, config.scale, arms)
    keeper = AtLoss(problem, (EQUAL,))
    hyper = repeat(ema(list(lrs), list(momenta)), config.seeds).to(config.device)
    train_until(keeper, problem, start, hyper, config.steps, streams)
    errors = [problem.test_error(keeper.kept[0], 0.0, tests) for tests in (split.small, split.large)]
    return cast(tuple[Array, Array], tuple(to_numpy(error).reshape(arms, -1) for error in errors))


def estimates(result: ImagesResult) -> Estimates:
    """Return what the images say about P4-C14 and P4-C16."""
    name = result.config.data
    gains = [paired_difference(errors[0], errors[-1]) for errors in result.err2[result.counted]]
    grid = np.moveaxis(result.tuned, -1, 0)  # (S, rates, 2): plain descent first
    found = {f"P4-C16.{name}": bootstrap(best_gap, grid, seed=result.config.seed)}
    return found | ({f"P4-C14.{name}": min(gains, key=lambda gain: gain.value)} if gains else {})


def tables(result: ImagesResult) -> dict[str, DataFrame]:
    """Return mean errors, one row per pair and momentum, and over the rates of the first pair."""
    config = result.config
    rows = [
        {
            "pair": item.name,
            "amplitude": item.amplitude,
            "gap": gap,
            "momentum": momentum,
            "err2": mean(result.err2[i, j]).value,
            "err1": result.err1[i, j].mean(),
            "gain": (result.err2[i, 0] - result.err2[i, j]).mean(),
        }
        for i, (item, gap) in enumerate(zip(config.pairs, result.gaps, strict=True))
        for j, momentum in enumerate(config.momenta)
    ]
    tuned = [
        {"momentum": momentum, "lr": lr, "err2": result.tuned[k, j].mean()}
        for j, (momentum, lrs) in enumerate(((0.0, config.plain_lrs), (config.momenta[-1], config.strong_lrs)))
        for k, lr in enumerate((config.lr, *lrs))
    ]
    return {f"{config.data}_pairs": DataFrame(rows), f"{config.data}_rates": DataFrame(tuned)}


DIGITS = Experiment(
    "digits", ("P4-C14", "P4-C16"), lambda settings: run(configure(Images, settings)), estimates, tables
)
MNIST = Experiment(
    "mnist", ("P4-C14", "P4-C16"), lambda settings: run(configure(MnistImages, settings)), estimates, tables
)
