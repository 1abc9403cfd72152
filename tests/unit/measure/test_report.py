"""One model measured by all instruments, and the page that shows how."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from descent.measure.noise import gradient_noise
from descent.measure.report import Report, measure_model
from descent.nets.dense import SquaredError, Stacked
from descent.nets.supervised import Supervised
from descent.results import library_files
from descent.theory.linear import gram_rows, mean_square_edge, mean_square_load
from torch import nn
from torch.func import functional_call

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "chapters" / "measure.md"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
FLOOR = {"numpy", "pandas", "scipy", "torch", "typing_extensions", "yaml"}  # typing_extensions comes with torch


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def data():
    made = torch.Generator().manual_seed(0)
    x = torch.randn(24, 5, generator=made)
    return x, x[:, 0].sign()


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 1))


def gradients(net, x, y, factor):
    """Return every example's gradient, one backward pass each."""
    rows = []
    for one, target in zip(x, y, strict=True):
        net.zero_grad()
        (factor * (net(one).squeeze() - target) ** 2).backward()
        rows.append(torch.cat([leaf.grad.flatten() for leaf in net.parameters()]))
    return torch.stack(rows).double()


def test_the_page_prints_what_it_says(capsys):
    names: dict[str, object] = {}
    assert len(blocks("python")) == len(blocks("text"))
    assert len(blocks("python")[0].splitlines()) <= 15
    for code, said in zip(blocks("python"), blocks("text"), strict=True):
        exec(compile(code, PAGE.name, "exec"), names)
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", said)
        numbers, expected = (list(map(float, NUMBER.findall(text))) for text in (printed, said))
        assert numbers == pytest.approx(expected, rel=0.1)


def test_the_sentences_below_the_example_follow_from_it():
    limit, full = map(float, re.search(r"largest stable lr +(\S+), with full batches (\S+)", PAGE.read_text()).groups())
    assert 0.02 / limit == pytest.approx(2 / 3, abs=0.03)
    assert round(full / limit) == 9


def test_the_line_of_the_rules_for_practice_is_the_effective_step_over_half_of_descents_edge(net, data):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.with_name("in-practice.md").read_text("utf-8"), re.DOTALL)
    *before, line = code.strip().splitlines()
    names: dict[str, object] = {"net": net, "x": data[0], "y": data[1], "lr": 0.1, "momentum": 0.9}
    still = measure_model(net, *data, lr=0.1, momentum=0.0, factor=1.0)
    exec("\n".join(before), names)
    assert eval(line, names) == pytest.approx(2 * (0.1 / (1 - 0.9)) / still.noiseless_lr)


def test_gradient_and_noise_are_those_of_single_examples(net, data):
    found = measure_model(net, *data, lr=0.1, batch_size=4, factor=1.0)
    each = gradients(net, *data, factor=1.0)
    noise = (each - each.mean(0)).square().sum(1).mean()
    assert found.gradient == pytest.approx(float(each.mean(0).norm()), rel=1e-4)
    assert found.gradient_noise == pytest.approx(float(noise), rel=1e-4)
    assert found.batch_noise == pytest.approx(float(noise) / 4, rel=1e-4)
    with torch.no_grad():
        misfit = net(data[0]).squeeze(1) - data[1]
    assert found.loss == pytest.approx(float(misfit.square().mean()), rel=1e-5)


def test_it_agrees_with_the_instruments_of_a_stack(net, data):
    stacked = Stacked(net)
    params = {name: leaf.detach()[None] for name, leaf in net.named_parameters()}
    objective = Supervised(stacked, SquaredError(), data[0], data[1][:, None], batch_size=4)
    found = measure_model(net, *data, lr=0.1, batch_size=4)
    assert found.gradient_noise == pytest.approx(float(gradient_noise(objective, params)), rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_load_is_one_at_the_largest_stable_step(net, data, momentum):
    at = measure_model(net, *data, lr=0.1, momentum=momentum, batch_size=3)
    edge = measure_model(net, *data, lr=at.largest_lr, momentum=momentum, batch_size=3)
    assert edge.load == pytest.approx(1, rel=1e-4)
    x = data[0].double()
    double = nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 1)).double()
    double.load_state_dict(net.state_dict())
    each = gradients(double, x, double(x).squeeze(1).detach() - 1, factor=0.5)  # residual 1: the output's own gradient
    rows = gram_rows((each @ each.T).numpy())
    assert at.largest_lr == pytest.approx(mean_square_edge(rows, momentum, 1 / 3), rel=1e-4)
    assert at.load == pytest.approx(mean_square_load(rows, 0.1, momentum, 1 / 3), rel=1e-6)


def test_another_factor_is_another_step(net, data):
    half = measure_model(net, *data, lr=0.1, factor=0.5)
    whole = measure_model(net, *data, lr=0.05, factor=1.0)
    assert whole.load == pytest.approx(half.load, rel=1e-6)
    assert whole.largest_lr == pytest.approx(half.largest_lr / 2, rel=1e-6)
    assert whole.alignment == pytest.approx(half.alignment, rel=1e-6)


def test_what_is_far_from_interpolation_says_so(net, data):
    found = measure_model(net, *data, lr=0.1)
    assert "residuals' own curvature is ignored" in str(found)
    assert replace(found, residual=0.01).caveat == ""
    assert "undefined without residuals" in str(replace(found, alignment=float("nan")))


def test_layer_norm_and_settled_batch_norm_are_measured(data):
    for layer in (nn.LayerNorm(8), nn.BatchNorm1d(8).eval()):
        found = measure_model(nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 1)), *data, lr=0.1)
        assert isinstance(found, Report)


def frozen():
    module = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 1))
    module[0].weight.requires_grad_(False)
    return module


def dead():
    module = nn.Linear(5, 1, bias=False)
    return nn.Sequential(module, nn.Threshold(1e6, 0.0))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (nn.Sequential(nn.Linear(5, 1), nn.BatchNorm1d(1)), {}, r"layer 1 \(BatchNorm1d\).*call module.eval"),
        (nn.Sequential(nn.Dropout(), nn.Linear(5, 1)), {}, r"layer 0 \(Dropout\) is in training mode"),
        (nn.Linear(5, 3), {}, r"targets are \(24,\) for outputs \(24, 3\).*class labels, whole numbers"),
        (nn.Unflatten(1, (5, 1)), {}, r"returns \(24, 5, 1\) for 24 inputs.*outputs\[:, -1\]"),
        (nn.Linear(5, 400), {}, r"make a Gram matrix of 9600 rows, above 8000; .* at most 20 examples"),
        (frozen(), {}, "parameter 0.weight is frozen.*pass the trained part"),
        (dead(), {}, "no output depends on a parameter"),
        (nn.Linear(5, 1), {"lr": 0.0}, "lr must be a positive number, got 0.0"),
        (nn.Linear(5, 1), {"factor": float("nan")}, "factor must be a positive number, got nan"),
        (nn.Linear(5, 1), {"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        (nn.Linear(5, 1), {"batch_size": 0}, "batch_size must be at least 1.*replacement=False"),
        (nn.Linear(5, 1), {"batch_size": 25, "replacement": False}, "a batch of 25 out of 24 examples"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_way_out(data, module, options, message):
    with pytest.raises(ValueError, match=message):
        measure_model(module, *data, **({"lr": 0.1} | options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y[:-1]), "23 of them for 24 inputs"),
        (lambda x, y: (x / 0, y), "24 of 24 outputs are not finite"),
        (lambda x, y: (x, y.clone().fill_(torch.nan)), "24 of 24 targets are not finite"),
        (lambda x, y: (x, 0 * y), "targets: all are 0"),
    ],
)
def test_data_that_cannot_be_measured_are_refused(data, change, message):
    with pytest.raises(ValueError, match=message):
        measure_model(nn.Linear(5, 1), *change(*data), lr=0.1)


def test_the_module_is_left_as_it_was(net, data):
    before = {name: leaf.clone() for name, leaf in net.state_dict().items()}
    measure_model(net, *data, lr=0.1)
    assert all(torch.equal(leaf, before[name]) for name, leaf in net.state_dict().items())


def test_it_needs_nothing_above_the_floor():
    files = library_files(["descent.measure.report"], ROOT / "lib")
    assert not [name for name in files if name.startswith(("descent.book", "descent.experiments", "descent.figures"))]
    outside = {name.partition(".")[0] for file in files.values() for name in imported(file)}
    assert outside <= FLOOR | {"descent"} | set(sys.stdlib_module_names)


def imported(file):
    """Yield what a module imports when it is loaded."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.fixture(scope="module")
def classes():
    """Three classes, a third of the labels drawn anew, and softmax regression at its minimum."""
    made = torch.Generator().manual_seed(3)
    x = torch.randn(40, 3, generator=made, dtype=torch.float64)
    y = torch.where(torch.rand(40, generator=made) < 0.4, torch.randint(3, (40,), generator=made), x.argmax(dim=1))
    net = nn.Linear(3, 3).double()
    for leaf in net.parameters():
        nn.init.zeros_(leaf)
    newton = torch.optim.LBFGS(net.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        newton.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        return loss

    newton.step(closure)
    return net, x, y


def dense_hessian(net, x, y):
    """Return the Hessian of the cross-entropy, differentiated twice."""
    flat = nn.utils.parameters_to_vector(net.parameters()).detach()

    def loss(vector):
        pieces = vector.split([leaf.numel() for leaf in net.parameters()])
        leaves = {n: p.view_as(leaf) for (n, leaf), p in zip(net.named_parameters(), pieces, strict=True)}
        return nn.functional.cross_entropy(functional_call(net, leaves, (x,)), y)

    return torch.autograd.functional.hessian(loss, flat)


def test_labels_are_measured_by_their_cross_entropy(classes):
    net, x, y = classes
    found = measure_model(net, x, y, lr=0.1, momentum=0.5, batch_size=4)
    each = []
    for one, label in zip(x, y, strict=True):
        net.zero_grad()
        nn.functional.cross_entropy(net(one), label).backward()
        each.append(torch.cat([leaf.grad.flatten() for leaf in net.parameters()]))
    each = torch.stack(each)
    assert found.gradient_noise == pytest.approx(float((each - each.mean(0)).square().sum(1).mean()))
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(net(x), y).detach()))
    assert found.right == pytest.approx(float((net(x).argmax(1) == y).double().mean()))
    top = float(torch.linalg.eigvalsh(dense_hessian(net, x, y))[-1])
    assert found.sharpness == pytest.approx(top)  # the net is linear: its Gauss–Newton matrix is the Hessian
    assert found.noiseless_lr == pytest.approx(3 / top)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_at_a_minimum_labels_have_a_load_and_it_is_that_of_their_hessians(classes, momentum):
    net, x, y = classes
    at = measure_model(net, x, y, lr=0.3, momentum=momentum, batch_size=2)
    assert at.to_gain < 1e-12
    examples = torch.stack([dense_hessian(net, one[None], label[None]) for one, label in zip(x, y, strict=True)])
    basis = torch.linalg.eigh(examples.mean(0))[1][:, 3:]  # a shift of all logits moves nothing
    rotated = (basis.mT @ examples @ basis).numpy()
    assert at.load == pytest.approx(mean_square_load(rotated, 0.3, momentum, 1 / 2), rel=1e-6)
    assert at.largest_lr == pytest.approx(mean_square_edge(rotated, momentum, 1 / 2), rel=1e-6)
    assert "not stable" in str(replace(at, load=2.0))
    assert "what the outputs' own curvature adds" in str(at)


def test_away_from_a_minimum_labels_have_neither_load_nor_largest_step(data):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    found = measure_model(net, data[0], (data[1] > 0).long(), lr=0.1)
    assert found.to_gain > 0.05
    assert str(found.load) == str(found.largest_lr) == "nan"
    assert found.noiseless_lr == pytest.approx(2 / found.sharpness)
    assert re.search("load at lr 0.1 +undefined, no minimum to stay at\nNewton's step", str(found))
    assert "loss alignment" not in str(found)


def test_arrays_are_data(net, data):
    arrays = [part.numpy() for part in data]
    # By their text: what is not there is NaN, which equals itself in a record up to Python 3.12 alone.
    assert repr(measure_model(net, *arrays, lr=0.1)) == repr(measure_model(net, *data, lr=0.1))


def test_several_numbers_are_measured_together(data):
    torch.manual_seed(2)
    net, y = nn.Linear(5, 2), torch.stack([data[1], data[0][:, 1]], dim=1)
    found = measure_model(net, data[0], y, lr=0.1, factor=1.0)
    assert found.loss == pytest.approx(float(nn.functional.mse_loss(net(data[0]), y).detach()), rel=1e-5)
    covariance = torch.cat([data[0], torch.ones(24, 1)], dim=1)
    assert found.sharpness == pytest.approx(float(torch.linalg.eigvalsh(covariance.T @ covariance / 24)[-1]), rel=1e-5)
    single = measure_model(net_of_first(net), data[0], y[:, 0], lr=0.1)
    both = measure_model(net, data[0], torch.stack([y[:, 0], net(data[0])[:, 1].detach()], dim=1), lr=0.1)
    assert both.alignment == pytest.approx(single.alignment, rel=1e-4)  # the second fits: noise of the first alone


def net_of_first(net):
    first = nn.Linear(5, 1)
    first.weight.data, first.bias.data = net.weight.data[:1], net.bias.data[:1]
    return first


def test_tokens_are_handed_on_as_whole_numbers():
    torch.manual_seed(0)
    words = torch.randint(7, (12, 4))
    net = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 2))
    found = measure_model(net, words, words.sum(dim=1) % 2, lr=0.1)
    assert found.outputs == 2
    assert found.parameters == 21 + 26
    with torch.no_grad():
        assert found.loss == pytest.approx(float(nn.functional.cross_entropy(net(words), words.sum(dim=1) % 2)))


def test_labels_of_no_output_are_refused():
    with pytest.raises(ValueError, match="labels of 3 outputs are 0 … 2, got 1 to 3; count the classes from 0"):
        measure_model(nn.Linear(2, 3), [[1.0, 0.0], [0.0, 1.0]], [1, 3], lr=0.1)
