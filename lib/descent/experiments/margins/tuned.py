"""Arms at equal loss in units of one arm on one draw: rates chosen on draws of their own, then compared on fresh ones.

Draws are disjoint. The first ones tune: every arm is trained at every rate, and its best is taken. They enter no
verdict; which rates were tried, and what they gave, stands in a table. On each of the others every arm is trained once,
at its best rate, all from the same weights; a draw counts as soon as all arms are through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.data.draws import Draws
from descent.data.images import Pictures, pictures
from descent.experiments.lab import Arrays, Found, Lab, Parts, Share, Unit, so_far
from descent.experiments.margins.classifiers import Course, Examples, Net, Tests, errors, objective, stand
from descent.nets import CNN
from descent.stats import Estimate, draw_difference, draw_mean

ONE = Share(least=1, most=1)
"""Nets of an arm on a draw."""
USUAL, USUAL_RATE = 200.0, 0.3
"""Steps times rate to the last target in pilots, and the rate where that is not chosen yet: for plans."""
Prepare = Callable[[Any, Lab, "Contest"], tuple[str, Examples, Tests]]
"""What returns, for contests, the name of the data, the images of all draws, and the test sets."""


@dataclass(frozen=True)
class Contest:
    """A net at one batch size, None for everything, on draws of one kind of images."""

    net: Net
    size: int | None = None
    draws: int = 10
    data: str = "cifar10"
    pool: int = 2

    @property
    def name(self) -> str:
        """What tells it from the others, fit for the name of a file."""
        return f"{self.data}-{self.net.name}-{self.size or 'full'}"

    @property
    def work(self) -> str:
        """The kind of its work: how long a step takes hangs on net and batch size."""
        return f"{self.net.name}, {self.size or 'full batch'}"


@dataclass(frozen=True, kw_only=True)
class Contests(Course):
    """Contests on as many images each; the first draws of each tune the rates, by the error at the judged loss."""

    contests: tuple[Contest, ...]
    judged: float
    tuning: int = 2

    def cost(self, contest: Contest, steps: float) -> float:
        """Return how many training images a run of so many steps is worth; forward alone costs a third."""
        looks = (self.examples + self.tests) / (3 * self.between(contest.size))
        return steps * ((contest.size or self.examples) + looks)


@dataclass(frozen=True, eq=False)
class Stood:
    """A contest on its whole draws: their numbers (D,), best rates (M,), accuracy in percent (K, M, L, D).

    momenta (M,); step (M, L, D): where the targets were met, −1 where they were not; tried: what tuning gave, as rows.
    """

    contest: Contest
    title: str
    momenta: tuple[float, ...]
    rates: tuple[float, ...]
    draws: tuple[int, ...]
    accuracy: Array
    step: Array
    tried: DataFrame

    def gain(self, target: int, tests: int = 0) -> Estimate | None:
        """Return the error of plain descent minus that with momentum at a target, None for fewer than two draws."""
        if len(self.draws) < 2:
            return None
        plain, heavy = errors(self.accuracy[tests][[0, -1], target])
        return draw_difference(plain[:, None], heavy[:, None])

    @property
    def lacking(self) -> str:
        """How many draws are there, where that is not all."""
        return so_far(len(self.draws), self.contest.draws)


@dataclass(frozen=True, eq=False)
class Tuned:
    """All contests of which anything is known, by their place."""

    config: Contests
    lab: Lab
    stood: Mapping[int, Stood]


def parts(prepare: Prepare, tests: Mapping[str, Sequence[int]], paces: Mapping[str, float]) -> Parts[Contests, Tuned]:
    """Return how contests are cut into units. tests: by key, the contests that its verdict rests on."""

    def measure(config: Contests, lab: Lab, unit: Unit) -> Arrays:
        return measured(prepare, config, lab, unit)

    def partial(result: Tuned) -> dict[str, str]:
        return lacking(result, tests)

    return Parts(units, measure, merged, partial, paces)


def pooled_pictures(config: Contests, lab: Lab, contest: Contest) -> tuple[str, Examples, Tests]:
    """Return the images of all draws and the test images, averaged over squares; DataMissing without them."""
    data: Pictures = pictures(contest.data, images(config, contest), config.tests, contest.pool, lab.device)
    return data.title, (data.inputs, data.labels), [(data.test_inputs, data.test_labels)]


def images(config: Contests, contest: Contest) -> int:
    """Return the number of training images of all draws, tuning ones too."""
    return (config.tuning + contest.draws) * config.examples


def momenta(lab: Lab) -> tuple[float, ...]:
    """Return the momenta of the arms, plain descent first."""
    return (0.0, lab.momentum)


def units(config: Contests, lab: Lab, found: Found) -> list[Unit]:
    """Return all units: rates on the tuning draws, then each arm at its best on the others, draw by draw."""
    made = []
    for place, contest in enumerate(config.contests):
        arms = [(momentum, lr) for momentum in momenta(lab) for lr in contest.net.lrs]
        made += [_unit(config, place, draw, *arm) for draw in range(config.tuning) for arm in arms]
        for draw in range(config.tuning, config.tuning + contest.draws):
            for momentum in momenta(lab):
                lr = best_rate(config, place, momentum, found)
                made.append(_unit(config, place, draw, momentum, lr))
    return made


def _unit(config: Contests, place: int, draw: int, momentum: float, lr: float | None) -> Unit:
    """Return an arm on a draw; on a tuning draw the rate is in its name, on another one it may wait to be chosen."""
    contest = config.contests[place]
    tuning = draw < config.tuning
    where = f"tuning{draw}-lr{lr:g}" if tuning else f"draw{draw - config.tuning}"
    steps = min(contest.net.steps, USUAL / (lr or USUAL_RATE))
    return Unit(
        f"{contest.name}-{where}-m{momentum:g}", contest.work, config.cost(contest, steps),
        (place, draw, momentum, lr), waits=lr is None,
    )  # fmt: skip


def best_rate(config: Contests, place: int, momentum: float, found: Found) -> float | None:
    """Return the rate with the least error on the tuning draws at the judged loss, None before all are in.

    Who does not meet it has the error of chance; among rates none of which does, the one that meets most targets.
    """
    target, scored = config.targets.index(config.judged), []
    for lr in config.contests[place].net.lrs:
        names = [_unit(config, place, draw, momentum, lr).name for draw in range(config.tuning)]
        if not set(names) <= set(found):
            return None
        accuracy = np.stack([found[name]["accuracy"][-1] for name in names])  # (draws, L)
        scored.append((errors(accuracy)[:, target].mean(), -int(np.isfinite(accuracy).sum()), lr))
    return min(scored)[-1]


def measured(prepare: Prepare, config: Contests, lab: Lab, unit: Unit) -> dict[str, Array]:
    """Train one arm on one draw; return where it stands: step (L,), accuracy (K, L), lost (), and the data's name."""
    place, draw, momentum, lr = unit.given
    contest = config.contests[place]
    title, train, tests = prepare(config, lab, contest)
    problem = objective(contest.net, *train, contest.size, sets(config, lab, contest).rows[draw : draw + 1])
    found = stand(config, lab, contest.net, problem, (lr, momentum), tests, skip=draw)
    return {"step": found.step[..., 0], "accuracy": found.accuracy[..., 0], "lost": found.lost[0], "title": title}


def sets(config: Contests, lab: Lab, contest: Contest) -> Draws:
    """Return all draws of a contest, the tuning ones first."""
    return lab.draws(images(config, contest), config.examples, config.tuning + contest.draws)


def merged(config: Contests, lab: Lab, found: Found) -> Tuned | None:
    """Return every contest on its whole draws, None while there are none with two."""
    stood = {place: made for place in range(len(config.contests)) if (made := _stood(config, lab, place, found))}
    return Tuned(config, lab, stood) if any(len(each.draws) > 1 for each in stood.values()) else None


def _stood(config: Contests, lab: Lab, place: int, found: Found) -> Stood | None:
    rates = [best_rate(config, place, momentum, found) for momentum in momenta(lab)]
    if None in rates:
        return None
    contest, arms = config.contests[place], list(zip(momenta(lab), rates, strict=True))
    rows = range(config.tuning, config.tuning + contest.draws)
    names = {draw: [_unit(config, place, draw, *arm).name for arm in arms] for draw in rows}
    whole = [draw for draw, several in names.items() if set(several) <= set(found)]
    tried = DataFrame(_tried(config, lab, place, found))
    if not whole:
        return None
    seen = {key: np.stack([[found[name][key] for name in names[draw]] for draw in whole], axis=-1)
            for key in ("step", "accuracy")}  # fmt: skip
    return Stood(
        contest, str(found[names[whole[0]][0]]["title"]), momenta(lab), tuple(map(float, rates)),  # type: ignore[arg-type]
        tuple(draw - config.tuning for draw in whole), np.moveaxis(seen["accuracy"], 1, 0), seen["step"], tried,
    )  # fmt: skip


def _tried(config: Contests, lab: Lab, place: int, found: Found) -> list[dict[str, object]]:
    """Return a row per arm and rate on each tuning draw, at the judged loss."""
    contest, target, rows = config.contests[place], config.targets.index(config.judged), []
    for momentum in momenta(lab):
        best = best_rate(config, place, momentum, found)
        for lr in contest.net.lrs:
            for draw in range(config.tuning):
                one = found[_unit(config, place, draw, momentum, lr).name]
                rows.append({
                    "net": contest.net.name, "data": contest.data, "batch_size": str(contest.size or "full"),
                    "momentum": momentum, "lr": lr, "draw": draw, "accuracy": float(one["accuracy"][-1][target]),
                    "step": float(one["step"][target]), "best": bool(lr == best),
                })  # fmt: skip
    return rows


def lacking(result: Tuned, tests: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return by test what is not there of the contests that its verdict rests on."""
    contests, found = result.config.contests, {}
    for key, places in tests.items():
        short = [
            result.stood[place].lacking if place in result.stood else so_far(0, contests[place].draws)
            for place in places
        ]
        if any(short):
            found[key] = ", ".join(f"{contests[p].work}: {s}" for p, s in zip(places, short, strict=True) if s)
    return found


def arms_table(result: Tuned, tests: Sequence[str] = ("as they are",)) -> DataFrame:
    """Return a row per contest, test set, arm and target: accuracy over the draws that met it, and how many did."""
    rows: list[dict[str, object]] = []
    for stood in result.stood.values():
        for k, m, t in np.ndindex(stood.accuracy.shape[:-1]):
            values, steps = stood.accuracy[k, m, t], stood.step[m, t]
            met = np.isfinite(values)
            over = draw_mean(values[met][:, None]) if met.sum() > 1 else None
            rows.append({
                **_named(stood), "tests": tests[k], "momentum": stood.momenta[m], "lr": stood.rates[m],
                "loss": result.config.targets[t], "accuracy": values[met].mean() if met.any() else np.nan,
                "accuracy_low": over.low if over else np.nan, "accuracy_high": over.high if over else np.nan,
                "step": float(np.median(steps[met])) if met.any() else np.nan, "reached": int(met.sum()),
                "draws": len(stood.draws),
            })  # fmt: skip
    return DataFrame(rows)


def gains_table(result: Tuned, tests: Sequence[str] = ("as they are",)) -> DataFrame:
    """Return a row per contest, test set and target: what momentum gains, in percentage points."""
    rows = []
    for stood in result.stood.values():
        for k, t in np.ndindex(len(tests), len(result.config.targets)):
            if (found := stood.gain(t, k)) is not None:
                rows.append({
                    **_named(stood), "tests": tests[k], "momentum": stood.momenta[-1],
                    "loss": result.config.targets[t], "gain": found.value, "low": found.low, "high": found.high,
                    "draws": len(stood.draws), "of": stood.contest.draws,
                })  # fmt: skip
    return DataFrame(rows)


def tuning_table(result: Tuned) -> DataFrame:
    """Return what the tuning draws gave, which enter no verdict."""
    tried = [stood.tried for stood in result.stood.values()]
    return DataFrame([row for frame in tried for row in frame.to_dict("records")])


def _named(stood: Stood) -> dict[str, object]:
    return {"net": stood.contest.net.name, "data": stood.title, "batch_size": str(stood.contest.size or "full")}


def plain_cnn(size: int, steps: int, channels: int = 3) -> Net:
    """Return the small net without any norm, one of it on every draw."""
    return Net("CNN", CNN(size=size, channels=channels), steps, 2.4, ONE)


def alone(net: Net, steps: int) -> Net:
    """Return a net with one of it on every draw, and no more momenta than plain descent and the headline one."""
    return replace(net, replicas=ONE, steps=steps, momenta=())
