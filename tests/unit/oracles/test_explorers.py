"""The numbers that the explorers are checked against are those this library computes today."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from descent.oracles.explorers import EXPLORERS, golden
from descent.theory.inertia import race


@pytest.mark.parametrize("name", EXPLORERS)
def test_committed_numbers_are_todays(repository: Path, name: str) -> None:
    kept = json.loads((repository / "chapters" / "_static" / "explorers" / f"{name}.json").read_text(encoding="utf-8"))
    made = golden(name)
    assert len(kept["points"]) == len(made["points"]) >= 20
    for old, new in zip(kept["points"], made["points"], strict=True):
        assert old["input"] == pytest.approx(new["input"], rel=1e-12)
        assert old["output"] == pytest.approx(new["output"], rel=1e-11)
        assert all(math.isfinite(value) for value in old["output"])


def script(repository: Path, name: str) -> str:
    return (repository / "chapters" / "_static" / "explorers" / f"{name}.mjs").read_text(encoding="utf-8")


def half(text: str) -> tuple[float, float]:
    """Return what share of a small-margin logit the feature carries at the preset that promises half, and its λ."""
    label, momentum = re.findall(
        r'label: "the feature carries half: λ ≈ (\d+)", state: \{ momentum: ([\d.]+) \}', text
    )[0]
    path = race(1.0, float(momentum), 20_000)
    end = int(np.argmax(path.loss < 0.01))  # where the explorer says so, at the training loss 0.01
    feature = 0.15**3 * path.feature[end] ** 3
    assert round(1 / (1 - float(momentum))) == int(label)
    return float(feature / (feature + path.memory[end] ** 3)), float(label)


def test_a_preset_shows_what_it_promises(repository: Path) -> None:
    text = script(repository, "margins")
    assert half(text)[0] == pytest.approx(0.5, abs=0.05)
    planted = text.replace("half: λ ≈ 8", "half: λ ≈ 3").replace("momentum: 0.88", "momentum: 0.7")
    assert half(planted)[0] < 0.1


def test_the_bar_of_the_feature_says_that_it_is_drawn_after_equal_steps(repository: Path) -> None:
    assert '["feature after equal steps", (x) => `after equal steps ' in script(repository, "synthesis")


def room(text: str) -> float:
    """Return the pixels between the legend of three entries and the highest line that momentum 0.95 draws."""
    top = float(re.findall(r'range: \[0, ([\d.]+)\], label: "step times curvature"', text)[0])
    high = float(re.findall(r"height: (\d+),", text)[0]) - 64  # less title and labels
    return high * (1 - 2 * (1 + 0.95) / top) - (14 + 2 * 16 + 4)


def test_a_legend_lies_on_no_line(repository: Path) -> None:
    text = script(repository, "flatness")
    assert room(text) > 0
    assert room(text.replace("[0, 5.2]", "[0, 4]")) < 0


@pytest.mark.parametrize("name", EXPLORERS)
def test_scripts_are_short(repository: Path, name: str) -> None:
    folder = repository / "chapters" / "_static" / "explorers"
    assert len((folder / f"{name}.mjs").read_text(encoding="utf-8").splitlines()) <= 200
    assert len((folder / "explorer.mjs").read_text(encoding="utf-8").splitlines()) <= 400


IMPORTED = "for (const at of process.argv.slice(1)) console.log(typeof (await import(at)).render);"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node; the browser tests import them, too")
def test_a_notebook_can_import_every_explorer(repository: Path) -> None:
    folder = repository / "chapters" / "_static" / "explorers"
    files = [(folder / f"{name}.mjs").as_uri() for name in EXPLORERS]
    run = ["node", "--input-type=module", "--eval", IMPORTED, *files]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() == ["function"] * len(files)


def test_every_explorer_has_a_still_picture_that_shows_something(tmp_path: Path) -> None:
    from descent.figures.stills import STILLS, write
    from PIL import Image

    assert set(STILLS) == set(EXPLORERS)
    write(tmp_path)
    for name in STILLS:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size[0] > 800
            dark = sum(count for count, shade in picture.convert("L").getcolors() if shade < 192)
        assert dark > 5000  # lines and words on a white ground


def test_what_a_still_draws_is_the_stationary_law_in_the_long_run() -> None:
    import numpy as np
    from descent.figures.stills import displacement_from_rest
    from descent.theory.mode import stationary_variance

    for lr, momentum in ((0.1, 0.0), (0.05, 0.9)):
        late = displacement_from_rest(np.array([4000]), lr, momentum)[0]
        assert late == pytest.approx(float(stationary_variance(1.0, lr, momentum)), rel=1e-9)
