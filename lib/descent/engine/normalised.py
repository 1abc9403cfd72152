"""Rules that put the gradient through a nonlinearity: signs, Adam, normalised steps; and wrappers round any rule.

Buffers are running averages, m ← momentum·m + (1 − momentum)·g. `momentum` is the rate of every first moment, so that
schedules keep their meaning. Weight decay is of two kinds with two names, since they differ here: `coupled` adds
weight_decay·x to the gradient, `decayed` takes lr·decay·x off the parameters beside the rule's own step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from descent.engine.probes import Leaves
from descent.engine.rule import Reads, Rule, broadcast, over, widest
from descent.engine.rules import Hyper, Values

__all__ = [
    "Order", "adam", "adamw", "as_rule", "by_leaf", "clipped", "coupled", "decayed", "lion", "normalised", "sign",
]  # fmt: skip

Order = Literal["before", "after"]
"""Whether weight decay comes before the step or after it."""

Where = Callable[[str, torch.Size], bool]


@dataclass(frozen=True, eq=False)
class _Averaged(Rule):
    """A rule with one running average."""

    momentum: Tensor

    @property
    def buffer(self) -> str:
        """The average."""
        return "m"

    def init(self, params: Leaves) -> Leaves:
        """Return averages of nothing."""
        return _empty(params, "m")


@dataclass(frozen=True, eq=False)
class _Sign(_Averaged):
    order: Order
    lookahead: bool

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return −lr·sign(m), or −lr·(average of signs)."""
        steps, after = {}, {}
        for name, g in gradient.items():
            lr, fresh = over(self.lr, g), over(1 - self.momentum, g)
            enters = torch.sign(g) if self.order == "after" else g
            m = torch.lerp(state[f"m/{name}"], enters, fresh)
            taken = torch.lerp(m, enters, fresh) if self.lookahead else m
            steps[name] = (taken if self.order == "after" else torch.sign(taken)) * -lr
            after[f"m/{name}"] = m
        return steps, after


def sign(lr: Values, momentum: Values = 0.0, order: Order = "before", lookahead: bool = False) -> Rule:
    """Return sign descent: −lr·sign(m) averaged before the sign (Signum), or −lr·(average of signs) after it.

    lookahead: the newest gradient enters once more, as in Nesterov's rule, momentum·m + (1 − momentum)·g. order:
    whether the average is taken "before" the sign or "after" it.
    """
    return _Sign(**broadcast(lr=lr, momentum=momentum), order=_known(order), lookahead=lookahead)


@dataclass(frozen=True, eq=False)
class _Lion(_Averaged):
    slow: Tensor

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return −lr·sign(momentum·m + (1 − momentum)·g)."""
        steps, after = {}, {}
        for name, g in gradient.items():
            m = state[f"m/{name}"]
            steps[name] = torch.sign(torch.lerp(m, g, over(1 - self.momentum, g))) * over(-self.lr, g)
            after[f"m/{name}"] = torch.lerp(m, g, over(1 - self.slow, g))
        return steps, after


def lion(lr: Values, momentum: Values = 0.9, slow: Values = 0.99) -> Rule:
    """Return Lion: the sign of momentum·m + (1 − momentum)·g, where the average m forgets at the rate `slow`."""
    return _Lion(**broadcast(lr=lr, momentum=momentum, slow=slow))


@dataclass(frozen=True, eq=False)
class _Adam(_Averaged):
    second: Tensor
    eps: Tensor

    def init(self, params: Leaves) -> Leaves:
        """Return averages of nothing, of the gradient and of its square."""
        return _empty(params, "m", "v")

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return −lr·m̂/(√v̂ + eps); the powers of the rates are taken in double precision."""
        steps: Leaves = {}
        after: Leaves = {}
        size = self.lr / (1 - self.momentum**age)
        root = (1 - self.second**age).sqrt()
        for name, g in gradient.items():
            m = torch.lerp(state[f"m/{name}"], g, over(1 - self.momentum, g))
            v = (state[f"v/{name}"] * over(self.second, g)).addcmul_(g * over(1 - self.second, g), g)
            scale = v.sqrt().div_(over(root, g)).add_(over(self.eps, g))
            steps[name] = torch.div(m, scale, out=scale).mul_(over(-size, g))
            after |= {f"m/{name}": m, f"v/{name}": v}
        return steps, after


def adam(
    lr: Values, momentum: Values = 0.9, second: Values = 0.999, eps: Values = 1e-8, *, weight_decay: Values = 0.0
) -> Rule:
    """Return Adam as torch does it: −lr·m̂/(√v̂ + eps); weight_decay is coupled.

    second: momentum factor of the average of squares.
    """
    rule = _Adam(**broadcast(lr=lr, momentum=momentum, second=second, eps=eps))
    return rule if _nothing(weight_decay) else coupled(rule, weight_decay)


def adamw(
    lr: Values, momentum: Values = 0.9, second: Values = 0.999, eps: Values = 1e-8, *, decay: Values = 0.01
) -> Rule:
    """Return AdamW as torch does it: Adam, with lr·decay·x taken off beside its step.

    second: momentum factor of the average of squares; decay: what multiplies lr·x beside the step.
    """
    return decayed(adam(lr, momentum, second, eps), decay)


@dataclass(frozen=True, eq=False)
class _Normalised(_Averaged):
    order: Order

    @property
    def reads(self) -> Reads:
        """All leaves: the norm is the replica's."""
        return "replica"

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return −lr·m/|m|, or −lr·(average of g/|g|)."""
        enters = _unit(gradient) if self.order == "after" else gradient
        after = {name: torch.lerp(state[f"m/{name}"], g, over(1 - self.momentum, g)) for name, g in enters.items()}
        taken = after if self.order == "after" else _unit(after)
        steps = {name: leaf * over(-self.lr, leaf) for name, leaf in taken.items()}
        return steps, {f"m/{name}": leaf for name, leaf in after.items()}


def normalised(lr: Values, momentum: Values = 0.0, order: Order = "before") -> Rule:
    """Return normalised descent: −lr·m/|m| over all leaves of a replica; nothing moves where m is 0.

    order: whether the average is taken "before" the norm or "after" it.
    """
    return _Normalised(**broadcast(lr=lr, momentum=momentum), order=_known(order))


@dataclass(frozen=True, eq=False)
class _Linear(Rule):
    hyper: Hyper

    @property
    def buffer(self) -> str:
        """The velocity."""
        return "v"

    def init(self, params: Leaves) -> Leaves:
        """Return empty buffers."""
        return _empty(params, "v")

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return −direct·g − carry·v."""
        later, first = self.hyper.coefficients(), self.hyper.coefficients(starting=True)
        inflow = torch.where(age == 1, first.inflow, later.inflow)
        steps, after = {}, {}
        for name, x in params.items():
            g = gradient[name] * over(self.hyper.sign, x) + over(self.hyper.weight_decay, x) * x
            v = over(later.momentum, x) * state[f"v/{name}"] + over(inflow, x) * g
            steps[name] = -over(later.direct, x) * g - over(later.carry, x) * v
            after[f"v/{name}"] = v
        return steps, after

    def memory(self) -> int:
        """Return 3/(1 − momentum)."""
        return round(3 / max(1e-3, 1 - float(self.hyper.momentum.max())))


def as_rule(rule: Hyper | Rule) -> Rule:
    """Return a linear rule as one among the others, the same but for rounding; other rules stay themselves."""
    return _Linear(rule.lr, rule) if isinstance(rule, Hyper) else rule


@dataclass(frozen=True, eq=False)
class _Wrapped(Rule):
    """A rule round another one."""

    rule: Rule

    @property
    def reads(self) -> Reads:
        """What the rule inside reads."""
        return self.rule.reads

    @property
    def buffer(self) -> str:
        """That of the rule inside."""
        return self.rule.buffer

    def init(self, params: Leaves) -> Leaves:
        """Return the state of the rule inside."""
        return self.rule.init(params)


@dataclass(frozen=True, eq=False)
class _Decayed(_Wrapped):
    decay: Tensor

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return the step inside less lr·decay·x."""
        steps, after = self.rule.update(gradient, state, params, age)
        rate = self.lr * self.decay
        return {name: torch.addcmul(step, params[name], over(-rate, step)) for name, step in steps.items()}, after


def decayed(rule: Hyper | Rule, decoupled: Values) -> Rule:
    """Return a rule beside whose step the parameters shrink by lr·decoupled·x.

    decoupled: what multiplies lr·x beside the step.
    """
    inner = as_rule(rule)
    return _Decayed(inner.lr, inner, _like(inner, "decoupled", decoupled))


@dataclass(frozen=True, eq=False)
class _Coupled(_Wrapped):
    weight_decay: Tensor

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return the step inside at the gradient g + weight_decay·x."""
        added = {name: torch.addcmul(g, params[name], over(self.weight_decay, g)) for name, g in gradient.items()}
        return self.rule.update(added, state, params, age)


def coupled(rule: Hyper | Rule, weight_decay: Values) -> Rule:
    """Return a rule whose gradient is g + weight_decay·x, as torch's `weight_decay` is outside AdamW and Muon."""
    inner = as_rule(rule)
    return _Coupled(inner.lr, inner, _like(inner, "weight_decay", weight_decay))


@dataclass(frozen=True, eq=False)
class _Clipped(_Wrapped):
    norm: Tensor

    @property
    def reads(self) -> Reads:
        """All leaves: the norm is the replica's."""
        return "replica"

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return the step inside at the gradient shortened to `norm`."""
        share = (self.norm / (_norm(gradient).double() + 1e-6)).clamp(max=1.0)  # torch's own guard against 0
        return self.rule.update({name: g * over(share, g) for name, g in gradient.items()}, state, params, age)


def clipped(rule: Hyper | Rule, norm: Values) -> Rule:
    """Return a rule whose gradient is shortened to at most `norm`, over all leaves of one replica.

    norm: the largest length of a gradient, one for all or (R,).
    """
    inner = as_rule(rule)
    return _Clipped(inner.lr, inner, _like(inner, "norm", norm))


@dataclass(frozen=True, eq=False)
class _ByLeaf(_Wrapped):
    otherwise: Rule
    where: Where

    @property
    def reads(self) -> Reads:
        """The wider of the two."""
        return widest(self.rule.reads, self.otherwise.reads)

    @property
    def buffer(self) -> str:
        """The slot that both take for the velocity, if it is the same."""
        return self.rule.buffer if self.rule.buffer == self.otherwise.buffer else ""

    def init(self, params: Leaves) -> Leaves:
        """Return the state of both rules, each for its leaves."""
        states = [rule.init(_of(params, names)) for rule, names in self._halves(params)]
        return {key: slot for state in states for key, slot in state.items()}

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Let each rule move its leaves."""
        steps: Leaves = {}
        after: Leaves = {}
        for rule, names in self._halves(params):
            own = {key: slot for key, slot in state.items() if key.partition("/")[2] in names}
            step, new = rule.update(_of(gradient, names), own, _of(params, names), age)
            steps, after = steps | step, after | new
        return {name: steps[name] for name in params}, after

    def _halves(self, params: Leaves) -> list[tuple[Rule, list[str]]]:
        chosen = [name for name, leaf in params.items() if self.where(name, leaf.shape[1:])]
        others = [name for name in params if name not in chosen]
        return [(rule, names) for rule, names in ((self.rule, chosen), (self.otherwise, others)) if names]


def by_leaf(rule: Hyper | Rule, *, otherwise: Hyper | Rule, where: Where) -> Rule:
    """Return a rule for the leaves where where(name, shape in the module) is true, and another for the others.

    rule: for the leaves where `where` is true; otherwise: the rule for the others; where: a function of a leaf's name
    and its shape in the module.
    """
    first, second = as_rule(rule), as_rule(otherwise)
    if first.replicas != second.replicas:
        counts = f"{first.replicas} and {second.replicas}"
        raise ValueError(f"the two rules have {counts} replicas; repeat the shorter, for each replica needs both")
    return _ByLeaf(first.lr, first, second, where)


def _known(order: Order) -> Order:
    if order not in ("before", "after"):
        raise ValueError(f'order must be "before" or "after", got {order!r}')
    return order


def _empty(params: Leaves, *slots: str) -> Leaves:
    """Return slots of zeros, each like the parameters."""
    return {f"{slot}/{name}": torch.zeros_like(leaf) for slot in slots for name, leaf in params.items()}


def _of(leaves: Leaves, names: list[str]) -> Leaves:
    return {name: leaves[name] for name in names}


def _norm(named: Leaves) -> Tensor:
    """Return the norm over all leaves, (R,)."""
    squares = [leaf.flatten(1).square().sum(1) if leaf.ndim > 1 else leaf.square() for leaf in named.values()]
    return torch.stack(squares).sum(0).sqrt()


def _unit(named: Leaves) -> Leaves:
    norm = _norm(named)
    inverse = torch.where(norm > 0, 1 / norm.clamp_min(torch.finfo(norm.dtype).tiny), torch.zeros_like(norm))
    return {name: leaf * over(inverse, leaf) for name, leaf in named.items()}


def _like(rule: Rule, name: str, values: Values) -> Tensor:
    """Return a number per replica of a rule, at least 0."""
    found = broadcast(**{name: values})[name]
    found = found.expand(rule.replicas).clone() if len(found) == 1 else found
    if len(found) != rule.replicas or bool((found < 0).any()):
        raise ValueError(f"{name} must be one number ≥ 0, or one for each of {rule.replicas} replicas, got {values!r}")
    return found


def _nothing(values: Values) -> bool:
    return not bool(torch.as_tensor(values).any())
