"""A rule that breaks the contract is told which part of it, in one line; every part has a planted fault."""

from dataclasses import dataclass

import pytest
import torch
from descent.engine import BrokenRuleError, Streams, adam, elementwise, normalised, replica_seeds, train
from descent.engine.contract import check
from descent.engine.rule import Rule

LEAVES = {"w": (torch.Size((3, 2)), torch.float32), "b": (torch.Size((3,)), torch.float32)}


def made(function, **slots):
    return elementwise(**slots)(function)(lr=[0.1, 0.2, 0.3, 0.4], momentum=0.9)


def numbers(g, x, s, h, age):
    return -h.lr * g, {"m": 0.0}


def grows(g, x, s, h, age):
    return -h.lr * g, {"m": s.m.flatten(1)}


def forgets(g, x, s, h, age):
    return -h.lr * g, {}


def in_place(g, x, s, h, age):
    return -h.lr * g.mul_(2), {"m": s.m}


def mixes(g, x, s, h, age):
    return -h.lr * g / g.norm(), {"m": s.m}


def leafwise(g, x, s, h, age):
    return -h.lr * g / g.flatten(1).norm(dim=1).view(h.lr.shape), {"m": s.m}


def not_a_number(g, x, s, h, age):
    return -h.lr * g / (s.m * 0), {"m": s.m}


def random(g, x, s, h, age):
    return -h.lr * torch.rand_like(g), {"m": s.m}


def raises(g, x, s, h, age):
    return -h.rate * g, {"m": s.m}


def nothing(g, x, s, h, age):
    return None


FAULTS = [
    (numbers, "state is tensors"), (grows, "shapes and types stay"), (forgets, "names stay"),
    (in_place, "inputs stay as they are"), (mixes, "replicas do not mix"), (leafwise, "where elements mix"),
    (not_a_number, "numbers are finite"), (random, "the same call gives the same"), (raises, "it runs.*rate"),
    (nothing, "it runs|returns"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "part"), FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_a_fault_is_named(function, part):
    with pytest.raises(BrokenRuleError, match=part) as found:
        check(made(function, m=0.0), LEAVES)
    assert function.__name__ in str(found.value)
    assert "\n" not in str(found.value)


@dataclass(frozen=True, eq=False)
class Counts(Rule):
    """Keeps a Python number."""

    def init(self, params):
        return {"count/w": 0}

    def update(self, gradient, state, params, age):
        return {name: -g for name, g in gradient.items()}, {"count/w": state["count/w"] + 1}


@dataclass(frozen=True, eq=False)
class Unnamed(Rule):
    """Names a slot after no leaf."""

    def init(self, params):
        return {"norm": torch.zeros(self.replicas)}


@dataclass(frozen=True, eq=False)
class Sideways(Rule):
    """Lets one leaf move another without saying so."""

    @property
    def reads(self):
        return "leaf"

    def update(self, gradient, state, params, age):
        total = sum(g.flatten(1).sum(1) for g in gradient.values())
        return {n: -g * total.view(-1, *[1] * (g.ndim - 1)) for n, g in gradient.items()}, {}


@pytest.mark.parametrize(
    ("kind", "part"), [(Counts, "Python number 0"), (Unnamed, "names no leaf"), (Sideways, "leaves mix")]
)
def test_a_class_is_checked_likewise(kind, part):
    with pytest.raises(BrokenRuleError, match=part):
        check(kind(torch.ones(4)), LEAVES)


def test_it_is_checked_once_per_run_and_good_rules_pass():
    class Bowl:
        def gradient(self, params, streams, step):
            return params

    with pytest.raises(BrokenRuleError, match="replicas do not mix"):
        train(Bowl(), torch.ones(4, 2), made(mixes, m=0.0), 2, Streams(replica_seeds(0, 4)))
    for rule in (adam([0.1, 0.2]), normalised([0.1, 0.2], 0.9)):
        check(rule, LEAVES)
