"""The numbers that the explorers are checked against are those this library computes today."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from descent.golden import EXPLORERS, golden


@pytest.mark.parametrize("name", EXPLORERS)
def test_committed_numbers_are_todays(repository: Path, name: str) -> None:
    kept = json.loads((repository / "chapters" / "_static" / "explorers" / f"{name}.json").read_text(encoding="utf-8"))
    made = golden(name)
    assert len(kept["points"]) == len(made["points"]) >= 20
    for old, new in zip(kept["points"], made["points"], strict=True):
        assert old["input"] == pytest.approx(new["input"], rel=1e-12)
        assert old["output"] == pytest.approx(new["output"], rel=1e-11)
        assert all(math.isfinite(value) for value in old["output"])


@pytest.mark.parametrize("name", EXPLORERS)
def test_scripts_are_short(repository: Path, name: str) -> None:
    folder = repository / "chapters" / "_static" / "explorers"
    assert len((folder / f"{name}.mjs").read_text(encoding="utf-8").splitlines()) <= 200
    assert len((folder / "explorer.mjs").read_text(encoding="utf-8").splitlines()) <= 400
