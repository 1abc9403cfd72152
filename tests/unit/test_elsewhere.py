"""Nothing mixes a device's tensors with the CPU's: experiments on a device that is made of the CPU."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from descent.engine import drop
from descent.engine.checkpoint import Checkpoint, Keeping, keeping
from descent.engine.rules import heavy_ball
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import every, train
from descent.experiments.lab import Lab
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.problems.saddle import Quadratic
from descent.runs.perform import perform
from elsewhere import COUNTS, NAME, elsewhere


@pytest.fixture
def there():
    with elsewhere():
        yield torch.device(NAME)


def test_what_is_mixed_is_refused(there):
    away, here = torch.ones(3, device=there), torch.ones(3)
    for mix in (
        lambda: away + here,
        lambda: torch.stack([away, here]),
        lambda: here @ away,
        lambda: here[away.long()],
        lambda: torch.where(away > 0, away, here),
        lambda: away.mul_(here),
    ):
        with pytest.raises(RuntimeError, match="one device"):
            mix()
    with pytest.raises((RuntimeError, TypeError)):
        away.numpy()
    assert (away * torch.tensor(2.0)).device == there  # a number may come from anywhere
    assert away[torch.tensor([0, 2])].device == there  # and so may indices


def test_it_computes_what_the_cpu_computes(there):
    away, here = (torch.arange(6.0, device=device).view(2, 3).requires_grad_() for device in (there, "cpu"))
    for x in (away, here):
        (x.sin() @ x.mT).square().sum().backward()
    assert torch.equal(away.grad.cpu(), here.grad)
    with torch.no_grad():
        for x in (away, here):
            x[1:].mul_(10)  # a view of what it changes
            torch.add(x, 1, out=x)
    assert torch.equal(away.cpu(), here)
    assert away.sum().item() == here.sum().item()
    one, other = (Streams(replica_seeds(3, 5, device)).normal(Purpose.NOISE, 7, (4,)) for device in (there, "cpu"))
    assert one.device == there
    assert torch.equal(one.cpu(), other)


def test_a_run_cut_short_there_goes_on_to_the_same_end(there, tmp_path, monkeypatch):
    def run():
        streams = Streams(replica_seeds(1, 6, there))
        hyper = heavy_ball([0.1] * 6, 0.9).to(there)
        probe = every(5, lambda params: params.square().sum(-1))
        return train(Quadratic((1.0, 2.0)), torch.ones(6, 2, device=there), hyper, 60, streams, probes={"size": probe})

    whole, saves = run(), Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda *given: [saves(*given), (_ for _ in ()).throw(KeyboardInterrupt)])
    with pytest.raises(KeyboardInterrupt), keeping(Keeping(tmp_path, seconds=0.0)):
        run()
    monkeypatch.undo()
    with keeping(Keeping(tmp_path, seconds=0.0)):
        again = run()
    assert again.params.device == there
    assert torch.equal(again.params, whole.params)
    assert torch.equal(again.records["size"].values, whole.records["size"].values)


PROBLEMS = {
    "quadratic": lambda streams, device: (Quadratic((1.0, 2.0)), torch.ones(6, 2, device=device)),
    "net": lambda streams, device: (_classes(device), MLP((6, 5, 3)).initial(streams)),
}


def _classes(device):
    inputs = torch.arange(240.0).view(40, 6).sin().to(device)
    return Supervised(MLP((6, 5, 3)), CrossEntropy(), inputs, (torch.arange(40) % 3).to(device), 8)


@pytest.mark.parametrize("schedule", [None, drop(3, lr=0.5)], ids=["constant", "schedule"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_nothing_is_waited_for_between_looks(there, name, schedule):
    streams = Streams(replica_seeds(1, 6, there))
    objective, start = PROBLEMS[name](streams, there)
    hyper = heavy_ball([0.01] * 6, 0.9).to(there)

    def asked(steps, check):
        before = replace(COUNTS)
        train(objective, start, hyper, steps, streams, schedule=schedule, check=check)
        return COUNTS - before

    more = asked(40, 100) - asked(20, 100)
    assert more.waits == 0
    assert more.sent <= 1  # what stays put is sent once
    assert 100 < more.kernels < 20 * 50
    assert (asked(40, 1) - asked(20, 1)).waits >= 20  # a look is a wait


SHORTER = {
    ("saddles", "stiff"): {"steps": 150},
    ("smoothing", "quadratic"): {"looks": 20, "epochs": 5},
    ("geometry", "nets"): {"steps": 4, "newton": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize(("chapter", "name"), SHORTER)
def test_experiments_find_the_same_there(chapter, name):
    item = next(e for e in importlib.import_module(f"descent.experiments.{chapter}").EXPERIMENTS if e.name == name)
    item = replace(item, small=replace(item.small, **SHORTER[chapter, name]))
    here = perform(item, Lab(replicas=40)).estimates
    with elsewhere():
        there = perform(item, Lab(replicas=40, device=NAME)).estimates
    assert set(here) == set(there)
    for key in here:
        for one, other in zip(here[key], there[key], strict=True):
            assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-4), key
