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

from descent.data.images import channels_first, load, pooled
from descent.engine import Arms, ema
from descent.experiments.lab import Lab
from descent.experiments.margins.arms import AtLoss
from descent.nets import CNN, CrossEntropy, Supervised
from descent.results import digest, project_root, provenance, save_table


@dataclass(frozen=True)
class Networks:
    """Arms (EMA rate, momentum) of a CNN without normalisation on images of 16 × 16 pixels, stopped at one loss."""

    seeds: int = 32
    arms: tuple[tuple[float, float], ...] = ((0.2, 0.0), (0.5, 0.0), (0.5, 0.98))
    examples: int = 1000
    tests: int = 2000
    target: float = 0.02
    steps: int = 6000


def run(config: Networks, lab: Lab) -> DataFrame:
    """Train one seed at a time, so that what is done is kept; one row per seed and arm.

    The step is that at which the loss was met, accuracy that on the test set there; −1 and not a number if it was not.
    """
    train, test = (
        pooled(load("cifar10", split).take(count))
        for split, count in (("train", config.examples), ("test", config.tests))
    )
    images = (channels_first(each.images, like=train.images) for each in (train, test))
    inputs, test_inputs, labels, test_labels = lab.bring(*images, train.labels, test.labels)
    model = CNN(widths=(16, 32), dense=(64,), size=16, classes=10)
    problem = Supervised(model, CrossEntropy(), inputs, labels, sampling="full")
    rows = []
    for seed in range(config.seeds):
        for lr, momentum in config.arms:
            keeper, arms = (
                AtLoss(problem, (config.target,), every=5),
                Arms(ema(lr, momentum), lab.streams(1, skip=seed)),
            )
            keeper.train(arms, problem, model.initial, config.steps)
            with torch.no_grad():
                accuracy = float(problem.accuracy(keeper.kept[0], test_inputs, test_labels))
            step = int(keeper.passed[0])
            about = {"seed": seed, "lr": lr, "momentum": momentum}
            rows.append(about | {"step": step, "accuracy": accuracy if step >= 0 else float("nan")})
            print(rows[-1], file=sys.stderr, flush=True)
    return DataFrame(rows)


def main(arguments: Sequence[str]) -> None:
    """Write the table among those published."""
    config, lab = Networks(seeds=int(arguments[0]) if arguments else 32), Lab()
    conditions = provenance("cpu", lab.device, lab.seed, config.seeds, modules=[Networks.__module__])
    folder = project_root() / "data" / "published" / "margins"
    save_table("networks", run(config, lab), conditions, folder, experiment="networks", config=digest(config))


if __name__ == "__main__":
    main(sys.argv[1:])
