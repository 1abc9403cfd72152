"""How fast a random linear recursion grows: its single runs, and its mean square, which no sample mean can show.

s_{t+1} = A_t s_t with A_t drawn afresh at every step and for every replica. E|s|² is soon carried by runs too rare
to be among the sampled ones. So runs are copied in proportion to their squared growth: the population then follows
the law weighted by |s|², and the mean of |s_{t+1}|²/|s_t|² over it is the growth of E|s|² at any horizon.

    step = Descent(objective, hyper, streams)            # heavy ball on a gradient that is linear in the parameters
    found = resampled_growth(step, step.state(start), steps=300, streams=streams, arms=arms)
    found[a].mean_square, found[a].lyapunov              # two Estimates for every arm
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine.arms import Arms, in_parts
from descent.engine.rules import Hyper
from descent.engine.streams import Purpose, Streams
from descent.engine.train import Objective
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean

__all__ = [
    "Descent", "Growth", "Step", "crossing", "growth_of_runs", "onset", "resampled_growth", "resampled_mean",
]  # fmt: skip

Step = Callable[[Tensor, int], Tensor]
"""(states, t) → states one step later, (R, …) → (R, …): linear in the state of each replica."""


@dataclass(frozen=True, eq=False)
class Growth:
    """Growth per step of one arm.

    series: (T,) ½ log of the factor by which E|s|² grows at every step, the first ones included; blocks: (B,) its means
    over blocks of time; logs: (N,) time means of log(|s_{t+1}|/|s_t|) of the single runs.
    """

    series: Array
    blocks: Array
    logs: Array

    @property
    def mean_square(self) -> Estimate:
        """½ log of the factor by which E|s|² grows, with the interval of the blocks."""
        return mean(self.blocks)

    @property
    def lyapunov(self) -> Estimate:
        """E log(|s_{t+1}|/|s_t|), with the interval of the single runs."""
        return mean(self.logs)


@dataclass(frozen=True, eq=False)
class Descent:
    """A linear rule on an objective with a linear gradient, as a step of the state (x, carried velocity), (R, 2, d).

    Without momentum the state is x alone, (R, 1, d). Any constructor of `rules` will do, weight decay and ascent
    included; `begin` is the step that finds the buffer empty, −1 where the states were handed a velocity.
    """

    objective: Objective[Tensor]
    hyper: Hyper
    streams: Streams
    begin: int = 0

    def state(self, start: Tensor) -> Tensor:
        """Return the state at rest in `start`, (R, d)."""
        if not bool((self.hyper.momentum != 0).any()):
            return start[:, None]
        return torch.stack([start, torch.zeros_like(start)], dim=1)

    def __call__(self, state: Tensor, step: int) -> Tensor:
        """Return x − direct·g − u and u = momentum·u + carry·inflow·g, g with sign and decay as the rule feels it."""
        x = state[:, 0]
        sign, decay = (part.to(x)[:, None] for part in (self.hyper.sign, self.hyper.weight_decay))
        slope = sign * self.objective.gradient(x, self.streams, step) + decay * x
        numbers = self.hyper.coefficients(starting=step == self.begin)
        momentum, inflow, direct, carry = (c.to(x)[:, None] for c in numbers)
        if state.shape[1] == 1:
            return (x - (direct + carry * inflow) * slope)[:, None]
        carried = momentum * state[:, 1] + carry * inflow * slope
        return torch.stack([x - direct * slope - carried, carried], dim=1)


def resampled_growth(
    step: Step, start: Tensor, steps: int, streams: Streams, *, arms: int = 1, burn: int = 50, blocks: int = 25
) -> list[Growth]:
    """Return the growth per step of every arm, mean-square and of single runs, on the same random numbers.

    start: states (R, …), arm-major with R/arms replicas each, renormalised here and after every step. `burn` steps are
    not counted, `blocks` equal blocks of the rest give mean and interval of the mean square. It is too low by a quarter
    of the relative variance of one step's squared growth over the number of replicas of an arm. step: from states and a
    step's number to the next states; blocks: how many these are.
    """
    _check(start, steps, streams, arms, burn, blocks)
    dice = streams.subset(slice(None, None, len(start) // arms))
    free = weighted = start / _norm(start)
    logs = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    factors = torch.empty(steps, arms, dtype=torch.float64, device=start.device)
    for t in range(steps):
        free = step(free, t)
        grown = _norm(free)
        free = free / grown.clamp_min(torch.finfo(free.dtype).tiny)
        if t >= burn:
            logs += grown.flatten().log()
        weighted = step(weighted, t)
        grown = _norm(weighted)
        squares = grown.flatten().double().square().view(arms, -1)
        factors[t] = squares.mean(1)
        kept = _copies(squares, dice.uniform(Purpose.PROBE, t))
        weighted = weighted[kept] / grown[kept]
    return _summary(factors.cpu().numpy(), (logs / (steps - burn)).view(arms, -1).cpu().numpy(), burn, blocks)


def growth_of_runs(
    objective: Objective[Tensor], rule: Hyper, start: Tensor, steps: int, streams: Streams, *,
    burn: int = 0, held: int = 20,
) -> Array:  # fmt: skip
    """Return log growth per step of single runs, (N, A), every arm of the rule on the same random numbers.

    start: (1, d). The state is scaled back to unit length after every step, so that nothing over- or underflows. `burn`
    steps come before those counted. held: numbers that a run holds, about: as many run at a time as fit into memory.
    """

    def watched(rows: slice) -> Tensor:
        arms = Arms.paired(rule, streams.subset(rows))
        step = Descent(objective, arms.hyper, arms.streams)
        state = step.state(arms.stack(start))
        total = torch.zeros_like(state[:, 0, 0])
        for t in range(burn + steps):
            state = step(state, t)
            size = state.flatten(1).norm(dim=1)
            state = state / size[:, None, None]
            if t >= burn:
                total += size.log()
        return total.div(steps).view(len(arms), -1).T

    grown = in_parts(watched, streams.replicas, start.element_size() * rule.replicas * held)
    return np.asfortranarray(grown.cpu())  # arm by arm: sums go that way


def crossing(steps: Array, growth: Array) -> Array:
    """Return the learning rate at which growth (B, 3) vanishes, by inverse interpolation through its values, (B,).

    steps: three learning rates, (3,). growth: at the three rates.
    """
    others = [(i, [j for j in range(3) if j != i]) for i in range(3)]
    shares = [np.prod([growth[:, j] / (growth[:, j] - growth[:, i]) for j in rest], axis=0) for i, rest in others]
    return np.asarray(np.stack(shares, axis=1) @ steps)


def onset(steps: Array, growth: Array) -> Array:
    """Return the learning rate at which growth (…, S) first turns positive; steps (S,), rising.

    Between neighbouring steps growth is taken as a straight line, which goes on beyond the last two.

    steps: learning rates, rising; growth: at each of them.
    """
    grows = growth[..., 1:] >= 0
    right = 1 + np.where(grows.any(-1), grows.argmax(-1), len(steps) - 2)
    under, over = (np.take_along_axis(growth, i[..., None], -1)[..., 0] for i in (right - 1, right))
    return np.asarray(steps[right - 1] - under * (steps[right] - steps[right - 1]) / (over - under))


def resampled_mean(
    step: Step,
    start: Tensor,
    steps: int,
    streams: Streams,
    square: Callable[[Tensor], Tensor],
    *,
    arms: int = 1,
    since: int = -1,
) -> Array:
    """Return the mean over runs of squares of the state after some steps, up to a common factor per arm, (A, …).

    square: states (R, …) → (R, …), quadratic in the state, so that the law weighted by |s|² gives E square(s)/E|s|² as
    a plain mean over the population. The start is renormalised: a factor on all of it changes nothing. since: a step
    from which on that is averaged, for a law that no longer moves; −1, the last alone. step: from states and a step's
    number to the next states.
    """
    dice = streams.subset(slice(None, None, len(start) // arms))
    state, found = start / _norm(start), []
    for t in range(steps):
        state = step(state, t)
        grown = _norm(state)
        squares = grown.flatten().double().square().view(arms, -1)
        kept = _copies(squares, dice.uniform(Purpose.PROBE, t))
        state = state[kept] / grown[kept]
        if t + 1 >= (since if since >= 0 else steps):
            values = square(state).double()
            found.append(values.view(arms, -1, *values.shape[1:]).mean(1))
    return np.asarray(torch.stack(found).mean(0).cpu().numpy())


def _copies(weights: Tensor, place: Tensor) -> Tensor:
    """Return the rows kept, ∝ weights (A, N) within each arm: systematic resampling, one uniform `place` (A,) each."""
    arms, count = weights.shape
    edges = weights.cumsum(1)
    marks = (torch.arange(count, device=weights.device) + place[:, None].double()) / count
    chosen = torch.searchsorted(edges / edges[:, -1:], marks)
    return (chosen + count * torch.arange(arms, device=weights.device)[:, None]).flatten()


def _norm(states: Tensor) -> Tensor:
    """Return |s| of every replica, shaped to divide the states."""
    norms: Tensor = torch.linalg.vector_norm(states.flatten(1), dim=1)
    return norms.view(-1, *[1] * (states.ndim - 1))


def _summary(factors: Array, logs: Array, burn: int, blocks: int) -> list[Growth]:
    """Turn factors of E|s|² (T, A) and mean logarithms of single runs (A, N) into estimates."""
    stuck = int(np.count_nonzero(~np.isfinite(logs)))
    if stuck:
        raise ValueError(
            f"{stuck} of {logs.size} runs hit exactly zero or overflowed: growth has no logarithm there; "
            "move lr off the inverse of an example's curvature, or start from finite states"
        )
    series = np.log(factors) / 2
    length = (len(series) - burn) // blocks
    kept = series[len(series) - blocks * length :].reshape(blocks, length, -1).mean(1)
    return [Growth(series[:, a], kept[:, a], logs[a]) for a in range(len(logs))]


def _check(start: Tensor, steps: int, streams: Streams, arms: int, burn: int, blocks: int) -> None:
    if len(start) != streams.replicas or len(start) % arms:
        raise ValueError(
            f"{len(start)} states for streams of {streams.replicas} replicas in {arms} arms: states and "
            "streams must agree, and the arms must share them equally"
        )
    if blocks < 2 or steps - burn < blocks:
        raise ValueError(
            f"{steps} steps less {burn} of burn-in leave too few for {blocks} blocks; "
            "give more steps, or at least 2 blocks"
        )
