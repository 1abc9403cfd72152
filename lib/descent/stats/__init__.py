"""Estimates that carry their interval, and when two numbers count as equal."""

from __future__ import annotations

from descent.stats.bounded import bounded_difference, bounded_mean
from descent.stats.draws import draw_difference, draw_fraction, draw_mean, draw_ratio, draw_share, draw_statistic
from descent.stats.estimate import Estimate
from descent.stats.extremes import furthest, largest, magnitude, smallest
from descent.stats.intervals import (
    blocks,
    bootstrap,
    censored_mean,
    censored_ratio,
    exact,
    geometric_ratio,
    ks_distance,
    mean,
    median,
    paired_difference,
    paired_ratio,
    power,
    proportion,
    quantile,
    ratio_of_means,
    ratio_of_medians,
    replicas_for_power,
    replicas_to_settle,
    slope,
    slope_of_mean,
    spearman,
    tost,
    variance_ratio,
)

__all__ = [
    "Estimate", "blocks", "bootstrap", "bounded_difference", "bounded_mean", "censored_mean", "censored_ratio",
    "draw_difference", "draw_fraction", "draw_mean", "draw_ratio", "draw_share", "draw_statistic", "exact", "furthest",
    "geometric_ratio", "ks_distance", "largest", "magnitude", "mean", "median", "paired_difference", "paired_ratio",
    "power", "proportion", "quantile", "ratio_of_means", "ratio_of_medians", "replicas_for_power", "replicas_to_settle",
    "slope", "slope_of_mean", "smallest", "spearman", "tost", "variance_ratio",
]  # fmt: skip
