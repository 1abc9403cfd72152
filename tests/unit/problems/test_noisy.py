"""Noise of four shapes, rare classes and events: moments, and gradients that are right on average."""

import numpy as np
import pytest
import torch
from descent.engine.streams import Streams, replica_seeds
from descent.problems.noisy import Bowl, Events, Unigram, noise_of
from descent.theory.averages import LAWS
from scipy import stats

STREAMS = Streams(replica_seeds(0, 4000))


@pytest.mark.parametrize("law", LAWS)
def test_noise_has_mean_nothing_and_variance_one(law):
    x = np.concatenate([noise_of(law, STREAMS, step, (20,)).flatten().double().numpy() for step in range(3)])
    error = 5 / np.sqrt(len(x))
    assert abs(x.mean()) < error
    if law != "student":  # whose fourth moment is infinite
        assert abs(x.var() - 1) < error * np.sqrt((x**4).mean() - 1)
    assert abs((x**3).mean() - 2) < 0.2 if law == "exponential" else abs(np.median(x)) < 1.5 * error


def test_student_noise_is_t_of_three_degrees():
    x = noise_of("student", STREAMS, 0, (5,)).flatten().double().numpy()
    assert stats.kstest(x * np.sqrt(3), stats.t(3).cdf).pvalue > 1e-3


def test_a_bowl_pulls_and_a_saddle_pushes():
    x = torch.full((4000, 2), 3.0)
    for curvature in (1.0, -1.0):
        bowl = Bowl("laplace", 0.5, curvature)
        assert bowl.gradient(x, STREAMS, 0).mean().item() == pytest.approx(3 * curvature, abs=0.05)
    with pytest.raises(ValueError, match="law must be one of normal"):
        Bowl("cauchy")


def test_classes_are_drawn_as_often_as_they_should_be():
    problem, x = Unigram(6, 8), torch.zeros(4000, 6)
    found = torch.stack([problem.gradient(x, STREAMS, step) for step in range(3)]).mean((0, 1))
    assert torch.allclose(found, problem.full(x)[0], atol=0.008)
    at = torch.tensor(problem.frequencies, dtype=torch.float64).log()[None]
    assert problem.divergence(at).item() == pytest.approx(0, abs=1e-12)
    assert problem.divergence(x.double()[:1]).item() > 0.1


def test_events_are_binomial_and_start_at_the_truth():
    events = Events((0.05, 0.4), 5)
    assert np.allclose(events.edges, stats.binom(5, np.array(events.frequencies)[:, None]).cdf(np.arange(5)))
    x = events.start().expand(4000, 2)
    assert events.full(x[:1]).abs().max() < 1e-6
    shares = torch.cat([x.sigmoid() - events.gradient(x, STREAMS, step) for step in range(4)]) * 5
    for column, p in enumerate(events.frequencies):
        seen = np.bincount(shares[:, column].round().int().numpy(), minlength=6)
        assert stats.chisquare(seen, stats.binom(5, p).pmf(np.arange(6)) * len(shares)).pvalue > 1e-3
