"""The balance law, exact to rounding: random nets, batches, noises and rules, each with its own step and momentum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from descent.engine import (
    Hyper,
    Objective,
    Purpose,
    Streams,
    ema,
    every,
    heavy_ball,
    nesterov,
    qhm,
    replica_seeds,
    train,
)
from descent.nets import MLP, CrossEntropy, SquaredError, Supervised
from descent.problems.diagonal import DiagonalNet
from descent.problems.linear_layers import LinearLayers
from descent.problems.normalised import NormalisedRegression
from descent.problems.products import Products
from descent.problems.relu_pairs import pairs
from descent.theory.balance import balance_change, gram_change, qhm_change, squared_change

F64 = torch.float64
R, STEPS = 12, 150
SEEDS = (0, 1, 2)
Paths = dict[str, np.ndarray]  # every leaf, (T + 1, R, …)


def streams(seed: int) -> Streams:
    return Streams(replica_seeds(seed, R), F64)


def random_rules(seed: int, size: float) -> dict[str, Hyper]:
    """Return rules whose replicas have a step up to `size` and a momentum of their own each."""
    rng = np.random.default_rng(seed)
    momentum, e, nu = rng.uniform(0, 0.98, R), size * rng.uniform(0.1, 1, R), rng.uniform(0, 1, R)
    give = torch.from_numpy
    return {
        "plain": heavy_ball(give(e), 0.0),
        "heavy ball": heavy_ball(give(e * (1 - momentum)), give(momentum)),
        "average": ema(give(e), give(momentum)),
        "nesterov": nesterov(give(e * (1 - momentum)), give(momentum)),
        "qhm": qhm(give(e), give(momentum), give(nu)),
    }


def recorded(objective: Objective, start: object, rule: Hyper, given: Streams) -> tuple[Paths, Paths]:
    """Return the path of every leaf and the gradients that were used on it."""
    probes = {"at": every(1, lambda x: dict(x) if isinstance(x, dict) else {"": x})}
    run = train(objective, start, rule, STEPS, given, probes=probes)  # type: ignore[type-var]
    assert (run.diverged_at < 0).all()
    points = {name.removeprefix("at").removeprefix("."): series.values for name, series in run.records.items()}
    form = (lambda t: {k: v[t] for k, v in points.items()}) if isinstance(start, dict) else (lambda t: points[""][t])
    slopes = [objective.gradient(form(t), given, t) for t in range(STEPS)]
    by_name = [s if isinstance(s, dict) else {"": s} for s in slopes]
    gradients = {name: torch.stack([s[name] for s in by_name]).numpy() for name in points}
    return {name: values.numpy() for name, values in points.items()}, gradients


def law(rule: Hyper, name: str, path: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Return a group's side of the account, (R, …), of a path (T + 1, R, …, n), replica by replica."""
    rows = []
    for r in range(R):
        momentum, lr = float(rule.momentum[r]), float(rule.lr[r])
        if name in ("nesterov", "qhm"):
            e, nu = (lr / (1 - momentum), momentum) if name == "nesterov" else (lr, float(rule.carry[r]))
            rows.append(qhm_change(path[:, r], slopes[:, r], e, momentum, nu))
        else:
            rows.append(squared_change(path[:, r], momentum))
    return np.stack(rows)


def squares(path: np.ndarray) -> np.ndarray:
    return np.asarray((path[-1] ** 2).sum(-1) - (path[0] ** 2).sum(-1))


def factors(paths: Paths) -> list[np.ndarray]:
    """Return the factors of a product as groups of one weight each."""
    return [paths[""][..., i, None] for i in range(paths[""].shape[-1])]


def halves(paths: Paths) -> list[np.ndarray]:
    """Return u and v of every coordinate of a diagonal net as groups of one weight each."""
    return [paths[""][:, :, i, :, None] for i in range(2)]


def layers(paths: Paths) -> list[np.ndarray]:
    """Return two linear layers as they stand: the squares of both layers keep the account as well as their Grams."""
    return [leaf.reshape(*leaf.shape[:2], -1) for leaf in (paths["second"], paths["first"])]


def neurons(paths: Paths) -> list[np.ndarray]:
    both = (pairs({k: torch.from_numpy(v[t]) for k, v in paths.items()}) for t in range(len(paths["0.weight"])))
    return [np.stack(side) for side in zip(*((a.numpy(), b.numpy()) for a, b in both), strict=True)]


def case(name: str, seed: int) -> tuple[Objective, object, float, Callable[[Paths], list[np.ndarray]]]:
    """Return an objective, a start, the largest step, and how its weights fall into groups that balance."""
    given = streams(seed)
    x, y = given.normal(Purpose.DATA, 0, (14, 5)), given.normal(Purpose.DATA, 1, (14, 2))
    draw = lambda step, *shape: given.normal(Purpose.INIT, step, shape)  # noqa: E731
    if name == "uv, weights and label noise":
        return Products(batch_size=2, label_noise=0.3), 1 + 0.5 * draw(0, 2), 0.03, factors
    if name == "depth 4, label noise":
        return Products(label_noise=0.5), 1 + 0.3 * draw(0, 4), 0.01, factors
    if name == "linear layers, batches":
        return LinearLayers(x[0], y[0], 3), {"first": draw(0, 4, 5), "second": draw(1, 2, 4)}, 0.01, layers
    if name == "diagonal, batches":
        return DiagonalNet(x, x[0, 0].abs(), "batch", 2), draw(0, 2, 5), 0.01, halves
    if name == "relu, square":
        net = MLP((5, 7, 2), "relu", bias=False)
        return Supervised(net, SquaredError(), x[0], y[0], 3), net.initial(given), 0.2, neurons
    if name == "relu, entropy, epochs":
        net = MLP((5, 7, 3), "relu", bias=False)
        objective = Supervised(net, CrossEntropy(), x[0], torch.arange(14) % 3, 4, "shuffled_epochs")
        return objective, net.initial(given), 0.3, neurons
    return NormalisedRegression(x[0], y[0, :, 0], 2), draw(0, 5), 0.1, lambda paths: [paths[""]]


CASES = (
    "uv, weights and label noise", "depth 4, label noise", "linear layers, batches", "diagonal, batches",
    "relu, square", "relu, entropy, epochs", "normalised",
)  # fmt: skip


def deviation(name: str, seed: int) -> float:
    """Return the largest error of the account over rules and replicas, relative to cΣ|Δ|² of all groups."""
    objective, start, size, groups = case(name, seed)
    worst = 0.0
    for kind, rule in random_rules(seed, size).items():
        paths, slopes = recorded(objective, start, rule, streams(seed))
        both = zip(groups(paths), groups(slopes), strict=True)
        sides = [(squares(path), law(rule, kind, path, slope), path) for path, slope in both]
        c = ((1 + rule.momentum) / (1 - rule.momentum)).numpy()
        turnover = c * sum((np.diff(path, axis=0) ** 2).sum(0).reshape(R, -1).sum(-1) for *_, path in sides)
        if len(sides) == 1:
            gap = sides[0][0] - sides[0][1]
        else:
            gap = np.stack([(sides[0][0] - s[0]) - (sides[0][1] - s[1]) for s in sides[1:]], axis=1)
        worst = max(worst, float((np.abs(gap).reshape(R, -1).max(-1) / turnover).max()))
    return worst


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_the_account_balances(name: str, seed: int) -> None:
    assert deviation(name, seed) < 1e-9


def test_matrices_of_linear_layers_balance_entry_by_entry() -> None:
    objective, start, size, _ = case("linear layers, batches", 3)
    rule = random_rules(3, size)["heavy ball"]
    paths, _ = recorded(objective, start, rule, streams(3))
    first, second = paths["first"], paths["second"].swapaxes(-1, -2)
    for r in range(R):
        changes = [gram_change(path[:, r], float(rule.momentum[r])) for path in (second, first)]
        ends = [path[-1, r] @ path[-1, r].T - path[0, r] @ path[0, r].T for path in (second, first)]
        np.testing.assert_allclose(ends[0] - ends[1], changes[0] - changes[1], rtol=0, atol=1e-12)


def test_a_wrong_momentum_does_not_balance() -> None:
    objective, start, size, _ = case("uv, weights and label noise", 0)
    rule = random_rules(0, size)["heavy ball"]
    path = recorded(objective, start, rule, streams(0))[0][""][:, 0]
    found = float(squares(path[:, :1]) - squares(path[:, 1:]))
    momentum = float(rule.momentum[0])
    assert float(balance_change(path[:, :1], path[:, 1:], momentum)) == pytest.approx(found, rel=1e-9)
    assert float(balance_change(path[:, :1], path[:, 1:], momentum / 2)) != pytest.approx(found, rel=0.1)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="a path has at least two points"):
        squared_change(np.ones((1, 3)), 0.5)
    with pytest.raises(ValueError, match="needs as many gradients"):
        qhm_change(np.ones((4, 3)), np.ones((2, 3)), 0.1, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\)"):
        balance_change(np.ones((4, 3)), np.ones((4, 3)), 1.0)
