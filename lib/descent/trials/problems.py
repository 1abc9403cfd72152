"""Small problems on which rules differ: nets on images and on patches, a noisy bowl, a saddle, and rare classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from descent.data.draws import disjoint, fresh, splits
from descent.data.images import ImageSet, load, pooled
from descent.engine.probes import Leaves, Params
from descent.engine.stack import leaves
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.curvature import hessian
from descent.measure.spectra import top_eigenpairs
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.problems.noisy import Bowl, Unigram
from descent.problems.patches import PatchData, Patches, patch_data, random_start
from descent.trials.rest import Besides, floors, passages

__all__ = ["PROBLEMS", "Margins", "Posed", "Problem", "problem"]

Measures = Mapping[str, Callable[[Params], Tensor]]
"""What is told of parameters beside the score, (R,) each, by name."""


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem on D draws of its data: what is descended, and what else is measured."""

    objective: Any
    measures: Measures = field(default_factory=dict)  # by name: what is computed of parameters beside the score


@dataclass(frozen=True)
class Problem:
    """What rules are tried on. score: of parameters (R,), the lower the better; what says what it is.

    pose: from streams of the draws (D,), and whether they are for tuning, to the problem; replica r sees draw r mod D.
    there: whether replicas have come to where they are compared, (R,) bool, and stay; without it that is the end of the
    run, and with it rates are lost at which one does not come. noisy: whether gradients are drawn. besides: a table of
    its own. draws: how its data are drawn. lost: what is said of a replica without a score.
    """

    name: str
    what: str  # the score in words
    steps: int
    rates: tuple[float, float, int]  # lowest, highest and how many to try
    pose: Callable[[Streams, bool], Posed]
    start: Callable[[Streams], Params]
    score: Callable[[Any, Any], Tensor]
    decays: bool = True  # whether the rate falls to 0 along the run
    there: Callable[[Any, Any], Tensor] | None = None
    noisy: bool = True
    besides: Besides | None = None
    draws: str = "Every replica has noise of its own."
    lost: str = "diverged"
    most: int | None = None  # draws that have nothing in common, where their number ends


class Saddle(Bowl):
    """−½x² + ¼x⁴ in 16 coordinates, from x = 0, with normal noise."""

    def full(self, params: Tensor) -> Tensor:
        """Return x³ − x, its growth held beyond |x| = 2."""
        near = params.clamp(-2, 2)
        return near**3 - near


@dataclass(frozen=True, eq=False)
class Margins:
    """The patches of D data sets under any number of nets, all examples at every step; replica r has set r mod D."""

    data: PatchData
    tests: Tensor
    margin: float

    def gradient(self, params: Params, streams: Streams, step: int) -> Leaves:
        """Return the gradient of the loss itself, for nothing is drawn."""
        return self.full(params)

    def full(self, params: Params) -> Leaves:
        """Return the gradient."""
        return self._of(params).gradient_of(params)

    def value(self, params: Params) -> Tensor:
        """Return the training loss, (R,)."""
        return self._of(params).value(params)

    def error(self, params: Params) -> Tensor:
        """Return the share of fresh examples with the small margin that are got wrong, in per cent, (R,)."""
        return 100 * self._of(params).test_error(params, self.margin, self.tests)

    def _of(self, params: Params) -> Patches:
        return Patches(self.data, len(leaves(params)["s"]) // len(self.data.signal))


_DIGITS, _MNIST = MLP((64, 32, 10), "tanh"), MLP((196, 32, 10), "tanh")
_SMALL, _LARGE, _TESTS, _BATCH = 256, 1000, 1000, 8
_HALF = 30_000  # of MNIST's training images: rates are tuned on draws from one half, and reported on the other
_PATCH = {"examples": 100, "small": 10, "patches": 4, "dimension": 100, "small_margin": 0.15}
_FITTED = 0.01  # training loss at which margins are compared


def _levels(images: ImageSet) -> Tensor:
    """Return grey levels from 0 to 1, (n, pixels)."""
    return images.images.flatten(1).to(torch.float32) / images.peak


@lru_cache(maxsize=1)
def _scans() -> tuple[Tensor, Tensor]:
    """Return the digits that come with scikit-learn, (n, 64), and their labels."""
    found = load("digits")
    return _levels(found), found.labels


def _digits(draws: Streams, tuning: bool) -> Posed:
    """Return digits, 256 in every draw and others to test on."""
    x, y = _scans()
    sets = splits(len(x), _SMALL, draws, tests=_TESTS)
    task = Supervised(_DIGITS, CrossEntropy(), x, y, _BATCH, rows=sets.rows)
    return _nets(task, lambda params: task.accuracy(params, rows=sets.test))


def _mnist(draws: Streams, tuning: bool) -> Posed:
    """Return MNIST at 14 × 14, 1000 images in every draw, none of them in two; all are tested on the same others."""
    train, others = load("mnist"), pooled(load("mnist", "test").take(_TESTS))
    rows = disjoint(_HALF, _LARGE, draws.replicas, draws).rows.flatten() + _HALF * tuning
    chosen = pooled(replace(train, images=train.images[rows], labels=train.labels[rows]))
    sets = fresh(draws.replicas, _LARGE)
    task = Supervised(_MNIST, CrossEntropy(), _levels(chosen), chosen.labels, _BATCH, rows=sets.rows)
    return _nets(task, lambda params: task.accuracy(params, _levels(others), others.labels))


def _nets(task: Supervised, accuracy: Callable[[Params], Tensor]) -> Posed:
    """Return what nets are trained on, with accuracy and sharpness."""
    return Posed(task, {"test %": lambda x: 100 * accuracy(x), "log sharpness": partial(_sharpness, task)})


def _sharpness(task: Supervised, params: Params) -> Tensor:
    """Return the logarithm of the largest eigenvalue of the Hessian of the training loss."""
    found = leaves(params)
    streams = Streams(replica_seeds(0, len(next(iter(found.values())))))
    top = top_eigenpairs(hessian(task, dict(found)), 1, streams, tolerance=1e-2, steps=60)
    return top.values[:, 0].clamp_min(1e-30).log()


def _patches(draws: Streams, tuning: bool) -> Posed:
    """Return the data of the chapter on margins, a fresh set in every draw."""
    shape = (400, int(_PATCH["patches"]), int(_PATCH["dimension"]) - 1)
    tests = draws.normal(Purpose.PROBE, 1, shape) / _PATCH["dimension"] ** 0.5
    found = Margins(patch_data(draws, **_PATCH), tests, _PATCH["small_margin"])  # type: ignore[arg-type]
    return Posed(found)


def _rare(draws: Streams, tuning: bool) -> Posed:
    """Return the fifty classes, with how many of them are learnt."""
    task = Unigram()
    p = torch.as_tensor(task.frequencies)
    return Posed(task, {"classes at half": lambda x: (leaves(x)[""].softmax(1) >= p.to(torch.float32) / 2).sum(1)})


def _still(size: int, value: float) -> Callable[[Streams], Tensor]:
    return lambda streams: torch.full((streams.replicas, size), value, dtype=streams.dtype)


def _log(values: Tensor) -> Tensor:
    return values.clamp_min(1e-30).log()


PROBLEMS = {
    found.name: found
    for found in (
        Problem("digits", "log training loss", 400, (3e-4, 3e-2, 5), _digits, _DIGITS.initial,
                lambda o, x: _log(o.value(x)),
                draws="Draws of the digits have images in common, so that intervals are somewhat too narrow."),
        Problem("mnist", "log training loss", 600, (3e-4, 3e-2, 5), _mnist, _MNIST.initial,
                lambda o, x: _log(o.value(x)),
                draws="No two draws have an image in common, nor those of the tuning with those reported.",
                most=_HALF // _LARGE),
        Problem("patches", f"small-margin error % at loss {_FITTED:g}", 1000, (3e-3, 3e-1, 5), _patches,
                lambda s: random_start(s, 8, 100, 0.1), lambda o, x: o.error(x), decays=False,
                there=lambda o, x: o.value(x) < _FITTED, noisy=False,
                draws="Every draw is a fresh set of examples.", lost="short of that loss"),
        Problem("quadratic", "log mean square distance", 1000, (1e-3, 1e-1, 5),
                lambda draws, tuning: Posed(Bowl("exponential")), _still(16, 0.5),
                lambda o, x: _log(x.square().mean(1)), decays=False, besides=floors),
        Problem("saddle", "log loss above the minimum", 300, (1e-3, 1e-1, 5),
                lambda draws, tuning: Posed(Saddle()), _still(16, 0.0),
                lambda o, x: _log((x.square() - 1).square().mean(1)), besides=passages),
        Problem("rare", "log KL of classes and softmax", 1000, (1e-3, 1e-1, 5), _rare, _still(50, 0.0),
                lambda o, x: o.divergence(x).clamp_min(1e-12).log()),
    )
}  # fmt: skip
"""By name."""


def problem(name: str) -> Problem:
    """Return a problem by name; raise KeyError naming those there are."""
    if name not in PROBLEMS:
        raise KeyError(f"there is no problem {name!r}; there are {', '.join(PROBLEMS)}")
    return PROBLEMS[name]
