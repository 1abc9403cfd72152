"""Does alignment depend on the number of parameters? Architectures of every width, and a net built to fail."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.experiments.arms import configure, in_parts, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.alignment import loss_alignment
from descent.stats.estimate import Estimate
from descent.stats.intervals import exact, mean
from descent.theory.features import ACTIVATIONS, alignment_floor, deep_linear, two_layer

DEEP, FEATURES = "deep linear", "random features"


@dataclass(frozen=True)
class Width:
    """Random networks of growing width on Gaussian inputs; residuals against other networks of the same kind."""

    replicas: int
    seed: int
    device: str
    examples: int = 100
    inputs: int = 50
    activations: tuple[str, ...] = ("linear", "leaky", "relu", "tanh", "softplus")
    widths: tuple[int, ...] = (2, 8, 32, 128, 512, 2048)
    deep: tuple[int, ...] = (32, 128, 512)
    depth: int = 4
    probes: int = 8  # residuals per network
    wide: int = 128  # slopes are fitted from this width on: below, the finite net's own fluctuation shows

    @classmethod
    def cpu(cls, settings: Settings) -> Width:
        """Draw a few dozen networks of each width, up to eight hundred thousand parameters."""
        return cls(max(32, min(settings.replicas // 20, 128)), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Width:
        """Draw widths up to tens of thousands, five million parameters of a deep linear net."""
        return cls(
            max(64, settings.replicas // 10),
            settings.seed,
            settings.device,
            examples=1000,
            widths=(2, 8, 32, 128, 512, 2048, 8192),
            deep=(32, 128, 512, 1600),
        )


@dataclass(frozen=True, eq=False)
class WidthResult:
    """Uncentred loss alignment and least score over mean score, (W, N), per architecture; parameters (W,).

    floor_ratio (W, N): least score ratio over its derived floor, leaky activation; dead: alignment (N,) when the one
    residual sits on an example that no neuron sees.
    """

    config: Width
    parameters: dict[str, Array]
    typical: dict[str, Array]
    worst: dict[str, Array]
    floor_ratio: Array
    dead: Array
    seconds: float

    def wide(self, name: str) -> NDArray[np.bool_]:
        """Tell which widths of an architecture slopes are fitted to."""
        widths = self.config.deep if name == DEEP else self.config.widths
        return np.array(widths) >= self.config.wide


def run(config: Width) -> WidthResult:
    """Measure every architecture at every width."""
    clock = time.perf_counter()
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device), torch.float64)
    inputs = streams.normal(Purpose.DATA, 0, (config.examples, config.inputs))
    parameters, typical, worst = {}, {}, {}
    for name in (*config.activations, DEEP, FEATURES):
        widths = config.deep if name == DEEP else config.widths
        parameters[name] = np.array([_trained(config, name, width) for width in widths], dtype=np.float64)
        found = np.stack([to_numpy(_aligned(config, streams, inputs, name, width)) for width in widths])
        typical[name], worst[name] = np.moveaxis(found, -1, 0)
    floor = to_numpy(alignment_floor(ACTIVATIONS["leaky"], inputs))
    return WidthResult(
        config, parameters, typical, worst, worst["leaky"] / floor, _dead(streams, inputs), time.perf_counter() - clock
    )


def _trained(config: Width, name: str, width: int) -> int:
    """Return the number of parameters trained."""
    if name == DEEP:
        return sum(a * b for a, b in _shapes(config, width))
    return width if name == FEATURES else width * config.inputs


def _shapes(config: Width, width: int) -> list[tuple[int, int]]:
    """Return the shapes of the layers of a deep linear net."""
    return [(width, config.inputs), *[(width, width)] * (config.depth - 2), (1, width)]


def _aligned(config: Width, streams: Streams, inputs: Tensor, name: str, width: int) -> Tensor:
    """Return alignment and least score over mean score of every network, (N, 2), some networks at a time."""

    def measure(rows: slice) -> Tensor:
        gram, residuals = _network(config, streams.subset(rows), inputs[rows], name, width)
        found = loss_alignment(gram.unsqueeze(-3), residuals)
        return torch.stack([found.uncentred.mean(-1), (found.scores.amin(-1) / found.scores.mean(-1))[:, 0]], dim=-1)

    return in_parts(measure, config.replicas, _bytes(config, name, width))


def _bytes(config: Width, name: str, width: int) -> int:
    """Return about what one network takes in float64: n × n matrices, one per residual too, activations, weights."""
    n = config.examples
    weights = 2 * _trained(config, name, width) if name == DEEP else 2 * width * config.inputs
    return 8 * ((6 + config.probes) * n**2 + 8 * n * width + 4 * weights)


def _network(config: Width, streams: Streams, inputs: Tensor, name: str, width: int) -> tuple[Tensor, Tensor]:
    """Return the Gram matrix (N, n, n) and residuals against a few other nets (N, P, n).

    The other nets share their lower layers: it is the outer one that makes them differ.
    """
    d = config.inputs
    if name == DEEP:
        first, second = (
            [_weights(streams, 20 * width + 10 * draw + i, s) for i, s in enumerate(_shapes(config, width))]
            for draw in range(2)
        )
        outputs, gram = deep_linear(inputs, first)
        outer = torch.cat([second[-1], _weights(streams, 20 * width + 19, (config.probes - 1, width))], dim=1)
        hidden = inputs
        for weight in second[:-1]:
            hidden = hidden @ weight.mT
        return gram, outputs.unsqueeze(-2) - (hidden @ outer.mT).mT
    if name == FEATURES:
        features = torch.tanh(inputs @ _weights(streams, 7 * width + 100_000, (width, d)).mT)
        change = streams.normal(Purpose.INIT, 7 * width + 300_000, (config.probes, width))
        return features @ features.mT, (features @ change.mT).mT
    inner = [_weights(streams, 7 * width + 100_000 * (draw + 1), (width, d)) for draw in range(2)]
    signs = streams.signs(Purpose.INIT, 7 * width + 100_000, (config.probes + 1, width)) / width**0.5
    outputs, gram = two_layer(ACTIVATIONS[name], inputs, inner[0], signs[:, 0])
    others = (ACTIVATIONS[name].value(inputs @ inner[1].mT) @ signs[:, 1:].mT).mT
    return gram, outputs.unsqueeze(-2) - others


def _weights(streams: Streams, step: int, shape: tuple[int, int]) -> Tensor:
    """Draw a layer of variance 1/fan-in."""
    root: float = shape[1] ** 0.5
    return streams.normal(Purpose.INIT, step, shape) / root


def _dead(streams: Streams, inputs: Tensor) -> Array:
    """Return the alignment of one ReLU neuron whose only residual sits on an example on its dark side."""
    inner = streams.normal(Purpose.INIT, 999_999, (1, inputs.shape[-1]))
    gram = two_layer(ACTIVATIONS["relu"], inputs, inner, torch.ones_like(inner[..., 0]))[1]
    unseen = (inputs @ inner.mT).squeeze(-1).argmin(dim=-1)
    residuals = torch.nn.functional.one_hot(unseen, inputs.shape[-2]).to(inputs)
    return to_numpy(loss_alignment(gram, residuals).uncentred)


def estimates(result: WidthResult) -> Estimates:
    """Return what the widths say about P5-C4, P5-C5, P5-C6 and P5-W4."""
    slopes = [mean(_per_decade(result, name)) for name in result.typical]
    levels = {name: [mean(row) for row in rows[result.wide(name)]] for name, rows in result.typical.items()}
    return {
        "P5-C4.slope": max(slopes, key=lambda e: abs(e.value)),
        "P5-C4.level": _least([e for found in levels.values() for e in found]),
        "P5-C5.bound": exact(float(result.floor_ratio.min())),
        "P5-C5.typical": _least([mean(row) for row in result.typical["leaky"]]),
        "P5-C6.constructed": exact(float(np.abs(result.dead).max())),
        "P5-C6.typical": max(levels["relu"], key=lambda e: abs(e.value - 1)),
        "P5-W4.linear": _least(levels[DEEP]),
        "P5-W4.features": _least(levels[FEATURES]),
    }


def _least(found: list[Estimate]) -> Estimate:
    return min(found, key=lambda e: e.value)


def _per_decade(result: WidthResult, name: str) -> Array:
    """Return each replica's slope of alignment per decade of parameters, over the wide ones, (N,)."""
    wide = result.wide(name)
    logs = np.log10(result.parameters[name][wide])
    logs = logs - logs.mean()
    return np.asarray(logs @ result.typical[name][wide] / (logs @ logs))


def tables(result: WidthResult) -> dict[str, DataFrame]:
    """Return mean alignments, one row per architecture and width."""
    rows = [
        {"architecture": name, "parameters": count, "typical": values.mean(), "worst": result.worst[name][i].mean()}
        for name in result.typical
        for i, (count, values) in enumerate(zip(result.parameters[name], result.typical[name], strict=True))
    ]
    return {"width": DataFrame(rows)}


WIDTH = Experiment(
    "width", ("P5-C4", "P5-C5", "P5-C6", "P5-W4"), lambda settings: run(configure(Width, settings)), estimates, tables
)
