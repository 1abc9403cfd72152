"""Figures of the synthesis: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.synthesis.control import control_table, inertia, kernel, rescaling, search
from descent.figures.synthesis.drift import age_line, balance_ledger, convolutions, sign_map, step_batch_map
from descent.figures.synthesis.nets import batches, instruments, interventions

__all__ = [
    "age_line",
    "balance_ledger",
    "batches",
    "control_table",
    "convolutions",
    "inertia",
    "instruments",
    "interventions",
    "kernel",
    "rescaling",
    "search",
    "sign_map",
    "step_batch_map",
]
