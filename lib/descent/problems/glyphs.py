"""Glyphs: fresh training sets without end, signals of 40 points in ten classes, made in milliseconds.

In the spirit of MNIST-1D (Greydanus & Kobak 2024, "Scaling down deep learning with MNIST-1D", arXiv 2011.14439); the
templates and the generator are our own. A glyph is a short curve, one of ten; it is padded with zeros, scaled, sheared,
shifted, smoothed, and laid over correlated noise. Where it stands differs from signal to signal, so that a linear map
cannot know it, a dense net must learn it anew for every place, and a convolution knows it everywhere.

With 4000 examples a linear map gets 32 % of fresh glyphs right, a dense net 77 %, a convolutional one 91 % (pilots of
two sets each, seed 1000: `python tests/benchmarks/glyphs.py --draws 2`); MNIST-1D's published 32 %, 68 % and 94 %.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descent.engine.streams import Purpose, Streams

__all__ = ["CLASSES", "NOISE", "POINTS", "glyphs"]

CLASSES, POINTS = 10, 40
NOISE = 0.35
"""Deviation of the noise, in heights of knots; curves reach up to three."""

_CURVES = (  # heights at eight knots, evenly spaced
    (0, 2, 3, 3, 2, -2, -3, 0),
    (0, 3, -1, 3, -1, 3, -1, 0),
    (0, 3, 3, 0, 0, 3, 3, 0),
    (0, -2, -3, 1, 3, 1, -3, 0),
    (0, 3, 1, 0, -1, -2, -3, 0),
    (0, -3, 0, 3, -3, 0, 3, 0),
    (0, 1, 2, 3, 3, 3, -1, 0),
    (0, 3, -3, -1, 1, 3, -1, 0),
    (0, -2, 3, 2, 1, 0, -3, 0),
    (0, 3, 0, -3, -3, 0, 3, 0),
)
_WIDTHS = (9.0, 13.0)  # points that a glyph covers
_SCALES = (0.6, 1.4)  # what its heights are multiplied by
_SHEAR = 1.0  # how far its ends are moved up and down at most, in heights of knots
_REACH = 1.0  # of the smoothing of curves and noise, the deviation of its Gaussian in points


def glyphs(streams: Streams, n: int, *, noise: float = NOISE) -> tuple[Tensor, Tensor]:
    """Return inputs (D, n, 40), of about unit deviation, and targets (D, n) in 0 … 9: one fresh set per stream.

    Signal i depends on (seed, i) alone, so that a larger set begins with the smaller one. Targets are the same on every
    machine, inputs up to rounding.

    noise: standard deviation of what is added to a signal.

    >>> from descent.engine import Streams, replica_seeds
    >>> inputs, targets = glyphs(Streams(replica_seeds(0, 3)), 5)
    >>> tuple(inputs.shape), targets[0].tolist()
    ((3, 5, 40), [8, 6, 2, 9, 7])
    """
    labels = streams.integers(Purpose.DATA, 0, CLASSES, (n,))
    size, place, lean, scale = streams.uniform(Purpose.DATA, 1, (n, 4)).unsqueeze(-1).unbind(-2)
    width = _between(size, *_WIDTHS)
    points = torch.arange(POINTS, device=streams.device, dtype=streams.dtype)
    along = (points - place * (POINTS - 1 - width)) / width  # 0 … 1 from one end of the glyph to the other
    curve = _heights(labels, along.clamp(0, 1)) + _between(lean, -_SHEAR, _SHEAR) * (2 * along - 1)
    curve = torch.where((along > 0) & (along < 1), curve * _between(scale, *_SCALES), 0.0)
    smooth = torch.exp(-0.5 * ((points - points.unsqueeze(-1)) / _REACH) ** 2)
    white = streams.normal(Purpose.DATA, 2, (n, POINTS))
    rough = white @ (smooth / smooth.square().sum(0).sqrt())  # of unit deviation everywhere
    return curve @ (smooth / smooth.sum(0)) + noise * rough, labels


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def _heights(labels: Tensor, along: Tensor) -> Tensor:
    """Return the curves of the classes (D, n) at places (D, n, points) in 0 … 1 along them, linear between knots."""
    knots = torch.tensor(_CURVES, dtype=along.dtype, device=along.device)
    pieces = knots.shape[1] - 1
    left = (along * pieces).floor().clamp(max=pieces - 1)
    index = labels.unsqueeze(-1) * (pieces + 1) + left.long()
    low, high = knots.view(-1)[index], knots.view(-1)[index + 1]
    return low + (high - low) * (along * pieces - left)
