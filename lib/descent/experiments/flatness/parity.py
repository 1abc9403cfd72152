"""What the networks of this chapter fit: a few images, odd or even, by a tanh net with square loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from descent.data import images
from descent.engine import Purpose, Streams
from descent.engine.probes import Leaves
from descent.experiments.flatness.batches import Batch
from descent.experiments.lab import Lab
from descent.measure.gram import gram
from descent.measure.stability import interpolation_gram
from descent.nets import MLP, SquaredError, Supervised


@dataclass(frozen=True, eq=False)
class Parity:
    """A tanh net with one output, and images it is to tell apart, odd or even: another part for every master seed."""

    net: MLP
    inputs: Tensor
    targets: Tensor

    @classmethod
    def of(cls, lab: Lab, name: str, count: int, hidden: tuple[int, ...]) -> Parity:
        """Take grey levels less their mean image, a constant 1 that makes the first layer's biases, and ±1."""
        data = images.load(name)
        turn = replace(lab, seed=0).key() + lab.seed  # no two seeds in a row share a part
        part = data.take(count, count * (turn % (len(data) // count)))
        pixels = part.images.flatten(1).to(torch.float32) / part.peak
        inputs = torch.cat([pixels - pixels.mean(0), torch.ones(len(pixels), 1)], dim=1)
        brought = lab.bring(inputs, images.signs(part.labels % 2).unsqueeze(1))
        return cls(MLP((inputs.shape[1], *hidden, 1), "tanh", bias=False), *brought)

    def objective(self, batch_size: Batch) -> Supervised:
        """Return the loss, with replacement unless it is the full batch."""
        data = (self.net, SquaredError(), self.inputs, self.targets, batch_size)
        return Supervised(*data, "full") if batch_size is None else Supervised(*data)

    def start(self, streams: Streams) -> Leaves:
        """Draw weights of variance 4/fan_in in the first layer, 1/fan_in above it; biases are zero."""
        leaves = {}
        for layer, (fan_in, width) in enumerate(pairwise(self.net.sizes)):
            pixels = fan_in - (layer == 0)
            weight = streams.normal(Purpose.INIT, layer, (width, pixels)).mul_((2 if layer == 0 else 1) / pixels**0.5)
            leaves[f"{2 * layer}.weight"] = torch.nn.functional.pad(weight, (0, fan_in - pixels))
        return leaves

    def gram(self, params: Leaves) -> Tensor:
        """Return K (R, n, n) in float64, wherever the parameters are."""
        leaves = {name: leaf.double() for name, leaf in params.items()}
        return gram(self.net, leaves, self.inputs)

    def interpolating(self, params: Leaves, rows: Tensor) -> Tensor:
        """Return K (M, n, n) of the replicas `rows`, which must fit their targets."""
        leaves = {name: leaf[rows] for name, leaf in params.items()}
        return interpolation_gram(self.net, leaves, self.inputs, self.targets)
