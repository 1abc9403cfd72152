"""One nominal rate, four conventions: growth along an unstable direction, exactly."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame

from descent.theory.mode import convert, growth, nesterov_roots


def conventions(lr: float, momentum: float, instability: float) -> DataFrame:
    """Return growth per step and growth over plain descent's, one row per convention at the same nominal rate."""
    averaged = float(convert(lr, momentum, "ema").lr)
    rates = {
        "plain SGD": float(growth(instability, lr, 0.0)),
        "heavy ball": float(growth(instability, lr, momentum)),
        "Nesterov": float(np.log(nesterov_roots(-instability, lr, momentum)[0].real)),
        "averaged (EMA)": float(growth(instability, averaged, momentum)),
    }
    frame = DataFrame({"growth per step": rates}).rename_axis("convention")
    return frame.assign(**{"over plain": frame["growth per step"] / rates["plain SGD"]}).round(5)
