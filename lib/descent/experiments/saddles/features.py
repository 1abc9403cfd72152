"""The speeds at which a net learns its features: momentum compresses them, also at equal effective step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pandas import DataFrame

from descent.data import images
from descent.experiments.arms import Array, configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.saddles.initial_saddle import Departure, Track, follow, rates
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.problems.networks import InitialSaddle
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, paired_difference

PLAIN, HEAD, STRONG, MATCHED = range(4)


@dataclass(frozen=True)
class Features:
    """The net of `departure`, followed to the end of its fit only; mode 1 is compared with mode `weak`."""

    departure: Departure
    weak: int
    strong: float  # a second, larger momentum, close to the inertial limit

    @classmethod
    def cpu(cls, settings: Settings) -> Features:
        """Take a batch four times larger than the departure's: noise in the weak mode limits the ratio."""
        return cls._of(Departure.cpu(settings), batch_size=512)

    @classmethod
    def paper(cls, settings: Settings) -> Features:
        """Return the net of the departure at paper scale."""
        return cls._of(Departure.paper(settings), batch_size=1024)

    @classmethod
    def _of(cls, departure: Departure, batch_size: int) -> Features:
        efolds = departure.end + 1.0
        return cls(replace(departure, batch_size=batch_size, efolds=efolds, looks=1e-3), 4, 0.99)

    @property
    def arms(self) -> tuple[tuple[float, float], ...]:
        """(lr, momentum): plain, the headline, a strong momentum, and plain with the headline's effective step."""
        lr, momentum = self.departure.lr, self.departure.momentum
        return ((lr, 0.0), (lr, momentum), (lr, self.strong), (lr / (1 - momentum), 0.0))


@dataclass(frozen=True, eq=False)
class FeaturesResult:
    """Tracks per arm, growth (A, N, K) of the K leading modes, its prediction (A, K), instability (K,)."""

    config: Features
    tracks: tuple[Track, ...]
    growth: Array
    predicted: Array
    instability: Array
    seconds: float

    @property
    def ratio(self) -> Array:
        """Growth of the first mode over the weak one, (A, N)."""
        return np.asarray(self.growth[:, :, 0] / self.growth[:, :, self.config.weak - 1])

    @property
    def predicted_ratio(self) -> Array:
        """What log z₊ gives for it, (A,)."""
        return np.asarray(self.predicted[:, 0] / self.predicted[:, self.config.weak - 1])


def run(config: Features) -> FeaturesResult:
    """Follow the leading modes of every arm from the same weights, on the same batches."""
    net = config.departure
    inputs, labels = images.examples(net.data, net.examples, net.device)
    saddle = InitialSaddle.of(inputs, labels, 10)
    model = MLP((inputs.shape[1], net.hidden, 10), "tanh")
    problem = Supervised(model, CrossEntropy(), inputs, labels, net.batch_size)
    tracks = tuple(follow(problem, saddle, net, lr, momentum, config.weak) for lr, momentum in config.arms)
    lr, momentum = np.array(config.arms).T
    return FeaturesResult(
        config=config,
        tracks=tracks,
        growth=np.stack([rates(track.amplitudes, net.begin, net.end) for track in tracks]),
        predicted=saddle.growth(lr, momentum, config.weak),
        instability=saddle.instability[: config.weak],
        seconds=sum(track.seconds for track in tracks),
    )


def estimates(result: FeaturesResult) -> Estimates:
    """Return what the modes say about P3-X7."""
    found: dict[str, Estimate | list[Estimate]] = {"P3-X7.size": sizes(result)[HEAD]}
    if result.config.departure.momentum > 0:
        found["P3-X7.compresses"] = paired_difference(result.ratio[MATCHED], result.ratio[HEAD])
    return found


def sizes(result: FeaturesResult) -> list[Estimate]:
    """Return each arm's ratio of growth rates over its prediction."""
    return [mean(ratio) for ratio in result.ratio / result.predicted_ratio[:, None]]


def tables(result: FeaturesResult) -> dict[str, DataFrame]:
    """Return one row per arm."""
    found = [mean(ratio) for ratio in result.ratio]
    lr, momentum = np.array(result.config.arms).T
    frame = DataFrame(
        {
            "lr": lr,
            "momentum": momentum,
            "ratio": [e.value for e in found],
            "low": [e.low for e in found],
            "high": [e.high for e in found],
            "predicted": result.predicted_ratio,
            "growth_first": result.growth[:, :, 0].mean(1),
            "growth_weak": result.growth[:, :, -1].mean(1),
            "predicted_first": result.predicted[:, 0],
            "predicted_weak": result.predicted[:, -1],
        }
    )
    return {"features": frame}


FEATURES = Experiment("features", ("P3-X7",), lambda settings: run(configure(Features, settings)), estimates, tables)
