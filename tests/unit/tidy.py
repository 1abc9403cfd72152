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
    return _patterned(400, tuple("0123456789"), 8)


def two_classes(name: str, split: str = "train") -> ImageSet:
    """Return the same of two classes alone, in turn."""
    return _patterned(240, ("airplane", "automobile"), 4)


def _patterned(count: int, classes: tuple[str, ...], cells: int) -> ImageSet:
    rng, wide = np.random.Generator(np.random.Philox(3)), 32 // cells
    labels = np.arange(count) % len(classes)
    patterns = rng.integers(0, 100, (len(classes), cells, cells, 3)).repeat(wide, 1).repeat(wide, 2)
    images = patterns[labels] + rng.integers(0, 150, (count, 32, 32, 3))
    return ImageSet("pictures", torch.tensor(images, dtype=torch.uint8), torch.tensor(labels), classes)
