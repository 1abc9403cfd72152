"""What the networks of this chapter fit: a few images, odd or even, by a tanh net with square loss."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from descent.data import images
from descent.data.draws import Draws
from descent.engine import Purpose, Streams
from descent.engine.probes import Leaves
from descent.experiments.flatness.batches import Batch
from descent.experiments.lab import Lab
from descent.measure.gram import gram
from descent.measure.stability import interpolation_gram
from descent.nets import MLP, SquaredError, Supervised
from descent.nets.supervised import Sampling


@dataclass(frozen=True, eq=False)
class Parity:
    """A tanh net with one output, and images it is to tell apart, odd or even.

    sets: the few images that the replicas of a draw are trained on; replica r of any stack is of draw r mod D.
    """

    net: MLP
    inputs: Tensor
    targets: Tensor
    sets: Draws

    @classmethod
    def of(cls, lab: Lab, name: str, count: int, draws: int, hidden: tuple[int, ...]) -> Parity:
        """Take grey levels less the mean of all images, a constant 1 that makes the first layer's biases, and ±1."""
        data = images.load(name)
        pixels = data.images.flatten(1).to(torch.float32) / data.peak
        inputs = torch.cat([pixels - pixels.mean(0), torch.ones(len(pixels), 1)], dim=1)
        x, y = lab.bring(inputs, images.signs(data.labels % 2).unsqueeze(1))
        sets = lab.draws(len(data), count, draws)
        return cls(MLP((inputs.shape[1], *hidden, 1), "tanh", bias=False), x, y, sets)

    def objective(self, batch_size: Batch) -> Supervised:
        """Return the loss, with replacement unless it is the full batch."""
        sampling: Sampling = "full" if batch_size is None else "with_replacement"
        data = (self.net, SquaredError(), self.inputs, self.targets, batch_size, sampling)
        return Supervised(*data, rows=self.sets.rows)

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
        return gram(self.net, leaves, self.inputs, rows=self.sets.rows)

    def interpolating(self, params: Leaves, replicas: Tensor) -> Tensor:
        """Return K (M, n, n) of some replicas of a stack, any of them, which must fit their targets."""
        kernels = []
        for one in replicas.tolist():
            own, leaves = self.sets.rows[one % len(self.sets)], {name: leaf[one, None] for name, leaf in params.items()}
            kernels.append(interpolation_gram(self.net, leaves, self.inputs[own], self.targets[own]))
        return torch.cat(kernels)
