"""What a run records on the way: probes, first passages, and the buffers behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol

import torch
from torch import Tensor
from typing_extensions import TypeVar  # comes with torch; that of `typing` knows no default before Python 3.13

__all__ = [
    "Every",
    "FirstPassage",
    "Leaves",
    "Params",
    "Passages",
    "Probe",
    "Recorder",
    "Series",
    "Trace",
    "Watch",
    "column",
    "every",
    "outside",
    "recorder",
]

Leaves = dict[str, Tensor]
"""The parameters of a stack by name, each with the replica axis first."""

Params = Tensor | Leaves
"""The parameters of a stack: one tensor, or leaves by name."""

P = TypeVar("P", bound=Params, default=Params)
"""The form of the parameters: `Objective[Tensor]`, `Probe[Leaves]`; a bare `Objective` or `Probe` takes either."""
P_co = TypeVar("P_co", bound=Params, default=Params, covariant=True)  # a run of either form is a bare `Run`
P_contra = TypeVar("P_contra", bound=Params, default=Params, contravariant=True)


class Probe(Protocol[P_contra]):
    """What is recorded at step 0, every, 2·every, … with the state before that step, and at the end."""

    @property
    def every(self) -> int:
        """Steps between two calls."""

    def __call__(self, step: int, params: P_contra, velocity: P_contra) -> Tensor | Mapping[str, Tensor]:
        """Return values of shape (R, …), or several of them by name."""


@dataclass(frozen=True)
class Every(Generic[P]):
    """A probe made of a plain function of the parameters."""

    every: int
    function: Callable[[P], Tensor | Mapping[str, Tensor]]

    def __call__(self, step: int, params: P, velocity: P) -> Tensor | Mapping[str, Tensor]:
        """Return function(params)."""
        return self.function(params)


@dataclass(frozen=True, eq=False)
class Watch(Generic[P]):
    """A probe made of a plain function of step, parameters and buffer, for what asks for more than the parameters."""

    every: int
    function: Callable[[int, P, P], Tensor | Mapping[str, Tensor]]

    def __call__(self, step: int, params: P, velocity: P) -> Tensor | Mapping[str, Tensor]:
        """Return function(step, params, velocity)."""
        return self.function(step, params, velocity)


def every(n: int, function: Callable[[P], Tensor | Mapping[str, Tensor]]) -> Every[P]:
    """Wrap a function params → (R, …) as a probe called every n steps."""
    return Every(n, function)


def column(index: int) -> Callable[[Tensor], Tensor]:
    """Return the function that picks one coordinate of every replica, (R, d) → (R,)."""
    return lambda params: params[:, index]


def outside(radius: float, index: int = 0) -> Callable[[Tensor], Tensor]:
    """Return the condition that one coordinate has left the interval ±radius."""
    return lambda params: params[:, index].abs() >= radius


@dataclass(frozen=True)
class FirstPassage(Generic[P]):
    """Record per replica the first step at which `condition(params)`, bool (R,) or (R, K), is true.

    It is looked at every `every` steps; −1 means not yet (censored by the end of the run). With `stop` the
    run ends as soon as every replica has passed or diverged.
    """

    condition: Callable[[P], Tensor]  # of parameters, true for the replicas that have passed
    every: int = 1
    stop: bool = False  # whether the run ends when all have passed

    def __call__(self, step: int, params: P, velocity: P) -> Tensor:
        """Return condition(params)."""
        return self.condition(params)


@dataclass(frozen=True, eq=False)
class Series:
    """Values (T, R, …) recorded at steps (T,); a first passage has values (R, …) and no steps."""

    steps: Tensor  # at which it was recorded
    values: Tensor  # what was recorded


class Recorder(Protocol[P_contra]):
    """The growing record of one probe; `state` and `restore` carry it through a checkpoint."""

    every: int

    def record(self, step: int, params: P_contra, velocity: P_contra) -> None:
        """Look at the state before `step`, unless that was done already."""

    def finished(self, diverged_at: Tensor) -> bool:
        """Tell whether this record is a reason to end the run."""

    def series(self, name: str) -> dict[str, Series]:
        """Return the finished record under its name."""

    def state(self) -> dict[str, Tensor]:
        """Return the record so far."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""


class Trace(Generic[P]):
    """The record of a plain probe: buffers of the final length, filled as the run goes."""

    def __init__(self, probe: Probe[P], begin: int, steps: int, replicas: int) -> None:
        self.every = probe.every
        self._probe, self._replicas = probe, replicas
        first = -(-begin // self.every) * self.every
        self._length = (steps - first) // self.every + 2
        self._steps: list[int] = []
        self._values: dict[str, Tensor] = {}

    def record(self, step: int, params: P, velocity: P) -> None:
        """Append what the probe returns."""
        if self._steps and self._steps[-1] == step:
            return
        found = self._probe(step, params, velocity)
        named = {"": found} if isinstance(found, Tensor) else found
        for key, value in named.items():
            self._buffer(key, value)[len(self._steps)] = value
        self._steps.append(step)

    def _buffer(self, key: str, value: Tensor) -> Tensor:
        if key not in self._values:
            if value.shape[:1] != (self._replicas,):
                shape = tuple(value.shape)
                raise ValueError(f"a probe must return ({self._replicas}, …), replicas first, but gave {shape}")
            self._values[key] = value.new_empty((self._length, *value.shape))
        return self._values[key]

    def finished(self, diverged_at: Tensor) -> bool:
        """Never end a run."""
        return False

    def series(self, name: str) -> dict[str, Series]:
        """Return the records under `name`, or `name.key` where the probe returned a mapping."""
        steps = torch.tensor(self._steps, dtype=torch.int64)
        count = len(self._steps)
        return {f"{name}.{k}" if k else name: Series(steps, v[:count]) for k, v in self._values.items()}

    def state(self) -> dict[str, Tensor]:
        """Return steps and values so far."""
        count = len(self._steps)
        values = {f"values.{k}": v[:count] for k, v in self._values.items()}
        return {"steps": torch.tensor(self._steps, dtype=torch.int64), **values}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Fill the buffers again."""
        self._steps = state["steps"].tolist()
        for name, values in state.items():
            if name != "steps":
                buffer = values.new_empty((self._length, *values.shape[1:]))
                buffer[: len(values)] = values
                self._values[name.removeprefix("values.")] = buffer


class Passages(Generic[P]):
    """The record of a first passage: one time per replica."""

    def __init__(self, probe: FirstPassage[P]) -> None:
        self.every = probe.every
        self._probe = probe
        self._times: Tensor | None = None

    def record(self, step: int, params: P, velocity: P) -> None:
        """Note the step for those who pass now."""
        passed = self._probe.condition(params)
        if self._times is None:
            self._times = torch.full(passed.shape, -1, dtype=torch.int64, device=passed.device)
        self._times.masked_fill_(passed & (self._times < 0), step)

    def finished(self, diverged_at: Tensor) -> bool:
        """End the run when asked to and nobody is left who could still pass."""
        if not self._probe.stop or self._times is None:
            return False
        waiting = self._times < 0
        if waiting.dim() > 1:
            waiting = waiting.flatten(1).any(dim=1)
        return not bool((waiting & (diverged_at < 0)).any())

    def series(self, name: str) -> dict[str, Series]:
        """Return the first-passage times."""
        times = torch.empty(0, dtype=torch.int64) if self._times is None else self._times
        return {name: Series(torch.empty(0, dtype=torch.int64), times)}

    def state(self) -> dict[str, Tensor]:
        """Return the times so far."""
        return {} if self._times is None else {"times": self._times}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the times so far."""
        self._times = state.get("times")


def recorder(probe: Probe[P], begin: int, steps: int, replicas: int) -> Recorder[P]:
    """Return the record that fits the probe."""
    if probe.every < 1:
        raise ValueError(f"a probe's `every` must be at least 1 step, got {probe.every}")
    return Passages(probe) if isinstance(probe, FirstPassage) else Trace(probe, begin, steps, replicas)
