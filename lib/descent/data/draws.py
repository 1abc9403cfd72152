"""Draws of a training set: disjoint parts of a large set, random splits of a small one, or fresh sets without end.

A statement about networks is one about data of a kind, so that its error is that over draws of the data. Replica r of
a stack is trained on draw r mod D, as in `descent.nets.examples`:

    draws = disjoint(60_000, 1000, 10, streams)
    problem = Supervised(model, loss, images, labels, batch_size, rows=draws.rows)
    draws.by_draw(accuracy)                                    # (…, R) → (…, D, R/D)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descent.engine.streams import Purpose, Streams

__all__ = ["Draws", "disjoint", "flipped", "fresh", "redrawn_each", "splits"]

Kind = Literal["disjoint", "splits", "fresh"]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Draws:
    """D training sets of n examples each, as rows (D, n) of one array, and rows (D, m) that a draw is tested on.

    overlap: the share of its examples that a draw has in common with another one. Above 0 the draws are not
    independent, and an interval over them is too narrow: the examples they share cannot vary between them.
    """

    kind: Kind
    rows: Tensor  # the training sets, as rows of one array
    test: Tensor  # rows (D, m) that a draw is tested on
    overlap: float = 0.0

    def __len__(self) -> int:
        """Return the number of draws D."""
        return len(self.rows)

    def to(self, device: str | torch.device) -> Draws:
        """Return the draws on a device."""
        return Draws(self.kind, self.rows.to(device), self.test.to(device), self.overlap)

    def some(self, which: Sequence[int]) -> Draws:
        """Return some of the draws."""
        return Draws(self.kind, self.rows[list(which)], self.test[list(which)], self.overlap)

    def by_draw(self, values: NDArray[T]) -> NDArray[T]:
        """Return values (…, R) of replicas as (…, D, R/D), by draw and replica within it.

        >>> ten = Draws("fresh", torch.arange(6).view(3, 2), torch.empty(3, 0))
        >>> ten.by_draw(np.array([0, 10, 20, 1, 11, 21])).tolist()
        [[0, 1], [10, 11], [20, 21]]
        """
        if values.shape[-1] % len(self):
            raise ValueError(
                f"{values.shape[-1]} replicas are not a whole number for each of {len(self)} draws; those that "
                "diverged stay in their places, as not a number"
            )
        return values.reshape(*values.shape[:-1], -1, len(self)).swapaxes(-1, -2)


def disjoint(count: int, size: int, draws: int, streams: Streams, *, tests: int = 0) -> Draws:
    """Return draws of `size` out of `count` examples that have none in common, and `tests` others, the same for all.

    The order comes from the first of the streams.
    Raises: ValueError where there are not enough examples.

    tests: number of examples to test on.
    """
    _positive(size=size, draws=draws)
    if draws * size + tests > count:
        raise ValueError(
            f"{draws} disjoint sets of {size}, and {tests} to test, need {draws * size + tests} examples, there are "
            f"{count}; take smaller sets, or splits, whose draws overlap"
        )
    order = streams.subset(slice(0, 1)).permutation(Purpose.DATA, 0, count)[0]
    test = order[draws * size : draws * size + tests]
    return Draws("disjoint", order[: draws * size].view(draws, size), test.expand(draws, tests))


def splits(count: int, size: int, streams: Streams, *, tests: int | None = None) -> Draws:
    """Return one random split of `count` examples per stream: `size` to train on, of the others `tests`, or all.

    Two draws have size/count of their examples in common on average. The spread over draws is then too small: that of
    a mean of n out of N examples by the factor √(1 − n/N), and the intervals understate the error with it.
    """
    others = count - size if tests is None else tests
    _positive(size=size, draws=streams.replicas)
    if size + others > count:
        raise ValueError(f"{size} examples and {others} to test do not fit into {count}; take fewer")
    order = streams.permutation(Purpose.DATA, 0, count, slice(0, size + others))
    return Draws("splits", order[:, :size].contiguous(), order[:, size:].contiguous(), size / count)


def fresh(draws: int, size: int, tests: int = 0) -> Draws:
    """Return the draws of sets that a generator has made apart, (D, size + tests, …), laid end to end (flatten(0, 1)).

    The last `tests` of each are what it is tested on.
    """
    _positive(size=size, draws=draws)
    rows = torch.arange(draws * (size + tests)).view(draws, size + tests)
    return Draws("fresh", rows[:, :size].contiguous(), rows[:, size:].contiguous())


def flipped(targets: Tensor, share: float, classes: int, streams: Streams) -> Tensor:
    """Return targets (D, n) of which each draw has round(share·n) wrong: another class, each equally likely.

    targets: (D, n), those of the rows, labels[draws.rows]; streams: one per draw. A larger share keeps what a smaller
    one has flipped. share: of the labels that are made wrong.
    """
    chosen = _chosen(targets, share, streams)
    wrong = streams.integers(Purpose.LABEL, 1, classes - 1, (targets.shape[1],)) + 1
    return torch.where(chosen, (targets + wrong) % classes, targets)


def redrawn_each(targets: Tensor, share: float, classes: int, streams: Streams) -> Tensor:
    """Return targets (D, n) of which each draw has round(share·n) drawn from all classes, the true one among them.

    As `images.redrawn` does for one set; the rest as in `flipped`.

    share: of the labels that are drawn anew.
    """
    chosen = _chosen(targets, share, streams)
    return torch.where(chosen, streams.integers(Purpose.LABEL, 1, classes, (targets.shape[1],)), targets)


def _chosen(targets: Tensor, share: float, streams: Streams) -> Tensor:
    """Return whose label is touched, round(share·n) in every row of (D, n)."""
    if not 0 <= share <= 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    if targets.ndim != 2 or len(targets) != streams.replicas:
        raise ValueError(
            f"wrong labels are drawn for targets (draws, n) with a stream for each draw, got {tuple(targets.shape)} "
            f"and {streams.replicas} streams; labels[draws.rows] are the targets of draws"
        )
    n = targets.shape[1]
    order = streams.permutation(Purpose.LABEL, 0, n)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, : round(share * n)], True)


def _positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
