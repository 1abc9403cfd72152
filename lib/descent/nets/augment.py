"""Random crops and flips of images, drawn per replica and example, taken as index gathers where the data live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from descent.engine.streams import Purpose, Streams

__all__ = ["Augment"]

Padding = Literal["reflect", "zero"]


@dataclass(frozen=True)
class Augment:
    """Shift every image by up to `shift` pixels either way and mirror it with probability ½ if `flip` is set.

    out[y, x] = image[y + dy, x′ + dx] with dy, dx uniform on −shift … shift and x′ = x or W − 1 − x: what padding
    by `shift`, a random crop and a random horizontal flip give. Beyond the edge lies the image mirrored at its
    border pixels ("reflect"), or 0 in the inputs' own units ("zero"), which is the mean where they are centred.
    The draw depends on (seed, step, place in the batch) alone.
    """

    shift: int = 4  # pixels at most, either way
    flip: bool = True  # whether images are mirrored
    padding: Padding = "reflect"  # what lies beyond the edge, "reflect" or "zero"

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"shift must not be negative, got {self.shift}")
        if self.padding not in ("reflect", "zero"):
            raise ValueError(f'padding must be "reflect" or "zero", got {self.padding!r}')

    def check(self, images: Tensor) -> None:
        """Raise ValueError unless `images` is (n, C, H, W) and large enough to be shifted."""
        if images.ndim != 4 or min(images.shape[2:]) <= self.shift:
            raise ValueError(
                f"a shift by {self.shift} needs inputs (n, channels, height, width) of more than {self.shift} pixels "
                f"a side, got {tuple(images.shape)}"
            )

    def take(self, images: Tensor, index: Tensor, streams: Streams, step: int) -> Tensor:
        """Return (R, B, C, H, W): the images `index` (R, B) of (n, C, H, W), each shifted and mirrored by chance."""
        return self.moved(images, index, *self.draw(streams, step, index.shape[1]))

    def moved(self, images: Tensor, index: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
        """Return (R, B, C, H, W): the images `index` (R, B), each moved as it was drawn."""
        _, channels, height, width = images.shape
        x = torch.arange(width, device=images.device)
        rows = down.unsqueeze(-1) + torch.arange(height, device=images.device)
        columns = right.unsqueeze(-1) + torch.where(mirrored.unsqueeze(-1), width - 1 - x, x)
        picked = _whole_rows(images, index, _fold(rows, height))
        across = _fold(columns, width)[:, :, None, None, :]
        shifted = picked.gather(-1, across.expand(-1, -1, channels, height, -1))
        if self.padding == "zero":
            inside = _inside(rows, height).unsqueeze(-1) & _inside(columns, width).unsqueeze(-2)
            shifted.masked_fill_(~inside.unsqueeze(2), 0.0)
        return shifted

    def draw(self, streams: Streams, step: int, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return dy, dx (R, B) and who is mirrored (R, B)."""
        places = 2 * self.shift + 1
        word = streams.integers(Purpose.AUGMENT, step, 2 * places * places, (batch_size,))
        down, right = word // 2 // places - self.shift, word // 2 % places - self.shift
        return down, right, (word % 2 == 1) & self.flip


def _whole_rows(images: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Return (R, B, C, H, W): of image index[r, b] the pixel rows rows[r, b]."""
    _, channels, height, width = images.shape
    plane = index.unsqueeze(-1) * channels + torch.arange(channels, device=images.device)
    place = plane.unsqueeze(-1) * height + rows.unsqueeze(2)
    return images.reshape(-1, width).index_select(0, place.reshape(-1)).view(*place.shape, width)


def _fold(place: Tensor, size: int) -> Tensor:
    """Mirror places outside 0 … size − 1 at the border pixels; a place further out than size − 1 does not occur."""
    return size - 1 - (size - 1 - place.abs()).abs()


def _inside(place: Tensor, size: int) -> Tensor:
    return (place >= 0) & (place < size)
