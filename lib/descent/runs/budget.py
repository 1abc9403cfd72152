"""How long a task may take, from the rates of a device, and which tasks still fit into the time there is.

A rate is training images per second of a convolutional net by its name ("ResNet-8"), or, as "64-64-10", training steps
times replicas per second of stacks of small dense nets, which stand for everything else.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CORE", "Budget", "kind", "rates", "scaled", "unfit"]

SMALL = "64-64-10"
CORE = {SMALL: 1.6e4, "ResNet-8": 6.0e2, "ResNet-18": 2.6e1}
"""Rates of one core of the machine whose times are published, by `descent calibrate --device cpu`."""


def unfit(calibration: Any) -> str:
    """Say why something is not the calibration of a device that computes right; "" if it is."""
    try:
        shut = [str(gate["name"]) for gate in calibration["gates"] if not gate["open"]]
        _ = rates(calibration), calibration["provenance"]["device_class"], calibration["provenance"]["date"]
    except (KeyError, TypeError, AttributeError, ValueError):
        return "is not what `descent calibrate --out` writes"
    return f"is of a device that errs ({'; '.join(shut)}): nothing is worth planning on it" if shut else ""


def rates(calibration: Mapping[str, Any], precision: str = "float32") -> dict[str, float]:
    """Return the rates of a calibrated device, those of nets at `precision` if it was measured, else in float32.

    Of several stacks of a net the fastest counts; of small nets the geometric mean over all shapes.
    """
    found = {entry["name"]: float(entry["value"]) for entry in calibration["rates"]}
    low = {name: value for name, value in found.items() if name.endswith(", bf16")}
    small = [value for name, value in found.items() if name.startswith(f"stack, {SMALL}")]
    known = {SMALL: statistics.geometric_mean(small)} if small else {}
    for net in (name for name in CORE if name != SMALL):
        plain = [value for name, value in found.items() if name.startswith(f"{net}, stack") and name not in low]
        fast = [value for name, value in low.items() if name.startswith(f"{net}, stack")]
        if chosen := (fast if precision == "bf16" and fast else plain):
            known[net] = max(chosen)
    return known


def scaled(config: Any, lab: Any, core_seconds: float, known: Mapping[str, float]) -> float:
    """Return the seconds a configuration takes at known rates; NaN where one is missing.

    core_seconds: what it would take on one core, unless its work is counted in `trained_images`, by the net's name.
    known: rates by the name of a net.
    """
    count_images = getattr(config, "trained_images", None)
    if count_images is None:
        return core_seconds * CORE[SMALL] / known.get(SMALL, math.nan)
    images: Mapping[str, float] = count_images(lab)
    return sum(count / known.get(net, math.nan) for net, count in images.items())


def kind(config: Any, lab: Any) -> str:
    """Return the name of the net that a configuration spends its time on; small dense ones stand for all but images."""
    count_images = getattr(config, "trained_images", None)
    images: Mapping[str, float] = {} if count_images is None else count_images(lab)
    return max(images, key=lambda net: images[net] / CORE.get(net, math.inf), default=SMALL)


@dataclass
class Budget:
    """The seconds a campaign may take, and what each task is expected to take, by name; unknown is NaN.

    A task that does not fit into the time left, `reserve` seconds of it kept for writing, is not begun. One that would
    not fit into all of it is begun if nothing else has been: it goes on with the next command. What a finished task
    took corrects the expectation of those of its kind after it: a closed form says nothing about a residual net.
    """

    seconds: float
    expected: Mapping[str, float]  # seconds of every task, by name
    reserve: float = 20.0  # seconds kept for writing
    clock: Callable[[], float] = time.monotonic  # seconds from any beginning, a call without arguments
    kinds: Mapping[str, str] = field(default_factory=dict)  # kind of work of every task, by name
    paces: dict[str, float] = field(default_factory=dict, init=False)
    begun: float = field(init=False)
    started: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.begun = self.clock()

    @property
    def left(self) -> float:
        """The seconds left, without those kept for writing."""
        return self.seconds - (self.clock() - self.begun) - self.reserve

    def need(self, name: str) -> float:
        """Return the seconds that a task will take, going by those of its kind so far; NaN where that is unknown."""
        return self.paces.get(self.kinds.get(name, ""), 1.0) * self.expected.get(name, math.nan)

    def fits(self, name: str) -> bool:
        """Tell whether a task may begin; an unknown one may as long as there is time at all."""
        need = self.need(name)
        endless = need > self.seconds - self.reserve and not self.started
        return self.left > 0 and (math.isnan(need) or need <= self.left or endless)

    def run(self, name: str, work: Callable[[], bool]) -> None:
        """Do the work of a task and learn from the time it took, if it says that all of it was done."""
        self.started.append(name)
        before = self.clock()
        if not work():
            return
        expected = self.expected.get(name, math.nan)
        if expected > 0 and self.clock() > before:
            self.paces[self.kinds.get(name, "")] = (self.clock() - before) / expected
