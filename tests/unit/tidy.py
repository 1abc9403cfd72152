"""What every experiment owes its claims and its readers."""

from __future__ import annotations

from typing import Any

from descent.claims import load_paper
from descent.experiments.lab import Lab
from descent.runs.perform import undefined


def check_answers(paper: str, module: Any, result: Any) -> None:
    """Check that estimates answer tests that the paper's claims state, and that tables are tidy."""
    stated = {f"{claim.id}.{test.key}" for claim in load_paper(paper).claims for test in claim.tests}
    found = module.estimates(result)
    assert found
    assert set(found) <= stated
    for frame in module.tables(result).values():
        assert len(frame) > 0
        assert frame.columns.is_unique


def still(paper: str, experiment: str) -> set[str]:
    """Return the tests of an experiment that are made at headline momentum 0."""
    lab, claims = Lab(momentum=0.0), load_paper(paper).claims
    tests = {f"{claim.id}.{test.key}": test for claim in claims for test in claim.tests if test.by == experiment}
    return {key for key, test in tests.items() if not undefined(test, lab)}
