"""The landscape experiments of the smoothing chapter, shrunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from descent.claims import load_paper
from descent.experiments.lab import Lab, Share
from descent.experiments.smoothing import critical, escape, graduated
from descent.experiments.smoothing.arms import RULES
from descent.figures.smoothing import landscapes
from tidy import momentous

SMALL = Lab(replicas=60, seed=11)


def test_temperature_decides_and_the_degree_does_not() -> None:
    config = replace(escape.ESCAPE.small, rates=(0.02, 0.08))
    result = escape.run(config, replace(SMALL, replicas=300))
    heats = result.half
    assert abs(np.log(heats[1] / heats[0])) < 0.15  # the same temperature …
    degrees = np.sqrt(2 * heats * np.array(config.rates))
    assert degrees[1] / degrees[0] > 1.7  # … and twice the degree
    found = escape.estimates(result)
    assert abs(found["P1-X3.law"].value) < 0.2
    assert found["P1-X9.ballistic"].low > 0.8
    assert found["P1-C9.lemma"].value < 1
    assert set(found) <= set(load_paper("P1").tests)
    assert landscapes.collapse(result).axes


def test_escape_out_of_the_temperatures_is_said() -> None:
    config = replace(escape.ESCAPE.small, rates=(0.08,), temperatures=(0.001, 0.002))
    with pytest.raises(ValueError, match="widen them"):
        escape.estimates(escape.run(config, SMALL))


def test_annealing_momentum_matters_only_where_it_changes_the_effective_rate() -> None:
    result = graduated.run(graduated.GRADUATED.small, replace(SMALL, replicas=400))
    found = graduated.estimates(result)
    assert found["P1-C22.lr"].low > 1.5
    assert found["P1-C22.shb"].low > 1.5
    assert found["P1-C22.nshb"].high < 1.5
    needy = momentous("P1", "graduated")
    assert set(found) - needy == {"P1-C22.lr"}
    still = graduated.estimates(graduated.run(result.config, replace(SMALL, momentum=0.0, replicas=40)))
    assert [still[key].value for key in sorted(needy)] == [1.0, 1.0]  # there is none to anneal


def test_critical_batch_ignores_the_learning_rate() -> None:
    config = replace(
        critical.CRITICAL.small,
        replicas=Share(most=4),
        batch_sizes=(180, 256, 360, 512),
        precisions=(0.45, 0.42),
        rates=(0.1, 0.2),
        limit=250,
    )
    result = critical.run(config, SMALL)
    found = critical.estimates(result)
    assert abs(found["P1-C12.exponent"].value) < 0.3
    assert found["P1-X8.artefact"].value == pytest.approx(1, abs=0.1)
    plain, averaged, heavy = map(result.virtual_recipe, RULES)
    assert (plain, averaged) == pytest.approx((10, 1), rel=0.1)  # the same noise, read off ten times apart
    assert heavy == pytest.approx(1, rel=0.1)
    assert (np.diff(result.steps[1, 0].mean(0)) < 0).all()
    assert set(found) <= set(load_paper("P1").tests)
    assert landscapes.valleys(result).axes
    still = replace(result, lab=replace(SMALL, momentum=0.0))
    assert "P1-X8.artefact" in critical.estimates(still)
    assert landscapes.valleys(still).axes


def test_the_chapter_takes_a_few_dozen_networks_and_paper_scale_more() -> None:
    labs = Lab(replicas=60), Lab(), Lab(replicas=5000)
    counts = [
        [lab.count(config.replicas) for lab in labs] for config in (critical.CRITICAL.small, critical.CRITICAL.large)
    ]
    assert counts == [[32, 33, 64], [64, 100, 500]]
    assert [lab.count(escape.ESCAPE.large.replicas) for lab in labs] == [6000, 100_000, 500_000]
