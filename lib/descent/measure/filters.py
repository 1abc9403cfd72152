"""A part of the parameters: which leaves are meant, and the block of a curvature matrix that belongs to them.

Names are chosen by patterns, with * for anything: "*.weight", "0.*". What is not chosen stays where it is, so the block
is the curvature of the loss in the chosen parameters alone, and its largest eigenvalue at most that of the whole:

    H = hessian(objective, params)
    top_eigenpairs(block(H, "0.*"), 1, streams).values          # sharpness of the first layer, (R, 1)
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import Tensor

from descent.engine.probes import Leaves
from descent.measure.operators import Operator, flatten, unflatten

__all__ = ["block", "chosen", "matching"]


def matching(names: Iterable[str], *patterns: str) -> list[str]:
    """Return the names that any of the patterns fits, in their order.

    names: the parameters' names.

    >>> matching(["0.weight", "0.bias", "2.weight", "2.bias"], "*.weight")
    ['0.weight', '2.weight']

    Raises: ValueError for a pattern that fits no name, which is more often a slip than meant.
    """
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ValueError(f"no parameter is called {pattern!r}; there are {', '.join(known)}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def chosen(leaves: Leaves, *patterns: str) -> Leaves:
    """Return the leaves whose names any of the patterns fits: the tensors themselves, not copies."""
    return {name: leaves[name] for name in matching(leaves, *patterns)}


def block(operator: Operator, *patterns: str) -> Operator:
    """Return the diagonal block A_SS of an operator that belongs to the leaves S any of the patterns fits.

    A product costs as much as one with the whole matrix.
    """
    names = matching(operator.like, *patterns)
    return Operator.joined([_block(piece, names) for piece in operator.pieces or (operator,)])


def _block(operator: Operator, names: list[str]) -> Operator:
    like = {name: operator.like[name] for name in names}

    def product(flat: Tensor) -> Tensor:
        whole = {name: leaf.new_zeros(leaf.shape) for name, leaf in operator.like.items()} | unflatten(flat, like)
        found = operator.leaves(operator.product(flatten(whole)))
        return flatten({name: found[name] for name in names})

    return Operator(product, like)
