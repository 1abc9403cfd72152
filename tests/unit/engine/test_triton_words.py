"""Words by one kernel of Triton's are the words of torch, and nothing is missed where it is not to be had."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from descent.engine import compiled


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: pip install triton")
def test_the_kernel_gives_the_same_words():
    script = Path(__file__).parent / "interpreted.py"
    settings = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def forgotten():
    compiled.tried.cache_clear()
    yield
    compiled.tried.cache_clear()


def test_a_cpu_is_not_asked_for_a_kernel():
    assert compiled.kernel(torch.device("cpu")) is None


def test_without_triton_torch_makes_the_words(forgotten, monkeypatch):
    monkeypatch.setitem(sys.modules, "descent.engine.triton_words", None)
    assert compiled.tried(torch.device("cpu")) is None


@pytest.mark.parametrize("wrong", [lambda columns, count: torch.zeros(4, 1), lambda columns, count: 1 / 0])
def test_a_kernel_that_errs_is_not_trusted(forgotten, monkeypatch, wrong):
    module = type(sys)("descent.engine.triton_words")
    module.words = wrong
    monkeypatch.setitem(sys.modules, "descent.engine.triton_words", module)
    assert compiled.tried(torch.device("cpu")) is None
