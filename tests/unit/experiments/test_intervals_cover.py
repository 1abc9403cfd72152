"""What an interval promises, tried on whole experiments: run at other seeds, it contains what they find on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from descent.experiments import flatness, saddles, smoothing, synthesis
from descent.experiments.lab import Experiment, Lab
from descent.stats import Estimate
from descent.stats.estimate import EXACT

SEEDS = 20
CHEAP: tuple[Experiment[Any, Any], ...] = (
    smoothing.graduated.GRADUATED, flatness.floors.FLOORS, flatness.samples.SAMPLES, flatness.sandwich.SANDWICH,
    flatness.wells.WELLS, saddles.stiff.STIFF, synthesis.rescaling.RESCALING,
)  # fmt: skip


def _found(experiment: Experiment[Any, Any], seed: int) -> list[Estimate]:
    found = experiment.estimates(experiment.run(experiment.small, Lab(seed=seed, replicas=64)))
    parts = (found[key] for key in sorted(found))
    return [one for part in parts for one in (part if isinstance(part, Sequence) else [part])]


@pytest.mark.slow
def test_intervals_contain_what_other_seeds_find() -> None:
    """The mean of nineteen others has an error of its own, so that 94.5 % of intervals should contain it."""
    inside, fixed = [], []
    for experiment in CHEAP:
        seeds = [_found(experiment, 1000 + seed) for seed in range(SEEDS)]
        for estimates in zip(*seeds, strict=True):
            values = np.array([one.value for one in estimates])
            others = (values.sum() - values) / (SEEDS - 1)
            if all(one.method == EXACT for one in estimates):
                fixed.append(np.ptp(values) <= 1e-6 * np.abs(values).max() + 1e-9)
            else:
                inside.append([one.low <= mean <= one.high for one, mean in zip(estimates, others, strict=True)])
    assert all(fixed), "an estimate without an error moves with the seed"
    assert 0.92 < np.mean(inside) < 0.975, np.mean(inside, axis=1)
