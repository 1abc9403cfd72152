"""The working side of the engine: the state of a stack, and the chunks that advance it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from descent.engine.probes import Leaves, P, Params
from descent.engine.rules import Coefficients, Factors, Hyper, Schedule
from descent.engine.streams import Streams

__all__ = ["Chunk", "Leaves", "Objective", "Plan", "State", "cut", "joined", "leaves", "rows_of"]

_BLOCK = 1 << 17  # elements; three such blocks of float32 are 1.5 MiB
_EXPAND_BELOW = 64  # elements per replica under which a contiguous coefficient beats a broadcast one


class Objective(Protocol[P]):
    """What is descended, on parameters of one form."""

    def gradient(self, params: P, streams: Streams, step: int) -> P:
        """Return the stochastic gradient of every replica, shaped like `params`."""


@runtime_checkable
class Chunked(Protocol[P]):
    """An objective that can be cut along the replica axis, to bound its memory and to stay in cache."""

    def chunks(self, replicas: int, budget: int) -> Sequence[slice]:
        """Cut the stack into consecutive slices that each need at most `budget` bytes of working memory."""

    def subset(self, rows: slice) -> Objective[P]:
        """Return the objective of the replicas `rows`."""


@runtime_checkable
class Buffered(Protocol):
    """An objective that can write its gradient into tensors it is handed."""

    def gradient_into(self, params: Params, streams: Streams, step: int, out: Leaves) -> None:
        """Write the stochastic gradient of every replica into `out`."""


@runtime_checkable
class Operated(Protocol):
    """An objective that also acts on the momentum buffer, see `descent.engine.surgery`."""

    def operate(self, step: int, params: Params, gradient: Leaves, buffer: Leaves) -> None:
        """Change gradient and buffer in place, before the update."""


class Counted(Protocol):
    """A rule of any kind, of which a state asks the number of replicas."""

    @property
    def replicas(self) -> int:
        """Number of replicas R."""


@dataclass
class State(Generic[P]):
    """Everything that moves, as leaves by name; a single tensor is the leaf named ""."""

    x: Leaves  # the parameters
    v: Leaves  # buffers of the rule, shaped like x
    diverged_at: Tensor  # step at which a replica diverged, −1 for none, (R,)
    step: int
    s: Leaves = field(default_factory=dict)  # "slot/leaf" of rules outside the linear family

    @staticmethod
    def fresh(start: P, velocity: P | None, hyper: Counted, streams: Streams, begin: int) -> State[P]:
        """Copy the start to where the streams are, and check that every part speaks of the same number of replicas."""
        device = streams.device
        x = {name: leaf.detach().to(device, copy=True) for name, leaf in leaves(start).items()}
        sizes = {f"start {name}".strip(): len(leaf) if leaf.ndim else 0 for name, leaf in x.items()}
        sizes |= {"hyper": hyper.replicas, "streams": streams.replicas}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"all parts of a stack need the same number of replicas, got {sizes}")
        if len({leaf.dtype for leaf in x.values()}) != 1:
            raise ValueError("all leaves of a stack need one dtype; convert the start")
        given = {} if velocity is None else leaves(velocity)
        v = {
            name: given[name].detach().to(device, copy=True) if given else torch.zeros_like(leaf)
            for name, leaf in x.items()
        }
        return State(x, v, torch.full((hyper.replicas,), -1, dtype=torch.int64, device=device), begin)

    @property
    def params(self) -> P:
        """The parameters in the user's form."""
        return self.form(self.x)

    @property
    def velocity(self) -> P:
        """The buffer in the user's form."""
        return self.form(self.v)

    def form(self, named: Leaves) -> P:
        """Return leaves named like these in the form of the start."""
        return cast(P, joined(named))  # only the names tell which

    def tensors(self) -> Leaves:
        """Return every tensor by a name of its own."""
        named = {f"{part}.{name}": leaf for part in "xvs" for name, leaf in getattr(self, part).items()}
        return named | {"diverged_at": self.diverged_at}


class Plan(NamedTuple):
    """What all chunks share: the schedule, the step that fills an empty buffer, when and how to look."""

    schedule: Schedule | None
    starting: int  # the step that finds the buffer empty, −1 for none
    limit: float  # the norm beyond which a replica has diverged
    check: int  # steps between two looks for divergence


class Chunk(Generic[P]):
    """A slice of the stack with all it needs to run on its own for a while.

    It works on its own copy; `show` publishes it. A replica that diverged is kept aside as it was, and zeros
    run in its place.
    """

    def __init__(
        self, objective: Objective[P], state: State[P], rows: slice, hyper: Hyper, streams: Streams, plan: Plan
    ) -> None:
        self.objective, self.state, self.rows = objective, state, rows
        self.hyper, self.streams, self.plan = hyper, streams, plan
        self.x = {name: leaf[rows].clone() for name, leaf in state.x.items()}
        self.v = {name: leaf[rows].clone() for name, leaf in state.v.items()}
        self.params = state.form(self.x)
        self.write = objective.gradient_into if isinstance(objective, Buffered) else None
        self.operate = objective.operate if isinstance(objective, Operated) else None
        self.g = {name: torch.empty_like(leaf) for name, leaf in self.x.items()} if self.write else {}
        self.weight_decay = hyper.weight_decay if bool((hyper.weight_decay != 0).any()) else None
        self.sign = hyper.sign if bool((hyper.sign < 0).any()) else None
        self.settings: tuple[object, ...] | None = None
        self.blocks: list[_Block] = []
        self.diverged_at = state.diverged_at[rows]
        self.graves: list[tuple[Tensor, Leaves, Leaves]] = []
        self.bury(self.diverged_at >= 0)

    def advance(self, begin: int, end: int) -> None:
        """Take the steps begin … end − 1."""
        for step in range(begin, end):
            self.set(step)
            g = self.gradient(step)
            if self.operate is not None:
                self.operate(step, self.params, g, self.v)
            look = (step + 1) % self.plan.check == 0 or step + 1 == end
            squares = [block.move(g, look) for block in self.blocks]
            if look:
                self.look(step, squares)

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
        columns = _columns(numbers, alive, self.sign, self.weight_decay)
        self.blocks = [
            _Block(name, rows, x[rows], self.v[name][rows], columns.fit(rows, x))
            for name, x in self.x.items()
            for rows in _blocks(x)
        ]

    def gradient(self, step: int) -> Leaves:
        """Ask the objective, which writes into our buffer if it can."""
        if self.write is None:
            return leaves(self.objective.gradient(self.params, self.streams, step))
        self.write(self.params, self.streams, step, self.g)
        return self.g

    def look(self, step: int, squares: list[Tensor]) -> None:
        """Find who left the ball of radius `limit`; the sum over the chunk settles the usual case."""
        total = squares[0] if len(squares) == 1 else torch.stack(squares).sum()
        if float(total) <= self.plan.limit**2:
            return
        norms = torch.stack([x.reshape(len(x), -1).square().sum(dim=1) for x in self.x.values()]).sum(dim=0)
        out = ~(norms <= self.plan.limit**2) & (self.diverged_at < 0)
        self.diverged_at.masked_fill_(out, step)
        self.bury(out)

    def bury(self, out: Tensor) -> None:
        """Set the rows `out` aside as they are and let zeros run in the place of all who are aside."""
        index = out.nonzero().squeeze(1)
        if len(index):
            x = {name: leaf[index] for name, leaf in self.x.items()}
            v = {name: leaf[index] for name, leaf in self.v.items()}
            self.graves.append((index, x, v))
            self.settings = None
        for index, x, _ in self.graves:
            for name in x:
                self.x[name][index] = 0.0
                self.v[name][index] = 0.0

    def show(self) -> None:
        """Publish where the replicas are, and where the diverged ones were left."""
        for name in self.x:
            self.state.x[name][self.rows] = self.x[name]
            self.state.v[name][self.rows] = self.v[name]
            for index, x, v in self.graves:
                self.state.x[name][self.rows][index] = x[name]
                self.state.v[name][self.rows][index] = v[name]


class _Columns(NamedTuple):
    """Coefficients of a step; None where the operation can be left out without changing a bit."""

    momentum: Tensor
    inflow: Tensor | None
    direct: Tensor | None
    carry: Tensor
    sign: Tensor | None
    weight_decay: Tensor | None

    def fit(self, rows: slice, leaf: Tensor, *, expand: bool = True) -> _Columns:
        """Give the rows of the (R,) columns the shape and the type of a leaf; not expanded they may stay views."""
        small = expand and leaf[0].numel() < _EXPAND_BELOW

        def shaped(column: Tensor | None) -> Tensor | None:
            if column is None:
                return None
            column = column[rows].to(leaf.dtype).view(-1, *[1] * (leaf.ndim - 1))
            return column.expand(len(column), *leaf.shape[1:]).contiguous() if small else column

        return _Columns(*(shaped(column) for column in self))  # type: ignore[arg-type]


def _columns(numbers: Coefficients, alive: Tensor, sign: Tensor | None, weight_decay: Tensor | None) -> _Columns:
    """Collect the coefficients (R,) of one step; a replica put aside has momentum, direct and carry 0."""
    inflow = None if bool((numbers.inflow == 1).all()) else numbers.inflow
    direct = None if bool((numbers.direct == 0).all()) else -numbers.direct * alive
    return _Columns(numbers.momentum * alive, inflow, direct, -numbers.carry * alive, sign, weight_decay)


class _Block(NamedTuple):
    """Some rows of a leaf, few enough to stay in cache from one operation of the update to the next."""

    name: str
    rows: slice
    x: Tensor
    v: Tensor
    c: _Columns

    def move(self, gradient: Leaves, look: bool) -> Tensor:
        """Take one step in place, v ← momentum·v + inflow·g, x ← x − direct·g − carry·v; return ‖x‖²."""
        x, v, c = self.x, self.v, self.c
        g = gradient[self.name][self.rows]
        if g.shape != x.shape:
            raise ValueError(f"the gradient is {tuple(g.shape)} where the parameters are {tuple(x.shape)}")
        if c.sign is not None:
            g = g * c.sign
        if c.weight_decay is not None:
            g = torch.addcmul(g, c.weight_decay, x)
        torch.addcmul(g if c.inflow is None else g * c.inflow, c.momentum, v, out=v)
        if c.direct is not None:
            x.addcmul_(c.direct, g)
        x.addcmul_(c.carry, v)
        flat = x.view(-1)
        return torch.dot(flat, flat) if look else flat[:0]


def _blocks(leaf: Tensor) -> list[slice]:
    """Cut the rows of a leaf into blocks that fit a CPU's cache three times over."""
    most = max(1, _BLOCK // max(1, leaf[0].numel())) if leaf.device.type == "cpu" else len(leaf)
    return [slice(begin, min(begin + most, len(leaf))) for begin in range(0, len(leaf), most)]


def cut(
    objective: Objective[P],
    state: State[P],
    hyper: Hyper,
    streams: Streams,
    plan: Plan,
    budget: int,
    make: type[Chunk[P]] | None = None,
) -> list[Chunk[P]]:
    """Cut the stack as the objective asks for, or leave it whole; make: what kind of chunks."""
    hyper, make = hyper.to(state.diverged_at.device), make or Chunk
    if not isinstance(objective, Chunked):
        return [make(objective, state, slice(0, hyper.replicas), hyper, streams, plan)]
    return [
        make(objective.subset(rows), state, rows, hyper.subset(rows), streams.subset(rows), plan)
        for rows in objective.chunks(hyper.replicas, budget)
    ]


def rows_of(params: P, index: Tensor | slice) -> P:
    """Return the parameters of some rows of a stack."""
    return cast(P, joined({name: leaf[index] for name, leaf in leaves(params).items()}))  # the names stay


def joined(named: Leaves) -> Params:
    """Return leaves in the user's form: the leaf named "" is a single tensor.

    named: the leaves by name.
    """
    return named.get("", named)


def leaves(params: Params) -> Leaves:
    """Return the leaves by name; a single tensor is the leaf named ""."""
    return {"": params} if isinstance(params, Tensor) else params


def _part(factors: Factors, rows: slice) -> Factors:
    """Return a schedule's factors for a slice of the stack."""
    values = (factors.lr, factors.momentum)
    return Factors(*(v[rows] if isinstance(v, Tensor) and v.ndim else v for v in values))
