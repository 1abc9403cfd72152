"""Every problem of a trial: its data by draw, what it measures, and that a fault in either would be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from descent.book.commands import cli
from descent.data import images
from descent.data.images import ImageSet
from descent.engine import Streams, replica_seeds
from descent.engine.stack import leaves
from descent.problems.patches import Patches
from descent.trials import offered, problems
from descent.trials.contest import Plan, compete
from descent.trials.load import entry

SEEDS = Streams(replica_seeds(1000, 3))
TINY = {"replicas": 8, "draws": 4}


@pytest.fixture
def mnist(monkeypatch):
    """Pictures of 28 × 28, numbered by their first four pixels; the class is how bright a corner is."""

    def load(name: str, split: str = "train") -> ImageSet:
        assert name == "mnist"
        count = 600 if split == "train" else 100
        rng = np.random.Generator(np.random.Philox(count))
        labels = torch.from_numpy(rng.permutation(np.arange(count) % 10))
        pixels = torch.from_numpy(rng.integers(0, 64, (count, 28, 28, 1), dtype=np.uint8))
        for label in range(10):  # four rows each say the class
            pixels[labels == label, 2 * label : 2 * label + 4] += 120
        pixels[:, :2, :2] = torch.arange(count)[:, None, None, None] % 251
        pixels[:, :2, 2:4] = torch.arange(count)[:, None, None, None] // 251
        return ImageSet("MNIST", pixels, labels, tuple("0123456789"))

    for name, value in {"load": load, "_HALF": 300, "_LARGE": 60, "_TESTS": 100}.items():
        monkeypatch.setattr(problems, name, value)


def numbers(posed: problems.Posed) -> list[set[int]]:
    """Return which pictures each draw holds."""
    task = posed.objective
    first, second = (task.inputs[task.rows] * 255)[..., :2].round().long().unbind(-1)
    return [set(row.tolist()) for row in first + 251 * second]


def test_no_image_of_mnist_is_in_two_draws_nor_in_those_of_the_tuning(mnist, monkeypatch):
    def shared() -> int:
        reported, tuned = (numbers(problems.problem("mnist").pose(SEEDS, tuning)) for tuning in (False, True))
        assert all(len(draw) == 60 for draw in (*reported, *tuned))
        draws = [*reported, *tuned]
        return sum(len(a & b) for i, a in enumerate(draws) for b in draws[:i])

    assert shared() == 0
    real = problems.disjoint
    monkeypatch.setattr(problems, "disjoint", lambda *given: replace(one := real(*given), rows=one.rows[[0, 0, 1]]))
    assert shared() > 0  # a draw that comes twice would be seen


def test_labels_of_mnist_stay_with_their_images(mnist):
    posed = problems.problem("mnist").pose(SEEDS, False)
    task, labels = posed.objective, problems.load("mnist").labels
    first, second = (task.inputs * 255)[:, :2].round().long().unbind(-1)
    assert task.inputs.shape == (180, 196)
    assert torch.equal(task.targets, labels[first + 251 * second])
    assert not torch.equal(task.targets.roll(1), labels[first + 251 * second])


def test_a_rule_learns_mnist_and_its_accuracy_is_that_of_other_images(mnist):
    plan = Plan((1e-2, 1e-2, 1), steps=60, match=False, **TINY)
    found = compete(problems.problem("mnist"), [entry("adam")], plan)
    measured = found.curves["adam"].measures
    assert found.measures == ["test %", "log sharpness"]
    assert measured["test %"].shape == (4, 2)
    assert measured["test %"].mean() > 50 > 30 > 10
    assert np.isfinite(measured["log sharpness"]).all()


def test_mnist_that_is_not_there_is_told_with_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path))
    assert cli.main(["compare-rule", "adam", "--problem", "mnist", "--out", str(tmp_path / "report")]) == 2
    said = capsys.readouterr().err
    assert f"no train.parquet in {tmp_path / 'mnist'}" in said
    assert "set DESCENT_DATA to a folder that has mnist/train.parquet" in said
    assert said.count("\n") == 1


def test_the_digits_are_those_of_the_data_floor():
    x, y = problems._scans()
    assert torch.equal(y, images.load("digits").labels)
    assert float(x.max()) == 1
    posed = problems.problem("digits").pose(SEEDS, False)
    seen = posed.objective.rows
    assert seen.shape == (3, 256)
    assert not torch.equal(seen[0], seen[1])


def test_replica_r_of_the_patches_has_data_set_r_mod_d():
    posed = problems.problem("patches").pose(SEEDS, False)
    start = problems.problem("patches").start(Streams(replica_seeds(1001, 6)))
    together = leaves(posed.objective.gradient(start, SEEDS, 0))
    for row in range(6):
        one = type(posed.objective.data)(*(_one(part, row % 3) for part in vars(posed.objective.data).values()))
        alone = Patches(one).gradient_of({name: leaf[row : row + 1] for name, leaf in leaves(start).items()})
        other = Patches(one).gradient_of({name: leaf[row - 1 :][:1] for name, leaf in leaves(start).items()})
        for name, leaf in alone.items():
            torch.testing.assert_close(together[name][row], leaf[0], rtol=1e-4, atol=1e-7)
            assert not torch.allclose(together[name][row], other[name][0], rtol=1e-2)


def _one(part: torch.Tensor, index: int) -> torch.Tensor:
    return part if part.dtype == torch.bool else part[index : index + 1]


def test_patches_are_compared_at_the_first_look_below_the_loss():
    """By hand: heavy ball, step after step, the error where the loss is first below a hundredth."""
    problem, lr, draws = problems.problem("patches"), 0.1, 4
    plan = Plan((lr, lr, 1), replicas=4, draws=draws, steps=600, match=False)
    found = compete(problem, [entry("heavy_ball")], plan).curves["heavy_ball"]
    posed = problem.pose(Streams(replica_seeds(3_000_003, draws)), False)
    streams = Streams(replica_seeds(0, 4))
    x = {name: leaf.clone() for name, leaf in leaves(problem.start(streams)).items()}
    v = {name: torch.zeros_like(leaf) for name, leaf in x.items()}
    errors, met = torch.full((4,), torch.nan), torch.full((4,), -1)
    for step in range(601):
        if step % 4 == 0:
            fresh = (posed.objective.value(x) < 0.01) & (met < 0)
            met, errors = torch.where(fresh, step, met), torch.where(fresh, posed.objective.error(x), errors)
        g = leaves(posed.objective.full(x))
        v = {name: 0.9 * v[name] - lr * g[name] for name in x}
        x = {name: x[name] + v[name] for name in x}
    assert (met > 0).all()
    np.testing.assert_allclose(found.measures["steps to it"][:, 0], met.numpy(), atol=4)
    np.testing.assert_allclose(found.end[:, 0], errors.numpy(), atol=1.5)
    assert found.steps[-1] <= met.max() + 4  # nobody trains on


def test_momentum_learns_the_small_margins_and_plain_descent_memorises_them():
    """What the chapter on margins finds, at its rate."""
    plan = Plan((1.0, 1.0, 1), replicas=8, draws=8, steps=800, match=False)
    found = compete(problems.problem("patches"), [entry("ema"), entry("sgd")], plan)
    apart = found.difference("sgd", "ema")
    assert apart is not None
    assert apart.low > 20


def test_a_rule_that_never_comes_there_is_said_to():
    plan = Plan((1e-6, 1e-6, 1), steps=8, match=False, **TINY)
    found = compete(problems.problem("patches"), [entry("sgd")], plan)
    assert found.tuned["sgd"].note == "short of that loss at every rate"


def test_exact_gradients_have_no_symmetric_control():
    plan = Plan((0.1, 0.1, 1), steps=800, every=200, **TINY)
    found = compete(problems.problem("patches"), [entry("heavy_ball")], plan)
    assert set(found.factors) == {"raw"}
    assert float(np.nanmedian(found.factors["raw"])) == pytest.approx(10, rel=1e-2)


def test_every_problem_is_offered_with_what_it_costs(capsys):
    assert list(offered.OFFERED) == list(problems.PROBLEMS)
    with pytest.raises(SystemExit):
        cli.main(["compare-rule", "--help"])
    said = capsys.readouterr().out
    for name, offer in offered.OFFERED.items():
        assert f"  {name:<11}{offer.about}; {offer.cost}" in said
