"""Is Adam's first momentum visible at a fixed rate? With a slow second moment, and with fast ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from descent.arrays import Array
from descent.engine import adam
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Tables, tidy
from descent.experiments.normalised.nets import Net
from descent.stats import Estimate, draw_difference, draw_mean

SLOW, FAST = 0.999, 0.9


@dataclass(frozen=True)
class AdamFirst:
    """Adam with and without momentum, at every second moment and rate; rates fade to nothing."""

    net: Net = field(default_factory=Net)
    momentum: float = 0.9
    second: tuple[float, ...] = (FAST, 0.95, 0.99, SLOW)
    lr: tuple[float, ...] = (1e-3, 1e-2)
    batch_size: int = 8
    steps: int = 1000


@dataclass(frozen=True, eq=False)
class AdamFirstResult(Result[AdamFirst]):
    """Log training losses (2, S, E, D, N/D), without momentum and with it, by second moment and rate."""

    losses: Array

    def gain(self, second: float, lr: float) -> Estimate:
        """Return the log loss with momentum less that without."""
        config = self.config
        without, with_ = self.losses[:, config.second.index(second), config.lr.index(lr)]
        return draw_difference(with_, without)


def run(config: AdamFirst, lab: Lab) -> AdamFirstResult:
    """Train all arms together."""
    task, shape = config.net.task(lab), (2, len(config.second), len(config.lr))
    grids = np.meshgrid([0.0, config.momentum], config.second, config.lr, indexing="ij")
    momentum, second, lr = (grid.ravel().tolist() for grid in grids)
    ends = task.ends(lab, config.net, adam(lr, momentum, second), config.batch_size, config.steps)
    return AdamFirstResult(config, lab, ends.reshape(*shape, *ends.shape[1:]))


def estimates(result: AdamFirstResult) -> Estimates:
    """Return what the ends say about N-8."""
    lr = result.config.lr
    return {"N-8.slow": [result.gain(SLOW, rate) for rate in lr], "N-8.fast": result.gain(FAST, lr[-1])}


def tables(result: AdamFirstResult) -> Tables:
    """Return mean log losses and what momentum changes."""
    config = result.config
    losses = [[[draw_mean(x) for x in by_rate] for by_rate in arm] for arm in result.losses]
    gains = [[result.gain(second, lr) for lr in config.lr] for second in config.second]
    axes: dict[str, tuple[float, ...]] = {"second": config.second, "lr": config.lr}
    return {
        "adam": tidy({"momentum": (0.0, config.momentum), **axes}, log_loss=np.array(losses, dtype=object)),
        "adam_gain": tidy(axes, gain=np.array(gains, dtype=object)),
    }


ADAM = Experiment(
    "adam", small=AdamFirst(), run=run, estimates=estimates, tables=tables,
    large=AdamFirst(net=Net(draws=32, hidden=64), steps=2000),
)  # fmt: skip
