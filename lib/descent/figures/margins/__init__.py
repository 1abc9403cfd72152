"""Figures of the margins chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.margins.mechanism import coast, histories, portrait, race
from descent.figures.margins.networks import ordinary
from descent.figures.margins.reach import images, kick_and_noise, limits, phase, transfer

__all__ = [
    "coast", "histories", "images", "kick_and_noise", "limits", "ordinary", "phase", "portrait", "race", "transfer",
]  # fmt: skip
