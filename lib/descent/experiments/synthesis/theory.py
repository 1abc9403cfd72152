"""One kernel behind all five papers, checked and attacked: identities by independent routes, inequalities by search."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, concat
from scipy.linalg import solve_discrete_lyapunov

from descent.arrays import Array
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.stats.intervals import exact
from descent.theory.ensembles import ceiling, edges, loads, loss_floors, random_rows
from descent.theory.linear import mean_square_edge, stationary_covariance
from descent.theory.mode import growth, inertial_efficiency
from descent.theory.moments import moment_operator

LADDER = (0.0, 0.3, 0.7, 0.95)
"""Momenta between which nothing may destabilise at equal effective step."""

MOMENTA = (0.5, 0.9, 0.99)
STEPS_UP = ((0.5, 0.9), (0.9, 0.99))
"""Pairs of momenta between which the search climbs."""


@dataclass(frozen=True)
class Theory:
    """Random small problems by shape (examples, dimension); some have fewer examples than dimensions.

    problems: per shape; climbers: searched for counterexamples, per shape and pair, in `climb` rounds.
    """

    problems: int
    climbers: int
    climb: int
    seed: int
    shapes: tuple[tuple[int, int], ...] = ((3, 1), (3, 2), (5, 2), (4, 3), (6, 4), (2, 3))
    covariances: int = 200
    operators: int = 10  # per momentum
    inertia: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)  # λb at which the growth efficiency is compared
    close: tuple[float, ...] = (0.9, 0.95, 0.99, 0.999)

    @classmethod
    def cpu(cls, settings: Settings) -> Theory:
        """Take fifty problems of every shape."""
        return cls(max(20, settings.replicas // 20), max(8, settings.replicas // 80), 80, settings.seed)

    @classmethod
    def paper(cls, settings: Settings) -> Theory:
        """Take forty times the problems, and eight times the climbers for five times the rounds.

        All of it is numpy on the host, where a round takes sixty eigenvalue problems per climber: about ten minutes.
        """
        return cls(2 * settings.replicas, max(8, settings.replicas // 10), 400, settings.seed)

    def rng(self, purpose: int) -> np.random.Generator:
        """Return the random numbers of one part."""
        return np.random.Generator(np.random.Philox(key=self.seed, counter=purpose << 64))


@dataclass(frozen=True, eq=False)
class TheoryResult:
    """What identities deviate by, and what inequalities came to.

    covariance (D,), operator (E,), commuting (J,): relative deviations. edge (P, L): mean-square edge in effective
    steps over plain SGD's, by momentum of the ladder; load: largest Λ(β′)/Λ(β), β′ > β, at equal effective step, at
    random and as the search proceeds (U, rounds + 1), each its best so far; floor: the same for the floor of the loss.
    twin (P, J): edge over that of the plain SGD with the same diagonal. efficiency (M, Y): growth over eb, by momentum
    and λb. `rows` and `noise` of the problem whose floor rises most.
    """

    config: Theory
    covariance: Array
    operator: Array
    commuting: Array
    edge: Array
    load: float
    load_search: Array
    floor_search: Array
    twin: Array
    efficiency: Array
    seconds: float

    @property
    def efficiency_error(self) -> float:
        """Largest deviation of the growth efficiency from its limit curve, relative."""
        return float(np.abs(self.efficiency / inertial_efficiency(self.config.inertia) - 1).max())


def run(config: Theory) -> TheoryResult:
    """Check the identities, then look for counterexamples to the inequalities."""
    clock = time.perf_counter()
    rng = config.rng(0)
    problems = [_varied(random_rows(rng, config.problems, *shape), rng) for shape in config.shapes]
    ladders = [_ladder(rows, rng) for rows in problems]
    searched = [p for p in problems if p.shape[2] > 1]
    noisy = [p for p in searched if p.shape[1] > p.shape[2]]
    return TheoryResult(
        config=config,
        covariance=_covariances(config),
        operator=_operators(config),
        commuting=_commuting(config),
        edge=np.concatenate([edge for edge, _ in ladders]),
        load=max(load for _, load in ladders),
        load_search=np.array([_search(config, searched, pair, _load_ratio) for pair in STEPS_UP]),
        floor_search=np.array([_search(config, noisy, pair, _floor_ratio) for pair in STEPS_UP]),
        twin=np.concatenate([_twins(rows, rng) for rows in searched]),
        efficiency=_efficiency(config),
        seconds=time.perf_counter() - clock,
    )


def _varied(rows: Array, rng: np.random.Generator) -> Array:
    """Give a fifth of the problems nearly parallel rows, and a fifth a row that is repeated."""
    part = len(rows) // 5
    rows[:part] = rows[:part, :1] + 1e-3 * rng.normal(size=rows[:part].shape)
    rows[part : 2 * part, -1] = rows[part : 2 * part, 0]
    return rows


def _ladder(rows: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """Return edges over plain SGD's in effective steps, (P, L), and the largest ratio of loads up the ladder."""
    share = 1 / rng.choice([1, 4, 64], size=len(rows))
    found = np.stack([edges(rows, m, share) / (1 - m) for m in LADDER], axis=1)
    effective = rng.uniform(0.01, 0.99, size=len(rows)) * ceiling(rows)
    load = np.stack([loads(rows, effective * (1 - m), m, share) for m in LADDER], axis=1)
    alive = (load[:, 0] > 1e-12) & np.isfinite(load[:, 0])
    return found / found[:, :1], float((load[alive, 1:] / load[alive, :-1]).max())


def _covariances(config: Theory) -> Array:
    """Return the relative difference between the kernel's stationary covariance and a Lyapunov solver's."""
    rng, found = config.rng(1), []
    for _ in range(config.covariances):
        d = int(rng.integers(1, 6))
        a, b = rng.normal(size=(2, d, d))
        h, noise, momentum = a @ a.T + 0.1 * np.eye(d), b @ b.T, rng.uniform(0, 0.98)
        lr = rng.uniform(0.05, 0.9) * 2 * (1 + momentum) / np.linalg.eigvalsh(h)[-1]
        one, none = np.eye(d), np.zeros((d, d))
        advance = np.block([[(1 + momentum) * one - lr * h, -momentum * one], [one, none]])
        fed = np.block([[lr**2 * noise, none], [none, none]])
        truth = solve_discrete_lyapunov(advance, fed)[:d, :d]
        found.append(np.linalg.norm(stationary_covariance(h, noise, lr, momentum) - truth) / np.linalg.norm(truth))
    return np.array(found)


def _operators(config: Theory) -> Array:
    """Return |ρ − 1| of the written-out map of second moments at the edge of examples that do not commute."""
    rng = config.rng(2)
    found = []
    for momentum in MOMENTA:
        for rows in random_rows(rng, config.operators, 5, 3):
            lr = mean_square_edge(rows, momentum, 0.5)
            found.append(np.abs(np.abs(np.linalg.eigvals(moment_operator(rows, lr, 2, momentum))).max() - 1))
    return np.array(found)


def _commuting(config: Theory) -> Array:
    """Return how far the edge is from its twin's where every example has one feature only, per momentum."""
    rng = config.rng(3)
    rows = random_rows(rng, config.problems, 6, 1) * np.eye(3)[rng.integers(3, size=(config.problems, 6))]
    return np.array([np.abs(_twin(rows, m, 0.25) - 1).max() for m in MOMENTA])


def _twins(rows: Array, rng: np.random.Generator) -> Array:
    share = 1 / rng.choice([1, 4, 64], size=len(rows))
    return np.stack([_twin(rows, m, share) for m in MOMENTA], axis=1)


def _twin(rows: Array, momentum: float, share: float | Array) -> Array:
    """Return the edge over that of plain SGD at lr/(1 + β) and batch B(1 − β)/(1 + β)."""
    plain = edges(rows, 0.0, share * (1 + momentum) / (1 - momentum))
    return edges(rows, momentum, share) / (plain * (1 + momentum))


Ratio = Callable[[Array, Array, Array, tuple[float, float]], Array]


def _load_ratio(rows: Array, noise: Array, place: Array, pair: tuple[float, float]) -> Array:
    """Return Λ(β′)/Λ(β) at the effective step `place` times plain SGD's ceiling."""
    effective = place * ceiling(rows)
    low, high = (loads(rows, effective * (1 - m), m) for m in pair)
    return np.where(low > 1e-9, high / np.maximum(low, 1e-9), 0.0)


def _floor_ratio(rows: Array, noise: Array, place: Array, pair: tuple[float, float]) -> Array:
    """Return the floor of the loss at β′ over that at β, at the effective step `place` times the edge at β."""
    effective = 0.98 * place * edges(rows, pair[0]) / (1 - pair[0])
    covariance = noise @ noise.mT
    low, high = (loss_floors(rows, covariance, effective * (1 - m), m) for m in pair)
    fair = (low > 0) & (high > 0)
    return np.where(fair, high / np.where(fair, low, 1.0), 0.0)


def _search(config: Theory, problems: list[Array], pair: tuple[float, float], ratio: Ratio) -> Array:
    """Return the best ratio found after every round, (rounds + 1,), over climbers of every shape."""
    rng = config.rng(4)
    paths = [_climb(config, rows[: config.climbers].copy(), pair, ratio, rng) for rows in problems]
    return np.asarray(np.max(paths, axis=0))


def _climb(config: Theory, rows: Array, pair: tuple[float, float], ratio: Ratio, rng: np.random.Generator) -> Array:
    """Let every climber take random steps that raise its ratio: in its examples, its noise and its learning rate."""
    noise, place = rng.normal(size=(len(rows), rows.shape[2], rows.shape[2])), rng.uniform(0.05, 0.95, size=len(rows))
    best = ratio(rows, noise, place, pair)
    path = [best.max()]
    for _ in range(config.climb):
        size = 10 ** rng.uniform(-2.5, 0, size=(len(rows), 1, 1))
        tried = rows * (1 + size * rng.normal(size=rows.shape))
        other = noise * (1 + size * rng.normal(size=noise.shape))
        where = np.clip(place + size[:, 0, 0] * 0.3 * rng.normal(size=len(rows)), 0.01, 0.99)
        found = ratio(tried, other, where, pair)
        better = found > best
        rows, noise = (np.where(better[:, None, None], a, b) for a, b in ((tried, rows), (other, noise)))
        place, best = np.where(better, where, place), np.where(better, found, best)
        path.append(best.max())
    return np.array(path)


def _efficiency(config: Theory) -> Array:
    """Return log z₊/(eb) by momentum and λb; eb = λb(1 − β)."""
    inertia, momentum = np.array(config.inertia), np.array(config.close)[:, None]
    lr = inertia * (1 - momentum) ** 2  # b = 1
    return np.asarray(growth(1.0, lr, momentum) / (lr / (1 - momentum)))


def estimates(result: TheoryResult) -> Estimates:
    """Return what the search says about S-1 to S-4, S-9, S-25 and S-26."""
    return {
        "S-1.covariance": exact(float(result.covariance.max())),
        "S-2.operator": exact(float(result.operator.max())),
        "S-3.random": exact(float(result.edge[:, 1:].min())),
        "S-3.load": exact(result.load),
        "S-3.search": exact(float(result.load_search.max())),
        "S-4.commuting": exact(float(result.commuting.max())),
        "S-4.bound": exact(float(result.twin.min())),
        "S-9.curve": exact(result.efficiency_error),
        "S-25.search": exact(float(result.floor_search.max())),
        "S-26.gap": exact(float(result.twin[:, 1].max())),
    }


def tables(result: TheoryResult) -> dict[str, DataFrame]:
    """Return edges at matched step, twins, the course of the search, and the growth efficiency."""
    rounds = np.arange(result.config.climb + 1)
    course = concat(
        [
            DataFrame({"from": low, "to": high, "round": rounds, "load": load, "floor": floor})
            for (low, high), load, floor in zip(STEPS_UP, result.load_search, result.floor_search, strict=True)
        ],
        ignore_index=True,
    )
    return {
        "matched_edges": DataFrame(result.edge, columns=[f"{m:g}" for m in LADDER]).describe().reset_index(),
        "twins": DataFrame(result.twin, columns=[f"{m:g}" for m in MOMENTA]).describe().reset_index(),
        "search": course,
        "efficiency": DataFrame(result.efficiency.T, columns=[f"{m:g}" for m in result.config.close]).assign(
            inertia=result.config.inertia, limit=inertial_efficiency(result.config.inertia)
        ),
    }


THEORY = Experiment(
    "theory",
    ("S-1", "S-2", "S-3", "S-4", "S-9", "S-25", "S-26"),
    lambda settings: run(configure(Theory, settings)),
    estimates,
    tables,
)
