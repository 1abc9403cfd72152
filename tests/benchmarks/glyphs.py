"""Train a linear map, a dense and a convolutional net on glyphs, and print what each gets right on fresh ones.

    python tests/benchmarks/glyphs.py --draws 4 --examples 4000 --seed 1000

Published for MNIST-1D with 4000 examples: linear 32 %, dense 68 %, convolutional 94 %. Every draw is a fresh set with
one net of each kind; the interval is Student's, over draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
import torch
from descent.data.draws import fresh
from descent.engine import Factors, heavy_ball, train
from descent.engine.streams import Streams, replica_seeds
from descent.nets import MLP, CrossEntropy, Model, Stacked, Supervised
from descent.problems.glyphs import CLASSES, POINTS, glyphs
from descent.stats import mean
from torch import nn

TESTS, BATCH = 1000, 64


def convolutional() -> nn.Module:
    """Return three convolutions, their mean over places, and a linear map: 8 thousand parameters."""
    return nn.Sequential(
        nn.Unflatten(1, (1, POINTS)),
        nn.Conv1d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(32, 32, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    )  # fmt: skip


def nets() -> Mapping[str, tuple[Model, float, float]]:
    """Return a model, the rate it begins with and its share of the passes, by name."""
    return {
        "linear": (MLP((POINTS, CLASSES)), 0.02, 0.5),
        "dense": (MLP((POINTS, 100, 100, CLASSES)), 0.05, 1.0),
        "convolutional": (Stacked(convolutional()), 0.05, 1.0),
    }


def accuracy(name: str, draws: int, examples: int, passes: int, seed: int) -> np.ndarray:
    """Return the percent right on fresh glyphs, one net per draw, (D,)."""
    streams, (model, lr, share) = Streams(replica_seeds(seed, draws)), nets()[name]
    inputs, targets = glyphs(streams, examples + TESTS)
    sets, steps = fresh(draws, examples, TESTS), round(share * passes * examples / BATCH)
    flat = inputs.flatten(0, 1), targets.flatten(0, 1)
    problem = Supervised(model, CrossEntropy(), *flat, BATCH, "shuffled_epochs", rows=sets.rows)
    stages = [Factors(lr=1 - stage / 20) for stage in range(20)]
    run = train(
        problem, model.initial(streams), heavy_ball([lr] * draws, 0.9), steps, streams,
        schedule=lambda step: stages[20 * step // steps],
    )  # fmt: skip
    return 100 * problem.accuracy(run.params, rows=sets.test).numpy()


def main() -> None:
    """Print a line per net."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option, usual in {"draws": 4, "examples": 4000, "passes": 20, "seed": 1000}.items():
        parser.add_argument(f"--{option}", type=int, default=usual)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in nets():
        found = accuracy(name, asked.draws, asked.examples, asked.passes, asked.seed)
        print(f"{name:14} {mean(found)} %", flush=True)


if __name__ == "__main__":
    main()
