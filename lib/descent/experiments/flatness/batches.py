"""Batch sizes as this chapter writes them."""

from __future__ import annotations

Batch = int | None  # examples per step, None for all


def batch_name(batch_size: Batch) -> str:
    """Return a batch size as a table and a figure name it."""
    return "all" if batch_size is None else str(batch_size)
