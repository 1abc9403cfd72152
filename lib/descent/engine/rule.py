"""Rules of any kind beside the linear family: a state per leaf, and one update from a gradient.

A rule is a frozen dataclass. Its tensors (R,) are the hyper-parameters, one per replica; all else that it holds is the
same for every replica. `update` is pure: it returns what is added to the parameters, and the next state. State is flat,
"slot/leaf" → (R, …). `elementwise` makes a rule from a function of one leaf; `stack` lays rules side by side.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, overload

import torch
from torch import Tensor

from descent.engine import rules
from descent.engine.probes import Leaves
from descent.engine.rules import Factors, Hyper, Values

__all__ = [
    "AnyRule", "Elementwise", "Mixed", "Reads", "Rule", "broadcast", "elementwise", "over", "parts_of", "repeat",
    "select", "settings", "slots_of", "stack", "widest",
]  # fmt: skip

Reads = Literal["element", "leaf", "replica"]
"""What one entry of a step depends on: itself, its leaf, or the whole replica."""

_WIDTH: tuple[Reads, ...] = ("element", "leaf", "replica")
Self = TypeVar("Self", bound="Rule")


@dataclass(frozen=True, eq=False)
class Rule:
    """How a gradient becomes a step, with the hyper-parameters of R replicas.

    reads: what one number of the update depends on, an element, a leaf or all leaves of its replica. buffer: the slot
    that probes and surgery take for the velocity; without one, probes get the last step. temporaries: tensors like the
    parameters that an update needs at a time.
    """

    lr: Tensor
    pure: ClassVar[bool] = True
    temporaries: ClassVar[int] = 3

    @property
    def reads(self) -> Reads:
        """What one number of the update depends on."""
        return "element"

    @property
    def buffer(self) -> str:
        """The slot that is the velocity, "" for none."""
        return ""

    @property
    def replicas(self) -> int:
        """Number of replicas R."""
        return len(self.lr)

    def init(self, params: Leaves) -> Leaves:
        """Return the state before the first update, "slot/leaf" → (R, …)."""
        return {}

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return what is added to the parameters, and the next state; age (R,) counts updates, this one included."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def mapped(self: Self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the rule with every hyper-parameter changed, also those of rules inside it."""
        return replace(self, **{f.name: _mapped(getattr(self, f.name), change) for f in fields(self)})

    def subset(self: Self, index: Tensor | slice) -> Self:
        """Return the rule of the replicas `index`."""
        return self.mapped(lambda values: values[index])

    def to(self: Self, device: str | torch.device) -> Self:
        """Return the same rule on `device`."""
        return self.mapped(lambda values: values.to(device))

    def scaled(self: Self, factors: Factors) -> Self:
        """Return the rule under a schedule's factors on `lr` and `momentum`."""
        return replace(self, **{f.name: _scaled(f.name, getattr(self, f.name), factors) for f in fields(self)})

    def memory(self) -> int:
        """Return after how many steps the state has forgotten its start: 3/(1 − the slowest rate)."""
        slowest = max((float(rate.max()) for name, rate in settings(self) if name in _RATES and len(rate)), default=0.0)
        return round(3 / (1 - slowest)) if slowest < 1 else 1000

    def describe(self) -> tuple[object, ...]:
        """Return name, settings and source, by which a checkpoint knows the rule."""
        held = [(f.name, _described(getattr(self, f.name))) for f in fields(self)]
        return (type(self).__qualname__, tuple(held), self.source())

    def source(self) -> str:
        """Return the SHA-256 of the file that the rule is written in; "" for rules of this library."""
        return source_of(type(self))


_RATES = ("momentum", "slow", "second")


@dataclass(frozen=True, eq=False)
class Mixed:
    """Rules of several kinds in one stack, each for the rows that follow those of the one before."""

    parts: tuple[Hyper | Rule, ...]  # the rules, in the order of their rows

    @property
    def replicas(self) -> int:
        """Number of replicas R."""
        return sum(part.replicas for part in self.parts)

    @property
    def lr(self) -> Tensor:
        """The learning rates, (R,)."""
        return torch.cat([part.lr for part in self.parts])

    def subset(self, index: Tensor | slice) -> AnyRule:
        """Return the rules of the replicas `index`."""
        return select(self, index)

    def to(self, device: str | torch.device) -> Mixed:
        """Return the same rules on `device`."""
        return Mixed(tuple(part.to(device) for part in self.parts))


AnyRule: TypeAlias = Hyper | Rule | Mixed
"""A rule of any kind: linear, your own, or several as one stack."""


@dataclass(frozen=True, eq=False)
class Elementwise(Rule):
    """A rule made from a function of one leaf; see `elementwise`."""

    values: Mapping[str, Tensor]  # the hyper-parameters by name, (R,)
    slots: Mapping[str, float]
    function: Callable[..., Any]  # of one leaf: its step, and the slots' next values

    @property
    def buffer(self) -> str:
        """The slot named m, if there is one."""
        return "m" if "m" in self.slots else ""

    def init(self, params: Leaves) -> Leaves:
        """Return every slot of every leaf at its starting value."""
        return {
            f"{slot}/{name}": torch.full_like(leaf, value)
            for slot, value in self.slots.items()
            for name, leaf in params.items()
        }

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Call the function for one leaf after the other."""
        steps: Leaves = {}
        after: Leaves = {}
        for name, x in params.items():
            own = SimpleNamespace(**{slot: state[f"{slot}/{name}"] for slot in self.slots})
            named = {"lr": self.lr, **self.values}
            numbers = SimpleNamespace(**{key: over(value, x) for key, value in named.items()})
            found = self.function(gradient[name], x, own, numbers, over(age, x))
            steps[name], new = (found, {}) if isinstance(found, Tensor) else found
            after |= {f"{slot}/{name}": value for slot, value in new.items()}
        return steps, after

    def describe(self) -> tuple[object, ...]:
        """Return name, settings and source."""
        held = ("lr", self.lr, dict(self.values), dict(self.slots))
        return (self.function.__qualname__, held, self.source())

    def source(self) -> str:
        """Return the SHA-256 of the function's file."""
        return source_of(self.function)


def elementwise(**slots: float) -> Callable[[Callable[..., Any]], Callable[..., Elementwise]]:
    """Make a rule from a function of one leaf, (g, x, s, h, age) → (what is added to x, {slot: its next value}).

    g, x and every s.slot are (R, …); h.lr, h.momentum, … and age are (R, 1, …). The slots are buffers shaped like the
    leaf that start at the values given. What is decorated takes lr and the other hyper-parameters by name.

    >>> @elementwise(m=0.0)
    ... def averaged_sign(g, x, s, h, age):
    ...     return -h.lr * torch.sign(s.m), {"m": h.momentum * s.m + (1 - h.momentum) * g}
    >>> averaged_sign(lr=[0.1, 0.2], momentum=0.9).replicas
    2
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Elementwise]:
        def make(lr: Values, **values: Values) -> Elementwise:
            numbers = broadcast(lr=lr, **values)
            return Elementwise(numbers.pop("lr"), numbers, slots, function)

        make.__name__, make.__doc__, make.__module__ = function.__name__, function.__doc__, function.__module__
        return make

    return decorate


def broadcast(**values: Values) -> dict[str, Tensor]:
    """Return named numbers as float64 tensors of one length (R,); raise ValueError for others, or an lr below 0.

    values: one number each, or one per replica.
    """
    raw = [torch.as_tensor(v, dtype=torch.float64) for v in values.values()]
    raw = [tensor.reshape(1) if tensor.ndim == 0 else tensor for tensor in raw]
    try:
        numbers = dict(zip(values, torch.broadcast_tensors(*raw), strict=True))  # type: ignore[no-untyped-call]
    except RuntimeError:
        lengths = ", ".join(f"{name}: {len(tensor)}" for name, tensor in zip(values, raw, strict=True))
        raise ValueError(f"give one number, or one per replica, of each; got {lengths}") from None
    for name, tensor in numbers.items():
        if tensor.ndim != 1 or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} must be a finite number or a sequence of them, got {tensor.tolist()}")
    if "lr" in numbers and bool((numbers["lr"] < 0).any()):
        raise ValueError(f"lr must not be negative, got {numbers['lr'].tolist()}")
    return {name: tensor.clone() for name, tensor in numbers.items()}


def over(values: Tensor, leaf: Tensor) -> Tensor:
    """Return values (R,) shaped (R, 1, …) and typed to multiply a leaf (R, …).

    leaf: what they are to multiply.
    """
    return values.to(leaf.dtype).view(-1, *[1] * (leaf.ndim - 1))


@overload
def stack(*given: Hyper) -> Hyper: ...
@overload
def stack(*given: AnyRule) -> AnyRule: ...
def stack(*given: AnyRule) -> AnyRule:
    """Lay rules side by side, the replicas of the first before those of the second; neighbours of one kind join.

    given: the rules.

    >>> stack(rules.sgd(1.0), rules.heavy_ball(0.1, [0.5, 0.9])).momentum.tolist()
    [0.0, 0.5, 0.9]
    """
    parts: list[Hyper | Rule] = []
    for part in (part for rule in given for part in (rule.parts if isinstance(rule, Mixed) else (rule,))):
        joined = _together(parts[-1], part) if parts else None
        parts = [*parts[:-1], joined] if joined is not None else [*parts, part]
    return parts[0] if len(parts) == 1 else Mixed(tuple(parts))


@overload
def repeat(rule: Hyper, n: int) -> Hyper: ...
@overload
def repeat(rule: AnyRule, n: int) -> AnyRule: ...
def repeat(rule: AnyRule, n: int) -> AnyRule:
    """Give every arm n replicas, arm-major: replica i of arm a is row a·n + i."""
    if isinstance(rule, Hyper):
        return rules.repeat(rule, n)
    if isinstance(rule, Mixed):
        return Mixed(tuple(part for one in rule.parts for _, part in parts_of(repeat(one, n))))
    return rule.mapped(lambda values: values.repeat_interleave(n))


def parts_of(rule: AnyRule) -> list[tuple[slice, Hyper | Rule]]:
    """Return the rows of every kind of rule in a stack, in order."""
    found, begin = [], 0
    for part in rule.parts if isinstance(rule, Mixed) else (rule,):
        found.append((slice(begin, begin + part.replicas), part))
        begin += part.replicas
    return found


def select(rule: AnyRule, index: Tensor | slice) -> AnyRule:
    """Return the rules of the replicas `index`, in that order."""
    if not isinstance(rule, Mixed):
        return rule.subset(index)
    wanted, found = torch.arange(rule.replicas)[index.cpu() if isinstance(index, Tensor) else index], []
    owners = torch.cat([torch.full((part.replicas,), i) for i, part in enumerate(rule.parts)])[wanted]
    begins = [rows.start for rows, _ in parts_of(rule)]
    edges = [0, *torch.unique_consecutive(owners, return_counts=True)[1].cumsum(0).tolist()]
    for run in (slice(a, b) for a, b in pairwise(edges)):
        owner = int(owners[run.start])
        found.append(rule.parts[owner].subset(wanted[run] - begins[owner]))
    return stack(*found)


def slots_of(rule: AnyRule, params: Leaves) -> Leaves:
    """Return the empty state of a stack, every slot (R, …), zeros where a row's rule has none, with its age (R,).

    Raises: ValueError where two rules keep tensors of different shapes under one name.
    """
    state: Leaves = {}
    for rows, part in parts_of(rule):
        if isinstance(part, Hyper):
            continue
        for key, slot in part.init({name: leaf[rows] for name, leaf in params.items()}).items():
            whole = state.setdefault(key, slot.new_zeros(rule.replicas, *slot.shape[1:]))
            if whole.shape[1:] != slot.shape[1:] or whole.dtype != slot.dtype:
                raise ValueError(f"two rules of one stack keep different tensors in {key!r}; rename the slot of one")
            whole[rows] = slot
    if isinstance(rule, Hyper):
        return state
    return state | {"age": torch.zeros(rule.replicas, dtype=torch.int64, device=next(iter(params.values())).device)}


def settings(rule: Rule) -> list[tuple[str, Tensor]]:
    """Return the hyper-parameters by name, also those of rules inside."""
    return [pair for f in fields(rule) for pair in _settings(f.name, getattr(rule, f.name))]


def widest(*reads: Reads) -> Reads:
    """Return the widest of several.

    reads: how far each looks: an element, a leaf or a replica.
    """
    return max(reads, key=_WIDTH.index)


def source_of(code: Any) -> str:
    """Return the SHA-256 of the file in which a class or function is written, "" inside this library."""
    if str(getattr(code, "__module__", "")).partition(".")[0] == "descent":
        return ""
    try:
        text = Path(inspect.getsourcefile(code) or "").read_bytes()
    except (OSError, TypeError):  # typed at a prompt
        text = repr(getattr(getattr(code, "__code__", None), "co_code", code)).encode()
    return hashlib.sha256(text).hexdigest()


def _settings(name: str, value: Any) -> Sequence[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, (Rule, Hyper)):
        return [pair for f in fields(value) for pair in _settings(f.name, getattr(value, f.name))]
    if isinstance(value, Mapping):
        return [pair for key, each in value.items() for pair in _settings(key, each)]
    return []


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Rule):
        return value.mapped(change)
    if isinstance(value, Hyper):
        return Hyper(**{f.name: change(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, Mapping):
        return {key: _mapped(each, change) for key, each in value.items()}
    return value


def _scaled(name: str, value: Any, factors: Factors) -> Any:
    if isinstance(value, (Rule, Hyper)):
        return value.scaled(factors)
    if isinstance(value, Mapping):
        return {key: _scaled(key, each, factors) for key, each in value.items()}
    if isinstance(value, Tensor) and name in ("lr", "momentum"):
        factor = getattr(factors, name)
        return value * (factor.to(value) if isinstance(factor, Tensor) else factor)
    return value


def _described(value: Any) -> Any:
    if isinstance(value, Rule):
        return value.describe()
    return vars(value) if isinstance(value, Hyper) else value


def _together(a: Hyper | Rule, b: Hyper | Rule) -> Hyper | Rule | None:
    """Return one rule of the rows of both, None where their kinds differ."""
    if isinstance(a, Hyper) or isinstance(b, Hyper):
        return rules.stack(a, b) if isinstance(a, Hyper) and isinstance(b, Hyper) else None
    if type(a) is not type(b):
        return None
    joined = {f.name: _joined(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)}
    return None if any(value is _APART for value in joined.values()) else replace(a, **joined)


_APART = object()


def _joined(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.cat([a, b])
    if isinstance(a, (Rule, Hyper)) and isinstance(b, (Rule, Hyper)):
        both = _together(a, b)
        return _APART if both is None else both
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return _APART
        found = {key: _joined(a[key], b[key]) for key in a}
        return _APART if any(value is _APART for value in found.values()) else found
    return a if type(a) is type(b) and a == b else _APART
