"""Figures of the flatness chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations
