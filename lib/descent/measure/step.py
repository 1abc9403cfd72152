"""The step a rule takes at given parameters: the numbers that replace "the learning rate" for rules of any kind.

Parameters stay where they are, gradients are drawn as in training, the state is warmed up. Δ is one update and
u = ∇L/|∇L|. Draws are replayed in rings, one warm-up round before what is counted, so that for linear rules the sums
over a ring are exact: response is lr/(1 − momentum), temperature is half of that times the noise, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from descent.engine.normalised import as_rule
from descent.engine.probes import Leaves, Params
from descent.engine.rule import AnyRule, Rule, over, parts_of, repeat, select
from descent.engine.rules import Factors, Hyper, Schedule
from descent.engine.stack import Chunked, joined, leaves
from descent.engine.streams import Purpose, Streams
from descent.engine.train import Noisy
from descent.measure import noise
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean

__all__ = ["Reaching", "StepReport", "Symmetrised", "full_gradient", "matched", "step_of"]

By = Literal["reach", "response", "rms"]
_FAR = 1 << 40  # steps of draws that training never comes to
_PUSH = 0.1  # of the noise, by which the gradient is pushed to see the response
_CHAINS = ("raw", "up", "down", "early", "late", "coin")


@dataclass(frozen=True, eq=False)
class StepReport:
    """What one update does on average, each (R,).

    reach: −⟨E Δ, ∇L⟩/|∇L|², how far it descends, as a learning rate. response: −∂⟨u, E Δ⟩/∂c when c·u is added to the
    gradient. rms: of the numbers of Δ. temperature: half the zero-frequency power of ⟨u, Δ⟩ over the response. noise:
    the same power of ⟨u, g⟩. bias: 1 − reach over the reach under symmetric noise. lag: in steps, of the mean update
    behind a slowly changing gradient. nan where something is undefined.
    """

    reach: Tensor
    response: Tensor
    rms: Tensor
    temperature: Tensor
    noise: Tensor
    bias: Tensor
    lag: Tensor

    def estimate(self, quantity: str) -> Estimate:
        """Return the mean over replicas of one quantity, those where it is undefined left out."""
        values = getattr(self, quantity)
        return mean(values[values.isfinite()].double().cpu().numpy())

    def __str__(self) -> str:
        """Return one line per quantity, mean over replicas with its interval."""
        rows = []
        for name in ("reach", "response", "rms", "temperature", "bias", "lag"):
            known = int(getattr(self, name).isfinite().sum())
            rows.append(
                f"{name:<13}{self.estimate(name) if known > 1 else 'undefined in all replicas but one at most'}"
            )
        return "\n".join(rows)


def step_of(
    rule: Hyper | Rule,
    objective: Any,
    params: Params,
    *,
    streams: Streams,
    rows: slice | None = None,
    steps: int = 100,
    rings: int = 4,
    burn: int | None = None,
    full: Callable[[Params], Params] | None = None,
) -> StepReport:
    """Return the step of a rule at parameters (R, …), or at those of `rows`; the rule has R replicas, or one for all.

    steps, rings: of gradients that are counted, in rounds that are replayed; burn: updates before (default: until the
    state has forgotten its start). full: the gradient of the loss itself, where the objective does not know it.
    It draws rings·(burn + steps) gradients, apart from those of training.
    """
    frozen = _Frozen.at(rule, objective, params, streams, rows, full)
    if rings < 2 or steps < 2:
        raise ValueError(f"a variance needs at least 2 rings of 2 steps, got {rings} of {steps}")
    burn = frozen.rule.memory() if burn is None else burn
    push = frozen.push()
    totals = [_ring(frozen, ring, steps, burn, push, _CHAINS) for ring in range(rings)]
    along = {name: torch.stack([total.along[name] for total in totals]) for name in _CHAINS}  # (rings, R)
    per_step = {name: sums.mean(0) / steps for name, sums in along.items()}
    response = (per_step["down"] - per_step["up"]) / (2 * push)
    reach, fair = -per_step["raw"] / frozen.size, -per_step["coin"] / frozen.size
    squares = torch.stack([total.squares for total in totals]).mean(0) / (steps * frozen.count)
    power = along["raw"].var(0) / steps
    noise = torch.stack([total.gradient for total in totals]).var(0) / steps
    slope = push / steps
    lag = (per_step["early"] - per_step["late"]) / (2 * slope * response)
    reach = torch.where(frozen.size > 0, reach, torch.full_like(reach, math.nan))
    return StepReport(reach, response, squares.sqrt(), power / (2 * response), noise, 1 - reach / fair, lag)


def matched(own: StepReport, to: StepReport, by: By = "reach") -> Tensor:
    """Return the factor on the learning rate at which a rule takes the step of another, (R,); nan where none does.

    A rule whose steps grow in proportion to its rate is meant, as all here do.

    own: the step of the rule whose rate is changed; to: the step that is to be taken; by: which quantity is made equal:
    reach, response or rms.
    """
    a, b = getattr(own, by), getattr(to, by)
    return torch.where((a > 0) & (b > 0), b / a, torch.full_like(a, math.nan))


def full_gradient(objective: Any, params: Params) -> Leaves:
    """Return the gradient of the loss itself: of a Supervised, a Noisy, or whatever has a method `full`.

    Raises: ValueError where it is unknown, or where images are augmented and there is none.
    """
    if isinstance(objective, Supervised):
        if objective.augment is not None:
            raise ValueError("augmented images have no full gradient; measure the objective with augment=None")
        return noise.full_gradient(replace(objective, precision="float32"), params)
    if isinstance(objective, Noisy) or callable(getattr(objective, "full", None)):
        return dict(leaves(objective.full(params)))
    raise ValueError(
        f"the full gradient of {type(objective).__name__} is not known; give it a method full(params) → like params"
    )


@dataclass(frozen=True, eq=False)
class Symmetrised:
    """An objective with the same noise made symmetric: ∇L ± (g − ∇L), one fair coin per step and replica.

    Even moments stay, odd ones are gone; one coin for all coordinates, so that covariances stay as well.
    """

    objective: Any

    def gradient(self, params: Params, streams: Streams, step: int) -> Params:
        """Return the symmetrised gradient."""
        return _Held(self.objective, full_gradient(self.objective, params)).gradient(params, streams, step)

    def full(self, params: Params) -> Params:
        """Return the full gradient, which is that of the objective."""
        return joined(full_gradient(self.objective, params))

    def chunks(self, replicas: int, budget: int) -> list[slice]:
        """Cut as the objective does, which works on all examples here."""
        if not isinstance(self.objective, Chunked):
            return [slice(0, replicas)]
        return list(self.objective.chunks(replicas, budget))

    def subset(self, rows: slice) -> Symmetrised:
        """Return the objective of the replicas `rows`."""
        return Symmetrised(self.objective.subset(rows) if isinstance(self.objective, Chunked) else self.objective)


@dataclass(frozen=True, eq=False)
class _Held:
    """An objective with symmetric noise at parameters that stay, where the full gradient is known."""

    objective: Any
    mean: Leaves

    def gradient(self, params: Params, streams: Streams, step: int) -> Params:
        """Return the symmetrised gradient."""
        g = leaves(self.objective.gradient(params, streams, step))
        coin = streams.signs(Purpose.NOISE, step + _FAR)  # apart from noise that the objective draws itself
        return joined({name: self.mean[name] + over(coin, g[name]) * (g[name] - self.mean[name]) for name in g})


@dataclass(frozen=True)
class Reaching:
    """A control: `rows` take the step that the rule `like` would take where they are, measured every `every` steps.

    What is recorded as "control" is the factor on the rate, (R,), 1 for the other rows and nan where no step matches,
    because one of the two is not positive: there the last factor is held. most: the largest factor. by: what is made
    equal, see `StepReport`; a rule that is no smooth function of the gradient has a noisy response.
    """

    rows: slice  # the replicas whose step is set
    like: Hyper | Rule  # the rule whose step is taken
    every: int = 50
    burn: int = 30
    steps: int = 100
    most: float = 40.0
    by: By = "reach"

    def bound(self, objective: Any, rule: AnyRule, streams: Streams, schedule: Schedule | None) -> _Reaching:
        """Return the control of one run."""
        own = [part for _, part in parts_of(select(rule, self.rows))]
        if len(own) != 1:
            raise ValueError(f"rows {self.rows.start} to {self.rows.stop} hold {len(own)} kinds of rules; match one")
        return _Reaching(self, objective, own[0], streams)


@dataclass(eq=False)
class _Reaching:
    """`Reaching` in a run: a probe that measures, and the schedule of what it measured."""

    control: Reaching
    objective: Any
    own: Hyper | Rule
    streams: Streams
    remembers: bool = True
    factors: Factors = field(default_factory=Factors)

    @property
    def every(self) -> int:
        """Steps between two looks."""
        return self.control.every

    def __call__(self, step: int, params: Params, velocity: Params) -> Tensor:
        """Measure both steps at these parameters."""
        control, streams = self.control, _apart(self.streams, step)
        frozen = _Frozen.at(self.own, self.objective, params, streams, control.rows, None)
        found = _sizes(control.by, frozen, (frozen.rule, frozen.made(control.like)), control.steps, control.burn)
        sound = (found[0] > 0) & (found[1] > 0)
        ratio = (found[1] / found[0].clamp_min(torch.finfo(found[0].dtype).tiny)).clamp(max=control.most)
        factors = torch.ones(self.streams.replicas, dtype=torch.float64, device=ratio.device)
        factors[control.rows] = torch.where(sound, ratio.double(), torch.full_like(ratio, math.nan).double())
        self.hold(factors)
        return factors

    def hold(self, measured: Tensor) -> None:
        """Go on with factors; where they are nan with those before."""
        before = self.factors.lr if isinstance(self.factors.lr, Tensor) else torch.ones_like(measured)
        self.factors = Factors(torch.where(measured.isnan(), before.to(measured), measured))

    def schedule(self, step: int) -> Factors:
        """Return the factors since the last look."""
        return self.factors


@dataclass(frozen=True, eq=False)
class _Frozen:
    """Parameters that stay, with what is needed to let a rule step at them."""

    rule: Rule
    objective: Any
    params: Leaves
    streams: Streams
    unit: Leaves
    size: Tensor  # |∇L|, (R,)
    mean: Leaves

    @staticmethod
    def at(
        rule: Hyper | Rule, objective: Any, params: Params, streams: Streams, rows: slice | None, full: Any
    ) -> _Frozen:
        x, draws = dict(leaves(params)), streams
        if rows is not None:
            x, draws = {name: leaf[rows] for name, leaf in x.items()}, streams.subset(rows)
            objective = objective.subset(rows) if isinstance(objective, Chunked) else objective
        form = joined(x)
        slope = dict(leaves(full(form))) if full else full_gradient(objective, form)
        size = _inner(slope, slope).sqrt()
        flat = math.sqrt(sum(leaf[0].numel() for leaf in x.values()))
        still = (size == 0).to(size)  # at a minimum all coordinates are looked at alike
        unit = {name: (leaf + over(still / flat, leaf)) / over(size + still, leaf) for name, leaf in slope.items()}
        held = _Held(objective.objective, slope) if isinstance(objective, Symmetrised) and full is None else objective
        return _Frozen(_one_each(rule, draws), held, x, _apart(draws, 0), unit, size, slope)

    def made(self, rule: Hyper | Rule) -> Rule:
        """Return another rule with as many replicas."""
        return _one_each(rule, self.streams)

    @property
    def count(self) -> int:
        """Numbers in one replica."""
        return sum(leaf[0].numel() for leaf in self.params.values())

    def gradient(self, index: int) -> Leaves:
        """Draw a gradient, the same for the same index."""
        return dict(leaves(self.objective.gradient(joined(self.params), self.streams, index)))

    def push(self) -> Tensor:
        """Return by how much the gradient is pushed, (R,): a tenth of its noise, over all coordinates."""
        parts = []
        for index in range(4):
            away = {name: leaf - self.mean[name] for name, leaf in self.gradient(_FAR + index).items()}
            parts.append(_inner(away, away))
        noise = torch.stack(parts).mean(0).sqrt()
        noise = torch.where(noise > 1e-9 * self.size, noise, self.size)
        return _PUSH * torch.where(noise > 0, noise, torch.ones_like(noise))


@dataclass(frozen=True)
class _Sums:
    """Sums over the counted steps of a ring: ⟨u, Δ⟩ of every chain, |Δ|² of the raw one, ⟨u, g⟩."""

    along: dict[str, Tensor]
    squares: Tensor
    gradient: Tensor


def _ring(frozen: _Frozen, ring: int, steps: int, burn: int, push: Tensor, chains: tuple[str, ...]) -> _Sums:
    """Let every chain step through one ring of gradients, after `burn` steps of the same."""
    states = {name: frozen.rule.init(frozen.params) for name in chains}
    along = {name: torch.zeros_like(frozen.size) for name in chains}
    squares, pulled = torch.zeros_like(frozen.size), torch.zeros_like(frozen.size)
    for t in range(-burn, steps):
        g = frozen.gradient(ring * steps + t % steps)
        age = torch.full_like(frozen.size, t + burn + 1, dtype=torch.float64)
        for name, seen in _seen(frozen, g, ring * steps + t % steps, push, t - (steps - 1) / 2, steps, chains):
            delta, states[name] = frozen.rule.update(seen, states[name], frozen.params, age)
            if t < 0:
                continue
            along[name] += _inner(frozen.unit, delta)
            if name == "raw":
                squares += _inner(delta, delta)
                pulled += _inner(frozen.unit, g)
    return _Sums(along, squares, pulled)


def _descents(frozen: _Frozen, rules: Sequence[Rule], steps: int, burn: int) -> list[Tensor]:
    """Return −Σ⟨u, Δ⟩ of several rules over the same ring of gradients."""
    states = [rule.init(frozen.params) for rule in rules]
    found = [torch.zeros_like(frozen.size) for _ in rules]
    for t in range(-burn, steps):
        g = frozen.gradient(t % steps)
        age = torch.full_like(frozen.size, t + burn + 1, dtype=torch.float64)
        for index, rule in enumerate(rules):
            delta, states[index] = rule.update(g, states[index], frozen.params, age)
            if t >= 0:
                found[index] -= _inner(frozen.unit, delta)
    return found


def _sizes(by: By, frozen: _Frozen, rules: Sequence[Rule], steps: int, burn: int) -> list[Tensor]:
    """Return what several rules have of a quantity over the same ring of gradients, but for a factor they share."""
    if by == "reach":
        return _descents(frozen, rules, steps, burn)
    chains, push = ("raw",) if by == "rms" else ("up", "down"), frozen.push()
    sums = [_ring(replace(frozen, rule=rule), 0, steps, burn, push, chains) for rule in rules]
    return [one.squares.sqrt() if by == "rms" else one.along["down"] - one.along["up"] for one in sums]


def _seen(
    frozen: _Frozen, g: Leaves, index: int, push: Tensor, place: float, steps: int, chains: tuple[str, ...]
) -> Iterator[tuple[str, Leaves]]:
    """Yield what every chain sees of a gradient: itself, pushed, pushed on a ramp through the middle, with a coin."""
    for name in chains:
        if name == "coin":
            coin = frozen.streams.signs(Purpose.NOISE, index + 5 * _FAR)  # apart from that of `Symmetrised`
            yield name, {k: frozen.mean[k] + over(coin, leaf) * (leaf - frozen.mean[k]) for k, leaf in g.items()}
            continue
        amount = {"raw": 0.0, "up": 1.0, "down": -1.0, "early": place / steps, "late": -place / steps}[name]
        pushed = {k: leaf + over(push * amount, leaf) * frozen.unit[k] for k, leaf in g.items()}
        yield name, pushed if amount else g


def _one_each(rule: Hyper | Rule, draws: Streams) -> Rule:
    """Return a rule with one replica for each of the streams."""
    count = draws.replicas
    made = rule if rule.replicas == count else repeat(rule, count) if rule.replicas == 1 else None
    if not isinstance(made, (Hyper, Rule)):
        raise ValueError(f"the rule has {rule.replicas} replicas and the parameters {count}; give one, or as many")
    return as_rule(made).to(draws.device)


def _apart(streams: Streams, step: int) -> Streams:
    """Return streams of their own for what is measured at a step, shared where those are."""
    words = streams.integers(Purpose.PROBE, step, 2**31 - 1, (2,))
    return Streams(words[:, 0] << 31 | words[:, 1], streams.dtype)


def _inner(a: Leaves, b: Leaves) -> Tensor:
    return torch.stack([(a[name] * b[name]).reshape(len(b[name]), -1).sum(1) for name in b]).sum(0)
