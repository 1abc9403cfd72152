"""The smallest effect that matters: one per kind of quantity, and a reason for every exception."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from descent.claims import Direction, Equivalence, Ordering, Scaling, load_paper, load_papers
from descent.claims.margins import filled, load_units, undeclared
from test_claims import paper_text

CLAIMS = Path(__file__).parents[3] / "data" / "claims"
UNITS = [
    {"name": "ratio", "margin": 0.05, "relative": True, "low": 0.0, "because": "A grid is coarser."},
    {"name": "accuracy", "margin": 0.005, "because": "Seeds differ by more."},
]


def paper_with(folder, rule, units=UNITS, **fields):
    content = paper_text()
    content["claims"][1]["tests"][0] = {"key": "size", "by": "weigh", "quantity": "value", "rule": rule, **fields}
    (folder / "P9.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    if units is not None:
        (folder / "margins.yaml").write_text(yaml.safe_dump({"schema": 1, "units": units}), encoding="utf-8")
    return load_paper(folder / "P9.yaml").tests["P9-X1.size"]


@pytest.mark.parametrize(
    ("rule", "unit", "expected"),
    [
        ({"kind": "equivalence", "target": 1}, "ratio", Equivalence(1.0, 0.05)),
        ({"kind": "equivalence", "target": 2.0, "each": True}, "ratio", Equivalence(2.0, 0.1, each=True)),
        ({"kind": "equivalence", "target": 0.9}, "accuracy", Equivalence(0.9, 0.005)),
        ({"kind": "direction", "above": 2.0}, "ratio", Direction(above=2.0, margin=0.1)),
        ({"kind": "direction", "below": 0.0}, "accuracy", Direction(below=0.0, margin=0.005)),
        ({"kind": "ordering"}, "accuracy", Ordering(0.005)),
    ],
)
def test_a_unit_gives_margin_and_tolerance(tmp_path, rule, unit, expected):
    test = paper_with(tmp_path, rule, unit=unit)
    assert (test.rule, test.unit, test.because) == (expected, unit, "")


def test_an_exception_states_its_number_and_its_reason(tmp_path):
    test = paper_with(
        tmp_path, {"kind": "equivalence", "target": 1, "tolerance": 1e-9}, unit="ratio", because="An identity."
    )
    assert (test.rule, test.because) == (Equivalence(1.0, 1e-9), "An identity.")
    region = paper_with(tmp_path, {"kind": "scaling", "low": 0.9, "high": 1.1}, unit="ratio", because="Two laws.")
    assert region.rule == Scaling(0.9, 1.1)


@pytest.mark.parametrize(
    ("rule", "fields", "message"),
    [
        ({"kind": "equivalence", "target": 1}, {"unit": "rate"}, r"P9-X1: size: unit: 'rate' is not in margins"),
        ({"kind": "equivalence", "target": 1}, {}, r"size: rule: .*needs target, tolerance"),
        ({"kind": "equivalence", "target": 1, "tolerance": 0.1}, {"unit": "ratio"}, r"own tolerance: add `because`"),
        ({"kind": "scaling", "low": 0, "high": 1}, {"unit": "ratio"}, r"own low and high: add `because`"),
        ({"kind": "direction", "above": 1}, {"unit": "ratio", "because": "x"}, r"state `margin`, or leave it out"),
        ({"kind": "direction", "above": 0}, {"unit": "ratio"}, r"ratio is compared in shares.*state `margin`"),
        ({"kind": "ordering"}, {"unit": "ratio"}, r"compared in shares"),
        ({"kind": "vibe"}, {"unit": "ratio"}, r"`kind` must be one of"),
        ({"kind": "direction", "above": "much"}, {"unit": "ratio"}, r"'much'"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_remedy(tmp_path, rule, fields, message):
    with pytest.raises(ValueError, match=message):
        paper_with(tmp_path, rule, **fields)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([{"name": "ratio", "margin": 0.05}], r"margins.yaml: ratio: because: is missing; add it"),
        ([{"name": "ratio", "margin": -1, "because": "x"}], r"ratio: margin: -1.0 will not do"),
        ([{"name": "ratio", "margin": "5 %", "because": "x"}], r"ratio: margin: '5 %' will not do; write a number"),
        ([{"name": "ratio", "margin": 1, "because": "x", "relative": "yes"}], r"relative: 'yes'.*true or false"),
        ([*UNITS, UNITS[0]], r"name 'ratio' occurs 2 times"),
        ([], r"at least one entry"),
    ],
)
def test_a_fault_in_the_margins_is_named(tmp_path, units, message):
    with pytest.raises(ValueError, match=message):
        paper_with(tmp_path, {"kind": "equivalence", "target": 1}, units, unit="ratio")


def test_without_the_file_there_are_no_units(tmp_path):
    assert load_units(tmp_path) == {}
    test = paper_with(tmp_path, {"kind": "equivalence", "target": 1, "tolerance": 0.1}, None)
    assert undeclared({"P9-X1.size": test}) == ["P9-X1.size"]
    with pytest.raises(ValueError, match="or use one of none"):
        paper_with(tmp_path, {"kind": "equivalence", "target": 1}, None, unit="ratio")


def test_the_margins_of_the_book():
    units = load_units(CLAIMS)
    assert (units["accuracy"].margin, units["log sharpness"].margin, units["exponent"].margin) == (0.005, 0.05, 0.1)
    assert (units["ratio"].at(1.0), units["log loss"].at(0.0)) == (0.05, 0.1)
    assert units["accuracy"].margin * 100 == units["points"].margin
    assert all(unit.low < unit.high for unit in units.values())
    assert filled({"kind": "equivalence", "target": 0}, units["points"], stated=False)["tolerance"] == 0.5
    assert len(load_papers()) == 7  # margins.yaml is not taken for a paper
