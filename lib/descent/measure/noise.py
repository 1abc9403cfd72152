"""Noise of the gradient and of the search direction, exactly, for any model and loss.

Gradient noise: the full gradient ∇f, the squared norm of every example's gradient, and their C² = tr Cov. For an
MLP the norms need no gradients, |∇f_i|² = Σ_layers |δ|²(1 + |a|²) with a what enters a layer and δ the slope at its
outputs ("ghost norms"). Any other model is asked for the gradients of m examples as of m replicas of one example.

Search-direction noise: with d the direction of a step x ← x − lr·d, ω = d − ∇f(x), where ∇f is taken at the very
point the step leaves from. Batches are pure functions of (seed, step), so a probe can look at the one to come:

    probe = SearchNoise(objective, partial(full_gradient, objective), hyper, streams, every=40)
    run = train(objective, start, hyper, steps, streams, probes={"omega": probe})
    run.records["omega.power"].values    # |ω|², (T, R)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple

import torch
from torch import Tensor, nn

from descent.engine.probes import P, Params, Series
from descent.engine.rules import Hyper, Schedule
from descent.engine.stack import Chunked, Leaves, Objective, joined, leaves, rows_of
from descent.engine.streams import Streams
from descent.engine.train import train
from descent.measure.operators import flatten
from descent.nets.dense import MLP, Model, Stacked
from descent.nets.supervised import Supervised
from descent.theory.linear import batch_share
from descent.theory.search_noise import Weights, weights

__all__ = [
    "Parts",
    "SearchNoise",
    "batch_noise",
    "example_gradients",
    "example_squares",
    "flat",
    "full_gradient",
    "gradient_noise",
    "smoothing_degree",
]

_BUDGET = 256 << 20  # bytes of working memory


def flat(params: Params) -> Tensor:
    """Return all leaves side by side, (R, p)."""
    return flatten(leaves(params))


def full_gradient(objective: Supervised, params: Params) -> Leaves:
    """Return the gradient of the mean loss over all examples, in parts that fit memory.

    Where one part is enough it is bit for bit the gradient of sampling="full".
    """
    total = {name: torch.zeros_like(leaf) for name, leaf in leaves(params).items()}
    for part in _parts(objective, leaves(params)):
        found = leaves(part.objective.gradient(part.params, part.streams, 0))
        for name, leaf in found.items():
            total[name][part.rows].add_(leaf, alpha=len(part.objective.data) / len(objective.data))
    return total


def example_squares(objective: Supervised, params: Params) -> Tensor:
    """Return the squared norm of the gradient of every example's loss, (R, n)."""
    named, slope = leaves(params), getattr(objective.loss, "slope", None)
    if not isinstance(objective.model, MLP) or slope is None:
        return _each(objective, named, lambda gradients, replica: gradients.square().sum(dim=1))
    squares = next(iter(named.values())).new_empty(_replicas(named), len(objective.data))
    for part in _parts(objective, named):
        inputs, targets = part.objective.batch(part.streams, 0)
        squares[part.rows, part.examples] = _ghost(objective.model, slope, part.params, inputs, targets)
    return squares


def example_gradients(objective: Supervised, params: Params, coordinates: Tensor | None = None) -> Tensor:
    """Return the gradient of every example's loss, (R, n, p), or `coordinates` (R, K) of it, (R, n, K).

    Coordinates count as in `flat`.

    coordinates: the numbers of the coordinates that are kept, None for all.
    """
    if coordinates is None:
        return _each(objective, leaves(params), lambda gradients, replica: gradients)
    return _each(objective, leaves(params), lambda gradients, replica: gradients[:, coordinates[replica]])


def gradient_noise(objective: Supervised, params: Params) -> Tensor:
    """Return C² = E|∇f_i − ∇f|² over the examples (divided by n), (R,)."""
    mean = flat(full_gradient(objective, params)).square().sum(dim=1)
    return (example_squares(objective, params).mean(dim=1) - mean).clamp_min(0.0)


def batch_noise(objective: Supervised, variance: Tensor) -> Tensor:
    """Return E|ξ|² of one batch as the objective draws it, from the examples' `variance` C² (R,).

    C²/B with replacement; times (n − B)/(n − 1) without, which also holds for one batch of a shuffled epoch.
    """
    if objective.batch_size is None:
        return torch.zeros_like(variance)
    population = None if objective.sampling == "with_replacement" else len(objective.data)
    share = batch_share(torch.as_tensor(objective.batch_size).cpu().numpy(), population)
    return variance * torch.as_tensor(share).to(variance)


def smoothing_degree(power: Series, lr: Tensor, since: int = 0) -> Tensor:
    """Return the measured degree of smoothing lr·√(mean |ω|²) over the recorded steps from `since` on, (R,).

    power: the record of |ω|²; since: the first step that counts.
    """
    values = power.values[power.steps.to(power.values.device) >= since]
    return lr.to(values) * values.mean(dim=0).sqrt()


@dataclass(frozen=True, eq=False)
class Parts:
    """ω = fresh + carried + lag and the full gradient at one point of every path, each flat, (R, p).

    fresh: the noise of this step's batch, with the weight it has in the direction; carried: that of earlier batches,
    still in the buffer; lag: the direction that full gradients along the same path would have made, minus ∇f here.
    """

    fresh: Tensor
    carried: Tensor
    lag: Tensor
    gradient: Tensor  # ∇f without noise

    @property
    def memory(self) -> Tensor:
        """The mean of ω given the past, carried + lag."""
        return self.carried + self.lag

    @property
    def omega(self) -> Tensor:
        """The whole, d − ∇f."""
        return self.fresh + self.memory

    def powers(self) -> dict[str, Tensor]:
        """Return |·|² of ω ("power"), of its parts and of the gradient, and ⟨ω, ∇f⟩ ("along"), each (R,)."""
        vectors = {"power": self.omega, "fresh": self.fresh, "carried": self.carried, "lag": self.lag}
        vectors |= {"memory": self.memory, "gradient": self.gradient}
        found = {name: vector.square().sum(dim=1) for name, vector in vectors.items()}
        return found | {"along": (self.omega * self.gradient).sum(dim=1)}


@dataclass(frozen=True, eq=False)
class SearchNoise(Generic[P]):
    """A probe of ω and of what it is made of, in whole steps of the very run it watches.

    Give it the objective, hyper, streams and schedule of the run; `full` is ∇f without noise, to which it adds weight
    decay; `begin` is the step that finds the buffer empty, −1 in a run that was handed its velocity.

    Every `every` steps it takes `window` steps ahead on a copy, the ones the run will take, and records the parts of
    ω where they end, under the step they began at. Noise older than the window counts as lag: its weight has fallen
    to momentum^window. Without a window nothing is carried, and lag is all of the memory. A schedule may reach
    rate 0; only a buffer of displacements has no finite ω there, since it moves on without a rate.
    """

    objective: Objective[P]
    full: Callable[[P], P]
    hyper: Hyper
    streams: Streams
    every: int
    window: int = 0  # steps that are taken ahead
    schedule: Schedule | None = None
    begin: int = 0

    def __call__(self, step: int, params: P, velocity: P) -> dict[str, Tensor]:
        """Return the powers of the parts, each (R,)."""
        return self.parts(step, params, velocity).powers()

    def parts(self, step: int, params: P, velocity: P) -> Parts:
        """Return the parts `window` steps after `step`."""
        held = torch.zeros_like(flat(params))
        for now in range(step, step + self.window):
            _, noise = self._split(now, params)
            weight = self._weights(now, held)
            held = weight.momentum * held + weight.inflow * noise
            buffer = None if now == self.begin else velocity  # None: the step that fills an empty one
            run = train(
                self.objective,
                params,
                self.hyper,
                now + 1,
                self.streams,
                schedule=self.schedule,
                velocity=buffer,
                begin=now,
            )
            params, velocity = run.params, run.velocity
        gradient, noise = self._split(step + self.window, params)
        weight = self._weights(step + self.window, held)
        carried = weight.carried * held
        lag = (weight.fresh - 1) * gradient + weight.carried * flat(velocity) - carried
        return Parts(weight.fresh * noise, carried, lag, gradient)

    def _split(self, step: int, params: P) -> tuple[Tensor, Tensor]:
        """Return ∇f and the noise of the batch of this step as the rule feels them, (R, p)."""
        x, full = flat(params), flat(self.full(params))
        noise = flat(_batch_gradient(self.objective, params, self.streams, step)) - full
        sign, decay = (part.to(x)[:, None] for part in (self.hyper.sign, self.hyper.weight_decay))
        return sign * full + decay * x, sign * noise

    def _weights(self, step: int, like: Tensor) -> Weights:
        """Return the coefficients of this step as columns (R, 1)."""
        hyper = self.hyper if self.schedule is None else self.hyper.scaled(self.schedule(step))
        return Weights(*(part.to(like)[:, None] for part in weights(hyper, starting=step == self.begin)))


def _batch_gradient(objective: Objective[P], params: P, streams: Streams, step: int) -> Params:
    """Ask for the gradient of one step, in the chunks the objective wants."""
    if not isinstance(objective, Chunked):
        return objective.gradient(params, streams, step)
    found = []
    for rows in objective.chunks(streams.replicas, _BUDGET):
        some = rows_of(params, rows)
        found.append(leaves(objective.subset(rows).gradient(some, streams.subset(rows), step)))
    return joined({name: torch.cat([part[name] for part in found]) for name in found[0]})


class _Part(NamedTuple):
    """Some replicas and some examples, few enough to fit memory; the objective is all of these examples."""

    rows: slice
    examples: slice
    objective: Supervised
    params: Leaves
    streams: Streams  # nothing is drawn from them


def _parts(objective: Supervised, params: Leaves) -> Iterator[_Part]:
    """Cut the replicas and the examples into parts."""
    _refuse_augmented(objective)
    n, couples = len(objective.data), getattr(objective.model, "couples", None)
    whole = couples is not None and couples(params)
    most = n if whole else max(1, n // -(-objective.model.footprint(objective.inputs, n) // _BUDGET))
    for start in range(0, n, most):
        examples = slice(start, min(start + most, n))
        data = objective.data.among(examples)
        whole_batch = replace(
            objective, inputs=data.inputs, targets=data.targets, rows=data.rows, batch_size=None, sampling="full"
        )
        for rows in whole_batch.chunks(_replicas(params), _BUDGET):
            some = {name: leaf[rows] for name, leaf in params.items()}
            nobody = torch.zeros(rows.stop - rows.start, dtype=torch.int64, device=objective.inputs.device)
            yield _Part(rows, examples, whole_batch.subset(rows), some, Streams(nobody))


def _replicas(params: Leaves) -> int:
    return len(next(iter(params.values())))


def _ghost(
    model: MLP, slope: Callable[[Tensor, Tensor], Tensor], params: Leaves, inputs: Tensor, targets: Tensor
) -> Tensor:
    """Return Σ_layers |δ|²(1 + |a|²) of every example, (R, m)."""
    squares = inputs.new_zeros(inputs.shape[:2])
    with torch.no_grad():
        for _, values, delta in model.backward(params, inputs, lambda outputs: slope(outputs, targets)):
            squares += delta.square().sum(dim=-1) * (values.square().sum(dim=-1) + model.bias)
    return squares


def _each(objective: Supervised, params: Leaves, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Return reduce(gradients (m, p), replica) over all examples, (R, n, …)."""
    _refuse_augmented(objective)
    _refuse_coupled(objective.model, params)
    most = max(1, _BUDGET // objective.model.footprint(objective.inputs, 1))
    objective.data.fits(_replicas(params))
    cuts = [slice(start, start + most) for start in range(0, len(objective.data), most)]
    found = []
    for replica in range(_replicas(params)):
        one = {name: leaf[replica] for name, leaf in params.items()}
        seen = (objective.data.seen(slice(replica, replica + 1), cut) for cut in cuts)
        found.append(torch.cat([reduce(_alone(objective, one, x[0], y[0]), replica) for x, y in seen]))
    return torch.stack(found)


def _alone(objective: Supervised, one: Leaves, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the gradients (m, p) of m examples, as those of m equal replicas that see one example each."""
    m = len(inputs)
    free = {name: leaf.detach().expand(m, *leaf.shape).requires_grad_() for name, leaf in one.items()}
    with torch.enable_grad():
        losses = objective.loss(objective.model.forward(free, inputs.unsqueeze(1)), targets.unsqueeze(1))
        found = torch.autograd.grad(losses.sum(), list(free.values()))
    return torch.cat([gradient.flatten(1) for gradient in found], dim=1)


def _refuse_augmented(objective: Supervised) -> None:
    if objective.augment is not None:
        raise ValueError("random crops and flips leave no exact gradient; measure on replace(objective, augment=None)")


def _refuse_coupled(model: Model, params: Leaves) -> None:
    couples = getattr(model, "couples", lambda leaves: False)(params)
    if isinstance(model, Stacked):
        couples = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.module.modules())
    if couples:
        raise ValueError(
            "batch norm ties the examples of a batch together, so no example has a gradient of its own; "
            "use group norm, or a convolutional model's settled statistics"
        )
