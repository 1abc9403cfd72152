"""Problems whose saddle or minimum is known exactly: a two-layer net near zero, and logistic regression.

Losses are mean cross-entropies in nats; noise is the covariance of one example's gradient, a batch drawn with
replacement divides it by its size. Stacks carry the replica axis first, the theory is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Leaves, Params
from descent.engine.split import Drawn
from descent.engine.stack import leaves
from descent.engine.streams import Purpose, Streams
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.theory.mode import growth

__all__ = ["FreshLabelNoise", "InitialSaddle", "Logistic", "Logistics", "Minimum"]

_LOSS = CrossEntropy()


@dataclass(frozen=True, eq=False)
class FreshLabelNoise(Supervised):
    """A supervised problem whose batch labels each give way to a random class with probability `share`.

    The draw is new at every step, so the noise of the gradient never dies; `value` stays the clean loss. A
    random class may be the true one: labels are wrong with probability share·(1 − 1/classes).
    """

    share: float = 0.2  # of the labels that give way
    classes: int = 10

    def draw(self, streams: Streams, step: int, like: Params) -> Drawn:
        """Draw a batch, and a uniform number (R, B) for each of its labels."""
        drawn = super().draw(streams, step, like)
        if self.share == 0:
            return drawn
        size = drawn["places"].shape[1] if "places" in drawn else len(self.data)
        return drawn | {"labels": streams.uniform(Purpose.LABEL, step, (size,))}

    def taken(self, replicas: int, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Return inputs (R, B, …) and noisy targets (R, B)."""
        inputs, targets = super().taken(replicas, drawn)
        if self.share == 0:
            return inputs, targets
        place = drawn["labels"] / self.share
        random = (place * self.classes).long().clamp_(max=self.classes - 1)
        return inputs, torch.where(place < 1, random, targets)


@dataclass(frozen=True)
class InitialSaddle:
    """The strict saddle of a net x → W₂ tanh(W₁x + b₁) + b₂ at W = 0, b₂ = log class frequencies.

    The net is linear there: W₁ (H, D) and W₂ (C, H) drive each other through the cross-moment
    E[x(y − ȳ)ᵀ] = Σ s_k u_k v_kᵀ (D, C), and W₁u_k + W₂ᵀv_k (H,) is an unstable mode of instability s_k.
    Inputs must be centred, or the output bias takes part. s scales with the inputs.
    """

    instability: Array  # (K,), falling
    left: Array  # (D, K), u_k in columns
    right: Array  # (C, K), v_k in columns
    bias: Array  # (C,) log class frequencies

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor, classes: int) -> InitialSaddle:
        """Find the saddle of inputs (N, D), labels (N,) with values below `classes`.

        Raises: ValueError for inputs that are not centred and for a class without examples.
        """
        x = inputs.detach().to("cpu", torch.float64)
        share = torch.bincount(labels.cpu(), minlength=classes).to(x.dtype) / len(labels)
        drift = float(x.mean(0).abs().max())
        if drift > 1e-4 * float(x.std()):
            raise ValueError(f"every input column must have mean 0, the largest is {drift:.3g}; subtract it")
        if bool((share == 0).any()):
            missing = (share == 0).nonzero().flatten().tolist()
            raise ValueError(f"classes {missing} have no examples, so their log frequency is infinite")
        target = torch.nn.functional.one_hot(labels.cpu(), classes).to(x.dtype) - share
        left, values, right = np.linalg.svd((x.T @ target / len(x)).numpy(), full_matrices=False)
        found = values > 1e-9 * values[0]  # the class directions sum to zero, so at most C − 1 modes
        return cls(values[found], left[:, found], right.T[:, found], share.log().numpy())

    def growth(self, lr: ArrayLike, momentum: ArrayLike, modes: int = 1) -> Array:
        """Return log z₊ per step of the leading modes, shape (…, modes)."""
        rates, momenta = (np.asarray(value, dtype=np.float64)[..., None] for value in (lr, momentum))
        return growth(self.instability[:modes], rates, momenta)

    def start(self, hidden: int, scale: float, streams: Streams) -> Leaves:
        """Draw normal weights of deviation `scale` around the saddle, for MLP((D, hidden, C), "tanh")."""
        first = streams.normal(Purpose.INIT, 0, (hidden, len(self.left))).mul_(scale)
        second = streams.normal(Purpose.INIT, 1, (len(self.right), hidden)).mul_(scale)
        output = torch.from_numpy(self.bias).to(first).repeat(len(first), 1)
        return {"0.weight": first, "0.bias": first.new_zeros(len(first), hidden), "2.weight": second, "2.bias": output}

    def amplitudes(self, params: Params, modes: int = 1) -> Tensor:
        """Return |W₁u_k + W₂ᵀv_k| of the leading modes, (R, modes)."""
        net = leaves(params)
        first, second = net["0.weight"], net["2.weight"]
        u, v = (torch.from_numpy(a[:, :modes].copy()).to(first) for a in (self.left, self.right))
        norms: Tensor = torch.linalg.vector_norm(first @ u + second.transpose(1, 2) @ v, dim=1)
        return norms


@dataclass(frozen=True)
class Minimum:
    """A minimum: params (D + 1, C), loss, `noise` = tr S of one example, curvatures (rising), all float64."""

    params: Tensor  # weights, the last row the bias
    loss: float
    noise: float  # tr S of one example's gradient
    curvatures: Array

    def excess_loss(self, lr: ArrayLike, momentum: ArrayLike, batch_size: int) -> Array:
        """Return the stationary E L − L* = lr tr S/(4(1 − momentum)) for small steps; no curvature in it."""
        effective = np.asarray(lr, dtype=np.float64) / (1 - np.asarray(momentum, dtype=np.float64))
        return np.asarray(effective * self.noise / batch_size / 4)


@dataclass(frozen=True, eq=False)
class Logistic:
    """Multinomial logistic regression, mean cross-entropy plus decay/2·|W|² on every weight, bias included.

    inputs (N, D), labels (N,); parameters W are (R, D + 1, C), the last row the bias. Batches are drawn with
    replacement.
    """

    inputs: Tensor
    labels: Tensor
    classes: int
    decay: float  # factor of ½|W|² in the loss
    batch_size: int

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return the batch gradient (R, D + 1, C)."""
        index = streams.integers(Purpose.BATCH, step, len(self.labels), (self.batch_size,))
        x = self._augmented[index]
        error = _LOSS.slope(x @ params, self.labels[index])
        return torch.baddbmm(params, x.transpose(1, 2), error, beta=self.decay, alpha=1 / self.batch_size)

    def loss(self, params: Tensor) -> Tensor:
        """Return the full loss (R,) float64 of params (R, D + 1, C)."""
        outputs = self._augmented.to(params.dtype) @ params
        data = _LOSS(outputs, self.labels.expand(outputs.shape[:2])).mean(1, dtype=torch.float64)
        return data + self.decay / 2 * params.square().sum((1, 2), dtype=torch.float64)

    @cached_property
    def minimum(self) -> Minimum:
        """The minimum by Newton's method, to a gradient below 1e-12."""
        x = self._augmented.to(torch.float64)
        y = torch.nn.functional.one_hot(self.labels, self.classes).to(x.dtype)
        w = x.new_zeros(x.shape[1], self.classes)
        for _ in range(50):
            p = torch.softmax(x @ w, dim=1)
            slope, hessian = x.T @ (p - y) / len(x) + self.decay * w, _softmax_hessian(x, p, self.decay)
            if float(slope.norm()) < 1e-12:
                break
            w = w - torch.linalg.solve(hessian, slope.flatten()).view_as(w)
        else:
            size = float(slope.norm())
            raise ValueError(f"Newton's method stopped at a gradient of {size:.2g}; use a larger decay")
        scatter = x.square().sum(1) * (p - y).square().sum(1)  # |x ⊗ (p − y)|²
        noise = float(scatter.mean() - (x.T @ (p - y) / len(x)).square().sum())
        curvatures = np.asarray(torch.linalg.eigvalsh(hessian).cpu())
        return Minimum(w, float(self.loss(w.unsqueeze(0))), noise, curvatures)

    @cached_property
    def _augmented(self) -> Tensor:
        return torch.cat([self.inputs, torch.ones_like(self.inputs[:, :1])], dim=1)


@dataclass(frozen=True, eq=False)
class Logistics:
    """Logistic regression on D draws of the data of equal size; row r of a stack is trained on draw r mod D."""

    of_draw: tuple[Logistic, ...]  # one problem per draw

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return the batch gradient (R, D + 1, C) of every row on its own draw."""
        one, n = self.of_draw[0], len(self.of_draw[0].labels)
        begins = torch.arange(len(self.of_draw), device=params.device).repeat(self._rounds(params)).unsqueeze(1) * n
        index = streams.integers(Purpose.BATCH, step, n, (one.batch_size,)) + begins
        x = self._inputs.flatten(0, 1)[index]
        error = _LOSS.slope(x @ params, self._labels.flatten()[index])
        return torch.baddbmm(params, x.transpose(1, 2), error, beta=one.decay, alpha=1 / one.batch_size)

    def loss(self, params: Tensor) -> Tensor:
        """Return the full loss (R,) float64 of every row on its own draw."""
        outputs = self._inputs.to(params.dtype) @ params.reshape(-1, len(self.of_draw), *params.shape[1:])
        labels = self._labels.expand(outputs.shape[:-1])
        data = _LOSS(outputs.flatten(0, 1), labels.flatten(0, 1)).mean(1, dtype=torch.float64)
        return data + self.of_draw[0].decay / 2 * params.square().sum((1, 2), dtype=torch.float64)

    def _rounds(self, params: Tensor) -> int:
        """Return how often the draws come round in a stack."""
        rounds, rest = divmod(len(params), len(self.of_draw))
        if rest:
            raise ValueError(f"{len(params)} rows cannot share {len(self.of_draw)} draws of the data evenly")
        return rounds

    @cached_property
    def _inputs(self) -> Tensor:
        return torch.stack([problem._augmented for problem in self.of_draw])

    @cached_property
    def _labels(self) -> Tensor:
        return torch.stack([problem.labels for problem in self.of_draw])


def _softmax_hessian(x: Tensor, p: Tensor, decay: float) -> Tensor:
    """Return the Hessian (DC, DC) of the mean cross-entropy over W (D, C) flattened by rows, plus decay."""
    (n, width), classes = x.shape, p.shape[1]
    hessian = x.new_empty(width, classes, width, classes)
    for i in range(classes):
        for j in range(classes):
            weight = p[:, i] * (float(i == j) - p[:, j]) / n
            hessian[:, i, :, j] = (x * weight.unsqueeze(1)).T @ x
    size = width * classes
    return hessian.reshape(size, size) + decay * torch.eye(size, dtype=x.dtype, device=x.device)
