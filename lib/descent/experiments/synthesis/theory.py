"""One kernel behind all five papers, checked and attacked: identities by independent routes, inequalities by search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pandas import DataFrame
from scipy.linalg import solve_discrete_lyapunov

from descent.arrays import Array
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.stats import Estimate, exact, mean
from descent.theory.ensembles import ceiling, edges, loads, loss_floors, random_rows
from descent.theory.linear import mean_square_edge, stationary_covariance
from descent.theory.mode import growth, inertial_efficiency
from descent.theory.moments import moment_operator

LADDER = (0.0, 0.3, 0.7, 0.95)  # momenta between which nothing may destabilise at equal effective step
MOMENTA = (0.5, 0.9, 0.99)
Pair = tuple[float, float]
STEPS_UP: tuple[Pair, ...] = ((0.5, 0.9), (0.9, 0.99))  # between which the search climbs
Ratio = Callable[[Array, Array, Array, Pair], Array]


@dataclass(frozen=True)
class Theory:
    """Random small problems by shape (examples, dimension); some have fewer examples than dimensions."""

    problems: Share = Share(over=20, least=25)  # per shape
    set: int = 5  # problems of every shape in a set, of which there are many
    climbers: Share = Share(over=80, least=8)  # searched for counterexamples, per shape and pair
    climb: int = 80  # rounds of the search
    shapes: tuple[tuple[int, int], ...] = ((3, 1), (3, 2), (5, 2), (4, 3), (6, 4), (2, 3))
    covariances: int = 200
    operators: int = 10  # per momentum
    inertia: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)  # λb at which the growth efficiency is compared
    close: tuple[float, ...] = (0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True, eq=False)
class TheoryResult(Result[Theory]):
    """What identities deviate by, relatively, and what inequalities came to."""

    covariance: Array  # (D,)
    operator: Array  # (E,)
    commuting: Array  # (J,)
    edge: Array  # (S, P, L): mean-square edge in effective steps over plain SGD's, by shape and momentum of the ladder
    load: Array  # (S, L − 1): largest Λ(β′)/Λ(β), β′ the next momentum after β, at equal effective step, at random
    load_search: Array  # (U, S, C, rounds + 1): the same as climbers proceed, each its best so far
    floor_search: Array  # the same for the floor of the loss
    twin: Array  # (S, P, J): edge over that of the plain SGD with the same diagonal, by shape
    efficiency: Array  # (M, Y): growth over eb, by momentum and λb


def run(config: Theory, lab: Lab) -> TheoryResult:
    """Check the identities, then look for counterexamples to the inequalities."""
    rng, count = _rng(lab, 0), lab.count(config.problems)
    problems = [_varied(random_rows(rng, count, *shape), rng) for shape in config.shapes]
    ladders = [_ladder(rows, rng) for rows in problems]
    searched = [rows for rows in problems if rows.shape[2] > 1]
    noisy = [rows for rows in searched if rows.shape[1] > rows.shape[2]]
    inertia, momentum = np.array(config.inertia), np.array(config.close)[:, None]
    lr = inertia * (1 - momentum) ** 2  # b = 1
    other = _rng(lab, 3)  # examples of one feature each, so that they commute
    lonely = random_rows(other, count, 6, 1) * np.eye(3)[other.integers(3, size=(count, 6))]
    return TheoryResult(
        config, lab, _covariances(config, lab), _operators(config, lab),
        commuting=np.abs(_twins(lonely, 0.25) - 1).max(axis=0),
        edge=np.array([edge for edge, _ in ladders]), load=np.array([load for _, load in ladders]),
        load_search=_search(config, lab, searched, _load_ratio), floor_search=_search(config, lab, noisy, _floor_ratio),
        twin=np.array([_twins(rows, 1 / rng.choice([1, 4, 64], size=len(rows))) for rows in searched]),
        efficiency=np.asarray(growth(1.0, lr, momentum) / (lr / (1 - momentum))),
    )  # fmt: skip


def _rng(lab: Lab, part: int) -> np.random.Generator:
    """Return the random numbers of one part."""
    return np.random.Generator(np.random.Philox(key=lab.key(), counter=part << 64))


def _varied(rows: Array, rng: np.random.Generator) -> Array:
    """Give a fifth of the problems nearly parallel rows, and a fifth a row that is repeated."""
    part = len(rows) // 5
    rows[:part] = rows[:part, :1] + 1e-3 * rng.normal(size=rows[:part].shape)
    rows[part : 2 * part, -1] = rows[part : 2 * part, 0]
    return rows


def _ladder(rows: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return edges over plain SGD's in effective steps, (P, L), and the largest ratio of loads by rung (L − 1,)."""
    share = 1 / rng.choice([1, 4, 64], size=len(rows))
    found = np.stack([edges(rows, m, share) / (1 - m) for m in LADDER], axis=1)
    effective = rng.uniform(0.01, 0.99, size=len(rows)) * ceiling(rows)
    load = np.stack([loads(rows, effective * (1 - m), m, share) for m in LADDER], axis=1)
    alive = (load[:, 0] > 1e-12) & np.isfinite(load[:, 0])
    return found / found[:, :1], np.asarray((load[alive, 1:] / load[alive, :-1]).max(axis=0))


def _covariances(config: Theory, lab: Lab) -> Array:
    """Return the relative difference between the kernel's stationary covariance and a Lyapunov solver's."""
    rng, found = _rng(lab, 1), []
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


def _operators(config: Theory, lab: Lab) -> Array:
    """Return |ρ − 1| of the written-out map of second moments at the edge of examples that do not commute."""
    rng, found = _rng(lab, 2), []
    for momentum in MOMENTA:
        for rows in random_rows(rng, config.operators, 5, 3):
            lr = mean_square_edge(rows, momentum, 0.5)
            found.append(np.abs(np.abs(np.linalg.eigvals(moment_operator(rows, lr, 2, momentum))).max() - 1))
    return np.array(found)


def _twins(rows: Array, share: ArrayLike) -> Array:
    """Return the edge over that of plain SGD at lr/(1 + β) and batch B(1 − β)/(1 + β), (P, J)."""
    share = np.asarray(share)
    plain = [edges(rows, 0.0, share * (1 + m) / (1 - m)) * (1 + m) for m in MOMENTA]
    return np.stack([edges(rows, m, share) / twin for m, twin in zip(MOMENTA, plain, strict=True)], axis=1)


def _load_ratio(rows: Array, noise: Array, place: Array, pair: Pair) -> Array:
    """Return Λ(β′)/Λ(β) at the effective step `place` times plain SGD's ceiling."""
    effective = place * ceiling(rows)
    low, high = (loads(rows, effective * (1 - m), m) for m in pair)
    return np.where(low > 1e-9, high / np.maximum(low, 1e-9), 0.0)


def _floor_ratio(rows: Array, noise: Array, place: Array, pair: Pair) -> Array:
    """Return the floor of the loss at β′ over that at β, at the effective step `place` times the edge at β."""
    effective = 0.98 * place * edges(rows, pair[0]) / (1 - pair[0])
    covariance = noise @ noise.mT
    low, high = (loss_floors(rows, covariance, effective * (1 - m), m) for m in pair)
    fair = (low > 0) & (high > 0)
    return np.where(fair, high / np.where(fair, low, 1.0), 0.0)


def _search(config: Theory, lab: Lab, problems: list[Array], ratio: Ratio) -> Array:
    """Return the best ratio found by every climber after every round, (U, S, C, rounds + 1).

    Climbers start from problems of all kinds: every so many of a shape.
    """
    climbers, found = lab.count(config.climbers), []
    for pair in STEPS_UP:
        rng = _rng(lab, 4)
        firsts = [rows[:: len(rows) // climbers][:climbers] for rows in problems]
        found.append([_climb(config.climb, rows, pair, ratio, rng) for rows in firsts])
    return np.array(found)


def _climb(rounds: int, rows: Array, pair: Pair, ratio: Ratio, rng: np.random.Generator) -> Array:
    """Let every climber take random steps that raise its ratio: in its examples, its noise and its learning rate."""
    noise, place = rng.normal(size=(len(rows), rows.shape[2], rows.shape[2])), rng.uniform(0.05, 0.95, size=len(rows))
    best = ratio(rows, noise, place, pair)
    path = [best]
    for _ in range(rounds):
        size = 10 ** rng.uniform(-2.5, 0, size=(len(rows), 1, 1))
        tried = rows * (1 + size * rng.normal(size=rows.shape))
        other = noise * (1 + size * rng.normal(size=noise.shape))
        where = np.clip(place + size[:, 0, 0] * 0.3 * rng.normal(size=len(rows)), 0.01, 0.99)
        found = ratio(tried, other, where, pair)
        better = found > best
        rows, noise = (np.where(better[:, None, None], a, b) for a, b in ((tried, rows), (other, noise)))
        place, best = np.where(better, where, place), np.where(better, found, best)
        path.append(best)
    return np.stack(path, axis=1)


def estimates(result: TheoryResult) -> Estimates:
    """Return what the search says about S-1 to S-4, S-9, S-25 and S-26."""
    curve = result.efficiency / inertial_efficiency(result.config.inertia)
    gaps, size = result.twin[..., 1], result.config.set
    sets = gaps[:, : gaps.shape[1] // size * size].reshape(len(gaps), size, -1)  # each with problems of all kinds
    return {
        "S-1.covariance": exact(result.covariance.max()),
        "S-2.operator": exact(result.operator.max()),
        "S-3.random": _every(result.edge[..., 1:].min(axis=1)),
        "S-3.load": _every(result.load),
        "S-3.search": _every(result.load_search[..., -1].max(axis=2)),
        "S-4.commuting": exact(result.commuting.max()),
        "S-4.bound": _every(result.twin.min(axis=1)),
        "S-9.curve": _every(curve),
        "S-25.search": mean(result.floor_search[..., -1].max(axis=(0, 1))),
        "S-26.gap": mean(sets.max(axis=(0, 1))),
    }


def _every(values: Array) -> list[Estimate]:
    """Return numbers that have no error as estimates, one by one."""
    return [exact(value) for value in values.ravel()]


def tables(result: TheoryResult) -> Tables:
    """Return edges at matched step, twins, the course of the search, and the growth efficiency."""
    config, (low, high) = result.config, np.transpose(STEPS_UP)
    rounds, limit = range(config.climb + 1), inertial_efficiency(config.inertia)
    efficiency = DataFrame(result.efficiency.T, columns=[f"{m:g}" for m in config.close])
    load, floor = (found.max(axis=(1, 2)) for found in (result.load_search, result.floor_search))
    edge, twin = (found.reshape(-1, found.shape[-1]) for found in (result.edge, result.twin))
    return {
        "matched_edges": DataFrame(edge, columns=[f"{m:g}" for m in LADDER]).describe().reset_index(),
        "twins": DataFrame(twin, columns=[f"{m:g}" for m in MOMENTA]).describe().reset_index(),
        "search": tidy({"from": low, "round": rounds}, to=high[:, None], load=load, floor=floor),
        "efficiency": efficiency.assign(inertia=config.inertia, limit=limit),
    }


THEORY = Experiment(
    "theory", small=Theory(), run=run, estimates=estimates, tables=tables,
    # all of it is numpy on the host, where a round takes sixty eigenvalue problems per climber: about ten minutes
    large=Theory(Share(times=2), climbers=Share(over=10, least=8), climb=400),
)  # fmt: skip
