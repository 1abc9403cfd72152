"""Figures of the drift, drawn from results made by hand: they show what is in them, and lose no net."""

from __future__ import annotations

import numpy as np
import pytest
from descent.arrays import Array
from descent.experiments.lab import Lab
from descent.experiments.synthesis import accounts, ages, border, valleys
from descent.figures import synthesis as draw
from descent.theory.memory import drift_factor

LAB, DRAWS = Lab(seed=7), 3
CONFIG = border.Border(scan=(0.4, 1.0), map_steps=(0.4, 0.8), map_batches=(4, 0))


def pair(descent: float, heavy: float) -> border.Pair:
    """Return a pair whose nets end at these curvatures; the first net of heavy ball is lost."""
    ends = np.log([descent, heavy])[:, None, None, None] + np.zeros((2, DRAWS, 1, 6))
    ends[1, 0] = np.nan
    return border.Pair(4.0 * np.arange(6), ends, ends, ends)


def bordered(cells: Array) -> border.BorderResult:
    scan = (pair(3.0, 2.0), pair(2.0, 5.0))
    return border.BorderResult(CONFIG, LAB, (scan, scan), cells, -cells, np.zeros((2, DRAWS, 1)))


@pytest.fixture
def cells() -> Array:
    """Return a map that turns its sign half way between the steps on full batches, and is lost in one cell."""
    found = np.zeros((2, 2, DRAWS, 1)) + np.log(np.array([[1.25, 0.5], [1.0, 2.0]]))[..., None, None]
    found[1, 0] = np.nan
    return found


def test_the_sign_map_shows_every_net_on_its_side(cells: Array) -> None:
    config = valleys.Valleys()
    still = valleys.ValleysResult(config, LAB, np.zeros((2, 2, 4)), np.ones((5, 5)), (np.ones(4),) * 3)
    (axis,) = draw.sign_map(bordered(cells), still).axes
    flatter, sharper = (
        next(c for c in axis.collections if c.get_label() == f"nets, {w}") for w in ("flatter", "sharper")
    )
    np.testing.assert_allclose(flatter.get_offsets()[:, 0], [0.8] * (DRAWS - 1))  # eλ₁ of heavy ball's end
    np.testing.assert_allclose(sharper.get_offsets()[:, 0], [5.0] * (DRAWS - 1))
    crossings = next(one for one in axis.lines if one.get_label() == "valley, recursion")
    np.testing.assert_allclose(crossings.get_xdata(), 1 + np.array(config.exact_momenta))


def test_the_map_says_factors_and_where_a_column_turns(cells: Array) -> None:
    sharp, loss = draw.step_batch_map(bordered(cells)).axes
    assert [text.get_text() for text in sharp.texts] == ["1.25", "0.50", "×", "2.00"]
    assert [text.get_text() for text in loss.texts] == ["0.80", "2.00", "×", "0.50"]
    np.testing.assert_allclose(sharp.lines[0].get_ydata(), [np.nan, 0.5])


def test_rules_lie_at_the_factor_of_their_age() -> None:
    factors = {name: drift_factor(memory) for name, memory in ages.MEMORIES.items()} | {ages.UPHILL: 18.0}
    spread = 1 + 0.01 * np.arange(DRAWS)[:, None]
    result = ages.AgesResult(ages.Ages(), LAB, ({name: -f * spread for name, f in factors.items()},), np.ones(3))
    drift, ceilings = draw.age_line(result).axes
    for bars in drift.containers[:-1]:
        (x,), (y,) = bars.lines[0].get_data()
        assert y == pytest.approx(x)
    assert len(drift.containers) == len(factors)
    off = [one for one in ceilings.lines[:-1] if one.get_ydata()[0] != pytest.approx(one.get_xdata()[0])]
    assert len(ceilings.lines) - 1 - len(off) == 3  # heavy ball alone has the ceiling of its drift


def test_the_ledger_adds_the_same_signal_at_every_batch() -> None:
    changes = np.array([[1.0, 19.0], [4.0, 22.0]])[..., None, None] * np.ones((DRAWS, 2))
    config = accounts.Accounts(batches=(8,), norm_batches=(4,))
    ledger = draw.balance_ledger(accounts.AccountsResult(config, LAB, {}, (changes,), changes)).axes[0]
    heights = [bar.get_height() for bar in ledger.patches]
    assert heights == pytest.approx([1, 1, 0, 3, 19, 19, 0, 3])
