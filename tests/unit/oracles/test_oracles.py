"""Every instrument against its truth; a planted fault is seen by nearly all of them; nothing is left unchecked."""

from __future__ import annotations

import dataclasses
import json
import math
import pkgutil
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from descent import measure, oracles
from descent.claims import verdict
from descent.engine import surgery
from descent.engine.streams import Streams
from descent.oracles import ORACLES, Oracle
from descent.oracles.common import Kind, errors, relative

METHODS = {  # the number that an instrument with a name of its own is asked for
    "descent.measure.operators.Operator": "__call__",
    "descent.measure.parts.OutputLoss": "matrices",
    "descent.measure.tangents.Tangents": "push",
    "descent.measure.noise.SearchNoise": "__call__",
    "descent.problems.smoothed.Rugged": "trap_threshold",
    "descent.theory.weights.Gamma": "mean_of",
    "descent.problems.exponents.Features": "factors",
    "descent.problems.quadratics.GaussianFeatures": "gradient",
    "descent.problems.pca.StreamingPCA": "flow",
    "descent.problems.diagonal.DiagonalNet": "gradient",
    "descent.problems.patches.Patches": "gradient",
    "descent.nets.augment.Augment": "take",
    "descent.nets.dense.MLP": "forward",
    "descent.nets.dense.Stacked": "forward",
    "descent.nets.convolutional.CNN": "_forward",
    "descent.nets.convolutional.ResNet": "_forward",
    "descent.stats.estimate.Estimate": "widened",
}
UNNUMBERED = {  # which give no number that a factor could falsify
    "descent.engine.surgery": "operations on a buffer",
    "descent.engine.streams.Streams": "draws of many kinds",
    "descent.engine.train.train": "both sides are runs",
    "descent.claims.verdict.judge": "a verdict is a word",
}
NUMBERED = [oracle for oracle in ORACLES if not oracle.instrument.startswith(tuple(UNNUMBERED))]


def found(instrument: str) -> tuple[Any, str]:
    """Return the module an instrument is in, and its name there."""
    module, _, name = instrument.rpartition(".")
    return import_module(module), name


def name_of(oracle: Oracle) -> str:
    return f"{oracle.instrument.removeprefix('descent.')}: {oracle.quantity}"


def falsified(value: Any, factor: float) -> Any:
    """Return every number in a result times a factor; whole numbers plus one."""
    if isinstance(value, bool | str | None) or (isinstance(value, torch.Tensor) and value.dtype == torch.bool):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | float):
        floating = isinstance(value, float) or value.dtype in (torch.float64, torch.float32, np.float64)
        return value * factor if floating else value + 1
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(falsified(item, factor) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(falsified(item, factor) for item in value)
    if isinstance(value, dict):
        return {key: falsified(item, factor) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **{name: falsified(part, factor) for name, part in parts.items()})
    return wrapped(value, factor) if callable(value) else value


def wrapped(function: Callable[..., Any], factor: float) -> Callable[..., Any]:
    return lambda *args, **options: falsified(function(*args, **options), factor)


@pytest.mark.parametrize("oracle", ORACLES, ids=name_of)
def test_the_deviation_is_within_what_was_asked(oracle: Oracle) -> None:
    assert oracle.check() <= oracle.asked


@pytest.mark.parametrize("oracle", NUMBERED, ids=name_of)
def test_a_planted_fault_is_seen(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """One per cent; twenty where the truth is known up to chance."""
    place, name = found(oracle.instrument)
    if oracle.instrument in METHODS:
        place, name = getattr(place, name), METHODS[oracle.instrument]
    chance = oracle.kind == "standard errors" or "coverage" in oracle.quantity
    monkeypatch.setattr(place, name, wrapped(getattr(place, name), 1.2 if chance else 1.01))
    assert not oracle.check() <= oracle.asked


def idle(*_: object) -> None:
    """Do nothing, where something ought to be done."""


FAULTS = {  # of what gives no number: place, attribute, what it does instead
    "descent.engine.surgery.Bypass": (surgery.Bypass, "__call__", idle),
    "descent.engine.surgery.Erase": (surgery.Erase, "__call__", idle),
    "descent.engine.surgery.Withhold": (surgery.Withhold, "__call__", idle),
    "descent.engine.streams.Streams": (
        Streams,
        "_select",
        lambda self, rows: rows.index_select(0, self.seeds.argsort()),
    ),
    "descent.engine.train.train": (Streams, "subset", lambda self, rows: Streams(self.seeds[rows] + 1, self.dtype)),
    "descent.claims.verdict.judge": (verdict, "family_wise", lambda estimates, family: tuple(estimates)),
}


@pytest.mark.parametrize("instrument", FAULTS)
def test_a_fault_without_a_number_is_seen(instrument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas in another order, other seeds, intervals not widened, operations left out."""
    monkeypatch.setattr(*FAULTS[instrument])
    assert not all(oracle.check() <= oracle.asked for oracle in ORACLES if oracle.instrument == instrument)


def test_every_instrument_can_be_imported_and_has_a_page() -> None:
    for oracle in ORACLES:
        module, name = found(oracle.instrument)
        assert hasattr(module, name), oracle.instrument


def test_every_module_of_measures_is_checked() -> None:
    public = {f"descent.measure.{found.name}" for found in pkgutil.iter_modules(measure.__path__)}
    public.remove("descent.measure.report")  # it asks the others, and has a test file of its own
    assert public <= {oracle.instrument.rpartition(".")[0] for oracle in ORACLES}


def test_rows_differ_and_say_something() -> None:
    assert max(Counter(map(name_of, ORACLES)).values()) == 1
    for oracle in ORACLES:
        assert oracle.quantity
        assert oracle.truth
        assert oracle.asked >= 0
        assert oracle.kind in Kind.__args__


def test_what_has_no_number_is_not_a_deviation() -> None:
    assert math.isnan(relative([1.0, math.nan], [1.0, 2.0]))
    assert errors([[1.0, 3.0, 2.0, 2.0]], [2.0]) == 0
    with pytest.raises(ValueError, match="says nothing"):
        relative([1.0, 2.0], [[1.0], [2.0]])


def test_rows_are_written_as_they_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    good, bad = (Oracle("descent.a.b", "a number", "another", 0.1, "absolute", lambda x=x: x) for x in (0.0, 0.5))
    monkeypatch.setattr(oracles, "ORACLES", (good, bad))
    oracles.main([str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["reached"] for row in rows] == [0.0, 0.5]
    assert set(rows[0]) == {"instrument", "quantity", "truth", "kind", "asked", "reached", "seconds"}
    oracles.main([])
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == [" ", "!"]
