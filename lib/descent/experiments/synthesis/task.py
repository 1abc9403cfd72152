"""What the nets of this chapter fit: images of digits, odd or even, some of them faint, some of them mislabelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from descent.data.images import load, pooled, signs
from descent.engine import Params, Purpose, Streams
from descent.engine.probes import Leaves
from descent.experiments.lab import Lab
from descent.nets import MLP, LogisticError, Loss, SquaredError, Supervised

DataSet = Literal["digits", "mnist"]

POOL, TESTS = 1000, 797  # images that training sets are drawn from, and those after them that test: all the digits
CONTRAST = 0.3  # of faint images: their margin is smaller in proportion


@dataclass(frozen=True, eq=False)
class Task:
    """Training images (n, D) with targets ±1 (n, 1), shared by all replicas, test images, and a two-layer tanh net."""

    net: MLP
    loss: Loss
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    @classmethod
    def of(
        cls,
        lab: Lab,
        draw: int,
        *,
        examples: int = 256,
        hidden: int = 32,
        flips: float = 0.0,
        faint: float = 0.15,
        pixel_noise: float = 0.15,
        loss: Literal["square", "logistic"] = "square",
        data_set: DataSet = "digits",
    ) -> Task:
        """Take grey levels from 0 to 1 less the pool's mean image, with pixel noise; flip and fade shares of them.

        draw: another training set, as is that of another master seed. data_set: "digits" of 8 × 8 pixels, or "mnist" of
        14 × 14, which must be on the machine.
        Raises: DataMissing without the images.
        """
        data = load(data_set).take(POOL + TESTS)
        data = pooled(data) if data_set == "mnist" else data
        levels = data.images.flatten(1).to(torch.float32) / data.peak
        grey, labels = lab.bring(levels - levels[:POOL].mean(0), signs(data.labels % 2).unsqueeze(1))
        luck = lab.streams(1, skip=draw)
        rows = luck.permutation(Purpose.ORDER, 0, POOL, slice(0, examples))[0]
        inputs, targets = grey[rows], labels[rows].clone()
        inputs = inputs + pixel_noise * luck.normal(Purpose.DATA, 0, tuple(inputs.shape))[0]
        inputs[: round(faint * examples)] *= CONTRAST
        wrong = luck.permutation(Purpose.LABEL, 0, examples, slice(0, round(flips * examples)))[0]
        targets[wrong] *= -1
        kind = SquaredError() if loss == "square" else LogisticError()
        net = MLP((inputs.shape[1], hidden, 1), "tanh")
        return cls(net, kind, inputs, targets, grey[POOL:], labels[POOL:])

    def objective(self, batch_size: int = 0) -> Supervised:
        """Return the mean loss over batches with replacement, over all images where no size is given."""
        data = (self.net, self.loss, self.inputs, self.targets)
        return Supervised(*data, batch_size) if batch_size else Supervised(*data, sampling="full")

    def start(self, streams: Streams) -> Leaves:
        """Draw weights of variance 4/fan_in in the first layer and 1/fan_in in the second; biases are zero."""
        fan, hidden, _ = self.net.sizes
        first = streams.normal(Purpose.INIT, 0, (hidden, fan)).mul_(2 / fan**0.5)
        second = streams.normal(Purpose.INIT, 1, (1, hidden)).mul_(1 / hidden**0.5)
        zeros = first.new_zeros(len(first), hidden)
        return {"0.weight": first, "0.bias": zeros, "2.weight": second, "2.bias": zeros[:, :1].clone()}

    def outputs(self, params: Params, inputs: Tensor | None = None) -> Tensor:
        """Return f (R, n) on the training images, or on others."""
        leaves = cast(Leaves, params)
        x = self.inputs if inputs is None else inputs
        return self.net.forward(leaves, x.expand(len(leaves["0.bias"]), *x.shape)).squeeze(-1)

    def value(self, params: Params) -> Tensor:
        """Return the training loss, (R,)."""
        return self.objective().value(params)

    def accuracy(self, params: Params, contrast: float = 1.0) -> Tensor:
        """Return the share of test images, at that contrast, on the right side, in per cent, (R,)."""
        right = self.outputs(params, contrast * self.test_inputs) * self.test_targets[:, 0] > 0
        return 100 * right.float().mean(1)

    def gram(self, params: Params) -> Tensor:
        """Return K = JJᵀ (R, n, n): (XXᵀ + 1)∘DDᵀ + HHᵀ + 1, H = tanh(W₁x + b) and D = (1 − H²)w₂."""
        leaves = cast(Leaves, params)
        hidden = torch.tanh(self.inputs @ leaves["0.weight"].mT + leaves["0.bias"].unsqueeze(1))
        slopes = (1 - hidden.square()) * leaves["2.weight"]
        return (self.inputs @ self.inputs.T + 1) * (slopes @ slopes.mT) + hidden @ hidden.mT + 1

    def curvature_gram(self, params: Params) -> Tensor:
        """Return √c K √c (R, n, n), c the second derivative of each example's loss: its spectrum is G's, times n."""
        gram = self.gram(params)
        if isinstance(self.loss, SquaredError):
            return gram
        share = torch.sigmoid(self.outputs(params))
        root = (share * (1 - share)).sqrt()
        weighted: Tensor = root.unsqueeze(1) * gram * root.unsqueeze(2)
        return weighted

    def sharpness(self, params: Params) -> Tensor:
        """Return the largest curvature of G, (R,)."""
        return sharpness(self.curvature_gram(params))


def sharpness(gram: Tensor, iterations: int = 30) -> Tensor:
    """Return the largest eigenvalue of K/n by power iteration with a Rayleigh quotient, (R,); gram (R, n, n)."""
    vector = gram.sum(dim=2, keepdim=True)
    for _ in range(iterations):
        vector = gram @ (vector / vector.norm(dim=1, keepdim=True).clamp_min(1e-30))
    unit = vector / vector.norm(dim=1, keepdim=True).clamp_min(1e-30)
    found: Tensor = (unit.mT @ (gram @ unit)).flatten() / gram.shape[-1]
    return found
