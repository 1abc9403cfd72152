"""Update rules and schedules. Every linear rule is one program with its own coefficients per replica.

    v ← momentum·v + gain·g,    x ← x − lr·(direct·g + carry·v)

with g the gradient (plus weight_decay·x, sign flipped to maximise). The constructors below fill in the
coefficients; `stack` and `repeat` lay rules side by side, so that a grid of rules, rates and momenta advances
as one stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

__all__ = [
    "Coefficients",
    "Factors",
    "Hyper",
    "Options",
    "Schedule",
    "absolute",
    "anneal_momentum",
    "constant",
    "cosine",
    "cyclic",
    "dampened",
    "drop",
    "ema",
    "heavy_ball",
    "nesterov",
    "per_arm",
    "product",
    "qhm",
    "repeat",
    "sgd",
    "stack",
]

Values = float | Sequence[float] | Tensor
First = Literal["zero", "gradient"]
Buffer = Literal["gradient", "displacement"]


class Coefficients(NamedTuple):
    """One step as v ← momentum·v + inflow·g, x ← x − direct·g − carry·v; each entry (R,)."""

    momentum: Tensor
    inflow: Tensor
    direct: Tensor  # weight with which a gradient moves x at once
    carry: Tensor  # weight with which the buffer moves x


@dataclass(frozen=True, eq=False)
class Factors:
    """What a schedule multiplies the base values with, scalars or (R,)."""

    lr: float | Tensor = 1.0
    momentum: float | Tensor = 1.0


Schedule = Callable[[int], Factors]
"""What the hyper-parameters are multiplied by, at each step."""


@dataclass(frozen=True, eq=False)
class Hyper:
    """Hyper-parameters of a stack, each (R,); made by the constructors of this module."""

    lr: Tensor
    momentum: Tensor
    gain: Tensor  # weight of the new gradient in the buffer; where the momentum is 0 it is 1
    direct: Tensor  # weight of the new gradient in the step, past the buffer
    carry: Tensor  # weight of the buffer in the step
    weight_decay: Tensor
    sign: Tensor  # +1 minimises, −1 maximises
    averaging: Tensor  # bool: gain is 1 − momentum, also when a schedule moves the momentum
    lookahead: Tensor  # bool: carry is the momentum, also when a schedule moves it
    first: Tensor  # bool: the first gradient enters the buffer with weight 1 (torch), not gain
    displacement: Tensor  # bool: lr multiplies what enters the buffer, not the buffer (differs when lr moves)

    @property
    def replicas(self) -> int:
        """Number of replicas R."""
        return len(self.lr)

    def subset(self, index: Tensor | slice) -> Hyper:
        """Return the hyper-parameters of the replicas `index`."""
        return Hyper(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: str | torch.device) -> Hyper:
        """Return the same hyper-parameters on `device`."""
        return Hyper(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def scaled(self, factors: Factors) -> Hyper:
        """Return the hyper-parameters under a schedule's factors; what follows the momentum moves with it."""
        lr, momentum = (v.to(self.lr) if isinstance(v, Tensor) else v for v in (factors.lr, factors.momentum))
        momentum = self.momentum * momentum
        return replace(
            self,
            lr=self.lr * lr,
            momentum=momentum,
            gain=torch.where(self.averaging, 1.0 - momentum, self.gain),
            carry=torch.where(self.lookahead, momentum, self.carry),
        )

    def coefficients(self, starting: bool = False) -> Coefficients:
        """Return the numbers of one step; `starting` marks the step that fills an empty buffer."""
        one = torch.ones_like(self.lr)
        whole = self.momentum == 0  # nothing is dampened where nothing is remembered, also when a schedule leads there
        gain = torch.where(whole | self.first if starting else whole, one, self.gain)
        inflow = gain * torch.where(self.displacement, self.lr, one)
        carry = self.carry * torch.where(self.displacement, one, self.lr)
        return Coefficients(self.momentum, inflow, self.lr * self.direct, carry)


class Options(TypedDict, total=False):
    """Keywords every constructor takes."""

    weight_decay: Values  # added to the gradient as weight_decay·x
    maximize: bool  # climb instead of descending
    first: First  # "zero": an empty buffer; "gradient": the first gradient enters with weight 1 (torch)
    buffer: Buffer  # "gradient": lr multiplies the buffer (torch); "displacement": lr is inside it


def sgd(lr: Values, **options: Unpack[Options]) -> Hyper:
    """Plain descent x ← x − lr·g."""
    return _hyper(lr, 0.0, **options)


def heavy_ball(lr: Values, momentum: Values, **options: Unpack[Options]) -> Hyper:
    """Heavy ball (Polyak): v ← momentum·v + g, x ← x − lr·v.

    With `buffer="displacement"` the step is −lr·g + momentum·(last step), the same as long as lr stays put.
    """
    return _hyper(lr, momentum, **options)


def dampened(lr: Values, momentum: Values, dampening: Values, **options: Unpack[Options]) -> Hyper:
    """Dampened momentum: v ← momentum·v + (1 − dampening)·g, x ← x − lr·v, as torch does it.

    The first gradient enters undampened, and dampening is ignored where the momentum is 0, also while a schedule holds
    it there. If it rises again the buffer holds the last gradient; torch goes on with the buffer it had put aside.
    """
    options.setdefault("first", "gradient")
    return _hyper(lr, momentum, gain=1.0 - _tensor(dampening), **options)


def ema(lr: Values, momentum: Values, **options: Unpack[Options]) -> Hyper:
    """Normalised heavy ball: v ← momentum·v + (1 − momentum)·g, x ← x − lr·v."""
    return _hyper(lr, momentum, averaging=True, **options)


def nesterov(lr: Values, momentum: Values, dampening: Values = 0.0, **options: Unpack[Options]) -> Hyper:
    """Nesterov's rule as torch does it: v ← momentum·v + (1 − dampening)·g, x ← x − lr·(g + momentum·v)."""
    options.setdefault("first", "gradient")
    return _hyper(lr, momentum, gain=1.0 - _tensor(dampening), direct=1.0, lookahead=True, **options)


def qhm(lr: Values, momentum: Values, nu: Values, **options: Unpack[Options]) -> Hyper:
    """Quasi-hyperbolic momentum: v ← momentum·v + (1 − momentum)·g, x ← x − lr·((1 − nu)·g + nu·v)."""
    return _hyper(lr, momentum, direct=1.0 - _tensor(nu), carry=nu, averaging=True, **options)


def stack(*hypers: Hyper) -> Hyper:
    """Lay rules side by side, the replicas of the first before those of the second.

    hypers: the rules.

    >>> stack(sgd(1.0), heavy_ball(0.1, [0.5, 0.9])).momentum.tolist()
    [0.0, 0.5, 0.9]
    """
    return Hyper(**{f.name: torch.cat([getattr(h, f.name) for h in hypers]) for f in fields(Hyper)})


def repeat(hyper: Hyper, n: int) -> Hyper:
    """Give every arm n replicas, arm-major: replica i of arm a is row a·n + i.

    >>> repeat(heavy_ball(0.1, [0.5, 0.9]), 2).momentum.tolist()
    [0.5, 0.5, 0.9, 0.9]
    """
    return Hyper(**{f.name: getattr(hyper, f.name).repeat_interleave(n) for f in fields(hyper)})


def _tensor(values: Values) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _hyper(
    lr: Values,
    momentum: Values,
    *,
    gain: Values = 1.0,
    direct: Values = 0.0,
    carry: Values = 1.0,
    weight_decay: Values = 0.0,
    averaging: bool = False,
    lookahead: bool = False,
    first: First = "zero",
    buffer: Buffer = "gradient",
    maximize: bool = False,
) -> Hyper:
    """Broadcast the numbers against each other, check them and fill in what follows the momentum."""
    if first not in ("zero", "gradient"):
        raise ValueError(f'first must be "zero" or "gradient", got {first!r}')
    if buffer not in ("gradient", "displacement"):
        raise ValueError(f'buffer must be "gradient" or "displacement", got {buffer!r}')
    names = ("lr", "momentum", "gain", "direct", "carry", "weight_decay")
    given = (lr, momentum, gain, direct, carry, weight_decay)
    raw = [torch.atleast_1d(_tensor(v)) for v in given]  # type: ignore[no-untyped-call]
    numbers = dict(zip(names, torch.broadcast_tensors(*raw), strict=True))  # type: ignore[no-untyped-call]
    for name, tensor in numbers.items():
        if tensor.ndim != 1 or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} must be a finite number or a sequence of them, got {tensor.tolist()}")
    if bool((numbers["lr"] < 0).any()):
        raise ValueError(f"lr must not be negative, got {numbers['lr'].tolist()}; to ascend, pass maximize=True")
    like = numbers["lr"]
    if averaging:
        numbers["gain"] = 1.0 - numbers["momentum"]
    if lookahead:
        numbers["carry"] = numbers["momentum"]
    flags = {"averaging": averaging, "lookahead": lookahead, "first": first == "gradient"}
    return Hyper(
        **numbers,
        sign=torch.full_like(like, -1.0 if maximize else 1.0),
        displacement=torch.full_like(like, buffer == "displacement", dtype=torch.bool),
        **{name: torch.full_like(like, on, dtype=torch.bool) for name, on in flags.items()},
    )


# Schedules: pure functions of the step. Piecewise constant ones return the same object until they move, which
# lets the engine keep its coefficients.


def constant(lr: float = 1.0, momentum: float = 1.0) -> Schedule:
    """Hold the base values times fixed factors."""
    factors = Factors(lr, momentum)
    return lambda step: factors


def drop(at: int | Sequence[int], lr: float = 0.1, momentum: float = 1.0) -> Schedule:
    """Multiply by `lr` and `momentum` once for every milestone in `at` that step has reached.

    at: the steps from which on it is dropped once more.

    >>> schedule = drop(at=[10, 20])
    >>> [round(schedule(step).lr, 3) for step in (0, 10, 20)]
    [1.0, 0.1, 0.01]
    """
    milestones = [at] if isinstance(at, int) else sorted(at)
    levels = [Factors(lr**k, momentum**k) for k in range(len(milestones) + 1)]
    return lambda step: levels[sum(step >= milestone for milestone in milestones)]


def anneal_momentum(at: int, factor: float = 0.0) -> Schedule:
    """Multiply the momentum by `factor` from step `at` on, leaving lr alone.

    at: the step of the drop; factor: what the momentum is multiplied by.
    """
    return drop(at, lr=1.0, momentum=factor)


def cosine(steps: int, floor: float = 0.0) -> Schedule:
    """Let lr fall from 1 to `floor` along half a cosine over `steps` steps, and stay there.

    floor: the factor at the end.

    >>> schedule = cosine(steps=10)
    >>> [round(schedule(step).lr, 3) for step in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    """

    def factors(step: int) -> Factors:
        phase = math.pi * min(step / steps, 1.0)
        return Factors(lr=floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(phase)))

    return factors


def cyclic(period: int, low: float = 0.0, high: float = 1.0) -> Schedule:
    """Let the lr factor rise from `low` to `high` and fall back in straight lines, every `period` steps.

    period: steps up and down again.
    """

    def factors(step: int) -> Factors:
        phase = (step % period) / period
        return Factors(lr=low + (high - low) * (1.0 - abs(2.0 * phase - 1.0)))

    return factors


def product(*schedules: Schedule) -> Schedule:
    """Multiply schedules."""

    def factors(step: int) -> Factors:
        parts = tuple(schedule(step) for schedule in schedules)
        return _multiplied(parts)

    return factors


def per_arm(*schedules: Schedule, replicas: int) -> Schedule:
    """Give each arm of an arm-major stack (`replicas` rows per arm) its own schedule."""
    return lambda step: _joined(tuple(schedule(step) for schedule in schedules), replicas)


def absolute(
    hyper: Hyper, lr: Callable[[int], Values] | None = None, momentum: Callable[[int], Values] | None = None
) -> Schedule:
    """Turn absolute values, scalar or (R,) functions of the step, into factors on the base values of `hyper`.

    Raises ValueError where a base value is zero: no factor leads away from it.
    """
    for name, function in (("lr", lr), ("momentum", momentum)):
        if function is not None and bool((getattr(hyper, name) == 0).any()):
            raise ValueError(f"{name} is 0 for some replicas and cannot be scheduled; give them a positive base {name}")

    def factor(function: Callable[[int], Values] | None, base: Tensor, step: int) -> float | Tensor:
        return 1.0 if function is None else torch.as_tensor(function(step), dtype=base.dtype) / base

    return lambda step: Factors(factor(lr, hyper.lr, step), factor(momentum, hyper.momentum, step))


@lru_cache(maxsize=8)
def _multiplied(parts: tuple[Factors, ...]) -> Factors:
    lr: float | Tensor = 1.0
    momentum: float | Tensor = 1.0
    for part in parts:
        lr, momentum = lr * part.lr, momentum * part.momentum
    return Factors(lr, momentum)


@lru_cache(maxsize=8)
def _joined(parts: tuple[Factors, ...], replicas: int) -> Factors:
    def rows(value: float | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64).expand(replicas)

    return Factors(torch.cat([rows(p.lr) for p in parts]), torch.cat([rows(p.momentum) for p in parts]))
