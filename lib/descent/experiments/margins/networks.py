"""A small convolutional network on CIFAR-10, full batch, compared at equal loss: what is known of P4-C1 at this scale.

Too long for a chapter: `python -m descent.experiments.margins.networks [SEEDS]` writes the table that the chapter
shows, `data/published/margins/networks.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from pandas import DataFrame

from descent.data.images import pictures
from descent.engine import Arms, ema
from descent.experiments.lab import Lab
from descent.experiments.margins.arms import AtLoss
from descent.nets import CNN, CrossEntropy, Supervised
from descent.results import digest, project_root, provenance, save_table


@dataclass(frozen=True)
class Networks:
    """Arms (EMA rate, momentum) of a CNN without normalisation on images of 16 × 16 pixels, stopped at one loss."""

    seeds: int = 30
    draws: int = 10  # of the training images, none in common; seed s is trained on draw s mod 10
    arms: tuple[tuple[float, float], ...] = ((0.2, 0.0), (0.5, 0.0), (0.5, 0.98))
    examples: int = 1000
    tests: int = 2000
    target: float = 0.02
    steps: int = 6000


def run(config: Networks, lab: Lab) -> DataFrame:
    """Train one seed at a time, so that what is done is kept; one row per seed and arm.

    The step is that at which the loss was met, accuracy that on the test set there; −1 and not a number if it was not.
    """
    data = pictures("cifar10", config.draws * config.examples, config.tests, 2, lab.device)
    model, rows = CNN(widths=(16, 32), dense=(64,), size=16, classes=10), []
    sets = lab.draws(len(data.inputs), config.examples, config.draws)
    for seed, (lr, momentum) in product(range(config.seeds), config.arms):
        own = sets.rows[[seed % config.draws]]
        problem = Supervised(model, CrossEntropy(), data.inputs, data.labels, sampling="full", rows=own)
        keeper, arms = AtLoss(problem, (config.target,), every=5), Arms(ema(lr, momentum), lab.streams(1, skip=seed))
        keeper.train(arms, problem, model.initial, config.steps)
        with torch.no_grad():
            accuracy = float(problem.accuracy(keeper.kept[0], data.test_inputs, data.test_labels))
        step = int(keeper.passed[0])
        about = {"seed": seed, "draw": seed % config.draws, "lr": lr, "momentum": momentum}
        rows.append(about | {"step": step, "accuracy": accuracy if step >= 0 else float("nan")})
        print(rows[-1], file=sys.stderr, flush=True)
    return DataFrame(rows)


def accuracies(frame: DataFrame) -> DataFrame:
    """Return accuracies in percent, one row per draw of the images and one column per arm (momentum, lr).

    A table from before there were draws has one row per seed, all of the same images.
    """
    unit = "draw" if "draw" in frame else "seed"
    return 100 * frame.pivot_table(index=unit, columns=["momentum", "lr"], values="accuracy", dropna=False)


def main(arguments: Sequence[str]) -> None:
    """Write the table among those published."""
    config, lab = Networks(seeds=int(arguments[0]) if arguments else 30), Lab()
    conditions = provenance("cpu", lab.device, lab.seed, config.seeds, modules=[Networks.__module__])
    folder = project_root() / "data" / "published" / "margins"
    save_table("networks", run(config, lab), conditions, folder, experiment="networks", config=digest(config))


if __name__ == "__main__":
    main(sys.argv[1:])
