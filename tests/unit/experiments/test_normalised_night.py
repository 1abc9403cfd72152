"""The control in larger nets at a tiny size: a net alone is what it is in company, and half of the draws say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from descent.claims import Verdict
from descent.experiments.lab import Lab
from descent.experiments.normalised import wider
from descent.experiments.normalised.control import MATCHED, MOMENTUM, PLAIN, follow
from descent.experiments.normalised.nets import load as digits
from descent.runs import night
from nights import instead, outcome, state
from tidy import two_classes

PACKAGE = "descent.experiments.normalised"
LAB = Lab(seed=5)
NETS = replace(wider.SMALL, draws=3)


def some(name: str) -> Any:
    """Return the digits, which travel with the library, and two classes of noise in the place of CIFAR-10."""
    return digits(name) if name == "digits" else two_classes(name)


@pytest.fixture(scope="module")
def patched() -> Any:
    with instead(wider, some, [replace(wider.WIDER, night=NETS)]):
        yield


def test_half_of_the_draws_of_larger_nets_decide_nothing_and_say_so(patched: Any, tmp_path: Any) -> None:
    made = state(PACKAGE, LAB, tmp_path)
    night.night(made, None, 1, lambda: night.merge("N", made))
    assert made.total(made.todo[0]) == (30, 30)
    (found,) = outcome(tmp_path, "N-10.sign_wide").estimates
    assert found.draws == 3
    assert len(outcome(tmp_path, "N-10.effect_cnn").estimates) == 3
    assert {path.stem for path in tmp_path.glob("*.csv")} == {"wider", "wider_factors"}
    (tmp_path / "units" / "wider" / "cifar10-Muon-symmetric-draw1.json").unlink()
    night.merge("N", state(PACKAGE, LAB, tmp_path))
    short = outcome(tmp_path, "N-11.bias_cnn")
    assert (short.verdict, short.undecided) == (Verdict.INCONCLUSIVE, "2 of 3 draws")
    assert outcome(tmp_path, "N-10.sign_wide").estimates == (found,)


@pytest.mark.parametrize("place", [0, 1])
def test_a_net_alone_on_its_draw_is_what_it_is_in_company(patched: Any, place: int) -> None:
    kind, control = NETS.kinds[place], NETS.control
    task, case = NETS.task(LAB, kind.data), NETS.cases(kind)[2]  # norms: signs make much of a last bit
    crowd = follow(control, case, task, LAB.arms(control.rules(case), 3))
    for draw in (0, 2):
        alone = wider.measure(NETS, LAB, wider._unit(NETS, place, 2, draw))
        assert alone["losses"][:, 0, 0, 0] == pytest.approx(crowd.losses[:, draw, 0, 0], rel=1e-4)
        assert alone["losses"][:, 0, 0, -1] == pytest.approx(crowd.losses[:, draw, 0, -1], rel=1e-2)
        assert np.ptp(alone["losses"][:, 0, 0, -1]) > 0  # the arms part


def test_cases_are_those_of_the_small_nets_with_rates_of_their_own() -> None:
    kind = wider.NIGHT.kinds[1]
    assert [case.name for case in kind.cases] == [case.name for case in wider.ASKED]
    assert [case.lr for case in kind.cases] == [kind.sign, kind.muon, kind.normalised, kind.sign, kind.sign]
    assert {case.family for case in kind.cases} == {0}
    assert (MOMENTUM, MATCHED, PLAIN) == (0, 1, 2)
