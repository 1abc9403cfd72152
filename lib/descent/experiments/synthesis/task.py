"""What the nets of this chapter fit: draws of digits or glyphs, odd or even, some of them faint, some mislabelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from descent.data.draws import Draws, disjoint, flipped, fresh, splits
from descent.data.images import load, pooled, signs
from descent.engine import Params, Purpose, Streams
from descent.engine.probes import Leaves
from descent.experiments.lab import Lab
from descent.nets import MLP, LogisticError, Loss, SquaredError, Supervised
from descent.problems.glyphs import glyphs

DataSet = Literal["digits", "glyphs", "mnist"]

TESTS = 797  # images that every draw is tested on
CONTRAST = 0.3  # of faint images: their margin is smaller in proportion
GLYPH = 0.4  # a factor on glyphs, with which their mean square is that of the digits


@dataclass(frozen=True, eq=False)
class Task:
    """D training sets of n images with targets ±1, test images of each, and a two-layer tanh net of one output.

    Replica r of any stack of D, 2D, … replicas is trained and tested on draw r mod D. inputs (D, n, p), targets (D, n);
    test_inputs (D, m, p), test_targets (D, m).
    """

    net: MLP
    loss: Loss
    sets: Draws
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    @classmethod
    def of(
        cls,
        lab: Lab,
        draws: int,
        *,
        skip: int = 0,
        examples: int = 256,
        hidden: int = 32,
        flips: Sequence[float] = (0.0,),
        faint: float = 0.15,
        pixel_noise: float = 0.15,
        loss: Literal["square", "logistic"] = "square",
        data_set: DataSet = "digits",
    ) -> Task:
        """Draw images and add pixel noise; flip and fade shares of every draw. Test images are left as they are.

        flips: a family of so many draws for each of these shares, one after the other; skip: draws that are left out
        before. Another master seed has other draws. data_set: "digits" of 8 × 8 pixels, "glyphs" of 40 points, fresh in
        every draw, or "mnist" of 14 × 14, which must be on the machine.
        Raises: DataMissing without the images.
        """
        luck = lab.streams(draws * len(flips), skip=skip)
        pool, odd, sets = _pool(data_set, luck, examples)
        families = [slice(i * draws, (i + 1) * draws) for i in range(len(flips))]
        true = odd[sets.rows]
        labels = [flipped(true[own], share, 2, luck.subset(own)) for own, share in zip(families, flips, strict=True)]
        inputs, targets = pool[sets.rows], signs(torch.cat(labels))
        inputs = inputs + pixel_noise * luck.normal(Purpose.DATA, 3, tuple(inputs.shape[1:]))  # glyphs take 0 to 2
        inputs[:, : round(faint * examples)] *= CONTRAST
        kind = SquaredError() if loss == "square" else LogisticError()
        net = MLP((inputs.shape[2], hidden, 1), "tanh")
        return cls(net, kind, sets, inputs, targets, pool[sets.test], signs(odd[sets.test]))

    def objective(self, batch_size: int = 0) -> Supervised:
        """Return the mean loss over batches with replacement, over all images where no size is given."""
        draws, n = self.targets.shape
        rows = torch.arange(draws * n, device=self.inputs.device).view(draws, n)
        data = (self.net, self.loss, self.inputs.flatten(0, 1), self.targets.unsqueeze(-1))
        if batch_size:
            return Supervised(*data, batch_size, rows=rows)
        return Supervised(*data, sampling="full", rows=rows)

    def start(self, streams: Streams) -> Leaves:
        """Draw weights of variance 4/fan_in in the first layer and 1/fan_in in the second; biases are zero."""
        fan, hidden, _ = self.net.sizes
        first = streams.normal(Purpose.INIT, 0, (hidden, fan)).mul_(2 / fan**0.5)
        second = streams.normal(Purpose.INIT, 1, (1, hidden)).mul_(1 / hidden**0.5)
        zeros = first.new_zeros(len(first), hidden)
        return {"0.weight": first, "0.bias": zeros, "2.weight": second, "2.bias": zeros[:, :1].clone()}

    def outputs(self, params: Params, inputs: Tensor | None = None) -> Tensor:
        """Return f (R, n) on the training images of every replica, or on others (D, m, p)."""
        leaves = cast(Leaves, params)
        x = self.inputs if inputs is None else inputs
        return self.net.forward(leaves, own(x, len(leaves["0.bias"]))).squeeze(-1)

    def residuals(self, params: Params) -> Tensor:
        """Return f less its target on the training images, (R, n)."""
        found = self.outputs(params)
        return found - own(self.targets, len(found))

    def value(self, params: Params) -> Tensor:
        """Return the training loss, (R,)."""
        return self.objective().value(params)

    def accuracy(self, params: Params, contrast: float = 1.0) -> Tensor:
        """Return the share of the draw's test images, at that contrast, on the right side, in per cent, (R,)."""
        found = self.outputs(params, contrast * self.test_inputs)
        return 100 * (found * own(self.test_targets, len(found)) > 0).float().mean(1)

    def gram(self, params: Params) -> Tensor:
        """Return K = JJᵀ (R, n, n): (XXᵀ + 1)∘DDᵀ + HHᵀ + 1, H = tanh(W₁x + b) and D = (1 − H²)w₂."""
        leaves = cast(Leaves, params)
        replicas = len(leaves["0.bias"])
        hidden = torch.tanh(own(self.inputs, replicas) @ leaves["0.weight"].mT + leaves["0.bias"].unsqueeze(1))
        slopes = (1 - hidden.square()) * leaves["2.weight"]
        return own(self.inputs @ self.inputs.mT + 1, replicas) * (slopes @ slopes.mT) + hidden @ hidden.mT + 1

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


def own(values: Tensor, replicas: int) -> Tensor:
    """Return values (D, …) of draws as those of replicas, (R, …): replica r has draw r mod D."""
    if replicas % len(values):
        raise ValueError(f"{replicas} replicas cannot share {len(values)} draws evenly; take a multiple")
    return values.repeat(replicas // len(values), *[1] * (values.ndim - 1))


def sharpness(gram: Tensor, iterations: int = 30) -> Tensor:
    """Return the largest eigenvalue of K/n by power iteration with a Rayleigh quotient, (R,); gram (R, n, n).

    K is symmetric, and a row before it is multiplied twice as fast as a column behind it.
    """
    vector = gram.sum(dim=1, keepdim=True)
    for _ in range(iterations):
        vector = (vector / vector.norm(dim=2, keepdim=True).clamp_min(1e-30)) @ gram
    unit = vector / vector.norm(dim=2, keepdim=True).clamp_min(1e-30)
    found: Tensor = (unit @ gram @ unit.mT).flatten() / gram.shape[-1]
    return found


def _pool(data_set: DataSet, luck: Streams, examples: int) -> tuple[Tensor, Tensor, Draws]:
    """Return inputs (N, p), 1 for odd classes and 0 for even ones (N,), and the draws that are made of them.

    Images are grey levels from 0 to 1 less the mean image of all of them, without a look at labels. MNIST has enough of
    them for disjoint draws with common tests; draws of the digits have a seventh of their images in common.
    """
    draws = luck.replicas
    if data_set == "glyphs":
        signals, classes = glyphs(luck, examples + TESTS)
        return GLYPH * signals.flatten(0, 1), classes.flatten() % 2, fresh(draws, examples, TESTS).to(luck.device)
    data = pooled(load("mnist")) if data_set == "mnist" else load(data_set)
    levels = data.images.flatten(1).to(torch.float32) / data.peak
    grey, odd = (part.to(luck.device) for part in (levels - levels.mean(0), data.labels % 2))
    if data_set == "mnist":
        return grey, odd, disjoint(len(data), examples, draws, luck, tests=TESTS)
    return grey, odd, splits(len(data), examples, luck, tests=TESTS)
