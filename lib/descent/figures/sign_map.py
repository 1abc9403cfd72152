"""Where heavy ball ends flatter than plain SGD and where sharper, by the valley law: colours, border and edges."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize

from descent.figures import BLUE, INK, ORANGE, theory
from descent.theory.memory import momentum_factor
from descent.theory.valley import drift_crossing, drift_ratio, valley_edge

__all__ = ["FLATTER", "MOMENTA", "SHARPER", "SIGNS", "sign_plane"]

FLATTER, SHARPER = BLUE, ORANGE
FAINT, FULL = "12", "48"  # opacity next to where the sign turns, and where colours are full: words are read on both
SIGNS = LinearSegmentedColormap.from_list(
    "signs", [(0.0, FLATTER + FULL), (0.5, FLATTER + FAINT), (0.5, SHARPER + FAINT), (1.0, SHARPER + FULL)]
)
"""From flatter to sharper; the sign is seen next to where it turns."""
MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)  # that the axis names
STRONGEST = 199.0  # c of momentum 0.99


def sign_plane(axis: Axes, reach: float) -> None:
    """Colour the plane of e·λ₁ and momentum by the logarithm of what momentum changes; draw border and edges."""
    z, c = np.meshgrid(np.linspace(0.01, reach, 350), np.geomspace(1, STRONGEST, 200))
    momentum = (c - 1) / (c + 1)
    plain = float(valley_edge(0.0))
    ratio = drift_ratio(np.where(z < plain, z, 1.0), momentum)  # > 1 where heavy ball drifts further: flatter
    change = np.where(z < plain, -np.log(ratio) / np.log(STRONGEST), np.log(z / plain) / np.log(reach / plain))
    change = np.where(z < valley_edge(momentum), change, np.nan)
    axis.pcolormesh(z, c, change, cmap=SIGNS, norm=Normalize(-1.2, 1.2), shading="auto", rasterized=True, zorder=0)
    own, strengths = c[:, 0], momentum[:, 0]
    theory(axis, drift_crossing(strengths), own, label="border $z_\\times$")
    theory(axis, valley_edge(strengths), own, dashed=True, label="edges")
    axis.axvline(plain, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
    axis.set(yscale="log", xlim=(0, reach), ylim=(1, STRONGEST), xlabel="effective step × sharpness", ylabel="momentum")
    axis.set_yticks(momentum_factor(MOMENTA), [f"{m:g}" for m in MOMENTA])
    axis.minorticks_off()
