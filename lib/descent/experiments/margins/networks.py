"""A small convolutional network on CIFAR-10, full batch, compared at equal loss: what is known of P4-C1 at this scale.

Too long for a chapter: `python -m descent.experiments.margins.networks [SEEDS]` writes the table that the chapter
shows, `data/published/margins/networks.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pandas import DataFrame
from torch import Tensor

from descent.data.images import channels_first, load, pooled
from descent.engine.rules import ema
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.margins.arms import AtLoss, train_until
from descent.nets.convolutional import CNN
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.results import digest, project_root, provenance, save_table


@dataclass(frozen=True)
class Networks:
    """Arms (EMA rate, momentum) of a CNN without normalisation on images of 16 × 16 pixels, stopped at one loss."""

    seeds: int = 32
    seed: int = 0
    device: str = "cpu"
    arms: tuple[tuple[float, float], ...] = ((0.2, 0.0), (0.5, 0.0), (0.5, 0.98))
    examples: int = 1000
    tests: int = 2000
    target: float = 0.02
    steps: int = 6000


def run(config: Networks) -> DataFrame:
    """Train one seed at a time, so that what is done is kept; one row per seed and arm."""
    images = {
        split: pooled(load("cifar10", split).take(count))
        for split, count in (("train", config.examples), ("test", config.tests))
    }
    inputs = channels_first(images["train"].images).to(config.device)
    tests = channels_first(images["test"].images, like=images["train"].images).to(config.device)
    model = CNN(widths=(16, 32), dense=(64,), size=16, classes=10)
    problem = Supervised(model, CrossEntropy(), inputs, images["train"].labels.to(config.device), sampling="full")
    seeds = replica_seeds(config.seed, config.seeds, config.device)
    rows = []
    for index in range(config.seeds):
        streams = Streams(seeds[index : index + 1])
        for lr, momentum in config.arms:
            step, accuracy = _one(config, problem, (lr, momentum), streams, (tests, images["test"].labels))
            rows.append({"seed": index, "lr": lr, "momentum": momentum, "step": step, "accuracy": accuracy})
            print(rows[-1], file=sys.stderr, flush=True)
    return DataFrame(rows)


def _one(
    config: Networks, problem: Supervised, arm: tuple[float, float], streams: Streams, test: tuple[Tensor, Tensor]
) -> tuple[int, float]:
    """Return the step at which the loss was met and the test accuracy there; (−1, not a number) if it was not."""
    keeper = AtLoss(problem, (config.target,), every=5)
    train_until(keeper, problem, problem.model.initial(streams), ema(*arm), config.steps, streams)
    with torch.no_grad():
        accuracy = problem.accuracy(keeper.kept[0], test[0], test[1].to(config.device))
    step = int(keeper.passed[0])
    return step, float(accuracy) if step >= 0 else float("nan")


def main(arguments: Sequence[str]) -> None:
    """Write the table among those published."""
    config = Networks(seeds=int(arguments[0]) if arguments else 32)
    conditions = provenance(
        "cpu", config.device, config.seed, config.seeds, modules=["descent.experiments.margins.networks"]
    )
    save_table(
        "networks",
        run(config),
        conditions,
        project_root() / "data" / "published" / "margins",
        experiment="networks",
        config=digest(config),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
