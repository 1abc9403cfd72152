"""Steps of a chunk captured once and replayed: what an accelerator is told once it need not be told at every step.

    train(objective, start, heavy_ball(lr, momentum), steps, streams, graphs=True, check=50)

Up to 50 steps between two looks make a window. What they read lies in buffers of their own: what each draws, filled
ahead (`descent.engine.split`), and the coefficients of their updates, so that a schedule is followed. The first window
of its kind runs as it is, the second is captured (gradients, updates and the norms of the last step, one CUDA graph),
and from then on windows are replayed. Where there is no CUDA the same steps run over the same buffers, to the last bit
as without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic

import torch
from torch import Tensor

from descent.engine.probes import P
from descent.engine.rule import AnyRule
from descent.engine.rules import Hyper
from descent.engine.split import Drawn, Split
from descent.engine.stack import Chunk, Objective, Operated, Plan, State, _Block, _blocks, _Columns, _part, cut
from descent.engine.streams import Streams

__all__ = ["captured", "cut_for_graphs"]

MOST = 50
"""Steps of a window."""

BUDGET = 256 << 20
"""Bytes of the buffers of a window, about."""

_KEPT = 4  # kinds of windows; those of another length or pattern are rare


def cut_for_graphs(
    objective: Objective[P], state: State[P], rule: AnyRule, streams: Streams, plan: Plan, budget: int
) -> list[Chunk[P]]:
    """Cut the stack as the objective asks for, into chunks that are captured.

    Raises: ValueError for a rule or an objective that cannot be.
    """
    if not isinstance(rule, Hyper):
        raise ValueError(
            "graphs capture linear rules alone (sgd, heavy_ball, ema, …); train this one with graphs=False"
        )
    return cut(objective, state, rule, streams, plan, budget, GraphedChunk)


def _splits(objective: Objective[P]) -> Split[P]:
    """Return the objective.

    Raises: ValueError where it cannot be captured, and why.
    """
    name = type(objective).__name__
    if isinstance(objective, Operated):
        raise ValueError(f"{name} operates by what it sees at every step, which no graph can; leave graphs=False")
    if not isinstance(objective, Split):
        raise ValueError(
            f"graphs need an objective that draws apart from its gradient, and {name} has no `draw` and `gradient_at` "
            "(see descent.engine.Split); leave graphs=False"
        )
    if getattr(objective, "compiled", False):
        raise ValueError(f"{name} is compiled, which makes graphs of its own; take one of compiled and graphs")
    return objective


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Coefficients of one step on the CPU, rows momentum, inflow, −direct, −carry (4, R), and which of them matter."""

    values: Tensor
    inflow: bool
    direct: bool


class GraphedChunk(Chunk[P]):
    """A chunk that goes by windows."""

    def __init__(
        self, objective: Objective[P], state: State[P], rows: slice, hyper: Hyper, streams: Streams, plan: Plan
    ) -> None:
        self.split: Split[P] = _splits(objective)
        self.windows: dict[object, _Window[P]] = {}
        super().__init__(objective, state, rows, hyper, streams, plan)
        self.g = {name: torch.empty_like(leaf) for name, leaf in self.x.items()}
        self.out = state.form(self.g)
        self.here = hyper.to("cpu")  # coefficients are worked out where nobody waits for them
        self.known: tuple[tuple[object, ...], _Numbers] | None = None
        self.most = 0

    def advance(self, begin: int, end: int) -> None:
        """Take the steps begin … end − 1, looking where a chunk looks."""
        step = begin
        while step < end:
            to_look = self.plan.check - step % self.plan.check
            length = min(self._longest(step), end - step, to_look)
            squares = self._go(step, length)
            step += length
            if length == to_look or step == end:
                self.look(step - 1, squares)

    def bury(self, out: Tensor) -> None:
        """Set rows aside; coefficients have to be sent anew."""
        super().bury(out)
        for window in self.windows.values():
            window.filled = []

    def numbers(self, step: int) -> _Numbers:
        """Return the coefficients of a step, the same object as long as nothing moves."""
        factors = None if self.plan.schedule is None else self.plan.schedule(step)
        settings = (factors, step == self.plan.starting)
        if self.known is None or self.known[0] != settings:
            hyper = self.here if factors is None else self.here.scaled(_part(factors, self.rows))
            c = hyper.coefficients(starting=settings[1])
            values = torch.stack([c.momentum, c.inflow, -c.direct, -c.carry])
            self.known = settings, _Numbers(values, not bool((c.inflow == 1).all()), not bool((c.direct == 0).all()))
        return self.known[1]

    def _go(self, step: int, length: int) -> list[Tensor]:
        """Take some steps, by an earlier window where it is of the same kind."""
        numbers = [self.numbers(step + k) for k in range(length)]
        distinct = [numbers[k] for k in range(length) if k == 0 or numbers[k] is not numbers[k - 1]]
        changes = [k > 0 and numbers[k] is not numbers[k - 1] for k in range(length)]
        order = tuple(accumulate(map(int, changes)))
        kind = (order, *((each.inflow, each.direct) for each in distinct))
        if kind not in self.windows:
            while len(self.windows) >= _KEPT:
                self.windows.pop(next(iter(self.windows)))
            self.windows[kind] = _Window(self, order, distinct)
        return self.windows[kind].run(step, distinct)

    def _longest(self, step: int) -> int:
        """Return how many steps fit the budget."""
        if not self.most:
            drawn = self.split.draw(self.streams, step, self.params)
            one = sum(leaf.nbytes for leaf in (*drawn.values(), *self.g.values()))
            self.most = max(1, min(MOST, BUDGET // max(1, one)))
        return self.most


class _Window(Generic[P]):
    """Some steps of a chunk that read nothing but buffers of their own, and the chunk's parameters and velocity.

    order: which of the distinct coefficients each step has.
    """

    def __init__(self, chunk: GraphedChunk[P], order: tuple[int, ...], distinct: list[_Numbers]) -> None:
        self.chunk, self.order = chunk, order
        self.table = next(iter(chunk.x.values())).new_empty(len(distinct), *distinct[0].values.shape)
        self.filled: list[_Numbers] = []
        self.drawn: list[Drawn] = []
        self.squares: list[Tensor] = []
        self.times, self.replay = 0, self._steps
        self.blocks = [self._blocks(row, each) for row, each in zip(self.table, distinct, strict=True)]

    def run(self, step: int, distinct: list[_Numbers]) -> list[Tensor]:
        """Take the steps from here on, with these coefficients; return what each block says of ‖x‖² after the last."""
        if self.filled != distinct:
            self._fill(distinct)
        chunk = self.chunk
        fresh = [chunk.split.draw(chunk.streams, step + k, chunk.params) for k in range(len(self.order))]
        if self.drawn:
            theirs, ours = ([leaf for each in drawn for leaf in each.values()] for drawn in (fresh, self.drawn))
            if ours:
                torch._foreach_copy_(ours, theirs)
        else:
            self.drawn = [{name: leaf.clone() for name, leaf in each.items()} for each in fresh]
        self.times += 1
        if self.times == 2:  # the first time was what a capture asks for, a warm-up
            self.replay = captured(self._steps, self.table.device)
        self.replay()
        return self.squares

    def _steps(self) -> None:
        """Take the steps; where they are captured, a graph knows every tensor by its address."""
        chunk, last = self.chunk, len(self.order) - 1
        for k, i in enumerate(self.order):
            chunk.split.gradient_at(chunk.params, self.drawn[k], chunk.out)
            self.squares = [block.move(chunk.g, k == last) for block in self.blocks[i]]

    def _fill(self, distinct: list[_Numbers]) -> None:
        """Send the coefficients; a replica put aside has momentum, direct and carry 0."""
        self.table.copy_(torch.stack([each.values for each in distinct]))
        alive = (self.chunk.diverged_at < 0).to(self.table.dtype)
        for row in (0, 2, 3):
            self.table[:, row].mul_(alive)
        self.filled = distinct

    def _blocks(self, row: Tensor, numbers: _Numbers) -> list[_Block]:
        """Return blocks that read their coefficients from a row (4, R) of the table."""
        chunk = self.chunk
        momentum, inflow, direct, carry = row
        columns = _Columns(
            momentum,
            inflow if numbers.inflow else None,
            direct if numbers.direct else None,
            carry,
            chunk.sign,
            chunk.weight_decay,
        )
        return [
            _Block(name, rows, x[rows], chunk.v[name][rows], columns.fit(rows, x, expand=False))
            for name, x in chunk.x.items()
            for rows in _blocks(x)
        ]


def captured(steps: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return what does the same again and again: a graph where there is CUDA, and the steps themselves elsewhere."""
    if device.type != "cuda":
        return steps
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        steps()
    return graph.replay
