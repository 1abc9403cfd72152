"""Calibration: gates that can be shut, rates that count what was done."""

from __future__ import annotations

import json

import pytest
import torch
from descent.book.commands.cli import main
from descent.runs import calibrate


def test_all_gates_of_this_machine_are_open():
    for gate in calibrate.gates("cpu"):
        assert gate.open, gate


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("philox", lambda f: lambda counter, key: f(counter, key) ^ (counter[..., 0:1] == 0).long()),
        ("train", lambda f: lambda *args, **options: f(args[0], args[1], args[2], args[3] + 1, *args[4:], **options)),
    ],
)
def test_a_device_that_errs_is_told_and_not_timed(monkeypatch, name, spoil):
    monkeypatch.setattr(calibrate, name, spoil(getattr(calibrate, name)))
    found = calibrate.calibrate("cpu", repeats=1, size=0.01)
    assert not all(gate["open"] for gate in found["gates"])
    assert found["rates"] == []


def test_a_number_that_is_none_shuts_the_gate():
    assert not calibrate.Gate("x", 1.0, float("nan")).open


def test_rates_are_amounts_over_seconds(monkeypatch):
    monkeypatch.setattr(calibrate, "_seconds", lambda run, device: 0.5)
    found = calibrate._rate("a", "b/s", 10.0, lambda: None, "cpu", 3)
    assert (found.value, found.low, found.high, found.repeats) == (20.0, 20.0, 20.0, 3)


@pytest.mark.slow
def test_the_command_prints_and_writes(tmp_path, capsys):
    out = tmp_path / "calibration.json"
    assert main(["calibrate", "--size", "0.002", "--repeats", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("open") == 6
    found = json.loads(out.read_text())
    assert found["provenance"]["device_class"] == "cpu"
    rates = {rate["name"]: rate["value"] for rate in found["rates"]}
    assert min(rates.values()) > 0
    assert any(name.startswith("stack, 64-64-10") for name in rates)
    assert any(name.startswith("ResNet-18") for name in rates)


@pytest.mark.parametrize("size", ["nan", "inf", "0", "-2", "large"])
def test_a_size_that_is_none_is_refused(capsys, size):
    with pytest.raises(SystemExit) as refused:
        main(["calibrate", f"--size={size}"])
    assert refused.value.code == 2
    assert f"argument --size: {size} is not a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(("repeats", "size"), [(1, float("nan")), (1, 0.0), (1, -1.0), (1, float("inf")), (0, 1.0)])
def test_the_function_refuses_them_too(monkeypatch, repeats, size):
    monkeypatch.setattr(calibrate, "gates", lambda _: pytest.fail("it was begun"))
    with pytest.raises(ValueError, match="must be"):
        calibrate.calibrate("cpu", repeats, size)


def test_a_device_that_is_not_there_is_refused(capsys):
    absent = f"cuda:{torch.cuda.device_count() + 7}"
    assert main(["calibrate", "--device", absent]) == 2
    assert f"device '{absent}': this machine has" in capsys.readouterr().err
