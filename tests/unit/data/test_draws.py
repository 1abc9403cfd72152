"""Training sets drawn: disjoint, as splits, or fresh; with wrong labels of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.data.draws import Draws, disjoint, flipped, fresh, redrawn_each, splits
from descent.data.images import load
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.lab import Lab


def streams(count: int = 10, seed: int = 3) -> Streams:
    return Streams(replica_seeds(seed, count))


def test_disjoint_sets_have_no_example_in_common():
    draws = disjoint(1797, 150, 10, streams(), tests=200)
    assert draws.rows.shape == (10, 150)
    assert draws.test.shape == (10, 200)
    everything = torch.cat([draws.rows.flatten(), draws.test[0]])
    assert len(everything.unique()) == 1700
    assert everything.max() > 1700  # out of all, and not of the first ones
    assert draws.overlap == 0
    with pytest.raises(ValueError, match=r"need 1800 examples, there are 1797.*or splits"):
        disjoint(1797, 180, 10, streams())


def test_splits_are_complementary_and_overlap_as_they_say():
    draws = splits(1797, 900, streams(40))
    for train, test in zip(draws.rows, draws.test, strict=True):
        assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(1797))
    member = torch.zeros(40, 1797).scatter_(1, draws.rows, 1.0)
    shared = (member @ member.T)[~torch.eye(40, dtype=torch.bool)].mean() / 900
    assert float(shared) == pytest.approx(draws.overlap, abs=0.005)
    assert splits(1797, 900, streams(), tests=100).test.shape == (10, 100)
    assert all(rows.is_contiguous() for made in (draws, fresh(3, 4, 2)) for rows in (made.rows, made.test))
    with pytest.raises(ValueError, match="do not fit into 1797"):
        splits(1797, 900, streams(), tests=898)


def test_splits_understate_the_spread_by_the_stated_factor():
    """Means of n out of N, over splits of one set and over sets: their deviations are as √(1 − n/N) to 1."""
    n, total = 150, 200
    values = streams(400, 8).normal(3, 5, (total,))
    rows = splits(total, n, streams(400, 9)).rows
    within = values.gather(1, rows).mean(1) - values.mean(1)  # what one set's splits vary by, 400 times
    between = values.gather(1, rows).mean(1)
    assert float(within.std() / between.std()) == pytest.approx((1 - n / total) ** 0.5, abs=0.06)


def test_the_master_seed_moves_every_kind():
    labels = torch.arange(50).repeat(4, 1) % 5
    one, other = streams(4, 0), streams(4, 1)
    for draw in (
        lambda s: disjoint(100, 20, 4, s).rows,
        lambda s: splits(100, 20, s).rows,
        lambda s: flipped(labels, 0.5, 5, s),
    ):
        assert torch.equal(draw(one), draw(streams(4, 0)))
        assert not torch.equal(draw(one), draw(other))


def test_a_fresh_set_lies_end_to_end_with_its_tests():
    made = torch.arange(24).view(2, 4, 3)  # two sets of three examples and one to test
    draws = fresh(2, 3, 1)
    assert torch.equal(made.flatten(0, 1)[draws.rows], made[:, :3])
    assert torch.equal(made.flatten(0, 1)[draws.test], made[:, 3:])


def test_replicas_are_told_apart_by_draw():
    """Replica r is trained on draw r mod D."""
    draws, replicas = fresh(3, 2), np.arange(12)
    assert draws.by_draw(replicas % 3).tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert draws.by_draw(np.stack([replicas, -replicas])).shape == (2, 3, 4)
    with pytest.raises(ValueError, match="11 replicas are not a whole number for each of 3 draws"):
        draws.by_draw(replicas[:11])


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_flipped_labels_are_wrong_and_counted(share):
    labels = streams(6).integers(4, 7, 10, (500,))
    found = flipped(labels, share, 10, streams(6))
    assert ((found != labels).sum(1) == round(share * 500)).all()
    assert found.min() >= 0
    assert found.max() < 10
    assert len({tuple(row.tolist()) for row in found != labels}) == (6 if share == 0.2 else 1)
    more = flipped(labels, min(1.0, share + 0.3), 10, streams(6))
    changed = found != labels
    assert torch.equal(more[changed], found[changed])


def test_wrong_classes_are_equally_likely():
    labels = torch.zeros(1, 30_000, dtype=torch.int64)
    counts = torch.bincount(flipped(labels, 1.0, 4, streams(1))[0], minlength=4)
    assert counts[0] == 0
    assert (counts[1:] - 10_000).abs().max() < 5 * (30_000 * 2 / 9) ** 0.5
    redrawn = torch.bincount(redrawn_each(labels, 1.0, 4, streams(1))[0], minlength=4)
    assert (redrawn - 7500).abs().max() < 5 * (30_000 * 3 / 16) ** 0.5


def test_labels_belong_to_rows():
    labels = load("digits").labels
    with pytest.raises(ValueError, match=r"labels\[draws.rows\]"):
        flipped(labels, 0.1, 10, streams())
    with pytest.raises(ValueError, match="share must be between 0 and 1"):
        flipped(labels[splits(1797, 100, streams()).rows], 1.1, 10, streams())
    assert isinstance(splits(1797, 100, streams()).to("cpu"), Draws)


def test_a_lab_draws_disjoint_sets_where_there_are_enough_examples():
    lab, other = Lab(seed=2), Lab(seed=3)
    large, small = lab.draws(60_000, 1000, tests=2000), lab.draws(1797, 500, tests=300)
    assert (large.kind, large.rows.shape, large.test.shape) == ("disjoint", (10, 1000), (10, 2000))
    assert (small.kind, small.rows.shape, small.test.shape) == ("splits", (10, 500), (10, 300))
    assert not torch.equal(large.rows, other.draws(60_000, 1000, tests=2000).rows)
    assert not torch.equal(small.rows, other.draws(1797, 500, tests=300).rows)
    assert [lab.per_draw(n) for n in (1, 30, 32)] == [10, 30, 40]
