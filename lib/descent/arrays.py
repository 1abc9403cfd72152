"""The kinds of array that go from one module to another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "BoolArray", "IntArray"]

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
