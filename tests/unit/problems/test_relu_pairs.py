"""What goes into a hidden neuron and what comes out: homogeneity, batch by batch, and the first-order law."""

from __future__ import annotations

import pytest
import torch
from descent.engine import Purpose, Streams, replica_seeds, sgd, train
from descent.engine.rules import repeat
from descent.nets import MLP, CrossEntropy, Supervised
from descent.problems.relu_pairs import drift, imbalance, pairs

STREAMS = Streams(replica_seeds(6, 4), torch.float64)
INPUTS = STREAMS.normal(Purpose.DATA, 0, (15, 5))[0]
NET = MLP((5, 6, 3), "relu", bias=False)
OBJECTIVE = Supervised(NET, CrossEntropy(), INPUTS, torch.arange(15) % 3, batch_size=2)


def test_both_sides_of_a_neuron_feel_one_force() -> None:
    """⟨w, ∂L/∂w⟩ = ⟨a, ∂L/∂a⟩ of every neuron and batch, here with a cross-entropy and three outputs."""
    params = NET.initial(STREAMS)
    for step in range(3):
        (into, out), (g_in, g_out) = pairs(params), pairs(OBJECTIVE.gradient(params, STREAMS, step))
        torch.testing.assert_close((into * g_in).sum(-1), (out * g_out).sum(-1), rtol=1e-11, atol=1e-13)


def test_one_step_of_descent_moves_the_imbalance_by_the_law_exactly() -> None:
    params, lr = NET.initial(STREAMS), 0.2
    end = train(OBJECTIVE, params, repeat(sgd(lr), 4), 1, STREAMS).params
    assert isinstance(end, dict)
    law = lr**2 * drift(OBJECTIVE.gradient(params, STREAMS, 0))
    torch.testing.assert_close(imbalance(end) - imbalance(params), law, rtol=1e-9, atol=1e-13)


def test_other_nets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two layers without biases.*0\.bias"):
        pairs(MLP((5, 6, 3), "relu").initial(STREAMS))
