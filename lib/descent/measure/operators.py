"""Symmetric matrices known only by their products with vectors, one per replica.

A vector is one flat tensor (R, p), or leaves (R, …) by name in the order of the parameters. Whatever is built on
products alone (spectra, traces) takes an `Operator`; any function makes one:

    A = Operator(lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1), like={"": torch.zeros(R, p)})
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from descent.engine.probes import Leaves

__all__ = ["Operator", "flatten", "unflatten"]


@dataclass(frozen=True, eq=False)
class Operator:
    """A (R, p, p) as the function v (R, p) → A v (R, p); `like` has the names, shapes, type and device of a vector.

    pieces: operators of consecutive replicas that make up this one, where to go through them one after the other is
    as good as all at once; an algorithm may then end for some replicas before others.
    """

    product: Callable[[Tensor], Tensor]  # v (R, p) → A v (R, p)
    like: Leaves
    pieces: tuple[Operator, ...] = ()

    @staticmethod
    def joined(pieces: Sequence[Operator]) -> Operator:
        """Return the operator of the replicas of all pieces."""
        if len(pieces) == 1:
            return pieces[0]
        like = {name: torch.cat([piece.like[name] for piece in pieces]) for name in pieces[0].like}
        counts = [piece.replicas for piece in pieces]

        def product(v: Tensor) -> Tensor:
            return torch.cat([piece.product(rows) for piece, rows in zip(pieces, torch.split(v, counts), strict=True)])

        return Operator(product, like, tuple(pieces))

    @property
    def replicas(self) -> int:
        """Number of matrices R."""
        return len(next(iter(self.like.values())))

    @property
    def size(self) -> int:
        """Number of parameters p of one replica."""
        return sum(leaf[0].numel() for leaf in self.like.values())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the vectors."""
        return next(iter(self.like.values())).dtype

    @property
    def device(self) -> torch.device:
        """Where the vectors live."""
        return next(iter(self.like.values())).device

    @overload
    def __call__(self, vectors: Tensor) -> Tensor: ...

    @overload
    def __call__(self, vectors: Leaves) -> Leaves: ...

    def __call__(self, vectors: Tensor | Leaves) -> Tensor | Leaves:
        """Return A v in the form v came in."""
        if isinstance(vectors, dict):
            return self.leaves(self.product(self.flat(vectors)))
        if vectors.shape != (self.replicas, self.size):
            raise ValueError(
                f"one vector per replica is ({self.replicas}, {self.size}), got {tuple(vectors.shape)}; "
                "multiply several vectors one after the other"
            )
        return self.product(vectors)

    def flat(self, leaves: Leaves) -> Tensor:
        """Return leaves (R, …) as one tensor (R, p)."""
        if list(leaves) != list(self.like):
            raise ValueError(f"a vector has the leaves {list(self.like)} in this order, got {list(leaves)}")
        return flatten(leaves)

    def leaves(self, flat: Tensor) -> Leaves:
        """Return (R, …, p) as leaves (R, …, …) by name: views, not copies."""
        return unflatten(flat, self.like)


def flatten(leaves: Leaves) -> Tensor:
    """Return leaves (R, …) as one tensor (R, p)."""
    return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves.values()], dim=1)


def unflatten(flat: Tensor, like: Leaves) -> Leaves:
    """Return (R, …, p) as leaves with the names and shapes of `like`: views, not copies.

    flat: the vectors, as `flatten` makes them.
    """
    parts = torch.split(flat, [leaf[0].numel() for leaf in like.values()], dim=-1)
    return {
        name: part.view(*flat.shape[:-1], *leaf.shape[1:])
        for (name, leaf), part in zip(like.items(), parts, strict=True)
    }
