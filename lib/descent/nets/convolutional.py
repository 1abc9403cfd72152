"""Convolutional networks as stacks: the replicas lie side by side in the channels.

Inputs are (R, B, C, H, W), which is what `Supervised` hands over for data (n, C, H, W). Inside, a stack is one
tensor [B, R·C, H, W] in which replica r owns the channels rC … rC + C − 1: a convolution has a group per replica,
a group norm R·G groups, a batch norm R·C channels with statistics of its own; the dense layers on top are batched
matrix products (R, B, …). Nothing crosses from one replica to the next. Leaves (R, …) bear the names they have in
the torch module of one replica. The gradient is autograd's.

What a replica does depends on no other replica, to the last bit. How many there are may choose another kernel, and so
move last digits: that of a lone replica always does, being a dense convolution and not a grouped one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from descent.engine.probes import Leaves
from descent.engine.streams import Streams
from descent.nets.dense import initial_leaves, saved_bytes

__all__ = ["CNN", "Norm", "ResNet", "parameter_count"]

Norm = Literal["group", "batch", "none"]
"""How a layer is normalised."""


def parameter_count(params: Leaves) -> int:
    """Return the number of parameters of one replica."""
    return sum(leaf[0].numel() for leaf in params.values())


@dataclass(frozen=True, kw_only=True)
class _Convolutional:
    """What the networks here have in common.

    norm: "group" with `groups` groups; "batch", normalised by the statistics of the batch at hand, per replica;
    or "none". A batch norm keeps no running statistics: for evaluation, `settled` adds those of fixed images.
    channels_last: how activations lie in memory, None for whatever is faster (a CPU likes channels last).
    working_set: bytes of one chunk per CPU thread; larger chunks fall out of cache.
    """

    norm: Norm = "group"
    groups: int = 8
    classes: int = 10
    channels: int = 3
    channels_last: bool | None = None
    working_set: int = 64 << 20

    def initial(self, streams: Streams) -> Leaves:
        """Draw the parameters as torch does: weights and biases uniform on ±1/√fan_in, norms at 1 and 0."""
        with torch.device("meta"):
            module = self.module()
        for part in module.modules():
            if isinstance(part, nn.GroupNorm | nn.BatchNorm2d):
                part.to_empty(device=streams.device).reset_parameters()
        return initial_leaves(module, streams)

    def forward(self, params: Leaves, inputs: Tensor) -> Tensor:
        """Return the outputs (R, B, classes) for inputs (R, B, C, H, W)."""
        return self._forward(_Layers(params, self.norm, self.groups), self._merged(inputs))

    def settled(self, params: Leaves, images: Tensor, batch_size: int = 500) -> Leaves:
        """Return the parameters together with each batch norm's statistics over `images` (n, C, H, W).

        They are averaged over batches of about `batch_size`, one replica at a time, so that they depend on nothing
        else. `forward` then uses these leaves, named running_mean and running_var (R, C) as torch does, instead
        of the statistics of the batch. Without batch norm the parameters come back as they are.
        """
        names = [k.removesuffix(".weight") for k, leaf in params.items() if leaf.ndim == 2 and k.endswith(".weight")]
        if self.norm != "batch":
            return params
        statistics = {f"{name}.running_mean": torch.zeros_like(params[f"{name}.weight"]) for name in names}
        statistics |= {f"{name}.running_var": torch.ones_like(params[f"{name}.weight"]) for name in names}
        leaves = {k: leaf.detach() for k, leaf in params.items()} | statistics
        batches = images.tensor_split(-(-len(images) // batch_size))
        for r in range(len(next(iter(params.values())))):
            one = {k: leaf[r : r + 1] for k, leaf in leaves.items()}
            for seen, batch in enumerate(batches):
                layers = _Layers(one, self.norm, self.groups, share=1.0 / (seen + 1))
                self._forward(layers, self._merged(batch.unsqueeze(0)))
        return params | statistics

    def footprint(self, inputs: Tensor, batch_size: int) -> int:
        """Return the bytes of parameters, velocity, gradient, what autograd keeps, and a few slopes, of one replica."""
        return _footprint(self, (batch_size, *inputs.shape[1:]), inputs.dtype)

    def couples(self, params: Leaves) -> bool:
        """Tell whether an example's output depends on the others of its batch."""
        return self.norm == "batch" and not any(name.endswith(".running_mean") for name in params)

    def module(self, settled: bool = False) -> nn.Module:
        """Return the torch module of one replica; `settled` gives its batch norms running statistics."""
        raise NotImplementedError

    def _forward(self, layers: _Layers, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _merged(self, inputs: Tensor) -> Tensor:
        """Return [B, R·C, H, W]."""
        if inputs.ndim != 5 or inputs.shape[2] != self.channels:
            raise ValueError(
                f"inputs must be (replicas, batch, {self.channels}, height, width), got {tuple(inputs.shape)}; "
                f"give data as (n, {self.channels}, height, width)"
            )
        last = inputs.device.type == "cpu" if self.channels_last is None else self.channels_last
        x = inputs.transpose(0, 1).flatten(1, 2)
        return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@dataclass(frozen=True, kw_only=True)
class CNN(_Convolutional):
    """Convolutions 3×3 of the given widths, each with norm, ReLU and a mean over 2×2; then dense layers.

    Images are `size` × `size`. Pooling is by the mean because the backward pass of a maximum is not deterministic
    on a GPU.
    """

    widths: tuple[int, ...] = (16, 32)  # channels of every convolution
    dense: tuple[int, ...] = (64,)  # units of every hidden dense layer
    size: int = 32  # pixels along a side of an image
    norm: Norm = "none"  # what follows a convolution

    def __post_init__(self) -> None:
        _check(self.norm, self.groups, self.widths)
        if self.size >> len(self.widths) == 0:
            raise ValueError(f"{len(self.widths)} poolings leave nothing of images {self.size} × {self.size}")

    def module(self, settled: bool = False) -> nn.Module:
        """Return conv1, norm1, …, dense1, … in sequence, with the ReLU, AvgPool2d and Flatten between them."""
        net = nn.Sequential()
        for i, (fan_in, width) in enumerate(pairwise((self.channels, *self.widths)), start=1):
            net.add_module(f"conv{i}", nn.Conv2d(fan_in, width, 3, padding=1, bias=self.norm == "none"))
            net.add_module(f"norm{i}", _norm(self, width, settled))
            net.append(nn.ReLU()).append(nn.AvgPool2d(2))
        net.append(nn.Flatten())
        for i, (fan_in, width) in enumerate(pairwise(self._dense_sizes), start=1):
            if i > 1:
                net.append(nn.ReLU())
            net.add_module(f"dense{i}", nn.Linear(fan_in, width))
        return net

    @property
    def _dense_sizes(self) -> tuple[int, ...]:
        side = self.size >> len(self.widths)
        return (self.widths[-1] * side * side, *self.dense, self.classes)

    def _forward(self, layers: _Layers, x: Tensor) -> Tensor:
        for i in range(1, len(self.widths) + 1):
            x = functional.avg_pool2d(layers.norm(layers.conv(x, f"conv{i}"), f"norm{i}").relu_(), 2)
        x = layers.apart(x)
        for i in range(1, len(self.dense) + 1):
            x = layers.dense(x, f"dense{i}").relu_()
        return layers.dense(x, f"dense{len(self.dense) + 1}")


@dataclass(frozen=True, kw_only=True)
class ResNet(_Convolutional):
    """The residual network for small images (He et al. 2016): a 3×3 stem, stages of two-convolution blocks.

    blocks: how many in each stage; a stage after the first halves height and width. ResNet-8 is blocks (1, 1, 1)
    with widths (16, 32, 64), ResNet-20 the same with (3, 3, 3), ResNet-18 (2, 2, 2, 2) with (64, 128, 256, 512).
    Names are those of torchvision's resnet18. Where size or width change, the shortcut is a 1×1 convolution.

    Without a norm torch's weights let the signal die within a few layers. So with norm "none" convolutions start
    with He's variance 2/fan_in (He et al. 2015), the last one of each block divided by √(number of blocks), which
    keeps what the blocks add up to of order one (Hayou et al. 2021).
    """

    blocks: tuple[int, ...] = (1, 1, 1)
    widths: tuple[int, ...] = (16, 32, 64)  # channels in each stage

    def __post_init__(self) -> None:
        _check(self.norm, self.groups, self.widths)
        if len(self.blocks) != len(self.widths) or min(self.blocks) < 1:
            raise ValueError(f"give blocks ≥ 1 and a width for every stage, got {self.blocks} and {self.widths}")

    def initial(self, streams: Streams) -> Leaves:
        """Draw the parameters of every replica as torch does; with norm "none", convolutions as said above."""
        leaves = super().initial(streams)
        if self.norm == "none":
            for name, leaf in leaves.items():
                if leaf.ndim == 5:
                    leaf.mul_(math.sqrt(6.0 / (sum(self.blocks) if name.endswith("conv2.weight") else 1.0)))
        return leaves

    def module(self, settled: bool = False) -> nn.Module:
        """Return conv1, bn1, layer1.0, …, fc."""
        return _ResNet(self, settled)

    def _block_list(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield name, fan-in, width and stride of every block."""
        fan_in = self.widths[0]
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for i in range(count):
                yield f"layer{stage + 1}.{i}", fan_in, width, 2 if stage > 0 and i == 0 else 1
                fan_in = width

    def _forward(self, layers: _Layers, x: Tensor) -> Tensor:
        x = layers.norm(layers.conv(x, "conv1"), "bn1").relu_()
        for name, _, _, stride in self._block_list():
            y = layers.norm(layers.conv(x, f"{name}.conv1", stride), f"{name}.bn1").relu_()
            y = layers.norm(layers.conv(y, f"{name}.conv2"), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in layers.params:
                x = layers.norm(layers.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = (y + x).relu_()
        return layers.dense(layers.apart(x.contiguous().mean((2, 3))), "fc")


@dataclass(frozen=True)
class _Layers:
    """Layers on merged activations [B, R·C, H, W], parameters (R, …) by name.

    share: None in training and evaluation; while statistics are gathered, the weight of the batch at hand in them.
    """

    params: Leaves
    kind: Norm
    groups: int
    share: float | None = None

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """Convolve with one group per replica."""
        weight, bias = self.params[f"{name}.weight"], self.params.get(f"{name}.bias")
        flat = None if bias is None else bias.flatten()
        return functional.conv2d(
            x, weight.flatten(0, 1), flat, stride, padding=weight.shape[-1] // 2, groups=len(weight)
        )

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Normalise each replica's channels, by stored statistics where there are any."""
        if self.kind == "none":
            return x
        weight, bias = self.params[f"{name}.weight"], self.params[f"{name}.bias"].flatten()
        if self.kind == "group":
            if x.dtype != weight.dtype:  # autocast is on, which would widen what enters and leaves to float32
                with torch.autocast(x.device.type, enabled=False):
                    scale = weight.flatten().to(x.dtype), bias.to(x.dtype)
                    return functional.group_norm(x, len(weight) * self.groups, *scale)
            return functional.group_norm(x, len(weight) * self.groups, weight.flatten(), bias)
        mean, variance = (self.params.get(f"{name}.running_{part}") for part in ("mean", "var"))
        if mean is None or variance is None:
            return functional.batch_norm(x, None, None, weight.flatten(), bias, training=True)
        gather = self.share is not None
        return functional.batch_norm(
            x, mean.view(-1), variance.view(-1), weight.flatten(), bias, gather, self.share or 0.0
        )

    def apart(self, x: Tensor) -> Tensor:
        """Take the replicas out of the channels: [B, R·C, H, W] → (R, B, C·H·W), contiguous."""
        replicas = len(next(iter(self.params.values())))
        return x.reshape(len(x), replicas, -1).transpose(0, 1).contiguous()

    def dense(self, x: Tensor, name: str) -> Tensor:
        """Return x Wᵀ + b for x (R, B, in)."""
        weight, bias = self.params[f"{name}.weight"], self.params[f"{name}.bias"]
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, net: ResNet, fan_in: int, width: int, stride: int, settled: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = _norm(net, width, settled)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = _norm(net, width, settled)
        self.downsample = nn.Sequential()
        if stride != 1 or fan_in != width:
            shortcut = nn.Conv2d(fan_in, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, _norm(net, width, settled))

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU(two convolutions of x + shortcut of x)."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        found: Tensor = (y + self.downsample(x)).relu()
        return found


class _ResNet(nn.Module):
    """The torch module of one replica."""

    def __init__(self, net: ResNet, settled: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(net.channels, net.widths[0], 3, padding=1, bias=False)
        self.bn1 = _norm(net, net.widths[0], settled)
        self.stages = [f"layer{i + 1}" for i in range(len(net.blocks))]
        for stage in self.stages:
            self.add_module(stage, nn.Sequential())
        for name, fan_in, width, stride in net._block_list():
            part = cast(nn.Sequential, self.get_submodule(name.partition(".")[0]))  # one of those just added
            part.append(_Block(net, fan_in, width, stride, settled))
        self.fc = nn.Linear(net.widths[-1], net.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, classes) for images (B, C, H, W)."""
        x = self.bn1(self.conv1(x)).relu()
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        outputs: Tensor = self.fc(x.mean((2, 3)))
        return outputs


def _norm(net: _Convolutional, width: int, settled: bool) -> nn.Module:
    """Return the norm of one layer."""
    if net.norm == "group":
        return nn.GroupNorm(net.groups, width)
    return nn.BatchNorm2d(width, track_running_stats=settled) if net.norm == "batch" else nn.Identity()


@lru_cache(maxsize=256)
def _footprint(model: _Convolutional, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Return the footprint for a batch of that shape, which takes a pass through a net without numbers."""
    with torch.device("meta"):
        module = model.module()
        images = torch.empty(1, *shape, dtype=dtype)
    leaves = {
        k: torch.empty(1, *p.shape, dtype=dtype, device="meta", requires_grad=True)
        for k, p in module.named_parameters()
    }
    kept = saved_bytes(lambda: model.forward(leaves, images))
    return 3 * sum(leaf.nbytes for leaf in leaves.values()) + sum(kept) + 4 * max(kept)


def _check(norm: str, groups: int, widths: tuple[int, ...]) -> None:
    if norm not in ("group", "batch", "none"):
        raise ValueError(f'norm must be "group", "batch" or "none", got {norm!r}')
    if norm == "group" and any(width % groups for width in widths):
        raise ValueError(f"group norm with {groups} groups needs widths that are multiples of it, got {widths}")
