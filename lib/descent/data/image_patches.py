"""Images as signal patches: image i becomes one patch A·c_i·x̃_i beside J patches of noise, as in `problems.patches`.

x̃ is the image minus the training mean over the mean norm, c_i = κ for the share of small margins and 1 for the rest.
The feature is no longer one direction: within a class images differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from descent.data.images import ImageSet
from descent.engine.streams import Purpose, Streams
from descent.problems.patches import PatchData

__all__ = ["ImagePatches", "Split"]


class Split(NamedTuple):
    """Training data; test patches of small and of large margins, turned to label +1, (S, T, 1 + J, D); the gap.

    gap: half the distance of the class means in units of a noise patch, A|x̄₊ − x̄₋|/2, mean over seeds. overlap: the
    share of its training images that a seed has in common with another one, as in `data.draws`.
    """

    train: PatchData  # what the nets see
    small: Tensor  # test patches of small margins
    large: Tensor  # test patches of large margins
    gap: float
    overlap: float = 0.0


@dataclass(frozen=True)
class ImagePatches:
    """How images of two classes become patches; `amplitude` is A, `contrast` κ."""

    examples: int
    amplitude: float  # A, mean length of a centred image; that of a noise patch is about 1
    share: float = 0.1  # of the examples that have the small margin
    contrast: float = 0.1  # κ, by which a small margin is dimmed
    patches: int = 4
    tests: int = 200  # number of test images per seed

    def split(self, data: ImageSet, streams: Streams) -> Split:
        """Draw for every seed its own training and test images out of a pair of classes, and the noise."""
        images = data.images.flatten(1).to(streams.dtype).to(streams.device)
        order = streams.permutation(Purpose.ORDER, 0, len(images))[:, : self.examples + self.tests]
        found = self.of(images[order], data.labels.to(streams.device)[order], streams)
        return found._replace(overlap=self.examples / len(images))

    def of(self, chosen: Tensor, classes: Tensor, streams: Streams) -> Split:
        """Make patches of every seed's own images (S, n, D) of classes 0 and 1 (S, n); those to test on come last."""
        labels, pixels = 2 * classes.to(chosen) - 1, chosen.shape[-1]
        centred = chosen - chosen[:, : self.examples].mean(1, keepdim=True)
        scaled = self.amplitude * centred / centred[:, : self.examples].norm(dim=-1).mean(1)[:, None, None]
        small = torch.arange(self.examples, device=streams.device) < round(self.share * self.examples)
        contrast = torch.where(small, self.contrast, 1.0).to(scaled)
        train, test = scaled[:, : self.examples], scaled[:, self.examples :]
        noise = streams.normal(Purpose.DATA, 0, (chosen.shape[1], self.patches, pixels)) / pixels**0.5
        y, label = labels[:, : self.examples], labels[:, self.examples :, None]
        patches = torch.cat([(contrast[:, None] * train).unsqueeze(2), noise[:, : self.examples]], dim=2)
        turned, hidden = label * test, noise[:, self.examples :]
        weak, strong = (torch.cat([(c * turned).unsqueeze(2), hidden], dim=2) for c in (self.contrast, 1.0))
        return Split(PatchData(torch.zeros_like(y), patches, y, small), weak, strong, _gap(train, y))


def _gap(train: Tensor, labels: Tensor) -> float:
    plus, minus = ((labels == sign).to(train) for sign in (1, -1))
    means = [(part.unsqueeze(-1) * train).sum(1) / part.sum(1, keepdim=True) for part in (plus, minus)]
    return float((means[0] - means[1]).norm(dim=-1).mean() / 2)
