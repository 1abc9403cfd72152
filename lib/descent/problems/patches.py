"""Examples that share a feature but differ in margin, and a cubic one-layer convolutional net.

An example has one signal patch c·w*, c = yα (large margin) or yβ (small margin), and J noise patches orthogonal to
w*, drawn from N(0, σ²I). The net is f(X) = Σ_r Σ_patches ⟨w_r, patch⟩³ with m neurons, the loss the mean of
log(1 + e^(−yf)). In coordinates s_r = ⟨w_r, w*⟩ and V, the rest of the weights,

    f_i = c_i³ Σ_r s_r³ + Σ_r Σ_j a³,   a = ⟨V_r, X_i[j]⟩,
    −∂L/∂s_r = 3 s_r² mean(ℓ_i y_i c_i³),   −∂L/∂V_r = 3 mean(ℓ_i y_i Σ_j a² X_i[j]),   ℓ = 1/(1 + e^(yf)).

The force on s is never negative. f is odd, so that test sets need the label +1 only.

Arms share their data: rows of a stack are arm-major, and every arm of a seed meets the same noise patches in one
matrix product, the arms folded into the neuron axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from descent.engine.probes import Leaves, Params
from descent.engine.streams import Purpose, Streams

__all__ = ["Logits", "PatchData", "Patches", "patch_data", "random_start"]


@dataclass(frozen=True, eq=False)
class PatchData:
    """Data sets of S seeds: signal (S, N), the coefficient times its label; noise (S, N, J, D), labels (S, N) ±1.

    small (N,): which examples have the small margin.
    """

    signal: Tensor  # the feature of every example, times its label
    noise: Tensor  # the noise patches
    labels: Tensor  # ±1
    small: Tensor


class Logits(NamedTuple):
    """The parts of the margins y·f, (rows, N)."""

    signal: Tensor  # from the feature
    noise: Tensor  # from the noise patches

    @property
    def total(self) -> Tensor:
        """The margins."""
        return self.signal + self.noise


@dataclass(frozen=True, eq=False)
class Patches:
    """The objective of `arms` arms on S data sets; params "s" (A·S, m) and "v" (A·S, m, D), arm-major.

    batch_sizes: per arm, drawn without replacement and afresh at every step, None for all examples. power: the
    exponent of the activation, 3 for the paper's net, 1 for a linear one. isotropic: standard deviation of Gaussian
    noise added to every coordinate of the gradient, per arm.
    """

    data: PatchData
    arms: int = 1
    batch_sizes: Sequence[int | None] | None = None
    power: int = 3
    isotropic: Sequence[float] | None = field(default=None, kw_only=True)

    def gradient(self, params: Params, streams: Streams, step: int) -> Leaves:
        """Return the gradient of every row's mean batch loss."""
        weight = self._weights(streams, step)
        found = self.gradient_of(params, weight)
        if self.isotropic is None:
            return found
        size = torch.tensor(self.isotropic, dtype=torch.float32, device=found["s"].device)
        size = size.repeat_interleave(self.seeds).to(found["s"])
        shape = tuple(found["v"].shape[1:])
        drawn = streams.normal(Purpose.NOISE, step, (shape[0], shape[1] + 1)).to(found["s"])
        return {"s": found["s"] + size[:, None] * drawn[..., 0], "v": found["v"] + size[:, None, None] * drawn[..., 1:]}

    def gradient_of(self, params: Params, weight: Tensor | None = None) -> Leaves:
        """Return the gradient of the mean of weight · loss, weight (rows, N) or (N,), one by default."""
        s, v = _leaves(params)
        active = self._activity(v)
        pull = self._pull(self._logits(s, active).total, weight)
        by_signal = (pull * self._powers).mean(-1)
        slope = -self.power * s.pow(self.power - 1) * by_signal.unsqueeze(-1)
        return {"s": slope, "v": self._spread(active, pull)}

    def logits(self, params: Params) -> Logits:
        """Return the margins of all training examples, in two parts."""
        s, v = _leaves(params)
        return self._logits(s, self._activity(v))

    def value(self, params: Params) -> Tensor:
        """Return the training loss, (rows,)."""
        return softplus(-self.logits(params).total).mean(-1)

    def unfitted(self, params: Params) -> tuple[Tensor, Tensor]:
        """Return the mean of 1/(1 + e^(yf)) over the large and over the small margins, (rows,) each."""
        return self.halves(torch.sigmoid(-self.logits(params).total))

    def halves(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means over large and over small margins of values (rows, N)."""
        small = self.data.small
        return values[:, ~small].mean(-1), values[:, small].mean(-1)

    def fitted(self, level: float) -> Callable[[Params], Tensor]:
        """Return the condition that the mean of 1/(1 + e^(yf)) over large margins is below a level, (rows,) bool."""
        return lambda params: self.unfitted(params)[0] < level

    def rows(self, arm: int) -> slice:
        """Return the rows of an arm."""
        return slice(arm * self.seeds, (arm + 1) * self.seeds)

    def test_error(self, params: Params, margin: float, noise: Tensor) -> Tensor:
        """Return the share of examples of label +1 and that margin that are got wrong, (rows,).

        noise (S, T, J, D); what is not a number counts as wrong.
        """
        s, v = _leaves(params)
        signal = margin**self.power * s.pow(self.power).sum(-1)
        found = [self._outputs(v, noise, seed) for seed in range(self.seeds)]
        outputs = torch.stack(found, dim=1).flatten(0, 1) + signal.unsqueeze(-1)
        return (~(outputs > 0)).float().mean(-1)

    @property
    def seeds(self) -> int:
        """The number of data sets."""
        return len(self.data.signal)

    @cached_property
    def _powers(self) -> Tensor:
        """Return y_i c_i^power of every row, (A·S, N)."""
        values = self.data.labels * self.data.signal.pow(self.power)
        return values.repeat(self.arms, 1)

    @cached_property
    def _labels(self) -> Tensor:
        return self.data.labels.repeat(self.arms, 1)

    @cached_property
    def _flat(self) -> Tensor:
        """Return the noise patches, (S, N·J, D)."""
        return self.data.noise.flatten(1, 2)

    def _fold(self, v: Tensor) -> Tensor:
        """Return weights with the arms folded into the neuron axis, (S, A·m, D)."""
        return self._by_arm(v).transpose(0, 1).flatten(1, 2)

    def _unfold(self, folded: Tensor) -> Tensor:
        """Return (S, A·m, …) as rows (A·S, m, …)."""
        parts = folded.reshape(self.seeds, self.arms, -1, *folded.shape[2:])
        return parts.transpose(0, 1).flatten(0, 1)

    def _by_arm(self, rows: Tensor) -> Tensor:
        """Return (A·S, …) as (A, S, …)."""
        return rows.reshape(self.arms, self.seeds, *rows.shape[1:])

    def _activity(self, v: Tensor) -> Tensor:
        """Return a of every neuron and noise patch, (S, A·m, N, J)."""
        flat = torch.bmm(self._fold(v), self._flat.mT)
        return flat.reshape(*flat.shape[:2], *self.data.noise.shape[1:3])

    def _logits(self, s: Tensor, active: Tensor) -> Logits:
        outputs = self._unfold(active.pow(self.power).sum(-1)).sum(1)  # (A·S, N)
        noise = outputs * self._labels
        return Logits(self._powers * s.pow(self.power).sum(-1, keepdim=True), noise)

    def _pull(self, margins: Tensor, weight: Tensor | None) -> Tensor:
        pull = torch.sigmoid(-margins)
        return pull if weight is None else pull * weight

    def _spread(self, active: Tensor, pull: Tensor) -> Tensor:
        """Return −power · mean(pull y Σ_j a^(power−1) X), (A·S, m, D)."""
        share = self._by_arm(pull * self._labels / pull.shape[-1]).transpose(0, 1)
        weight = share.repeat_interleave(active.shape[1] // self.arms, dim=1)
        back = torch.bmm((active.pow(self.power - 1) * weight.unsqueeze(-1)).flatten(2), self._flat)
        return self._unfold(back).mul_(-self.power)

    def _weights(self, streams: Streams, step: int) -> Tensor | None:
        """Return N/B for the examples of each row's batch and 0 for the others, (A·S, N)."""
        if self.batch_sizes is None:
            return None
        n = self.data.signal.shape[1]
        order = streams.subset(slice(0, self.seeds)).permutation(Purpose.BATCH, step, n)
        rank = order.argsort(-1)
        sizes = [n if size is None else size for size in self.batch_sizes]
        return torch.cat([(rank < size).to(self.data.signal) * (n / size) for size in sizes])

    def _outputs(self, v: Tensor, noise: Tensor, seed: int) -> Tensor:
        """Return the noise part of the outputs on one seed's test patches, (A, T)."""
        active = self._by_arm(v)[:, seed] @ noise[seed].flatten(0, 1).mT  # (A, m, T·J)
        outputs: Tensor = active.pow(self.power).reshape(*active.shape[:2], *noise.shape[1:3]).sum((1, 3))
        return outputs


def patch_data(
    streams: Streams,
    *,
    examples: int = 100,
    small: int = 10,
    patches: int = 4,
    dimension: int = 100,
    large_margin: float = 1.5,
    small_margin: float = 0.15,
    noise: float = 1.0,
) -> PatchData:
    """Draw the paper's data: the first `small` examples have the small margin; noise patches have norm about `noise`.

    dimension d counts the feature, so that noise patches have d − 1 coordinates of deviation noise/√d.

    small: how many examples have the small margin.
    """
    labels = streams.signs(Purpose.LABEL, 0, (examples,)).to(streams.dtype)
    which = torch.arange(examples, device=streams.device) < small
    shape = (examples, patches, dimension - 1)
    drawn = streams.normal(Purpose.DATA, 0, shape) * (noise / dimension**0.5)
    margin = torch.where(which, small_margin, large_margin).to(labels)
    return PatchData(labels * margin, drawn, labels, which)


def random_start(streams: Streams, neurons: int, dimension: int, scale: float, arms: int = 1) -> Leaves:
    """Return weights N(0, scale²), the same draw for every arm: s (A·S, m), v (A·S, m, d − 1).

    neurons: how many, m; scale: standard deviation of a weight.
    """
    drawn = scale * streams.normal(Purpose.INIT, 0, (neurons, dimension))
    drawn = drawn.repeat(arms, 1, 1)
    return {"s": drawn[..., 0].contiguous(), "v": drawn[..., 1:].contiguous()}


def _leaves(params: Params) -> tuple[Tensor, Tensor]:
    if isinstance(params, Tensor):
        raise TypeError('a patch net has the leaves "s" and "v", got one tensor')
    return params["s"], params["v"]
