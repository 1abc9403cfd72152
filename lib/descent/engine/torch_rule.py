"""A torch optimiser as a rule, one for the whole stack where it is elementwise, one group per replica where it is not.

The state lives in the stack, not in the optimiser: before every step it is laid into it, afterwards taken out, so that
checkpoints, divergence and chunks work as for any rule. That costs a copy of parameters and state per step; row by row
it costs the optimiser's loop over replicas as well, often ten times a native rule's time. `cost` says which it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from descent.engine.probes import Leaves
from descent.engine.rule import Reads, Rule, broadcast, source_of
from descent.engine.rules import Factors, Values
from descent.engine.streams import Purpose, Streams, replica_seeds

__all__ = ["TorchRule", "torch_rule"]

Make = Callable[[list[dict[str, Any]]], Optimizer]
_TRIES = 3


class _Known:
    """What has been found out of an optimiser, by the shapes of the leaves; no part of what the rule is."""

    def __init__(self) -> None:
        self.layouts: dict[str, _Layout] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class TorchRule(Rule):
    """What `torch_rule` returns. mode: "stacked", or "rows" with one group per replica."""

    make: Make  # from parameter groups to the optimiser
    mode: Literal["stacked", "rows", ""] = ""
    found: _Known = field(default_factory=lambda: _Known(), repr=False)  # what is known of the optimiser by now
    pure: ClassVar[bool] = False  # checked here, in another way

    @property
    def reads(self) -> Reads:
        """All leaves: an optimiser may do as it likes with one replica."""
        return "replica"

    @property
    def cost(self) -> str:
        """What a step costs, known after the first run or `init`."""
        modes = {layout.mode for layout in self.found.layouts.values()}
        if not modes:
            return "not known before the leaves are"
        if modes == {"stacked"}:
            return "elementwise: one optimiser for the stack; a copy of parameters and state per step"
        return "row by row: one parameter group per replica, about ten times the time of a native rule"

    def init(self, params: Leaves) -> Leaves:
        """Return zeros shaped like what the optimiser keeps after a step."""
        layout = self._layout(params)
        rows = len(next(iter(params.values())))
        device = next(iter(params.values())).device
        return {
            key: torch.zeros(rows, *shape, dtype=kind, device=device) for key, (shape, kind) in layout.slots.items()
        }

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Let the optimiser take one step on a copy, and return what it added and keeps."""
        layout = self._layout(params)
        fresh = not state or bool(age.max() <= 1)
        x = {name: leaf.clone() for name, leaf in params.items()}
        after = _step(self.make, self.lr, layout.mode, x, gradient, None if fresh else (state, layout))
        return {name: x[name] - params[name] for name in x}, after

    def scaled(self, factors: Factors) -> TorchRule:
        """Return the rule at another learning rate; momentum is inside the optimiser and cannot be scheduled."""
        if not isinstance(factors.momentum, (int, float)) or factors.momentum != 1:
            raise ValueError("a torch optimiser's momentum cannot be scheduled here; use a native rule")
        lr = self.lr * (factors.lr.to(self.lr) if isinstance(factors.lr, Tensor) else factors.lr)
        return TorchRule(lr, self.make, self.mode, self.found)

    def describe(self) -> tuple[object, ...]:
        """Return the optimiser's class, its settings and the source of what makes it."""
        optimiser = self.make([{"params": [torch.zeros(1, 1, requires_grad=True)], "lr": float(self.lr[0])}])
        set_ = {k: v for k, v in optimiser.param_groups[0].items() if k != "params"}
        return ("torch_rule", type(optimiser).__qualname__, self.lr, repr(sorted(set_.items())), source_of(self.make))

    def source(self) -> str:
        """Return the SHA-256 of the file in which the optimiser is made."""
        return source_of(self.make)

    def _layout(self, params: Leaves) -> _Layout:
        """Find out once for every set of leaves how the optimiser must be run, and what it keeps."""
        key = repr([(name, tuple(leaf.shape[1:]), leaf.dtype) for name, leaf in params.items()])
        if key not in self.found.layouts:
            shapes = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in params.items()}
            self.found.layouts[key] = _explored(self.make, float(self.lr.max()) or 1e-3, shapes, self.mode)
        return self.found.layouts[key]


def torch_rule(make: Make, lr: Values, mode: Literal["stacked", "rows", ""] = "") -> TorchRule:
    """Return a rule that calls a torch optimiser, one lr per replica.

        torch_rule(lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.95)), lr=1e-3)

    make: from parameter groups, each with its own lr, to the optimiser. mode is found out: where three steps on random
    leaves give the same bits stacked as row by row, the optimiser is elementwise and run once for the stack. mode:
    "stacked" or "rows", "" to find out.
    Raises: ValueError for optimisers that need a closure, sparse gradients or `maximize`, or keep state elsewhere.
    """
    return TorchRule(broadcast(lr=lr)["lr"], make, mode)


@dataclass(frozen=True)
class _Layout:
    """How to run an optimiser, and the slots that it keeps, each with shape in a replica and type."""

    mode: Literal["stacked", "rows"]
    slots: Mapping[str, tuple[torch.Size, torch.dtype]]
    kinds: Mapping[str, str]  # "tensor", "scalar" (a tensor without axes) or "number"


def _step(
    make: Make, lr: Tensor, mode: str, x: Leaves, gradient: Leaves, before: tuple[Leaves, _Layout] | None
) -> Leaves:
    """Move x in place by one step of an optimiser with that state, and return the state after it."""
    runs = _runs(lr) if mode == "stacked" else [slice(r, r + 1) for r in range(len(lr))]
    groups, owners = [], []
    for rows in runs:
        held = []
        for name, leaf in x.items():
            part = leaf[rows] if mode == "stacked" else leaf[rows.start]
            handle = part.detach().requires_grad_()
            handle.grad = gradient[name][rows].clone() if mode == "stacked" else gradient[name][rows.start].clone()
            held.append(handle)
            owners.append((name, rows, handle))
        groups.append({"params": held, "lr": float(lr[rows.start])})
    optimiser = make(groups)
    if before is not None:
        for name, rows, handle in owners:
            optimiser.state[handle] = _laid(name, rows, mode, *before)
    optimiser.step()
    return _taken(optimiser, owners, len(lr), mode)


def _laid(name: str, rows: slice, mode: str, state: Leaves, layout: _Layout) -> dict[str, Any]:
    """Return the entries of one parameter in the optimiser's own form."""
    found: dict[str, Any] = {}
    for key, kind in layout.kinds.items():
        slot, _, leaf = key.partition("/")
        if leaf != name:
            continue
        own = state[key][rows] if mode == "stacked" and kind == "tensor" else state[key][rows.start]
        found[slot] = own.item() if kind == "number" else own.clone()
    return found


def _taken(optimiser: Optimizer, owners: list[tuple[str, slice, Tensor]], replicas: int, mode: str) -> Leaves:
    """Return the optimiser's state as slots (R, …)."""
    after: Leaves = {}
    for name, rows, handle in owners:
        for slot, value in optimiser.state[handle].items():
            if value is None:
                continue
            given = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64)
            stacked = mode == "stacked" and given.ndim > 0
            shape = given.shape[1:] if stacked else given.shape
            whole = after.setdefault(f"{slot}/{name}", given.new_zeros(replicas, *shape, device=handle.device))
            whole[rows] = given.to(handle.device) if stacked else given.to(handle.device).expand(1, *shape)
    return after


def _explored(make: Make, lr: float, shapes: Mapping[str, tuple[torch.Size, torch.dtype]], mode: str) -> _Layout:
    """Try an optimiser for three steps: in one piece, row by row, and with its state laid in anew."""
    _refuse(make, lr)
    rates = torch.tensor([lr, lr / 2, lr / 2], dtype=torch.float64)
    by_rows = _tried(make, rates, "rows", shapes)
    chosen: Literal["stacked", "rows"] = "rows"
    if mode != "rows":
        try:
            stacked = _tried(make, rates, "stacked", shapes)
            same = all(torch.equal(stacked[0][name], leaf) for name, leaf in by_rows[0].items())
        except (ValueError, RuntimeError):  # such as torch's Muon, which wants matrices
            same = False
        if mode == "stacked" and not same:
            raise ValueError("this optimiser moves a stack other than row by row; leave out mode")
        chosen = "stacked" if same else "rows"
    _, state, kinds = stacked if chosen == "stacked" else by_rows
    slots = {key: (slot.shape[1:], slot.dtype) for key, slot in state.items()}
    return _Layout(chosen, slots, kinds)


def _tried(
    make: Make, lr: Tensor, mode: Literal["stacked", "rows"], shapes: Mapping[str, tuple[torch.Size, torch.dtype]]
) -> tuple[Leaves, Leaves, dict[str, str]]:
    """Return parameters, state and kinds after three steps of three rows; raise ValueError if state hides elsewhere."""
    x, gradients = _random(shapes, 0), [_random(shapes, 1 + k) for k in range(_TRIES)]
    y = {k: v.clone() for k, v in x.items()}
    state: Leaves = {}
    kinds: dict[str, str] = {}
    runs = _runs(lr) if mode == "stacked" else [slice(r, r + 1) for r in range(len(lr))]
    handles = {
        (name, i): (leaf[rows] if mode == "stacked" else leaf[rows.start]).detach().requires_grad_()
        for name, leaf in y.items()
        for i, rows in enumerate(runs)
    }
    whole = make([
        {"params": [handles[name, i] for name in y], "lr": float(lr[rows.start])} for i, rows in enumerate(runs)
    ])  # fmt: skip
    for k, gradient in enumerate(gradients):
        for (name, i), handle in handles.items():
            handle.grad = (gradient[name][runs[i]] if mode == "stacked" else gradient[name][runs[i].start]).clone()
        whole.step()
        layout = _Layout(mode, {}, kinds)
        state = _step(make, lr, mode, x, gradient, (state, layout) if k else None)
        kinds = {
            f"{slot}/{name}": _kind(value)
            for (name, _), handle in handles.items()
            for slot, value in whole.state[handle].items()
            if value is not None
        }
    if any(not torch.equal(x[name], y[name]) for name in x):
        raise ValueError(
            "this optimiser keeps state outside `optimiser.state`, so that it cannot be checkpointed, cut or "
            "frozen; write it as a Rule"
        )
    return x, state, kinds


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return "number"
    return "tensor" if value.ndim else "scalar"


def _refuse(make: Make, lr: float) -> None:
    """Raise ValueError, with the reason, for what cannot be a rule."""
    weight = torch.zeros(2, 2, requires_grad=True)
    optimiser = make([{"params": [weight], "lr": lr}])
    name = type(optimiser).__name__
    closure = inspect.signature(type(optimiser).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(f"{name} calls the loss again within a step (a closure), which a rule cannot")
    if "Sparse" in name:
        raise ValueError(f"{name} takes sparse gradients, and those of a stack are dense")
    if any(group.get("maximize") for group in optimiser.param_groups):
        raise ValueError(f"{name} is set to maximize; descend the negative instead")


def _random(shapes: Mapping[str, tuple[torch.Size, torch.dtype]], step: int) -> Leaves:
    return {
        name: Streams(replica_seeds(place, 3), torch.float64).normal(Purpose.PROBE, step, tuple(shape)).to(dtype)
        for place, (name, (shape, dtype)) in enumerate(shapes.items())
    }


def _runs(lr: Tensor) -> list[slice]:
    """Return the runs of neighbours of one learning rate."""
    counts = torch.unique_consecutive(lr, return_counts=True)[1].tolist()
    edges = [sum(counts[:i]) for i in range(len(counts) + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
