"""Airplanes told from automobiles by residual networks: the task, and what is looked at along the way.

Stated for paper scale alone. The loss is half the mean square of residuals, one output, targets ∓1; images are neither
cropped nor flipped, so that the loss is one function. Everything is in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from descent.data.draws import Draws
from descent.data.images import channels_first, load, pair, pooled, signs
from descent.engine.precision import Precision
from descent.engine.probes import Leaves, Params
from descent.engine.stack import leaves
from descent.experiments.geometry.looks import look
from descent.experiments.lab import Lab
from descent.measure.noise import flat
from descent.nets import ResNet, SquaredError, Supervised

Watch = Callable[[Params], Mapping[str, Tensor]]

LIMIT = 1e3  # the length of the weights beyond which a net has diverged
RESNET8, RESNET20 = 74.1e6, 244.0e6  # floating-point operations of training on one image at 32 × 32, both ways
PARAMETERS = 272_000  # of ResNet-20


@dataclass(frozen=True)
class Pictures:
    """A residual network with group norm and one output, and draws of images of two classes.

    Gram matrices are those of the first `measured` images of each draw. Where these are not all, ‖G‖²_F comes out too
    large by about (Tr G)²(1/measured − 1/examples), on the safe side of a bound from above; Tr G has no such error.
    """

    draws: int = 10
    examples: int = 1000  # of each draw; the two classes have 10 000, so that draws share none
    measured: int = 1000
    directions: int = 40  # leading eigenvectors along which the alignment is kept
    pool: int = 1  # pixels of a side that are averaged to one
    blocks: tuple[int, ...] = (3, 3, 3)
    widths: tuple[int, ...] = (16, 32, 64)
    precision: Precision = "float32"

    @classmethod
    def tiny(cls, examples: int, measured: int, draws: int = 2) -> Pictures:
        """Return a small net on few images at 8 × 8 pixels."""
        return cls(draws, examples, measured, directions=5, pool=4, blocks=(1, 1, 1), widths=(8, 8, 8))

    def problem(self, lab: Lab) -> tuple[str, Draws, Supervised]:
        """Return the name of the data, its draws, and the loss over all training images of a draw.

        Raises: DataMissing without the images.
        """
        data = pair(load("cifar10"), "airplane", "automobile")
        sets = lab.draws(len(data), self.examples, self.draws)
        data = pooled(data, self.pool) if self.pool > 1 else data
        inputs, targets = lab.bring(channels_first(data.images), signs(data.labels).unsqueeze(1))
        model = ResNet(blocks=self.blocks, widths=self.widths, classes=1)
        problem = Supervised(
            model, SquaredError(), inputs, targets, sampling="full", rows=sets.rows, precision=self.precision
        )
        return data.title, sets, problem

    def watch(self, problem: Supervised, lr: Tensor, batch_size: Tensor) -> Watch:
        """Return the probe (R, …): all of `look`, and of the whole spectrum Tr G, ‖G‖_F and the edge index.

        lr, batch_size (R,): those of the plain SGD that the edge index is about. Nets are looked at one by one, which
        bounds the memory; of one that has diverged nothing is a number.
        """
        few = replace(problem, rows=None if problem.rows is None else problem.rows[:, : self.measured])
        kept = slice(self.directions)

        def one(leaves: Leaves, row: slice, lr: Tensor, batch_size: Tensor) -> Mapping[str, Tensor]:
            sound = flat(leaves).norm() <= LIMIT  # never so for what is not a number
            inner = look(few.subset(row), self.measured)
            found = dict(inner({name: torch.where(sound, leaf, 0.0) for name, leaf in leaves.items()}))
            spectrum = found["curvature"].clamp_min(0.0)
            found |= {
                "trace": spectrum.sum(-1),
                "frobenius": spectrum.square().sum(-1).sqrt(),
                "index": edge_index(spectrum, lr, batch_size),
                "curvature": spectrum[:, kept],
                "along": found["along"][:, kept],
            }
            return {name: torch.where(sound, value, torch.nan) for name, value in found.items()}

        def measured(params: Params) -> Mapping[str, Tensor]:
            rows = [slice(r, r + 1) for r in range(len(lr))]
            nets = [{name: leaf[r] for name, leaf in leaves(params).items()} for r in rows]
            seen = [one(net, r, lr[r], batch_size[r]) for net, r in zip(nets, rows, strict=True)]
            return {name: torch.cat([found[name] for found in seen]) for name in seen[0]}

        return measured

    def worth(self, images: float, looks: int) -> dict[str, float]:
        """Return as how many images of ResNet-8 the training images and the looks of ResNet-20 count, by FLOP.

        Devices are calibrated on ResNet-8. A look takes 2n²p for the Gram matrix of n images, p parameters, and, as
        is assumed here, the same once more for its eigenvectors.
        """
        return {"ResNet-8": images * RESNET20 / RESNET8 + looks * 4 * self.measured**2 * PARAMETERS / RESNET8}


def edge_index(curvature: Tensor, lr: Tensor, batch_size: Tensor) -> Tensor:
    """Return (lr/B) Σ λ_i/(2 − lr λ_i), (R,): below one SGD stays at a minimum with noise ∝ loss × curvature.

    curvature (R, n), lr and batch_size (R,). Infinite where lr λ₁ ≥ 2, unstable without any noise.
    """
    load = lr.unsqueeze(-1) * curvature
    total = (load / (2 - load)).sum(-1) / batch_size
    return torch.where(load.amax(-1) < 2, total, torch.inf)
