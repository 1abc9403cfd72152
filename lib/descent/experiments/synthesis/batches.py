"""When does momentum extend linear scaling? The same samples in larger batches, at equal effective step over batch.

The reference is SGD(η, B). Linear scaling multiplies η and B by the same factor. By the equivalence of the kernel's
diagonal heavy ball ((1 + β)η, β) at batch (1 + β)/(1 − β)·B should do the same, on the same samples in as many fewer
steps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params, every
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.synthesis.lineup import rules_of
from descent.experiments.synthesis.task import Leaves, Task, sharpness
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, paired_difference

HEAD = 0.9
RECORDS = ("sharpness", "accuracy", "loss")


class Setting(NamedTuple):
    """A loss, the reference's learning rate and batch, the share of mislabelled images, and which draw it is.

    scan: whether other momenta are tried at the batch of the headline one.
    """

    name: str
    loss: Literal["square", "logistic"]
    lr: float
    batch: int
    flips: float
    draw: int
    scan: bool = False


SETTINGS = (
    Setting("square, large step", "square", 0.05, 2, 0.0, 0),
    Setting("square, large step, flips", "square", 0.05, 2, 0.1, 1, scan=True),
    Setting("square, small step", "square", 0.005, 2, 0.1, 1),
    Setting("logistic", "logistic", 0.1, 2, 0.1, 1),
)


class Arm(NamedTuple):
    """A heavy-ball rule at its raw rate and the batch it is fed."""

    lr: float
    momentum: float
    batch: int


@dataclass(frozen=True)
class Batches:
    """Two-layer tanh nets on digits; every arm of a setting sees the same number of samples.

    momenta: of the equivalence, each at its own batch; scan: momenta at the batch of the headline momentum.
    """

    replicas: int
    samples: int
    seed: int
    device: str
    settings: tuple[Setting, ...] = SETTINGS
    momenta: tuple[float, ...] = (0.5, 0.8, HEAD)
    scan: tuple[float, ...] = (0.3, 0.5, 0.7, 0.8, 0.95, 0.98)
    hidden: int = 24

    @classmethod
    def cpu(cls, settings: Settings) -> Batches:
        """Take forty nets and 20 000 samples."""
        return cls(max(32, min(settings.replicas // 25, 64)), 20_000, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Batches:
        """Take more nets, six times the samples, three more draws and a strongly smoothed step."""
        more = tuple(Setting(f"square, large step, draw {d}", "square", 0.05, 2, 0.1, d) for d in (2, 3, 4))
        return cls(
            max(64, settings.replicas // 8), 96_000, settings.seed, settings.device, (*SETTINGS, *more), hidden=64
        )

    def factor(self, momentum: float) -> float:
        """Return (1 + β)/(1 − β), the factor on the batch."""
        return (1 + momentum) / (1 - momentum)

    def reference(self, setting: Setting) -> Arm:
        """Return SGD(η, B)."""
        return Arm(setting.lr, 0.0, setting.batch)

    def twin(self, setting: Setting, momentum: float) -> Arm:
        """Return the heavy ball that should do what the reference does, at a whole batch and the same e/B."""
        size = round(self.factor(momentum) * setting.batch)
        return self.at(setting, momentum, size)

    def at(self, setting: Setting, momentum: float, size: int) -> Arm:
        """Return the arm of a momentum and batch with the reference's e/B."""
        return Arm(setting.lr / setting.batch * size * (1 - momentum), momentum, size)

    def arms(self, setting: Setting) -> tuple[Arm, ...]:
        """Return every arm of a setting: reference, twins, linear scaling at their batches, and the scan."""
        twins = [self.twin(setting, m) for m in self.momenta]
        scaled = [self.at(setting, 0.0, arm.batch) for arm in twins]
        scan = [self.at(setting, m, twins[-1].batch) for m in self.scan if setting.scan]
        return (self.reference(setting), *twins, *scaled, *scan)


@dataclass(frozen=True, eq=False)
class BatchesResult:
    """Records of every setting and arm at the end, (A, N); a diverged net is not a number."""

    config: Batches
    ends: tuple[dict[str, Array], ...]
    seconds: float

    def of(self, index: int, arm: Arm, record: str) -> Array:
        """Return a record of one arm of a setting, (N,)."""
        return np.asarray(self.ends[index][record][self.config.arms(self.config.settings[index]).index(arm)])

    def against(self, index: int, arm: Arm, record: str = "sharpness") -> Estimate | None:
        """Return log λ₁ (or another record, as it is) less the reference's; None where fewer than two nets are left."""
        a, b = (self.of(index, which, record) for which in (arm, self.config.reference(self.config.settings[index])))
        if record in ("sharpness", "loss"):
            a, b = np.log(a), np.log(b)
        both = np.isfinite(a) & np.isfinite(b)
        return paired_difference(a[both], b[both]) if both.sum() > 1 else None

    def edge(self, index: int) -> Array:
        """Return e·λ₁ of the reference's end at the headline batch: above 2 SGD cannot keep its sharpness, (N,)."""
        setting = self.config.settings[index]
        reach = setting.lr * self.config.factor(HEAD)
        return reach * self.of(index, self.config.reference(setting), "sharpness")


def run(config: Batches) -> BatchesResult:
    """Train every arm of every setting."""
    clock = time.perf_counter()
    ends = tuple(_ends(config, setting) for setting in config.settings)
    return BatchesResult(config, ends, time.perf_counter() - clock)


def _ends(config: Batches, setting: Setting) -> dict[str, Array]:
    task = Task.of(
        config.seed,
        setting.draw,
        config.device,
        hidden=config.hidden,
        flips=setting.flips,
        faint=0.0,
        loss=setting.loss,
    )
    arms = config.arms(setting)
    found: dict[Arm, dict[str, Array]] = {}
    for batch in sorted({arm.batch for arm in arms}):
        group = [arm for arm in dict.fromkeys(arms) if arm.batch == batch]
        found |= _train(config, task, group, config.samples // batch)
    return {name: np.stack([found[arm][name] for arm in arms]) for name in RECORDS}


def _train(config: Batches, task: Task, arms: list[Arm], steps: int) -> dict[Arm, dict[str, Array]]:
    """Train the arms of one batch size together and measure them at the end."""
    n = config.replicas
    streams = Streams(replica_seeds(config.seed, n, config.device).repeat(len(arms)))
    hyper = rules_of(arms, n, config.device)

    def look(params: Params) -> dict[str, Tensor]:
        leaves = cast(Leaves, params)
        curvature = task.curvature_gram(leaves)
        return {"sharpness": sharpness(curvature), "accuracy": task.accuracy(leaves), "loss": task.value(leaves)}

    done = train(
        task.objective(arms[0].batch),
        task.start(streams),
        hyper,
        steps,
        streams,
        probes={"": every(steps, look)},
        check=10,
        limit=1e3,
    )
    lost = to_numpy(done.diverged_at).reshape(len(arms), n) >= 0
    last = {name: to_numpy(done.records[f".{name}"].values[-1]).reshape(len(arms), n) for name in RECORDS}
    return {arm: {k: np.where(lost[i], np.nan, v[i]) for k, v in last.items()} for i, arm in enumerate(arms)}


def estimates(result: BatchesResult) -> Estimates:
    """Return what fixed samples say about S-23 and S-29 to S-31."""
    config = result.config
    found: dict[str, Estimate] = {}
    keys = ("clean", "flips", "small_step", "logistic")
    for index, key in enumerate(keys):
        setting = config.settings[index]
        twin = config.twin(setting, HEAD)
        plain = config.at(setting, 0.0, twin.batch)
        claim = "S-23" if index < 2 else "S-29"
        for name, arm in (("momentum", twin), ("scaling", plain)):
            value = result.against(index, arm)
            if value is not None:
                found[f"{claim}.{key}_{name}"] = value
        found[f"{claim}.{key}_edge"] = mean(result.edge(index))
        loss = result.against(index, twin, "loss")
        if index < 2 and loss is not None:
            found[f"S-30.{key}"] = loss
    flips = config.settings[1]
    for name, momentum in (("weaker", 0.7), ("stronger", 0.95)):
        value = result.against(1, config.at(flips, momentum, config.twin(flips, HEAD).batch))
        if value is not None:
            found[f"S-31.{name}"] = value
    return found


def tables(result: BatchesResult) -> dict[str, DataFrame]:
    """Return every arm of every setting against the reference."""
    return {"batches": concat([_rows(result, i) for i in range(len(result.config.settings))], ignore_index=True)}


def _rows(result: BatchesResult, index: int) -> DataFrame:
    config, rows = result.config, []
    setting = config.settings[index]
    for arm in dict.fromkeys(config.arms(setting)):
        row: dict[str, float | str] = {
            "setting": setting.name,
            "lr": arm.lr,
            "momentum": arm.momentum,
            "batch": arm.batch,
            "steps": config.samples // arm.batch,
            "edge": float(np.nanmean(result.edge(index))),
            "diverged": int(np.isnan(result.of(index, arm, "loss")).sum()),
        }
        for name in RECORDS:
            value = result.against(index, arm, name)
            row[f"{name}"] = float(np.nanmean(result.of(index, arm, name))) if value else np.nan
            row[f"{name}_shift"] = value.value if value else np.nan
            row[f"{name}_low"], row[f"{name}_high"] = (value.low, value.high) if value else (np.nan, np.nan)
        rows.append(row)
    return DataFrame(rows)


BATCHES = Experiment(
    "batches", ("S-23", "S-29", "S-30", "S-31"), lambda settings: run(configure(Batches, settings)), estimates, tables
)
