"""torch.optim as rules: each row moves as it would alone, how it is run is found out, and what cannot be is refused."""

import pytest
import torch
from descent.engine import Streams, replica_seeds, stack, torch_rule, train
from descent.engine.checkpoint import Checkpoint
from test_any_rules import SHAPES, Rows, by_torch, started

MAKERS = {
    "Adam": lambda groups: torch.optim.Adam(groups, betas=(0.8, 0.9)),
    "SGD": lambda groups: torch.optim.SGD(groups, momentum=0.9, dampening=0.5),
    "RMSprop": lambda groups: torch.optim.RMSprop(groups, centered=True),
    "NAdam": lambda groups: torch.optim.NAdam(groups),
    "Adafactor": lambda groups: torch.optim.Adafactor(groups),
}


@pytest.mark.parametrize("name", MAKERS)
def test_rows_move_as_they_would_alone(name):
    make = MAKERS[name]
    rule = torch_rule(make, [1e-2, 1e-2, 3e-2])
    start, streams = started(3, torch.float64)
    run = train(Rows(), start, rule, 12, streams)
    for row, lr in enumerate((1e-2, 1e-2, 3e-2)):
        alone = by_torch(lambda p, lr=lr: make([{"params": p, "lr": lr}]), start, streams, row, 12)
        for key, leaf in alone.items():
            torch.testing.assert_close(run.params[key][row], leaf.detach(), rtol=1e-12, atol=1e-12)
    assert ("row by row" in rule.cost) == (name == "Adafactor")


def test_an_optimiser_of_matrices_runs_row_by_row():
    shapes = {"a": SHAPES["a"]}
    start, streams = started(2, torch.float32, shapes)
    rule = torch_rule(lambda groups: torch.optim.Muon(groups), [1e-2, 2e-2])
    assert rule.cost == "not known before the leaves are"
    train(Rows(shapes), start, rule, 2, streams)
    assert "row by row" in rule.cost


def test_it_resumes_to_the_same_bits_and_stacks_with_others(tmp_path):
    def make(groups):
        return torch.optim.AdamW(groups)

    rule = torch_rule(make, [1e-2, 3e-2])
    start, streams = started(2)
    whole = train(Rows(), start, rule, 12, streams)

    def kill(step, steps):
        if step >= 6:
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "run.npz", 3)
    with pytest.raises(KeyboardInterrupt):
        train(Rows(), start, rule, 12, streams, checkpoint=checkpoint, progress=kill)
    again = train(Rows(), start, rule, 12, streams, checkpoint=checkpoint)
    assert torch.equal(again.params["a"], whole.params["a"])
    assert stack(rule, torch_rule(make, 1e-3)).replicas == 3


class Hides(torch.optim.SGD):
    """Keeps a count outside its state."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad, alpha=-group["lr"] / self.count)


REFUSED = {
    "closure": lambda groups: torch.optim.LBFGS(groups[0]["params"]),
    "sparse": lambda groups: torch.optim.SparseAdam(groups),
    "maximize": lambda groups: torch.optim.Adam(groups, maximize=True),
    "outside": lambda groups: Hides(groups),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_a_rule_is_refused_with_the_reason(why):
    start, streams = started(2)
    with pytest.raises(ValueError, match=why):
        train(Rows(), start, torch_rule(REFUSED[why], [1e-2, 2e-2]), 2, streams)


def test_its_momentum_cannot_be_scheduled():
    from descent.engine import anneal_momentum

    with pytest.raises(ValueError, match="use a native rule"):
        train(
            Rows(), started(1)[0], torch_rule(MAKERS["SGD"], 1e-2), 3, Streams(replica_seeds(0, 1), torch.float64),
            schedule=anneal_momentum(1),
        )  # fmt: skip
