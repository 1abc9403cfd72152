"""Chunks that any rule moves: one gradient for all rows, and each kind of rule moves its own.

Linear rules alone go the fast path of `descent.engine.stack`, which this module only calls. In a stack of several kinds
they are moved by the same operations. A replica that diverged is set aside with its state; where zeros run in its
place, step and state are held, for 0 is where rules break (0/0).
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.engine import contract
from descent.engine.probes import P
from descent.engine.rule import AnyRule, Rule, parts_of, select, slots_of
from descent.engine.rules import Hyper, sgd
from descent.engine.stack import Chunk, Chunked, Leaves, Objective, Plan, State, _Block, _part
from descent.engine.stack import cut as cut_linear
from descent.engine.streams import Streams

__all__ = ["cut", "given_of", "slots"]


def slots(rule: AnyRule, state: State[P], given: Leaves | None) -> Leaves:
    """Return the slots a run begins with, those given or empty ones; linear rules have none.

    given: slots to go on with, None for empty ones.

    Raises: ValueError where those given are not the rule's, BrokenRuleError where a rule does not keep its contract.
    """
    if isinstance(rule, Hyper):
        return {}
    shapes = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in state.x.items()}
    for _, part in parts_of(rule):
        if isinstance(part, Rule) and part.pure:
            contract.check(part, shapes)
    empty = slots_of(rule.to(state.diverged_at.device), state.x)
    if not given:
        return empty
    if {k: v.shape for k, v in given.items()} != {k: v.shape for k, v in empty.items()}:
        raise ValueError(f"the state has slots {sorted(given)}, the rule {sorted(empty)}; give the state of such a run")
    return {name: slot.detach().to(state.diverged_at.device, copy=True) for name, slot in given.items()}


def given_of(rule: AnyRule) -> object:
    """Return what a checkpoint compares of a rule."""
    if isinstance(rule, Hyper):
        return vars(rule)
    return [vars(part) if isinstance(part, Hyper) else part.describe() for _, part in parts_of(rule)]


def cut(
    objective: Objective[P], state: State[P], rule: AnyRule, streams: Streams, plan: Plan, budget: int
) -> list[Chunk[P]]:
    """Cut the stack as the objective asks for, or leave it whole; linear rules alone go the fast path."""
    if isinstance(rule, Hyper):
        return cut_linear(objective, state, rule, streams, plan, budget)
    rule = rule.to(state.diverged_at.device)
    if not isinstance(objective, Chunked):
        return [RuledChunk(objective, state, slice(0, rule.replicas), rule, streams, plan)]
    # a footprint holds parameters, buffer and gradient at least: every slot and temporary is a third more, at most
    thirds = 1 + (len(state.s) // max(1, len(state.x)) + _temporaries(rule)) / 3
    return [
        RuledChunk(objective.subset(rows), state, rows, select(rule, rows), streams.subset(rows), plan)
        for rows in objective.chunks(rule.replicas, int(budget / thirds))
    ]


class RuledChunk(Chunk[P]):
    """A slice of a stack of any rules."""

    def __init__(
        self, objective: Objective[P], state: State[P], rows: slice, rule: AnyRule, streams: Streams, plan: Plan
    ) -> None:
        self.rule, self.s = rule, {name: slot[rows].clone() for name, slot in state.s.items()}
        self.tombs: list[tuple[Tensor, Leaves]] = []
        self.parts: list[_LinearPart[P] | _RuledPart] = []
        super().__init__(objective, state, rows, _bare(rule), streams, plan)
        for own, part in parts_of(rule):
            made = _LinearPart(self, own, part) if isinstance(part, Hyper) else _RuledPart(self, own, part)
            self.parts.append(made)
        if self.operate is not None:
            for piece in self.parts:
                piece.require_buffer()

    def advance(self, begin: int, end: int) -> None:
        """Take the steps begin … end − 1."""
        for step in range(begin, end):
            g = self.gradient(step)
            if self.operate is not None:
                for part in self.parts:
                    part.lend()
                self.operate(step, self.params, g, self.v)
                for part in self.parts:
                    part.take_back()
            for part in self.parts:
                part.move(step, g)
            if (step + 1) % self.plan.check == 0 or step + 1 == end:
                self.look(step, [])

    def look(self, step: int, squares: list[Tensor]) -> None:
        """Find who left the ball of radius `limit`, or whose state is not finite; sums settle the usual case."""
        flat = [leaf.reshape(-1) for leaf in self.x.values()]
        total = torch.stack([torch.dot(x, x) for x in flat]).sum()
        states = [slot.sum() for slot in self._slots()]
        sound = torch.stack([s.double() for s in states]).sum() * 0.0 if states else total * 0.0
        if float(total + sound) <= self.plan.limit**2:
            return
        norms = torch.stack([x.reshape(len(x), -1).square().sum(dim=1) for x in self.x.values()]).sum(dim=0)
        out = ~(norms <= self.plan.limit**2)
        for part in self.parts:
            out[part.own] |= part.broken()
        out &= self.diverged_at < 0
        self.diverged_at.masked_fill_(out, step)
        self.bury(out)

    def bury(self, out: Tensor) -> None:
        """Set the rows `out` aside with their slots."""
        self._publish()
        index = out.nonzero().squeeze(1)
        if len(index):
            self.tombs.append((index, {name: slot[index] for name, slot in self.s.items()}))
        super().bury(out)
        for part in self.parts:
            part.settings = None
            part.silence(self.diverged_at[part.own] >= 0)

    def show(self) -> None:
        """Publish parameters, velocities and slots, also of those set aside."""
        self._publish()
        super().show()
        for name, slot in self.s.items():
            self.state.s[name][self.rows] = slot
            for index, own in self.tombs:
                self.state.s[name][self.rows][index] = own[name]

    def _publish(self) -> None:
        for part in self.parts:
            part.lend()
            part.publish()

    def _slots(self) -> list[Tensor]:
        return [slot for part in self.parts for slot in part.slots() if slot.is_floating_point()]


class _LinearPart(Chunk[P]):
    """Rows of a chunk that a linear rule moves, by the operations of the fast path."""

    def __init__(self, whole: RuledChunk[P], own: slice, hyper: Hyper) -> None:
        self.own, self.hyper, self.plan = own, hyper, whole.plan
        self.rows = slice(whole.rows.start + own.start, whole.rows.start + own.stop)
        self.x = {name: leaf[own] for name, leaf in whole.x.items()}
        self.v = {name: leaf[own] for name, leaf in whole.v.items()}
        self.weight_decay = hyper.weight_decay if bool((hyper.weight_decay != 0).any()) else None
        self.sign = hyper.sign if bool((hyper.sign < 0).any()) else None
        self.settings: tuple[object, ...] | None = None
        self.blocks: list[_Block] = []
        self.diverged_at = whole.diverged_at[own]

    def move(self, step: int, gradient: Leaves) -> None:
        """Take one step."""
        self.set(step)
        g = {name: leaf[self.own] for name, leaf in gradient.items()}
        for block in self.blocks:
            block.move(g, False)

    def require_buffer(self) -> None:
        """Have one always."""

    def lend(self) -> None:
        """Do nothing: the buffer is the chunk's."""

    def take_back(self) -> None:
        """Do nothing, likewise."""

    def publish(self) -> None:
        """Do nothing, likewise."""

    def slots(self) -> list[Tensor]:
        """Return the buffer."""
        return []

    def broken(self) -> Tensor:
        """Return nobody: a buffer that is not finite leaves no parameter finite."""
        return torch.zeros(len(self.diverged_at), dtype=torch.bool, device=self.diverged_at.device)

    def silence(self, dead: Tensor) -> None:
        """Do nothing: coefficients of the dead are 0 already."""


class _RuledPart:
    """Rows of a chunk that a rule moves; the slots are its own between two publications."""

    def __init__(self, whole: RuledChunk[P], own: slice, rule: Rule) -> None:
        self.own, self.rule, self.plan, self.whole = own, rule, whole.plan, whole
        self.rows = slice(whole.rows.start + own.start, whole.rows.start + own.stop)
        self.x = {name: leaf[own] for name, leaf in whole.x.items()}
        self.s = {key: whole.s[key][own].clone() for key in rule.init(self.x)}
        self.age = whole.s["age"][own].double()
        self.last: Leaves = {}
        self.units = [[name] for name in self.x] if rule.reads != "replica" else [list(self.x)]
        self.keys = [[key for key in self.s if key.partition("/")[2] in names] for names in self.units]
        self.settings: tuple[object, ...] | None = None
        self.scaled = rule
        self.dead: Tensor | None = None
        self.silence(whole.diverged_at[own] >= 0)

    def move(self, step: int, gradient: Leaves) -> None:
        """Take one step: update leaf by leaf where leaves do not mix, so that temporaries stay few."""
        self.set(step)
        self.age = self.age + 1
        for names, keys in zip(self.units, self.keys, strict=True):
            x = {name: self.x[name] for name in names}
            g = {name: gradient[name][self.own] for name in names}
            for name in names:
                if g[name].shape != x[name].shape:
                    shapes = f"{tuple(g[name].shape)} where the parameters are {tuple(x[name].shape)}"
                    raise ValueError(f"the gradient is {shapes}")
            steps, after = self.scaled.update(g, {key: self.s[key] for key in keys}, x, self.age)
            if self.dead is not None:
                steps = {name: _held(self.dead, torch.zeros_like(leaf), leaf) for name, leaf in steps.items()}
                after = {key: _held(self.dead, self.s[key], slot) for key, slot in after.items()}
            self.s.update(after)
            for name, leaf in steps.items():
                self.x[name].add_(leaf)
                self.last[name] = leaf

    def set(self, step: int) -> None:
        """Scale the rule, unless nothing moved since the last step."""
        factors = None if self.plan.schedule is None else self.plan.schedule(step)
        if self.settings == (factors,):
            return
        self.settings = (factors,)
        self.scaled = self.rule if factors is None else self.rule.scaled(_part(factors, self.rows))

    def require_buffer(self) -> None:
        """Raise ValueError where there is nothing that surgery could operate on."""
        if not self.rule.buffer:
            name = self.rule.describe()[0]
            raise ValueError(f"surgery works on a rule's buffer, and {name} names none; give its class a `buffer`")

    def lend(self) -> None:
        """Put the velocity where probes and surgery look for it: the buffer, or the last step."""
        for name, leaf in self.whole.v.items():
            found = self.s.get(f"{self.rule.buffer}/{name}") if self.rule.buffer else self.last.get(name)
            if found is not None:
                leaf[self.own] = found

    def take_back(self) -> None:
        """Fetch the buffer after surgery."""
        for name, leaf in self.whole.v.items():
            if f"{self.rule.buffer}/{name}" in self.s:
                self.s[f"{self.rule.buffer}/{name}"] = leaf[self.own].clone()

    def publish(self) -> None:
        """Put slots and age into those of the chunk."""
        for key, slot in self.s.items():
            self.whole.s[key][self.own] = slot
        self.whole.s["age"][self.own] = self.age.to(torch.int64)

    def slots(self) -> list[Tensor]:
        """Return the slots."""
        return list(self.s.values())

    def broken(self) -> Tensor:
        """Return whose slots are not finite, (rows,)."""
        found = torch.zeros(len(self.age), dtype=torch.bool, device=self.age.device)
        for slot in self.s.values():
            found |= ~slot.reshape(len(slot), -1).isfinite().all(dim=1)
        return found

    def silence(self, dead: Tensor) -> None:
        """Hold still the rows that are set aside."""
        self.dead = dead if bool(dead.any()) else None
        if self.dead is not None:
            zero = {key: torch.zeros_like(slot) for key, slot in self.s.items()}
            self.s = {key: _held(dead, zero[key], slot) for key, slot in self.s.items()}


def _bare(rule: AnyRule) -> Hyper:
    """Return a linear rule of as many replicas, for what every chunk has; it moves nothing."""
    return sgd(rule.lr.cpu()).to(rule.lr.device)


def _held(dead: Tensor, before: Tensor, after: Tensor) -> Tensor:
    return torch.where(dead.view(-1, *[1] * (after.ndim - 1)), before, after)


def _temporaries(rule: AnyRule) -> int:
    return max((part.temporaries for _, part in parts_of(rule) if isinstance(part, Rule)), default=0)
