"""Figures of the synthesis: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.synthesis.control import control_table, inertia, kernel, rescaling, search
from descent.figures.synthesis.nets import batches, instruments, interventions

__all__ = ["batches", "control_table", "inertia", "instruments", "interventions", "kernel", "rescaling", "search"]
