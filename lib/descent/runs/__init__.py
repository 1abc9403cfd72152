"""One experiment carried out: here, in other processes, on a cluster, within a budget."""

from __future__ import annotations

from descent.runs.bench import Bench

__all__ = ["Bench"]
