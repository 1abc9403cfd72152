"""The night of the bound on two classes at a tiny size: arms put together are the whole, half of them say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from descent.claims import Verdict
from descent.experiments.geometry import pictures, resnet
from descent.experiments.geometry.pictures import Pictures
from descent.experiments.lab import Lab, Share
from descent.runs import campaign, night, units
from nights import instead, outcome, state
from tidy import two_classes

PACKAGE = "descent.experiments.geometry"
LAB = Lab(seed=5)
ARMS = resnet.Residual(
    Share(least=3, most=3), Pictures.tiny(80, 8, draws=3), ((0.01, 4),), epochs=1, warm=0.25, looks=1, fitted=10.0
)


@pytest.fixture(scope="module")
def patched() -> Any:
    with instead(pictures, two_classes, [replace(resnet.RESNET, night=ARMS)]):
        yield


def test_a_night_of_the_edge_is_the_whole_and_half_of_it_says_so(patched: Any, tmp_path: Any) -> None:
    made = state(PACKAGE, LAB, tmp_path)
    night.night(made, None, 1, lambda: night.merge("P5", made))
    assert made.total(made.todo[0]) == (9, 9)
    drew = units.drawn(made.todo[0])
    whole, together = resnet.run(ARMS, drew), resnet.merge(ARMS, drew, made.found(made.todo[0]))
    for a, b in zip(whole.paths, together.paths, strict=True):
        assert a.arm == b.arm
        np.testing.assert_allclose(a.course.frobenius[0], b.course.frobenius[0], rtol=1e-3)
        np.testing.assert_allclose(a.loss, b.loss, rtol=5e-2)  # at the edge round-off grows
    assert outcome(tmp_path, "P5-X1.resnet").estimates[0].draws == 3
    (tmp_path / "units" / "resnet" / "pair0-heavy-draw2.json").unlink()
    night.merge("P5", state(PACKAGE, LAB, tmp_path))
    found = outcome(tmp_path, "P5-X1.resnet")
    assert (found.verdict, found.undecided) == (Verdict.INCONCLUSIVE, "2 of 3 draws")


def test_the_night_of_the_edge_shares_no_image_and_has_the_rules_of_paper_scale() -> None:
    shown = resnet.NIGHT.pictures
    assert shown.draws * shown.examples <= resnet.TWO_CLASSES
    assert resnet.NIGHT.pairs == resnet.RESNET.large.pairs
    at = {scale: campaign.tests_at(PACKAGE, "resnet", scale) for scale in ("night", "gpu")}
    assert at["night"] == at["gpu"]
    assert set(at["night"]) == set(resnet.TESTS)
