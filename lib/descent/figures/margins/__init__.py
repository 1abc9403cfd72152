"""Figures of the margins chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations
