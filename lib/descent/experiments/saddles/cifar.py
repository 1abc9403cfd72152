"""Six arms on CIFAR-10: momentum, its two annealings, and plain descent with the matched step, annealed and not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from pandas import DataFrame
from scipy.stats import sem
from torch import Tensor

from descent.data import images
from descent.engine.probes import Leaves
from descent.engine.train import Probe, Run, Series, every, train
from descent.experiments.arms import Arms, Array, configure, survivors, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.stats.intervals import paired_difference

NAMES = ("plain", "momentum", "step annealed", "momentum annealed", "plain, matched step", "plain, matched, annealed")
PLAIN, HEAD, STEP, MOMENTUM, MATCHED, MATCHED_ANNEALED = range(6)
_PARENT = (0, 1, 1, 1, 2, 2)  # which of the three arms before the switch each of the six goes on from


class Race(Protocol):
    """What the six arms have to know of a configuration; `early`, `switch` and `steps` count from the start."""

    @property
    def before(self) -> Arms:
        """The first three arms."""

    @property
    def after(self) -> Arms:
        """All six."""

    @property
    def early(self) -> int:
        """The step at which speed is compared."""

    @property
    def switch(self) -> int:
        """The step at which three arms become six."""

    @property
    def steps(self) -> int:
        """The last step."""


@dataclass(frozen=True)
class Cifar:
    """A two-layer tanh net on principal components of images that must be on the machine; annealed at `switch`."""

    components: int
    examples: int
    test_examples: int
    hidden: int
    batch_size: int
    lr: float
    momentum: float
    early: int  # step at which speed is compared
    switch: int
    steps: int
    every: int
    watched: int  # training examples the curve is drawn from
    replicas: int
    seed: int
    device: str

    @classmethod
    def cpu(cls, settings: Settings) -> Cifar:
        """Return 20 000 images on 64 components, 48 hidden units."""
        return cls(
            64,
            20_000,
            10_000,
            48,
            32,
            0.05,
            settings.momentum,
            100,
            3000,
            4500,
            50,
            2000,
            min(settings.replicas, 32),
            settings.seed,
            settings.device,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Cifar:
        """Return every image on 256 components, 256 hidden units."""
        return cls(
            256,
            50_000,
            10_000,
            256,
            32,
            0.05,
            settings.momentum,
            100,
            60_000,
            90_000,
            500,
            10_000,
            min(settings.replicas, 64),
            settings.seed,
            settings.device,
        )

    @property
    def before(self) -> Arms:
        """Plain, momentum, and plain with the matched step: what the six arms are until the switch."""
        lr = (self.lr, self.lr, self.lr / (1 - self.momentum))
        return Arms(lr, (0.0, self.momentum, 0.0), self.replicas, self.seed, self.device)

    @property
    def after(self) -> Arms:
        """The six arms of NAMES after the switch."""
        lr, momentum = self.lr, self.momentum
        rates = (lr, lr, lr * (1 - momentum), lr, lr / (1 - momentum), lr)
        return Arms(rates, (0.0, momentum, momentum, 0.0, 0.0, 0.0), self.replicas, self.seed, self.device)


@dataclass(frozen=True, eq=False)
class CifarResult:
    """Final training loss and test accuracy (6, N) by NAMES; early (2, N) training loss of plain and momentum.

    curve (6, T): mean loss at steps (T,) on a fixed part of the training images; `title` names the data in
    labels. A replica that diverged in any arm is dropped from all.
    """

    config: Cifar
    title: str
    loss: Array
    accuracy: Array
    early: Array
    curve: Array
    steps: Array
    seconds: float


def run(config: Cifar) -> CifarResult:
    """Train three arms to the switch and go on with six; the same weights and batches throughout.

    Raises: DataMissing without the images.
    """
    data = images.project("cifar10", config.components, config.examples, config.test_examples)
    inputs, labels = data.inputs.to(config.device), data.labels.to(config.device)
    net = MLP((config.components, config.hidden, 10), "tanh")
    problem = Supervised(net, CrossEntropy(), inputs, labels, config.batch_size)
    rows = slice(0, config.watched)
    probe = every(config.every, lambda net: problem.value(net, inputs[rows], labels[rows]))
    start, first, last = legs(problem, config, {"loss": probe})
    tests = data.test_inputs.to(config.device), data.test_labels.to(config.device)
    before, after = config.before, config.after
    alive = survivors(before, start) & survivors(before, first) & survivors(after, last)
    curve, steps = joined(config, first.records["loss"], last.records["loss"])
    return CifarResult(
        config=config,
        title=data.title,
        loss=after.split(problem.value(last.params))[:, alive],
        accuracy=after.split(_accuracy(net, cast(Leaves, last.params), *tests))[:, alive],
        early=before.split(problem.value(start.params))[[PLAIN, HEAD]][:, alive],
        curve=curve[:, alive].mean(1),
        steps=steps,
        seconds=start.seconds + first.seconds + last.seconds,
    )


def legs(
    problem: Supervised,
    race: Race,
    probes: Mapping[str, Probe],
    late: Mapping[str, Probe] | None = None,
    check: int = 1,
) -> tuple[Run, Run, Run]:
    """Return the run to the early look, on to the switch, and from there with six arms to the end.

    late: probes of the last leg alone; check: steps between two looks for divergence.
    """
    before, after, streams = race.before, race.after, race.before.streams()
    start = train(problem, problem.model.initial(streams), before.hyper, race.early, streams, check=check)
    first = train(
        problem,
        start.params,
        before.hyper,
        race.switch,
        streams,
        probes=probes,
        velocity=start.velocity,
        begin=race.early,
        check=check,
    )
    parents = torch.tensor(_PARENT, device=before.device).unsqueeze(1) * before.replicas
    index = (parents + torch.arange(before.replicas, device=before.device)).flatten()
    params, velocity = ({k: v[index] for k, v in cast(Leaves, part).items()} for part in (first.params, first.velocity))
    last = train(
        problem,
        params,
        after.hyper,
        race.steps,
        after.streams(),
        probes={**probes, **(late or {})},
        velocity=velocity,
        begin=race.switch,
        check=check,
    )
    return start, first, last


def joined(race: Race, first: Series, last: Series) -> tuple[Array, Array]:
    """Return a record of the six arms over the last two legs (6, N, T), the switch once, and its steps (T,)."""
    values = [race.before.split_series(first)[list(_PARENT)], race.after.split_series(last)]
    steps = [to_numpy(leg.steps) for leg in (first, last)]
    return np.concatenate([values[0][:, :, :-1], values[1]], axis=2), np.concatenate([steps[0][:-1], steps[1]])


def _accuracy(net: MLP, params: Leaves, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the share of test images (R,) each replica gets right, one replica at a time to save memory."""
    shares = []
    for r in range(len(params["0.weight"])):
        outputs = net.forward({name: leaf[r : r + 1] for name, leaf in params.items()}, inputs.unsqueeze(0))
        shares.append((outputs.argmax(-1) == labels).double().mean(1))
    return torch.cat(shares)


def estimates(result: CifarResult) -> Estimates:
    """Return what CIFAR-10 says about P3-C3, P3-C4, P3-C16 and P3-X1."""
    loss = result.loss
    if result.config.momentum == 0:
        return {}
    return {
        "P3-C3.cifar": paired_difference(loss[HEAD], loss[STEP]),
        "P3-C4.cifar": paired_difference(loss[MOMENTUM], loss[STEP]),
        "P3-C16.cifar": paired_difference(*result.early),
        "P3-X1.cifar": paired_difference(loss[STEP], loss[MATCHED_ANNEALED]),
    }


def tables(result: CifarResult) -> dict[str, DataFrame]:
    """Return one row per arm."""
    arms = result.config.after
    frame = DataFrame(
        {
            "data": result.title,
            "arm": NAMES,
            "final_lr": arms.lr,
            "final_momentum": arms.momentum,
            "loss": result.loss.mean(1),
            "loss_error": sem(result.loss, axis=1),
            "accuracy": result.accuracy.mean(1),
            "accuracy_error": sem(result.accuracy, axis=1),
            "replicas": result.loss.shape[1],
        }
    )
    return {"cifar": frame}


CIFAR = Experiment(
    "cifar", ("P3-C3", "P3-C4", "P3-C16", "P3-X1"), lambda settings: run(configure(Cifar, settings)), estimates, tables
)
