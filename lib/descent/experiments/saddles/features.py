"""The speeds at which a net learns its features: momentum compresses them, also at equal effective step.

Growth log z₊ is concave in the instability the more, the larger the momentum: so the leading mode gains less on a weak
one. A batch four times the departure's keeps the noise in the weak mode from hiding it. Of digits that takes random
splits which have a third of their images in common, so that the intervals are somewhat too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from descent.arrays import Array
from descent.data.draws import Draws
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, tidy
from descent.experiments.saddles.arms import Arm
from descent.experiments.saddles.initial_saddle import LARGE as LARGE_NET
from descent.experiments.saddles.initial_saddle import Departure, Track, follow
from descent.stats import draw_mean, draw_ratio

ARMS = (Arm.PLAIN, Arm.HEAD, Arm.STRONG, Arm.MATCHED)


@dataclass(frozen=True)
class Features:
    """The net of `departure`, followed to the end of its fit only; mode 1 is compared with mode `weak`."""

    departure: Departure = Departure(images=600, batch_size=512, efolds=6.0, looks=1e-3)
    weak: int = 4


@dataclass(frozen=True, eq=False)
class FeaturesResult:
    """Tracks of ARMS, growth (A, N, K) of the K leading modes, its prediction (A, N, K); instability (D, K) by draw."""

    config: Features
    lab: Lab
    sets: Draws
    tracks: tuple[Track, ...]
    growth: Array
    predicted: Array
    instability: Array

    @property
    def ratio(self) -> Array:
        """Growth of the first mode over the weak one, (A, N)."""
        return np.asarray(self.growth[:, :, 0] / self.growth[:, :, self.config.weak - 1])

    @property
    def predicted_ratio(self) -> Array:
        """What log z₊ gives for it, (A, N)."""
        return np.asarray(self.predicted[:, :, 0] / self.predicted[:, :, self.config.weak - 1])


def run(config: Features, lab: Lab) -> FeaturesResult:
    """Follow the leading modes of every arm from the same weights, on the same batches."""
    sets, saddles, tracks = follow(config.departure, lab, ARMS, config.weak)
    growth, predicted = (np.stack([getattr(track, name) for track in tracks]) for name in ("growth", "predicted"))
    return FeaturesResult(config, lab, sets, tracks, growth, predicted, saddles.instability(config.weak))


def estimates(result: FeaturesResult) -> Estimates:
    """Return what the modes say about P3-X7."""
    head, matched = (ARMS.index(arm) for arm in (Arm.HEAD, Arm.MATCHED))
    ratio, predicted = result.sets.by_draw(result.ratio), result.sets.by_draw(result.predicted_ratio)
    return {
        "P3-X7.compresses": draw_ratio(ratio[matched], ratio[head]),
        "P3-X7.size": draw_mean(ratio[head] / predicted[head]),
    }


def tables(result: FeaturesResult) -> Tables:
    """Return one row per arm."""
    growth, predicted = result.growth.mean(1), result.predicted.mean(1)
    frame = tidy(
        {"lr": [track.lr for track in result.tracks]}, momentum=[track.momentum for track in result.tracks],
        value=np.array([draw_mean(nets) for nets in result.sets.by_draw(result.ratio)], dtype=object),
        predicted=result.predicted_ratio.mean(1),
        growth_first=growth[:, 0], growth_weak=growth[:, -1],
        predicted_first=predicted[:, 0], predicted_weak=predicted[:, -1],
    )  # fmt: skip
    return {"features": frame.rename(columns={"value": "ratio"})}


LARGE = Features(replace(LARGE_NET, batch_size=1024, efolds=7.0, looks=1e-3))
FEATURES = Experiment("features", small=Features(), large=LARGE, run=run, estimates=estimates, tables=tables)
