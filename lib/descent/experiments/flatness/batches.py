"""Batch sizes as this chapter writes them, and the estimate of several that says most against a claim."""

from __future__ import annotations

from collections.abc import Iterable

from descent.stats import Estimate

__all__ = ["Batch", "batch_name", "farthest"]

Batch = int | None
"""Examples per step, None for all."""


def batch_name(batch_size: Batch) -> str:
    """Return a batch size as a table and a figure name it."""
    return "all" if batch_size is None else str(batch_size)


def farthest(found: Iterable[Estimate], of: float) -> Estimate:
    """Return the estimate that is farthest from a number."""
    return max(found, key=lambda estimate: abs(estimate.value - of))
