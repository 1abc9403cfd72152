"""The numbers that the explorers are checked against are those this library computes today."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from descent.oracles.explorers import EXPLORERS, golden


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


def test_every_explorer_has_a_still_picture_that_shows_something(tmp_path: Path) -> None:
    from descent.figures.stills import STILLS, write
    from PIL import Image

    assert set(STILLS) == set(EXPLORERS)
    write(tmp_path)
    for name in STILLS:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size[0] > 800
            opaque = sum(count for count, alpha in picture.convert("RGBA").getchannel("A").getcolors() if alpha > 128)
        assert opaque > 5000  # lines and words on a transparent ground


def test_what_a_still_draws_is_the_stationary_law_in_the_long_run() -> None:
    import numpy as np
    from descent.figures.stills import displacement_from_rest
    from descent.theory.mode import stationary_variance

    for lr, momentum in ((0.1, 0.0), (0.05, 0.9)):
        late = displacement_from_rest(np.array([4000]), lr, momentum)[0]
        assert late == pytest.approx(float(stationary_variance(1.0, lr, momentum)), rel=1e-9)
