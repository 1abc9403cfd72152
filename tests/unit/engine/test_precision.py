"""Precision and compiled steps: what is computed in fewer bits, what is not, and what must not differ."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
import torch
from descent.engine import precision
from descent.engine.precision import arithmetic
from descent.engine.rules import heavy_ball
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.measure.noise import full_gradient
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised, _outcome
from torch.nn import functional

TINY = ResNet(widths=(8, 8, 8))
SMALL = CNN(widths=(4,), dense=(), size=8)


def problem(net, **options):
    draws = Streams(torch.tensor([5])).normal(Purpose.DATA, 0, (80, 3, 8, 8))[0]
    streams = Streams(replica_seeds(0, 3))
    return Supervised(net, CrossEntropy(), draws, torch.arange(80) % 10, 16, **options), net.initial(streams), streams


def apart(a, b):
    """Return ‖a − b‖/‖b‖ of every replica."""
    wrong = sum((a[k] - b[k]).flatten(1).square().sum(1) for k in b)
    return (wrong / sum(leaf.flatten(1).square().sum(1) for leaf in b.values())).sqrt()


def flags():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def eager_backend(monkeypatch):
    """Compile in seconds: the same graphs, run by torch's own operations. Count the programs."""
    from torch._dynamo.backends.debugging import aot_eager

    programs = []

    def backend(graph, examples):
        programs.append(graph)
        return aot_eager(graph, examples)

    monkeypatch.setattr(precision, "_compile", lambda total, mode: torch.compile(total, dynamic=False, backend=backend))
    precision.compiled.cache_clear()
    yield programs
    precision.compiled.cache_clear()
    torch.compiler.reset()


# ----------------------------------------------------------------------------------------------------------------
# Precision


@pytest.mark.parametrize("net", [TINY, SMALL, MLP((192, 8, 10))], ids=["resnet", "cnn", "mlp"])
def test_float32_is_what_autograd_gives_bit_for_bit(net):
    objective, params, streams = problem(net)
    inputs, targets = objective.batch(streams, 0)
    free = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    total = CrossEntropy()(net.forward(free, inputs), targets).mean(dim=1).sum()
    expected = torch.autograd.grad(total, list(free.values()))
    for kind in ("float32", "tf32"):  # on a CPU the same
        found = replace(objective, precision=kind).gradient(params, streams, 0)
        if isinstance(net, MLP):  # by hand, in another order
            torch.testing.assert_close(list(found.values()), list(expected))
        else:
            assert all(map(torch.equal, found.values(), expected))


@pytest.mark.parametrize("net", [ResNet(), ResNet(norm="batch"), MLP((192, 8, 10))], ids=["group", "batch", "mlp"])
def test_bf16_rounds_the_network_and_nothing_else(net):
    objective, params, streams = problem(net)
    low = replace(objective, precision="bf16")
    error = apart(low.gradient(params, streams, 0), objective.gradient(params, streams, 0))
    assert 1e-3 < float(error.median()) < 0.2
    run = train(low, params, heavy_ball([0.02] * 3, 0.9), 3, streams)
    assert {leaf.dtype for leaf in (*run.params.values(), *run.velocity.values())} == {torch.float32}
    assert low.value(params).dtype == low.accuracy(params).dtype == torch.float32
    torch.testing.assert_close(low.value(params), objective.value(params), rtol=5e-3, atol=0)
    assert not torch.equal(low.value(params), objective.value(params))


def test_group_norm_is_not_widened(monkeypatch):
    seen = []

    def watched(x, groups, weight, bias, plain=functional.group_norm):
        out = plain(x, groups, weight, bias)
        seen.append({x.dtype, weight.dtype, bias.dtype, out.dtype})
        return out

    monkeypatch.setattr(functional, "group_norm", watched)
    objective, params, streams = problem(TINY, precision="bf16")
    objective.gradient(params, streams, 0)
    assert len(seen) == 9
    assert all(kinds == {torch.bfloat16} for kinds in seen)


def test_a_full_gradient_in_bf16_is_refused():
    objective, params, _ = problem(TINY, precision="bf16")
    with pytest.raises(ValueError, match=r'bfloat16 does not give full gradients.*precision="float32"'):
        replace(objective, batch_size=None, sampling="full")
    with pytest.raises(ValueError, match="bfloat16"):  # nor does an instrument take one
        full_gradient(objective, params)
    with pytest.raises(ValueError, match="precision must be one of float32, tf32, bf16, got 'fp8'"):
        replace(objective, precision="fp8")


def test_flags_are_set_and_put_back():
    before = flags()
    for kind, inside in (("float32", (False, False)), ("bf16", (False, False)), ("tf32", (True, True))):
        with arithmetic(kind, "cuda:0"):
            assert flags() == inside
            with arithmetic("float32", "cuda:0"):
                assert flags() == (False, False)
            assert flags() == inside
        assert flags() == before
    with pytest.raises(ZeroDivisionError), arithmetic("tf32", "cuda:0"):
        _ = 1 / 0
    assert flags() == before
    with arithmetic("tf32", "cpu"):
        assert flags() == before


# ----------------------------------------------------------------------------------------------------------------
# Compiled steps


def test_a_compiled_step_takes_the_same_path(eager_backend):
    objective, params, streams = problem(TINY)
    hyper = heavy_ball([0.02] * 3, 0.9)
    plain = train(objective, params, hyper, 4, streams)
    fast = train(replace(objective, compiled=True), params, hyper, 4, streams)
    assert float(apart(fast.params, plain.params).max()) < 1e-6
    assert len(eager_backend) == 1  # one program for all steps, though every chunk has an objective of its own


def test_one_program_per_shape(eager_backend):
    objective, params, streams = problem(SMALL, compiled=True)
    other = replace(objective, batch_size=8)
    for each in (objective, other, objective, other):
        each.gradient(params, streams, 0)
    assert len(eager_backend) == 2


def test_bf16_compiled_is_held_against_float32(eager_backend):
    objective, params, streams = problem(SMALL, precision="bf16")
    plain, fast = objective.gradient(params, streams, 0), replace(objective, compiled=True).gradient(params, streams, 0)
    assert float(apart(fast, plain).median()) < 0.05
    assert len(eager_backend) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
@pytest.mark.skipif(os.environ.get("ATEN_CPU_CAPABILITY") == "default", reason="a compiler cannot be told")
def test_compiled_to_machine_code(tmp_path, monkeypatch):
    """A small net: the compiler takes its time. What it has kept for other kernels would be taken for these."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    objective, params, streams = problem(SMALL)
    fast = replace(objective, compiled=True)
    assert float(apart(fast.gradient(params, streams, 1), objective.gradient(params, streams, 1)).max()) < 1e-5
    program = precision.compiled(_outcome, fast.model, fast.loss, "float32")
    assert program.checked
    assert not program.failed


def test_a_wrong_program_is_not_used(monkeypatch):
    precision.compiled.cache_clear()
    monkeypatch.setattr(precision, "_compile", lambda total, mode: lambda *given: 1.001 * total(*given))
    objective, params, streams = problem(TINY, compiled=True)
    with pytest.raises(RuntimeError, match=r"lies 1.0e-03 of its length.*allowed: 1.0e-04.*compiled=False"):
        objective.gradient(params, streams, 0)


def test_what_cannot_be_compiled_goes_on_with_a_warning(monkeypatch):
    precision.compiled.cache_clear()

    def broken(total, mode):
        raise OSError("no g++ here\nand a long story")

    monkeypatch.setattr(precision, "_compile", broken)
    objective, params, streams = problem(TINY)
    fast = replace(objective, compiled=True)
    with pytest.warns(UserWarning, match="could not be compiled and goes on uncompiled .OSError: no g\\+\\+ here"):
        found = fast.gradient(params, streams, 0)
    assert all(map(torch.equal, found.values(), objective.gradient(params, streams, 0).values()))
    again = fast.gradient(params, streams, 1)  # and does not try again
    assert all(map(torch.equal, again.values(), objective.gradient(params, streams, 1).values()))
