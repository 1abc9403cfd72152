"""Figures of the flatness chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.flatness.circle import circle_c50, circle_landscape, momentum_crossover, phase_map
from descent.figures.flatness.exits import chance_to_leave, dimension_gap, exit_laws
from descent.figures.flatness.looks import batch_look
from descent.figures.flatness.networks import network_bounds, network_loads, network_sharpness
from descent.figures.flatness.quadratics import bound_ratios, bounds_by_batch, growth_rates, mean_and_runs
from descent.figures.flatness.wells import continuum, outcomes, selection, selection_controls

__all__ = [
    "batch_look",
    "bound_ratios",
    "bounds_by_batch",
    "chance_to_leave",
    "circle_c50",
    "circle_landscape",
    "continuum",
    "dimension_gap",
    "exit_laws",
    "growth_rates",
    "mean_and_runs",
    "momentum_crossover",
    "network_bounds",
    "network_loads",
    "network_sharpness",
    "outcomes",
    "phase_map",
    "selection",
    "selection_controls",
]
