"""The engine: a stack of R replicas advanced by one tensor program.

Parameters are a tensor or a dictionary of tensors, every one with the replica axis first. Replicas never
mix: hyper-parameters are (R,) tensors, random numbers come from `Streams`, and a replica that diverges is
frozen and recorded while its neighbours go on, bit for bit as they would without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from descent.checkpoint import Checkpoint, fingerprint
from descent.probes import Every, FirstPassage, Params, Probe, Recorder, Series, every, recorder
from descent.rules import Coefficients, Factors, Hyper, Schedule
from descent.streams import Streams

__all__ = [
    "Checkpoint",
    "Every",
    "FirstPassage",
    "Noisy",
    "Objective",
    "Params",
    "Probe",
    "Run",
    "Series",
    "every",
    "train",
]

Leaves = dict[str, Tensor]
_EXPAND_BELOW = 64  # elements per replica under which a contiguous coefficient beats a broadcast one


class Objective(Protocol):
    """What is descended."""

    def gradient(self, params: Params, streams: Streams, step: int) -> Params:
        """Return the stochastic gradient of every replica, shaped like `params`."""


@runtime_checkable
class Chunked(Protocol):
    """An objective that can be cut along the replica axis, to bound its memory and to stay in cache."""

    def chunks(self, replicas: int, budget: int) -> Sequence[slice]:
        """Cut the stack into consecutive slices that each need at most `budget` bytes of working memory."""

    def subset(self, rows: slice) -> Objective:
        """Return the objective of the replicas `rows`."""


@runtime_checkable
class Buffered(Protocol):
    """An objective that can write its gradient into tensors it is handed."""

    def gradient_into(self, params: Params, streams: Streams, step: int, out: Leaves) -> None:
        """Write the stochastic gradient of every replica into `out`."""


@dataclass(frozen=True)
class Noisy:
    """A full gradient plus noise of the user's making: g = full(params) + noise(params, streams, step)."""

    full: Callable[[Params], Params]
    noise: Callable[[Params, Streams, int], Params]

    def gradient(self, params: Params, streams: Streams, step: int) -> Params:
        """Return the noisy gradient of every replica."""
        full, noise = _leaves(self.full(params)), _leaves(self.noise(params, streams, step))
        total = {name: full[name] + noise[name] for name in full}
        return total.get("", total)


@dataclass(frozen=True, eq=False)
class Run:
    """What a run leaves behind.

    diverged_at: (R,) int64, the step whose update broke the replica, −1 = never. A replica that diverged
    stays as it was found then: in params, in velocity and in the records.
    """

    params: Params
    velocity: Params
    diverged_at: Tensor
    records: dict[str, Series]
    steps: int
    seconds: float


def train(
    objective: Objective,
    start: Params,
    hyper: Hyper,
    steps: int,
    streams: Streams,
    *,
    probes: Mapping[str, Probe] | None = None,
    schedule: Schedule | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
    velocity: Params | None = None,
    begin: int = 0,
    limit: float = 1e6,
    check: int = 1,
    budget: int = 2 << 30,
) -> Run:
    """Advance every replica from step `begin` to step `steps`, recording what the probes ask for.

    start: parameters, each leaf (R, …), left as they are. velocity: the buffer to go on with (default: empty).
    limit: a replica diverges when its parameter norm exceeds this or is not finite.
    check: steps between two looks for divergence (on a GPU every look waits for the device).
    budget: bytes of working memory, for objectives that can be cut into chunks.
    Raises ValueError when stack sizes disagree, or when the checkpoint belongs to another run.
    """
    clock = time.perf_counter()
    state = _State.fresh(start, velocity, hyper, streams, begin)
    recorders = {
        name: recorder(probe, begin, steps, hyper.replicas) for name, probe in (probes or {}).items()
    }
    label = checkpoint.label if checkpoint is not None else ""
    mark = fingerprint(label, steps, begin, state.tensors(), vars(hyper), streams.seeds, list(recorders))
    keeper = _Keeper(checkpoint, mark, clock)
    keeper.resume(state, recorders)
    plan = _Plan(schedule, begin if velocity is None else -1, limit, check)
    chunks = _chunks(objective, state, hyper, streams, plan, budget)
    periods = [steps, *(item.every for item in recorders.values())]
    periods += [checkpoint.every] if checkpoint is not None else []
    while True:
        with _shown(chunks):
            done = _observe(state, recorders, steps)
            keeper.keep(state, recorders, done)
        if done:
            break
        end = min(steps, *(_next_multiple(state.step, period) for period in periods))
        for chunk in chunks:
            chunk.advance(state.step, end)
        state.step = end
        if progress is not None:
            progress(end, steps)
    for chunk in chunks:
        chunk.show()
    records = {k: series for name, item in recorders.items() for k, series in item.series(name).items()}
    return Run(state.params, state.velocity, state.diverged_at, records, state.step, keeper.seconds())


@dataclass
class _State:
    """Everything that moves, as leaves by name; a single tensor is the leaf named ""."""

    x: Leaves
    v: Leaves
    diverged_at: Tensor
    step: int

    @staticmethod
    def fresh(start: Params, velocity: Params | None, hyper: Hyper, streams: Streams, begin: int) -> _State:
        """Copy the start and check that every part speaks of the same number of replicas."""
        x = {name: leaf.detach().clone() for name, leaf in _leaves(start).items()}
        sizes = {f"start {name}".strip(): len(leaf) if leaf.ndim else 0 for name, leaf in x.items()}
        sizes |= {"hyper": hyper.replicas, "streams": streams.replicas}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"all parts of a stack need the same number of replicas, got {sizes}")
        given = {} if velocity is None else _leaves(velocity)
        v = {
            name: given[name].detach().clone() if given else torch.zeros_like(leaf)
            for name, leaf in x.items()
        }
        device = next(iter(x.values())).device
        return _State(x, v, torch.full((hyper.replicas,), -1, dtype=torch.int64, device=device), begin)

    @property
    def params(self) -> Params:
        """The parameters in the user's form."""
        return self.x.get("", self.x)

    @property
    def velocity(self) -> Params:
        """The buffer in the user's form."""
        return self.v.get("", self.v)

    def tensors(self) -> Leaves:
        """Return every tensor by a name of its own."""
        named = {f"{part}.{name}": leaf for part in "xv" for name, leaf in getattr(self, part).items()}
        return named | {"diverged_at": self.diverged_at}


class _Plan(NamedTuple):
    """What all chunks share: the schedule, the step that fills an empty buffer, when and how to look."""

    schedule: Schedule | None
    starting: int
    limit: float
    check: int


class _Chunk:
    """A slice of the stack with all it needs to run on its own for a while; its tensors are views."""

    def __init__(
        self,
        objective: Objective,
        state: _State,
        rows: slice,
        hyper: Hyper,
        streams: Streams,
        plan: _Plan,
    ) -> None:
        self.objective, self.hyper, self.streams, self.plan, self.rows = (
            objective,
            hyper,
            streams,
            plan,
            rows,
        )
        self.x = {name: leaf[rows] for name, leaf in state.x.items()}
        self.v = {name: leaf[rows] for name, leaf in state.v.items()}
        self.diverged_at = state.diverged_at[rows]
        self.g = {name: torch.empty_like(leaf) for name, leaf in self.x.items()}
        self.weight_decay = hyper.weight_decay if bool((hyper.weight_decay != 0).any()) else None
        self.sign = hyper.sign if bool((hyper.sign < 0).any()) else None
        self.settings: tuple[object, ...] | None = None
        self.coefficients: dict[str, _Shaped] = {}
        self.graves: list[tuple[Tensor, Leaves, Leaves]] = []
        self.bury(self.diverged_at >= 0)

    def advance(self, begin: int, end: int) -> None:
        """Take the steps begin … end − 1."""
        for step in range(begin, end):
            self.set(step)
            for name, g in self.gradient(step).items():
                _update(self.x[name], self.v[name], g, self.coefficients[name])
            if (step + 1) % self.plan.check == 0 or step + 1 == end:
                self.look(step)

    def set(self, step: int) -> None:
        """Work out the coefficients, unless nothing moved since the last step."""
        factors = None if self.plan.schedule is None else self.plan.schedule(step)
        settings = (factors, step == self.plan.starting)
        if settings == self.settings:
            return
        self.settings = settings
        hyper = self.hyper if factors is None else self.hyper.scaled(_part(factors, self.rows))
        numbers = hyper.coefficients(starting=step == self.plan.starting)
        alive = (self.diverged_at < 0).to(numbers.momentum.dtype)
        self.coefficients = {
            name: _shape(numbers, self.sign, self.weight_decay, alive, x) for name, x in self.x.items()
        }

    def gradient(self, step: int) -> Leaves:
        """Ask the objective, which writes into our buffers if it can."""
        params = self.x.get("", self.x)
        if isinstance(self.objective, Buffered):
            self.objective.gradient_into(params, self.streams, step, self.g)
            return self.g
        return _leaves(self.objective.gradient(params, self.streams, step))

    def look(self, step: int) -> None:
        """Freeze who left the ball of radius `limit`; one sum over the chunk settles the usual case."""
        total = sum(torch.dot(x.view(-1), x.view(-1)) for x in self.x.values())
        if float(total) <= self.plan.limit**2:
            return
        squares = sum(x.reshape(len(x), -1).square().sum(dim=1) for x in self.x.values())
        out = ~(squares <= self.plan.limit**2) & (self.diverged_at < 0)
        self.diverged_at.masked_fill_(out, step)
        self.bury(out)

    def bury(self, out: Tensor) -> None:
        """Set the rows `out` aside as they are and let zeros run in their place."""
        index = out.nonzero().squeeze(1)
        if len(index):
            x = {name: leaf[index] for name, leaf in self.x.items()}
            v = {name: leaf[index] for name, leaf in self.v.items()}
            self.graves.append((index, x, v))
            self.settings = None
        self.hide()

    def show(self) -> None:
        """Put the frozen rows back for others to see."""
        for index, x, v in self.graves:
            for name in x:
                self.x[name][index] = x[name]
                self.v[name][index] = v[name]

    def hide(self) -> None:
        """Let zeros run in place of the frozen rows."""
        for index, x, _ in self.graves:
            for name in x:
                self.x[name][index] = 0.0
                self.v[name][index] = 0.0


class _Shaped(NamedTuple):
    """Coefficients in the shape of one leaf; None where the operation can be left out without changing a bit."""

    momentum: Tensor
    inflow: Tensor | None
    direct: Tensor | None
    carry: Tensor
    sign: Tensor | None
    weight_decay: Tensor | None


def _shape(
    numbers: Coefficients, sign: Tensor | None, weight_decay: Tensor | None, alive: Tensor, leaf: Tensor
) -> _Shaped:
    """Shape the numbers of one step to a leaf; a frozen replica gets momentum, direct and carry 0."""

    def fit(value: Tensor) -> Tensor:
        column = value.to(leaf.dtype).view(-1, *[1] * (leaf.ndim - 1))
        small = leaf[0].numel() < _EXPAND_BELOW
        return column.expand(leaf.shape).contiguous() if small else column

    return _Shaped(
        fit(numbers.momentum * alive),
        None if bool((numbers.inflow == 1).all()) else fit(numbers.inflow),
        None if bool((numbers.direct == 0).all()) else fit(-numbers.direct * alive),
        fit(-numbers.carry * alive),
        None if sign is None else fit(sign),
        None if weight_decay is None else fit(weight_decay),
    )


def _update(x: Tensor, v: Tensor, g: Tensor, c: _Shaped) -> None:
    """Take one step in place: v ← momentum·v + inflow·g, x ← x − direct·g − carry·v."""
    if g.shape != x.shape:
        raise ValueError(
            f"the gradient has shape {tuple(g.shape)} where the parameters have {tuple(x.shape)}"
        )
    if c.sign is not None:
        g = g * c.sign
    if c.weight_decay is not None:
        g = torch.addcmul(g, c.weight_decay, x)
    torch.addcmul(g if c.inflow is None else g * c.inflow, c.momentum, v, out=v)
    if c.direct is not None:
        x.addcmul_(c.direct, g)
    x.addcmul_(c.carry, v)


def _chunks(
    objective: Objective, state: _State, hyper: Hyper, streams: Streams, plan: _Plan, budget: int
) -> list[_Chunk]:
    """Cut the stack as the objective asks for, or leave it whole."""
    hyper = hyper.to(state.diverged_at.device)
    if not isinstance(objective, Chunked):
        return [_Chunk(objective, state, slice(0, hyper.replicas), hyper, streams, plan)]
    return [
        _Chunk(objective.subset(rows), state, rows, hyper.subset(rows), streams.subset(rows), plan)
        for rows in objective.chunks(hyper.replicas, budget)
    ]


@contextmanager
def _shown(chunks: Sequence[_Chunk]) -> Iterator[None]:
    """Show the frozen rows as they are for the length of a look from outside."""
    for chunk in chunks:
        chunk.show()
    yield
    for chunk in chunks:
        chunk.hide()


def _observe(state: _State, recorders: Mapping[str, Recorder], steps: int) -> bool:
    """Let every probe look that is due, and tell whether the run is over."""
    due = [r for r in recorders.values() if state.step % r.every == 0 or state.step >= steps]
    for item in due:
        item.record(state.step, state.params, state.velocity)
    diverged = state.diverged_at >= 0
    early = any(item.finished(diverged) for item in due)
    if early:
        for item in recorders.values():
            item.record(state.step, state.params, state.velocity)
    return early or state.step >= steps


def _next_multiple(step: int, period: int) -> int:
    return (step // period + 1) * period


class _Keeper:
    """Saves the run now and then, and takes it up again; counts the seconds over all its lives."""

    def __init__(self, checkpoint: Checkpoint | None, mark: str, clock: float) -> None:
        self.checkpoint, self.mark, self.clock = checkpoint, mark, clock

    def seconds(self) -> float:
        """Return the seconds spent so far."""
        return time.perf_counter() - self.clock

    def resume(self, state: _State, recorders: Mapping[str, Recorder]) -> None:
        """Fill state and records from the file, if there is one."""
        found = None
        if self.checkpoint is not None:
            found = self.checkpoint.load(self.mark, state.diverged_at.device)
        if found is None:
            return
        header, saved = found
        state.step = int(header["step"])
        self.clock -= float(header["seconds"])
        for name, tensor in state.tensors().items():
            tensor.copy_(saved[name])
        for name, item in recorders.items():
            prefix = f"record.{name}."
            item.restore({k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)})

    def keep(self, state: _State, recorders: Mapping[str, Recorder], done: bool) -> None:
        """Save when it is time."""
        if self.checkpoint is None or not (done or state.step % self.checkpoint.every == 0):
            return
        records = {
            f"record.{name}.{k}": v for name, item in recorders.items() for k, v in item.state().items()
        }
        meta = {"step": state.step, "seconds": self.seconds()}
        self.checkpoint.save(self.mark, meta, state.tensors() | records)


def _leaves(params: Params) -> Leaves:
    return {"": params} if isinstance(params, Tensor) else params


def _part(factors: Factors, rows: slice) -> Factors:
    """Return a schedule's factors for a slice of the stack."""
    lr, momentum = (
        v[rows] if isinstance(v, Tensor) and v.ndim else v for v in (factors.lr, factors.momentum)
    )
    return Factors(lr, momentum)
