"""Steps that are captured and replayed are the steps to the last bit, with nothing in them that no graph could hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from descent.engine import Arms, graphs
from descent.engine.normalised import adam
from descent.engine.probes import every
from descent.engine.rules import absolute, cosine, dampened, drop, heavy_ball, nesterov, product, stack
from descent.engine.streams import Streams, replica_seeds
from descent.engine.surgery import Erase, Surgery
from descent.engine.train import Noisy, train
from descent.nets.augment import Augment
from descent.nets.convolutional import CNN
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.problems.hyperbola import Hyperbola
from descent.problems.networks import FreshLabelNoise
from descent.problems.pca import StreamingPCA
from descent.problems.products import Products
from descent.problems.quadratics import FOUR_ATOMS, Ensemble, GaussianFeatures, RandomWeights
from descent.problems.saddle import DoubleWell, Quadratic, StiffSaddle
from descent.problems.smoothed import Rugged
from descent.problems.styblinski import StyblinskiTang
from descent.theory.weights import Gamma
from elsewhere import COUNTS, NAME, WAITING, elsewhere
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

R = 6


class Tape(TorchDispatchMode):
    """What a graph is on an accelerator: kernels by the tensors they read and write, without the Python around them."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in WAITING, f"{func} waits for the device, which no graph can"
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.calls.append((func, args, kwargs or {}, found))
        return found

    def replay(self):
        with torch.inference_mode():
            for func, args, kwargs, found in self.calls:
                for old, new in zip(tree_leaves(found), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and old is not new:
                        old.copy_(new)


@pytest.fixture
def taped(monkeypatch):
    """Capture as an accelerator does, without computing anything; return how many kernels each graph has."""
    sizes = []

    def captured(steps, device):
        moving = [leaf for named in (steps.__self__.chunk.x, steps.__self__.chunk.v) for leaf in named.values()]
        before = [leaf.clone() for leaf in moving]
        with Tape() as tape:
            steps()
        for leaf, old in zip(moving, before, strict=True):
            leaf.copy_(old)
        sizes.append(len(tape.calls))
        return tape.replay

    monkeypatch.setattr(graphs, "captured", captured)
    return sizes


def images(model, size, **settings):
    inputs = torch.arange(40.0 * 3 * size * size).view(40, 3, size, size).sin()
    return Supervised(model, CrossEntropy(), inputs, torch.arange(40) % 3, **settings)


INPUTS, LABELS = torch.arange(240.0).view(40, 6).sin(), torch.arange(40) % 3
NET, SMALL = MLP((6, 5, 3)), CNN(widths=(4,), dense=(), size=8, classes=3)
CASES = {
    "quadratic": (Quadratic((1.0, -0.2, 3.0)), 3),
    "well": (DoubleWell(torch.linspace(0.1, 1.0, R)), 1),
    "stiff": (StiffSaddle(), 2),
    "rugged": (Rugged(noise=0.1), 2),
    "ensemble": (Ensemble(FOUR_ATOMS, 2), 2),
    "features": (GaussianFeatures((1.0, 2.0), 3), 2),
    "weights": (RandomWeights(Gamma(1.0), (1.0, 0.5), 2), 2),
    "pca": (StreamingPCA(), 4),
    "hyperbola": (Hyperbola(jitter=0.1), 2),
    "wells": (StyblinskiTang(jitter=0.1), 2),
    "product": (Products(batch_size=2, label_noise=0.1), 3),
    "net": (Supervised(NET, CrossEntropy(), INPUTS, LABELS, 8), NET),
    "sizes": (Supervised(NET, CrossEntropy(), INPUTS, LABELS, [4, 4, 8, 8, 8, 2], "without_replacement"), NET),
    "full": (Supervised(NET, CrossEntropy(), INPUTS, LABELS, sampling="full"), NET),
    "noisy labels": (FreshLabelNoise(NET, CrossEntropy(), INPUTS, LABELS, 8, classes=3), NET),
    "images": (images(SMALL, 8, batch_size=8, sampling="shuffled_epochs", augment=Augment(2)), SMALL),
}


def both(objective, start, rule, steps=97, **options):
    """Train eagerly and by windows."""
    runs = [
        train(objective, start, rule, steps, Streams(replica_seeds(1, R)), graphs=on, **options) for on in (False, True)
    ]
    for part in ("params", "velocity"):
        plain, graphed = (getattr(run, part) for run in runs)
        for one, other in zip(tree_leaves(plain), tree_leaves(graphed), strict=True):
            assert torch.equal(one.nan_to_num(), other.nan_to_num())
    assert torch.equal(runs[0].diverged_at, runs[1].diverged_at)
    for name, series in runs[0].records.items():
        assert torch.equal(series.values.nan_to_num(), runs[1].records[name].values.nan_to_num())
    return runs[1]


def start_of(model):
    if isinstance(model, int):
        return torch.linspace(0.1, 0.9, R * model).view(R, model)
    return model.initial(Streams(replica_seeds(2, R)))


@pytest.mark.parametrize("name", CASES)
def test_replayed_steps_are_the_steps(taped, name):
    objective, model = CASES[name]
    both(objective, start_of(model), heavy_ball([0.01] * R, 0.9), check=20)
    assert taped  # something was captured


RULES = {
    "constant": (heavy_ball([0.05] * R, 0.9), None),
    "decayed": (stack(heavy_ball([0.05] * 3, 0.9, weight_decay=0.1), nesterov([0.05] * 3, 0.5, maximize=True)), None),
    "first": (dampened([0.05] * R, 0.9, 0.3), None),
    "drop": (heavy_ball([0.05] * R, 0.9), drop([33, 60], lr=0.5)),
    "cosine": (nesterov([0.05] * R, [0.1, 0.2, 0.3, 0.4, 0.5, 0.0]), product(cosine(97), drop(40, momentum=0.0))),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("check", [1, 7, 64])
def test_rules_and_schedules_are_followed(taped, name, check):
    rule, schedule = RULES[name]
    probes = {"size": every(10, lambda params: params.square().sum(-1))}
    both(Quadratic((1.0, 2.0)), start_of(2), rule, schedule=schedule, check=check, probes=probes)


def test_a_rate_per_replica_is_followed(taped):
    rule = heavy_ball([0.05] * R, 0.9)
    schedule = absolute(rule, lr=lambda step: torch.linspace(0.01, 0.1, R) / (1 + step))
    both(Quadratic((1.0, 2.0)), start_of(2), rule, schedule=schedule, check=10)


def test_who_diverges_is_put_aside_where_it_would_be(taped):
    rates = torch.tensor([0.1, 2.5, 0.1, 3.0, 5.0, 0.1], dtype=torch.float64)
    run = both(Quadratic((1.0, 2.0)), start_of(2), heavy_ball(rates, 0.5), check=5)
    assert (run.diverged_at >= 0).tolist() == [False, True, False, True, True, False]


def test_a_run_goes_on_from_the_middle(taped):
    both(Quadratic((1.0, 2.0)), start_of(2), heavy_ball([0.05] * R, 0.9), 90, begin=13, check=20)


def test_arms_hand_it_on(taped):
    arms = Arms(heavy_ball(0.05, [0.0, 0.9]), Streams(replica_seeds(1, R)))
    whole = [arms.run(Quadratic((1.0, 2.0)), start_of(2)[:1], 90, check=20, graphs=on) for on in (False, True)]
    ends = [run.end(lambda params: params[:, 0]) for run in whole]
    assert taped
    assert (ends[0] == ends[1]).all()


def test_a_window_keeps_to_its_budget(taped, monkeypatch):
    monkeypatch.setattr(graphs, "BUDGET", 4 * 2 * R * 2 * 3)  # three steps of draws and gradients
    both(Quadratic((1.0, 2.0)), start_of(2), heavy_ball([0.05] * R, 0.9), check=12)
    few = max(taped)
    monkeypatch.setattr(graphs, "BUDGET", 1 << 20)
    both(Quadratic((1.0, 2.0)), start_of(2), heavy_ball([0.05] * R, 0.9), check=12)
    assert max(taped) > 3 * few


@pytest.mark.parametrize("name", ["quadratic", "net"])
def test_a_device_is_told_little_between_looks(monkeypatch, name):
    def launched(steps, device):
        def once():
            before = COUNTS.kernels
            steps()
            COUNTS.kernels = before + 1

        return once

    monkeypatch.setattr(graphs, "captured", launched)
    with elsewhere():
        there = torch.device(NAME)
        streams = Streams(replica_seeds(1, R, there))
        start = NET.initial(streams) if name == "net" else start_of(3).to(there)
        objective = CASES["quadratic"][0]
        if name == "net":
            objective = Supervised(NET, CrossEntropy(), INPUTS.to(there), LABELS.to(there), 8)

        def asked(steps, on):
            before = replace(COUNTS)
            train(objective, start, heavy_ball([0.01] * R, 0.9).to(there), steps, streams, check=50, graphs=on)
            return COUNTS - before

        eager, graphed = (asked(400, on) - asked(200, on) for on in (False, True))
        assert graphed.waits == 4  # a look each
        assert graphed.sent == 0
        assert graphed.kernels < 200 * 3
        assert eager.kernels > 3 * graphed.kernels


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("schedule", [None, cosine(230)], ids=["constant", "cosine"])
@pytest.mark.parametrize("name", ["quadratic", "net"])
def test_cuda_replays_the_steps(name, schedule):
    streams = Streams(replica_seeds(1, R, "cuda"), torch.float64)
    start = NET.initial(streams) if name == "net" else start_of(3).to("cuda", torch.float64)
    inputs, labels = INPUTS.to("cuda", torch.float64), LABELS.to("cuda")
    objective = Supervised(NET, CrossEntropy(), inputs, labels, 8) if name == "net" else CASES["quadratic"][0]
    rule, options = heavy_ball([0.01] * R, 0.9), {"check": 20, "schedule": schedule}
    plain, graphed = (train(objective, start, rule, 230, streams, graphs=on, **options).params for on in (False, True))
    for one, other in zip(tree_leaves(plain), tree_leaves(graphed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_what_cannot_be_captured_is_refused_in_words():
    rule, streams = heavy_ball([0.1] * R, 0.9), Streams(replica_seeds(1, R))
    quadratic, start = Quadratic((1.0, 2.0)), start_of(2)
    noisy = Noisy(lambda x: x, lambda x, streams, step: torch.zeros_like(x))
    net = replace(CASES["net"][0], compiled=True)
    for objective, begin, one, words in (
        (quadratic, start, adam([0.1] * R), "linear rules alone"),
        (noisy, start, rule, "draws apart from its gradient, and Noisy has no `draw`"),
        (Surgery(quadratic, [Erase(slice(0, 2))]), start, rule, "Surgery operates by what it sees"),
        (net, start_of(NET), rule, "take one of compiled and graphs"),
    ):
        with pytest.raises(ValueError, match=words):
            train(objective, begin, one, 10, streams, graphs=True)
