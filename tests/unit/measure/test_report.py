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
        (nn.Linear(5, 3), {}, r"returns \(24, 3\) for 24 inputs.*outputs\[:, :1\]"),
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
        (lambda x, y: (x, y[:-1]), "23 numbers for 24 inputs"),
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
