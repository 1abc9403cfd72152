"""What every experiment owes its claims and its readers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from descent.claims import load_paper
from descent.data.images import ImageSet
from descent.experiments.lab import Estimates, Lab
from descent.runs.perform import undefined
from descent.stats import Estimate


def check_answers(paper: str, module: Any, result: Any) -> None:
    """Check that estimates answer tests that the paper's claims state, and that tables are tidy."""
    found = module.estimates(result)
    assert found
    assert set(found) <= set(load_paper(paper).tests)
    for frame in module.tables(result).values():
        assert len(frame) > 0
        assert frame.columns.is_unique


def still(paper: str, experiment: str) -> set[str]:
    """Return the tests of an experiment that are made at headline momentum 0."""
    lab = Lab(momentum=0.0)
    return {key for key, test in load_paper(paper).tests.items() if test.by == experiment and not undefined(test, lab)}


def momentous(paper: str, experiment: str) -> set[str]:
    """Return the tests of an experiment that are dropped at headline momentum 0."""
    return {key for key, test in load_paper(paper).tests.items() if test.by == experiment} - still(paper, experiment)


def value_of(found: Estimates, key: str) -> float:
    """Return the value of a test's one estimate."""
    estimate = found[key]
    assert isinstance(estimate, Estimate)
    return estimate.value


def values_of(found: Estimates, key: str) -> list[float]:
    """Return the values of a test's estimates, of which a rule over every cell has several."""
    estimates = found[key]
    assert not isinstance(estimates, Estimate)
    return [estimate.value for estimate in estimates]


def pictures(name: str, split: str = "train") -> ImageSet:
    """Return noise with a pattern per class, as if it were CIFAR-10."""
    rng = np.random.Generator(np.random.Philox(3))
    labels = np.arange(400) % 10
    patterns = rng.integers(0, 100, (10, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    images = patterns[labels] + rng.integers(0, 150, (400, 32, 32, 3))
    return ImageSet("pictures", torch.tensor(images, dtype=torch.uint8), torch.tensor(labels), tuple("0123456789"))
