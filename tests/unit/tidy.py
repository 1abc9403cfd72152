"""What every experiment owes its claims and its readers."""

from __future__ import annotations

from typing import Any

from descent.claims import load_paper


def check_answers(paper: str, module: Any, result: Any) -> None:
    """Check that estimates answer tests that the paper's claims state, and that tables are tidy."""
    stated = {f"{claim.id}.{test.key}" for claim in load_paper(paper).claims for test in claim.tests}
    found = module.estimates(result)
    assert found
    assert set(found) <= stated
    for frame in module.tables(result).values():
        assert len(frame) > 0
        assert frame.columns.is_unique
