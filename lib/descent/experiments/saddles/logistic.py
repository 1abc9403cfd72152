"""A noise floor on real data: logistic regression started at its exact minimum, with no free parameter left.

The loss rises from the minimum to a floor that the noise of one example predicts. Momentum lifts it as far as the
matched step of plain descent does.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import sem
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.data import images
from descent.engine import Every, every
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import Arm, rule
from descent.problems.networks import Logistic
from descent.stats import mean, ratio_of_means

ARMS = (Arm.PLAIN, Arm.HALF, Arm.HEAD, Arm.MATCHED)


@dataclass(frozen=True)
class LogisticFloor:
    """ARMS around one minimum; the slowest mode of the slowest arm forgets its start in a thousand steps."""

    data: str = "digits"
    examples: int | None = None  # of the data set; None takes all
    decay: float = 0.1
    batch_size: int = 32
    lr: float = 0.005
    steps: int = 7000
    discard: int = 3000  # steps before losses count
    every: int = 25  # steps between two looks
    replicas: Share = Share(most=32)


@dataclass(frozen=True, eq=False)
class LogisticResult:
    """Stationary excess losses (A, N), their prediction (A,), and the mean over replicas (A, T) at steps (T,).

    lr, momentum (A,) of ARMS. A replica that diverged in any arm is dropped from all.
    """

    config: LogisticFloor
    lab: Lab
    lr: Array
    momentum: Array
    excess: Array
    predicted: Array
    path: Array
    steps: IntArray


def run(config: LogisticFloor, lab: Lab) -> LogisticResult:
    """Release every arm at the minimum and watch the loss rise to its floor."""
    inputs, labels = lab.bring(*images.examples(config.data, config.examples))
    problem = Logistic(inputs, labels, 10, config.decay, config.batch_size)
    arms, minimum = lab.arms(rule(ARMS, config.lr, lab.momentum), config.replicas), problem.minimum
    probe: Every[Tensor] = every(config.every, lambda weights: problem.loss(weights) - minimum.loss)
    done = arms.run(problem, minimum.params.to(inputs).unsqueeze(0), config.steps, probes={"excess": probe})
    excess, steps = done["excess"][:, done.alive], done.at("excess")
    lr, momentum = arms.rule.lr.numpy(), arms.rule.momentum.numpy()
    return LogisticResult(
        config, lab, lr, momentum,
        excess=excess[:, :, steps >= config.discard].mean(2),
        predicted=minimum.excess_loss(lr, momentum, config.batch_size),
        path=excess.mean(1), steps=steps,
    )  # fmt: skip


def estimates(result: LogisticResult) -> Estimates:
    """Return what logistic regression says about P3-C2 and P3-C11."""
    plain, head = (ARMS.index(arm) for arm in (Arm.PLAIN, Arm.HEAD))
    return {
        "P3-C2.logistic": ratio_of_means(result.excess[head], result.excess[plain], result.lab.seed),
        "P3-C11.logistic": mean(result.excess[head] / result.predicted[head]),
    }


def tables(result: LogisticResult) -> Tables:
    """Return one row per arm."""
    excess, predicted = result.excess, result.predicted
    frame = tidy(
        {"lr": result.lr}, momentum=result.momentum, excess_loss=excess.mean(1), standard_error=sem(excess, axis=1),
        replicas=excess.shape[1], predicted=predicted, value=each(mean, excess / predicted[:, None]),
        over_plain=excess.mean(1) / excess[ARMS.index(Arm.PLAIN)].mean(),
    )  # fmt: skip
    return {"logistic": frame.rename(columns={"value": "ratio"})}


LARGE = LogisticFloor(  # a smaller rate for the larger inputs
    "mnist", 20_000, lr=0.0005, steps=70_000, discard=30_000, every=250, replicas=Share(most=64)
)
LOGISTIC = Experiment("logistic", small=LogisticFloor(), large=LARGE, run=run, estimates=estimates, tables=tables)
