"""How the instruments are known to be right: each against a truth that does not use it.

An `Oracle` says what is compared with what, which deviation is allowed, and computes the one reached. Tolerances follow
from the method: rounding for algebra, the residual asked of an iteration, four standard errors for a simulation.

    python -m descent.oracles               # a table
    python -m descent.oracles FILE          # the same as JSON
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from descent.oracles.common import Oracle
from descent.oracles.curvature import ORACLES as CURVATURE
from descent.oracles.dynamics import ORACLES as DYNAMICS
from descent.oracles.edge import ORACLES as EDGE
from descent.oracles.noise import ORACLES as NOISE
from descent.oracles.rules import ORACLES as RULES
from descent.oracles.runs import ORACLES as RUNS
from descent.oracles.stability import ORACLES as STABILITY
from descent.oracles.statistics import ORACLES as STATISTICS
from descent.results import write_json

__all__ = ["ORACLES", "Oracle", "main", "measured"]

ORACLES: tuple[Oracle, ...] = (*CURVATURE, *EDGE, *STABILITY, *NOISE, *RULES, *DYNAMICS, *RUNS, *STATISTICS)


def measured(oracle: Oracle) -> dict[str, Any]:
    """Return one row: what was compared, the deviation asked and the one reached, and the seconds it took."""
    clock = time.perf_counter()
    reached = oracle.check()
    row = {name: getattr(oracle, name) for name in ("instrument", "quantity", "truth", "kind", "asked")}
    return row | {"reached": reached, "seconds": time.perf_counter() - clock}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every oracle; write JSON to the file named, or print a table."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    rows = [measured(oracle) for oracle in ORACLES]
    if given:
        write_json(Path(given[0]), rows)
        return
    for row in rows:
        mark = " " if row["reached"] <= row["asked"] else "!"
        print(
            f"{mark} {row['instrument']:55} {row['reached']:9.2g} of {row['asked']:7.1g} {row['kind']:16}"
            f"{row['seconds']:6.2f} s  {row['quantity']}"
        )
