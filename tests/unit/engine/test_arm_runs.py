"""What a run of arms hands back about a part of it: some of its replicas, means of what was recorded."""

from __future__ import annotations

import numpy as np
import torch
from descent.engine import Arms, Streams, Watch, heavy_ball, replica_seeds
from descent.nets import MLP
from descent.problems.saddle import Quadratic

ARMS = Arms.paired(heavy_ball(0.1, [0.0, 0.5, 0.9]), Streams(replica_seeds(3, 4)))


def test_a_watch_sees_step_parameters_and_buffer():
    seen = Watch(2, lambda step, params, velocity: torch.stack([params[:, 0] + step, velocity[:, 0]], dim=1))
    done = ARMS.run(Quadratic((1.0,)), torch.ones(1, 1), 4, probes={"seen": seen})
    assert done.at("seen").tolist() == [0, 2, 4]
    assert done["seen"][:, :, 0].tolist() == [[[1.0, 0.0]] * 4] * 3
    np.testing.assert_allclose(done["seen"][:, :, -1, 0], done.end()[..., 0] + 4, rtol=1e-6)


def test_an_average_is_over_the_steps_from_a_step_on():
    done = ARMS.run(Quadratic((1.0,)), torch.ones(1, 1), 6, probes={"x": Watch(2, lambda step, x, v: x)})
    np.testing.assert_allclose(done.average("x", since=3), done["x"][:, :, 2:].mean(axis=2), rtol=1e-6)
    np.testing.assert_allclose(done.average("x"), done["x"].mean(axis=2), rtol=1e-6)


def test_a_few_replicas_of_some_arms_go_on_as_in_the_whole():
    problem = Quadratic((1.0, 2.0))
    done = ARMS.run(problem, torch.ones(1, 2), 5)
    some, params, velocity = done.few(2, slice(1, None))
    assert (len(some), some.replicas, some.rule.momentum.tolist()) == (2, 2, [0.5, 0.9])
    np.testing.assert_array_equal(some.split(params), done.end()[1:, :2])
    np.testing.assert_array_equal(some.split(velocity), ARMS.split(done.whole.velocity)[1:, :2])
    ahead = [arms.streams.normal(0, 5, (2,)).view(len(arms), -1, 2)[-1, :2] for arms in (ARMS, some)]
    assert torch.equal(*ahead)


def test_a_few_replicas_of_a_network_keep_their_leaves():
    done = ARMS.run(_Still(), MLP((3, 2)).initial, 1)
    _, params, _ = done.few(1)
    assert {name: leaf.shape[0] for name, leaf in params.items()} == dict.fromkeys(done.params, 3)


class _Still:
    def gradient(self, params, streams, step):
        return {name: torch.zeros_like(leaf) for name, leaf in params.items()}
