"""Replicas trained on draws of their own: each as if it were alone with its data picked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from descent.engine import Arms, heavy_ball, train
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.curvature import gauss_newton, hessian, value, value_and_gradient
from descent.measure.gram import gram
from descent.measure.noise import batch_noise, example_gradients, example_squares, full_gradient, gradient_noise
from descent.measure.normality import noise_draws, participation
from descent.measure.sharpness import average_case, worst_case
from descent.measure.smoothing import Ball, drift, samples
from descent.measure.spectra import top_eigenpairs
from descent.measure.traces import gauss_newton_frobenius, gauss_newton_trace
from descent.nets import CNN, MLP, CrossEntropy, SquaredError, Stacked, Supervised
from descent.nets.augment import Augment
from torch import Tensor, nn
from torch.testing import assert_close

N, SIZE, DRAWS, REPLICAS = 60, 24, 3, 6
DATA = Streams(replica_seeds(9, DRAWS), torch.float64)
IMAGES = DATA.normal(Purpose.DATA, 0, (N, 1, 6, 6))[0]
LABELS = DATA.integers(Purpose.LABEL, 0, 3, (N,))[0]
ROWS = DATA.sample(Purpose.DATA, 1, N, SIZE)
WRONG = DATA.integers(Purpose.LABEL, 1, 3, (SIZE,))  # targets of the rows alone, (DRAWS, SIZE)
STREAMS = Streams(replica_seeds(4, REPLICAS), torch.float64)

MODELS = {
    "mlp": MLP((36, 5, 3), "tanh"),
    "cnn": CNN(widths=(2,), dense=(), size=6, channels=1, classes=3),
    "module": Stacked(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, 3)).double()),
}


def stacked(model: object = MODELS["mlp"], targets: Tensor = LABELS, **options: object) -> Supervised:
    arguments = {"batch_size": 7} | options
    return Supervised(model, CrossEntropy(), IMAGES, targets, rows=ROWS, **arguments)


def alone(whole: Supervised, replica: int) -> Supervised:
    """The objective of one replica, its data picked out by hand."""
    rows = ROWS[replica % DRAWS]
    targets = whole.targets[replica % DRAWS] if whole.targets.ndim > 1 else whole.targets[rows]
    sizes = whole.batch_size[replica] if isinstance(whole.batch_size, list) else whole.batch_size
    return replace(whole, inputs=IMAGES[rows], targets=targets, rows=None, batch_size=sizes)


def one(stack: dict[str, Tensor], replica: int) -> dict[str, Tensor]:
    return {name: leaf[replica : replica + 1] for name, leaf in stack.items()}


WAYS = {
    "with replacement": {},
    "without replacement": {"sampling": "without_replacement"},
    "shuffled epochs": {"sampling": "shuffled_epochs"},
    "full": {"sampling": "full", "batch_size": None},
    "batch sizes": {"batch_size": [4, 4, 7, 7, 7, 7]},
    "augmented": {"augment": Augment(2)},
    "augmented, full": {"augment": Augment(1), "sampling": "full", "batch_size": None},
    "labels of its own": {"targets": WRONG},
    "labels of its own, full": {"targets": WRONG, "sampling": "full", "batch_size": None},
    "labels of its own, augmented": {"targets": WRONG, "augment": Augment(1)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_a_replica_of_a_stack_trains_as_it_does_alone(way, budget):
    model = MODELS["cnn"]
    problem, start = stacked(model, **WAYS[way]), model.initial(STREAMS)
    whole = train(problem, start, heavy_ball([0.1] * REPLICAS, [0.9] * REPLICAS), 9, STREAMS, budget=budget)
    for replica in (0, 2, 4):
        few = STREAMS.subset(slice(replica, replica + 1))
        single = train(alone(problem, replica), one(start, replica), heavy_ball(0.1, 0.9), 9, few)
        assert_close(one(whole.params, replica), single.params, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "batch sizes"])
def test_indices_and_batches_are_those_of_the_replica_alone(way):
    problem = stacked(**WAYS[way])
    for step in (0, 3, 5):
        places, (inputs, targets) = problem.indices(STREAMS, step), problem.batch(STREAMS, step)
        for replica in range(REPLICAS):
            single, few = alone(problem, replica), STREAMS.subset(slice(replica, replica + 1))
            assert torch.equal(places[replica], single.indices(few, step)[0])
            x, y = single.batch(few, step)
            assert torch.equal(inputs[replica], x[0])
            assert torch.equal(targets[replica], y[0])


@pytest.mark.parametrize("start", [0, 1, 4])
def test_a_subset_keeps_its_draws(start):
    problem, part = stacked(targets=WRONG), slice(start, start + 2)
    some = problem.subset(part)
    for found, expected in zip(some.batch(STREAMS.subset(part), 2), problem.batch(STREAMS, 2), strict=True):
        assert torch.equal(found, expected[part])
    again = some.subset(slice(1, 2)).batch(STREAMS.subset(slice(start + 1, start + 2)), 2)
    assert torch.equal(again[0], problem.batch(STREAMS, 2)[0][start + 1 : start + 2])


@pytest.mark.parametrize("targets", [LABELS, WRONG], ids=["shared labels", "labels of its own"])
def test_loss_and_accuracy_are_over_the_own_rows(targets):
    problem, params = stacked(targets=targets), MODELS["mlp"].initial(STREAMS)
    for measure in ("value", "accuracy"):
        found = getattr(problem, measure)(params)
        single = [getattr(alone(problem, r), measure)(one(params, r)) for r in range(REPLICAS)]
        assert_close(found, torch.cat(single))


def test_other_rows_are_looked_at_on_request():
    problem, params = stacked(targets=WRONG), MODELS["mlp"].initial(STREAMS)
    others = DATA.sample(Purpose.DATA, 2, N, 11)
    found = problem.accuracy(params, targets=LABELS, rows=others)
    for replica in range(REPLICAS):
        test = others[replica % DRAWS]
        expected = alone(problem, replica).accuracy(one(params, replica), IMAGES[test], LABELS[test])
        assert_close(found[replica : replica + 1], expected)
    shared = problem.accuracy(params, IMAGES[:9], LABELS[:9])
    assert_close(shared, Supervised(problem.model, problem.loss, IMAGES[:9], LABELS[:9], 9).accuracy(params))
    with pytest.raises(ValueError, match="give the targets of the other rows"):
        problem.accuracy(params, rows=others)


@pytest.mark.parametrize("name", MODELS)
def test_noise_is_that_of_the_own_examples(name):
    problem, params = stacked(MODELS[name], targets=WRONG), MODELS[name].initial(STREAMS)
    gradient, squares, each = (f(problem, params) for f in (full_gradient, example_squares, example_gradients))
    directions, share = participation(problem, params), batch_noise(problem, gradient_noise(problem, params))
    drawn = noise_draws(problem, params, STREAMS, 3, 10)
    for r in range(REPLICAS):
        single, few, own = alone(problem, r), one(params, r), STREAMS.subset(slice(r, r + 1))
        assert_close(one(gradient, r), full_gradient(single, few))
        assert_close(squares[r], example_squares(single, few)[0])
        assert_close(each[r], example_gradients(single, few)[0])
        assert_close(share[r], batch_noise(single, gradient_noise(single, few))[0])
        assert_close(directions[r], participation(single, few)[0])
        assert_close(drawn[r], noise_draws(single, few, own, 3, 10)[0])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("budget", [1 << 13, 1 << 30], ids=["in parts", "whole"])
def test_curvature_is_that_of_the_own_examples(name, budget):
    problem, params = stacked(MODELS[name], targets=WRONG), MODELS[name].initial(STREAMS)
    size = sum(leaf[0].numel() for leaf in params.values())
    v = STREAMS.normal(Purpose.PROBE, 7, (size,))
    h, g = (make(problem, params, budget=budget)(v) for make in (hessian, gauss_newton))
    loss, slope = value_and_gradient(problem, params, budget=budget)
    shown = IMAGES.flatten(1) if name == "mlp" else IMAGES
    trace, k = gauss_newton_trace(problem, params), gram(problem.model, params, shown, rows=ROWS)
    top = top_eigenpairs(hessian(problem, params), 1, STREAMS).values
    for r in range(REPLICAS):
        single, few, here = alone(problem, r), one(params, r), slice(r, r + 1)
        assert_close(h[r], hessian(single, few)(v[here])[0])
        assert_close(g[r], gauss_newton(single, few)(v[here])[0])
        assert_close(loss[r], value(single, few)[0])
        assert_close(one(slope, r), value_and_gradient(single, few)[1])
        assert_close(trace[r], gauss_newton_trace(single, few)[0])
        assert_close(k[r], gram(single.model, few, shown[ROWS[r % DRAWS]])[0])
        assert_close(top[r], top_eigenpairs(hessian(single, few), 1, STREAMS.subset(here)).values[0], rtol=1e-5, atol=0)


def test_sharpness_and_smoothing_are_those_of_the_own_examples():
    problem, params = stacked(MODELS["module"], targets=WRONG), MODELS["module"].initial(STREAMS)
    worst, average = worst_case(problem, params, 0.1, STREAMS, steps=4), average_case(problem, params, 0.1, STREAMS)
    frobenius, slopes = gauss_newton_frobenius(problem, params), drift(problem, params, 0.1, Ball(), 5, STREAMS)
    smooth = samples(problem.value, params, 0.1, Ball(), 5, STREAMS)
    for r in range(REPLICAS):
        single, few, own = alone(problem, r), one(params, r), STREAMS.subset(slice(r, r + 1))
        assert_close(worst.increase[r], worst_case(single, few, 0.1, own, steps=4).increase[0])
        assert_close(average.samples[r], average_case(single, few, 0.1, own).samples[0])
        assert_close(frobenius[r], gauss_newton_frobenius(single, few)[0])
        assert_close(smooth[r], samples(single.value, few, 0.1, Ball(), 5, own)[0])
        for found, expected in zip(slopes, drift(single, few, 0.1, Ball(), 5, own), strict=True):
            assert_close(found[r], expected[0])


def test_arms_share_their_draws_and_few_keep_them():
    problem, rule = stacked(), heavy_ball([0.1, 0.05], [0.9, 0.0])
    run = Arms.paired(rule, STREAMS).run(problem, problem.model.initial, 4)
    second = Arms.paired(heavy_ball(0.05, 0.0), STREAMS).run(problem, problem.model.initial, 4)
    assert_close({name: leaf[REPLICAS:] for name, leaf in run.params.items()}, second.params)
    _, params, _ = run.few(DRAWS)
    loss = run.arms.split(problem.value(run.params))[:, :DRAWS]
    assert_close(torch.from_numpy(loss).flatten(), problem.value(params))
    with pytest.raises(ValueError, match="take a multiple, not 2"):
        run.few(2)


def test_targets_may_be_vectors():
    inputs, goals = IMAGES.flatten(1), DATA.normal(Purpose.LABEL, 3, (N, 2))[0]
    model = MLP((36, 2), bias=False)
    params, own = model.initial(STREAMS), torch.stack([goals[rows] for rows in ROWS])
    shared = Supervised(model, SquaredError(), inputs, goals, 5, rows=ROWS)
    assert_close(shared.value(params), replace(shared, targets=own).value(params))
    assert_close(shared.gradient(params, STREAMS, 1), replace(shared, targets=own).gradient(params, STREAMS, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ROWS.int()}, "rows must be"),
        ({"rows": ROWS[0]}, "rows must be"),
        ({"rows": ROWS + N}, "rows must name inputs 0 … 59"),
        ({"rows": ROWS - N}, "rows must name inputs 0 … 59"),
        ({"targets": LABELS[:-1]}, "must pair up, got 60 inputs and 59 targets"),
        ({"targets": WRONG[:, :-1]}, "begin with that shape"),
        ({"batch_size": SIZE + 1}, "between 1 and the 24 examples"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(stacked(), **changes)


@pytest.mark.parametrize("replicas", [1, 4])
def test_a_stack_that_the_draws_do_not_divide_is_refused(replicas):
    """Else a slice of a stack would be measured on the data of other replicas."""
    problem, streams = stacked(), Streams(replica_seeds(1, replicas), torch.float64)
    params = problem.model.initial(streams)
    asked = [
        lambda: problem.value(params),
        lambda: problem.gradient(params, streams, 0),
        lambda: train(problem, params, heavy_ball([0.1] * replicas, [0.0] * replicas), 1, streams),
        lambda: example_gradients(problem, params),
        lambda: example_squares(problem, params),
        lambda: hessian(problem, params),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match="take a multiple of 3"):
            ask()


def test_rows_may_be_a_part_of_a_larger_array():
    wide = torch.cat([ROWS, ROWS], dim=1)[:, :SIZE]
    assert not wide.is_contiguous()
    start = MODELS["mlp"].initial(STREAMS)
    found, expected = (replace(stacked(), rows=rows).gradient(start, STREAMS, 0) for rows in (wide, ROWS))
    for name, leaf in found.items():
        assert torch.equal(leaf, expected[name])
