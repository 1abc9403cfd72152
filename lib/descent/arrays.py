"""The kinds of array that go from one module to another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "BoolArray", "IntArray"]

Array = NDArray[np.float64]
"""Numbers in float64, of any shape."""

BoolArray = NDArray[np.bool_]
"""Truth values, of any shape."""

IntArray = NDArray[np.int64]
"""Whole numbers, of any shape."""
