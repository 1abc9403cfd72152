"""Late fluctuation of a trained net's loss: with fresh label noise, where noise lasts, and with clean labels.

The harm of momentum at an optimum is its noise. Where the gradient noise dies with the loss, is there any harm left?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from descent.arrays import Array, IntArray
from descent.data import images
from descent.data.draws import Draws
from descent.engine import constant, drop, every
from descent.engine.arms import survivors
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.saddles.arms import Arm, rule
from descent.nets import MLP, CrossEntropy
from descent.problems.networks import FreshLabelNoise
from descent.stats import draw_ratio

ARMS = (Arm.PLAIN, Arm.HEAD, Arm.MATCHED, Arm.STEP)
LABELS = ("clean", "noisy")


@dataclass(frozen=True)
class LateLoss:
    """A net on labels of which a fresh share is replaced at every step; weights, batches, noise are common to ARMS."""

    data: str = "digits"
    images: int = 170
    draws: int = 10  # of so many images, none in two of them
    hidden: int = 16
    batch_size: int = 32
    shares: tuple[float, float] = (0.0, 0.2)  # of labels replaced, by LABELS
    lr: float = 0.05
    steps: int = 4000
    switch: int = 2000  # where the annealed arm's step is cut
    tail: int = 1000  # the last steps, which count
    every: int = 25
    replicas: Share = Share(most=30)  # nets of every arm, as many for each draw


@dataclass(frozen=True, eq=False)
class LateLossResult:
    """Axis 0 is LABELS; losses (2, A, N, T) of ARMS at steps (T,) are over all images of a draw with clean labels.

    Over the tail: their mean `final`, standard deviation `raw`, and `fluctuation` about a quadratic trend,
    each (2, A, N). A replica that diverged in any arm is not a number in all. sets: the images of every draw.
    """

    config: LateLoss
    lab: Lab
    sets: Draws
    losses: Array
    steps: IntArray
    raw: Array
    fluctuation: Array
    final: Array


def run(config: LateLoss, lab: Lab) -> LateLossResult:
    """Train every arm once on clean and once on noisy labels."""
    inputs, labels = lab.bring(*images.examples(config.data))
    sets = lab.draws(len(labels), config.images, config.draws)
    net, runs = MLP((inputs.shape[1], config.hidden, 10), "tanh"), []
    arms = lab.arms(rule(ARMS, config.lr, lab.momentum), lab.per_draw(config.replicas, config.draws))
    cut = drop(config.switch, lr=1 - lab.momentum)
    schedule = [cut if arm is Arm.STEP else constant() for arm in ARMS]
    for share in config.shares:
        problem = FreshLabelNoise(net, CrossEntropy(), inputs, labels, config.batch_size, share=share, rows=sets.rows)
        looks = {"loss": every(config.every, problem.value)}
        runs.append(arms.run(problem, net.initial, config.steps, probes=looks, schedule=schedule))
    steps, alive = runs[0].at("loss"), survivors(np.stack([run.lost for run in runs]))
    losses = np.where(alive[:, None], np.stack([run["loss"] for run in runs]), np.nan)
    late = losses[..., steps >= config.steps - config.tail]
    raw, final = late.std(-1, ddof=1), late.mean(-1)
    return LateLossResult(config, lab, sets, losses, steps, raw, fluctuation(late), final)


def fluctuation(values: Array, degree: int = 2) -> Array:
    """Return the standard deviation along the last axis about a polynomial trend.

    The trend is the descent still going on. A straight line is not enough: it misses the decay of a slow arm
    by more than the noise.
    """
    count = values.shape[-1]
    basis, _ = np.linalg.qr(legendre.legvander(np.linspace(-1, 1, count), degree))
    rest = values - values @ basis @ basis.T
    return np.asarray(np.sqrt((rest**2).sum(-1) / (count - degree - 1)))


def ratios(result: LateLossResult) -> NDArray[np.object_]:
    """Return each arm's fluctuation over plain descent's, estimates (2, A)."""
    found = result.sets.by_draw(result.fluctuation)
    plain = ARMS.index(Arm.PLAIN)
    return np.array([[draw_ratio(arm, arms[plain]) for arm in arms] for arms in found], dtype=object)


def estimates(result: LateLossResult) -> Estimates:
    """Return what the late losses say about P3-X4."""
    clean, noisy = ratios(result)[:, ARMS.index(Arm.HEAD)]
    return {"P3-X4.clean": clean, "P3-X4.noisy": noisy}


def tables(result: LateLossResult) -> Tables:
    """Return one row per label set and arm."""
    arms = rule(ARMS, result.config.lr, result.lab.momentum)
    means = {"loss": result.final, "fluctuation": result.fluctuation, "fluctuation_raw": result.raw}
    frame = tidy(
        {"labels": LABELS, "arm": ARMS}, lr=arms.lr.numpy(), momentum=arms.momentum.numpy(),
        **{name: np.nanmean(values, axis=-1) for name, values in means.items()},
        value=ratios(result),
    )  # fmt: skip
    return {"late_loss": frame.rename(columns={"value": "over_plain"})}


LARGE = LateLoss(
    "mnist", 6000, 10, 256, lr=0.005, steps=80_000, switch=40_000, tail=20_000, every=400, replicas=Share(most=60)
)
ANNEALED_NETWORKS = Experiment("annealed_networks", LateLoss(), LARGE, run=run, estimates=estimates, tables=tables)
