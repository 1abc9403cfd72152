"""Supervised learning as an objective: a model, a loss, data that stay put, how a batch is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from descent.engine.precision import PRECISIONS, Outcome, Precision, arithmetic, autocast, compiled, gradients
from descent.engine.probes import Leaves, Params
from descent.engine.split import Drawn, Split
from descent.engine.streams import Purpose, Streams
from descent.nets.augment import Augment
from descent.nets.dense import MLP, Loss, Model
from descent.nets.examples import Examples

__all__ = ["Sampling", "Supervised"]

Sampling = Literal["with_replacement", "without_replacement", "shuffled_epochs", "full"]
"""How the examples of a batch are drawn."""

_MOVES = ("down", "right", "mirrored")
_SAMPLINGS = ("with_replacement", "without_replacement", "shuffled_epochs", "full")


@dataclass(frozen=True, eq=False)
class Supervised(Split[Params]):
    """The mean loss over a batch of `batch_size` examples, drawn anew at every step for every replica.

    inputs (n, …), targets (n, …): one data set shared by all; with `rows` (D, n) replica r is trained on draw r mod D
    of them, and targets may be (D, n, …), see `Examples`. batch_size: one number, or (R,) numbers; keep
    replicas of equal batch size next to one another, each run of them is one program.
    sampling: "with_replacement" and "without_replacement" draw every batch afresh; "shuffled_epochs" walks
    through a new permutation every ⌊n/batch_size⌋ steps (a remainder waits for the next one); "full" takes
    everything, `batch_size` left out.
    augment: random crops and flips of inputs (n, C, H, W), in training only.
    precision: of the products, see `descent.engine.precision`; parameters, losses and means stay in their own type.
    compiled: compile forward and backward pass, on an accelerator into one graph per batch shape.
    """

    model: Model
    loss: Loss
    inputs: Tensor
    targets: Tensor
    batch_size: int | Sequence[int] | Tensor | None = None
    sampling: Sampling = "with_replacement"
    rows: Tensor | None = field(default=None, kw_only=True)  # which examples each draw has, (D, n)
    augment: Augment | None = field(default=None, kw_only=True)
    precision: Precision = field(default="float32", kw_only=True)
    compiled: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self.data.check()
        n = len(self.data)
        if self.sampling not in _SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(_SAMPLINGS)}, got {self.sampling!r}")
        if (self.batch_size is None) != (self.sampling == "full"):
            raise ValueError('give a batch_size, or sampling="full" without one')
        if not all(0 < size <= n for size in self._sizes):
            raise ValueError(f"batch sizes must be between 1 and the {n} examples, got {sorted(set(self._sizes))}")
        if self.augment is not None:
            self.augment.check(self.inputs)
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.precision == "bf16" and self.sampling == "full":
            raise ValueError(
                "bfloat16 does not give full gradients: below a loss of 0.1 rounding makes a sixth to a half of them, "
                'and the loss does not show it; use replace(objective, precision="float32"), or draw batches'
            )

    def gradient(self, params: Params, streams: Streams, step: int) -> Leaves:
        """Return the gradient of every replica's mean batch loss."""
        leaves = _named(params)
        out = {name: torch.empty_like(leaf) for name, leaf in leaves.items()}
        self.gradient_into(leaves, streams, step, out)
        return out

    def gradient_into(self, params: Params, streams: Streams, step: int, out: Leaves) -> None:
        """Write the gradient of every replica's mean batch loss into `out`."""
        leaves = _named(params)
        parts = self._runs(streams.replicas)
        if len(parts) > 1:
            for rows in parts:
                some, into = ({k: leaf[rows] for k, leaf in full.items()} for full in (leaves, out))
                self.subset(rows).gradient_into(some, streams.subset(rows), step, into)
            return
        self.gradient_at(leaves, self.draw(streams, step, leaves), out)

    def draw(self, streams: Streams, step: int, like: Params) -> Drawn:
        """Draw the places (R, B) of a batch, and how its images are moved; nothing of what everybody sees whole."""
        if self.sampling == "full" and self.augment is None:
            return {}
        drawn = {"places": self.indices(streams, step)}
        if self.augment is None:
            return drawn
        moves = self.augment.draw(streams, step, drawn["places"].shape[1])
        return drawn | dict(zip(_MOVES, moves, strict=True))

    def gradient_at(self, params: Params, drawn: Drawn, out: Params) -> None:
        """Write the gradient of every replica's mean loss over the batch drawn, all of one size, into `out`."""
        leaves = _named(params)
        self._write(leaves, *self.taken(len(next(iter(leaves.values()))), drawn), _named(out))

    def batch(self, streams: Streams, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (R, B, …) and targets (R, B, …) of one step; all replicas of one batch size."""
        return self.taken(streams.replicas, self.draw(streams, step, {}))

    def taken(self, replicas: int, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Return the inputs (R, B, …) and targets (R, B, …) of what was drawn."""
        if "places" not in drawn:
            return self.data.everything(replicas)
        places = drawn["places"]
        if self.augment is None:
            return self.data.take(places)
        index = self.data.at(places)
        moved = self.augment.moved(self.inputs, index, *(drawn[name] for name in _MOVES))
        return moved, self.data.targets_at(places, index)

    def indices(self, streams: Streams, step: int) -> Tensor:
        """Return which examples (R, B) make up the batch of one step, numbered within each replica's own set."""
        n, size = len(self.data), self._sizes[0] if self._sizes else len(self.data)
        if self.sampling == "full":
            return torch.arange(n, device=streams.device).expand(streams.replicas, n)
        if self.sampling == "with_replacement":
            return streams.integers(Purpose.BATCH, step, n, (size,))
        if self.sampling == "without_replacement":
            return streams.sample(Purpose.BATCH, step, n, size)
        epoch, place = divmod(step, n // size)
        return streams.permutation(Purpose.ORDER, epoch, n, slice(place * size, (place + 1) * size))

    def value(
        self, params: Params, inputs: Tensor | None = None, targets: Tensor | None = None, *, rows: Tensor | None = None
    ) -> Tensor:
        """Return the mean loss (R,) over each replica's examples, or over those given.

        rows: (D, m) others of the inputs, such as the test rows of every draw.
        """
        return self._mean(self.loss, params, self._given(inputs, targets, rows))

    def accuracy(
        self, params: Params, inputs: Tensor | None = None, targets: Tensor | None = None, *, rows: Tensor | None = None
    ) -> Tensor:
        """Return the share (R,) of examples whose largest output is the target class; whose, as in `value`."""
        data = self._given(inputs, targets, rows)
        return self._mean(lambda o, t: (o.argmax(-1) == t).to(o.dtype), params, data)

    def chunks(self, replicas: int, budget: int) -> list[slice]:
        """Cut the stack at every change of the batch size, and to at most `budget` bytes."""
        pieces = []
        for rows in self._runs(replicas):
            size = self._sizes[rows.start % len(self._sizes)] if self._sizes else len(self.data)
            pieces += [
                slice(rows.start + part.start, rows.start + part.stop)
                for part in self._cut(rows.stop - rows.start, size, budget)
            ]
        return pieces

    def subset(self, rows: slice) -> Supervised:
        """Return the objective of the replicas `rows`."""
        sizes, data = self._sizes if len(self._sizes) < 2 else self._sizes[rows], self.data.subset(rows)
        return replace(self, batch_size=sizes or None, targets=data.targets, rows=data.rows)

    @cached_property
    def data(self) -> Examples:
        """What every replica is trained on."""
        return Examples(self.inputs, self.targets, self.rows)

    @property
    def period(self) -> int:
        """After how many replicas the draws of the data come round again, see `Examples`."""
        return self.data.period

    @cached_property
    def _sizes(self) -> list[int]:
        """The batch sizes: none (full), one for all, or one per replica."""
        if self.batch_size is None:
            return []
        sizes = torch.as_tensor(self.batch_size).reshape(-1).tolist()
        return sizes[:1] if len(set(sizes)) == 1 else sizes

    def _runs(self, replicas: int) -> list[slice]:
        """Return the longest slices of equal batch size."""
        self.data.fits(replicas)
        if len(self._sizes) < 2:
            return [slice(0, replicas)]
        if len(self._sizes) != replicas:
            raise ValueError(f"batch_size has {len(self._sizes)} entries for {replicas} replicas; give one or all")
        changes = [i for i in range(1, replicas) if self._sizes[i] != self._sizes[i - 1]]
        return [slice(a, b) for a, b in pairwise([0, *changes, replicas])]

    def _cut(self, replicas: int, batch_size: int, budget: int) -> list[slice]:
        """Cut into slices of nearly equal length that fit the budget, on a CPU the model's working set."""
        if self.inputs.device.type == "cpu":
            budget = min(budget, getattr(self.model, "working_set", budget) * torch.get_num_threads())
        most = max(1, budget // self.model.footprint(self.inputs, batch_size))
        pieces = -(-replicas // most)
        edges = [replicas * i // pieces for i in range(pieces + 1)]
        return [slice(a, b) for a, b in pairwise(edges)]

    def _given(self, inputs: Tensor | None, targets: Tensor | None, rows: Tensor | None) -> Examples:
        """Return the examples to look at: those of training, as far as nothing else is given."""
        if rows is not None and targets is None and self.data.own:
            raise ValueError("these targets belong to the training rows alone; give the targets of the other rows, too")
        own = self.rows if inputs is None else None
        x, y = self.inputs if inputs is None else inputs, self.targets if targets is None else targets
        return Examples(x, y, own if rows is None else rows)

    def _mean(self, measure: Callable[[Tensor, Tensor], Tensor], params: Params, data: Examples) -> Tensor:
        """Return the mean (R,) of measure(outputs, targets) (R, B), in as many parts as memory asks for."""
        leaves, n, budget = _named(params), len(data), 256 << 20
        replicas = len(next(iter(leaves.values())))
        data.fits(replicas)
        couples = getattr(self.model, "couples", None)
        whole = couples is not None and couples(leaves)  # batch norm: on a part of the examples it is another function
        parts = 1 if whole else -(-self.model.footprint(data.inputs, n) // budget)
        means = []
        for some in (slice(int(part[0]), int(part[-1]) + 1) for part in torch.arange(n).tensor_split(parts)):
            values = []
            for rows in self._cut(replicas, some.stop - some.start, budget):
                part = {k: leaf[rows] for k, leaf in leaves.items()}
                inputs, targets = data.seen(rows, some)
                with arithmetic(self.precision, inputs.device):
                    outputs = _forward(self.model, self.precision, part, inputs)
                values.append(measure(outputs, targets).mean(dim=1))
            means.append(torch.cat(values) * ((some.stop - some.start) / n))
        return torch.stack(means).sum(dim=0)

    def _write(self, params: Leaves, inputs: Tensor, targets: Tensor, out: Leaves) -> None:
        """Write the gradient of Σ_replicas (mean loss): by hand where the model and the loss know how."""
        slope = getattr(self.loss, "slope", None)
        with arithmetic(self.precision, inputs.device):
            if isinstance(self.model, MLP) and slope is not None and self.precision != "bf16" and not self.compiled:
                weight = 1.0 / inputs.shape[1]
                with torch.inference_mode():
                    self.model.gradient_into(params, inputs, lambda o: slope(o, targets).mul_(weight), out)
                return
            given: tuple[Any, Any, Precision] = (self.model, self.loss, self.precision)
            if self.compiled:
                found = compiled(_outcome, *given)(params, inputs, targets)
            else:
                found = gradients(_outcome(*given), params, inputs, targets)
            for leaf, gradient in zip(out.values(), found, strict=True):
                leaf.copy_(gradient)


def _outcome(model: Model, loss: Loss, precision: Precision) -> Outcome:
    """Return Σ_replicas (mean loss over the batch) as a function of parameters, inputs and targets."""
    return _Total(model, loss, precision)


@dataclass(frozen=True)
class _Total:
    """That function, which knows in how many parts it is best differentiated."""

    model: Any
    loss: Loss
    precision: Precision

    def __call__(self, params: Leaves, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(_forward(self.model, self.precision, params, inputs), targets).mean(dim=1).sum()

    def parts(self, params: Leaves, inputs: Tensor) -> int:
        """Return in how many parts a batch is taken: on a CPU a residual net is up to a third slower out of cache.

        One, where a part of the batch is another function: a batch norm couples the examples.
        """
        if inputs.device.type != "cpu" or not hasattr(self.model, "couples") or self.model.couples(params):
            return 1
        kept = self.model.footprint(inputs[0], 2) - self.model.footprint(inputs[0], 1)  # by one example
        return int(-(-kept * inputs.shape[1] // (self.model.working_set * torch.get_num_threads())))


def _forward(model: Model, precision: Precision, params: Leaves, inputs: Tensor) -> Tensor:
    """Return the outputs; those of a network in bfloat16 as float32, in which losses and means are taken."""
    if precision != "bf16":
        return model.forward(params, inputs)
    with autocast(precision, inputs.device):
        return model.forward(params, inputs).float()


def _named(params: Params) -> Leaves:
    if isinstance(params, Tensor):
        raise ValueError("a model's parameters are a dictionary of tensors by name; start from model.initial(streams)")
    return params
