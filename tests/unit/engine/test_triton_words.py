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
from descent.engine.streams import Purpose, Streams, replica_seeds


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: pip install triton")
def test_the_kernel_gives_the_same_words():
    script = Path(__file__).parent / "interpreted.py"
    settings = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: pip install triton")
def test_a_device_makes_the_words_of_a_cpu():
    assert compiled.kernel(torch.device("cuda")) is not None
    here, there = (Streams(replica_seeds(3, 7, device)) for device in ("cpu", "cuda"))
    for step in (0, 1, 2, (1 << 33) + 5):
        for kind in ("uniform", "signs"):
            drawn = (getattr(streams, kind)(Purpose.NOISE, step, (1001,)).cpu() for streams in (here, there))
            assert torch.equal(*drawn)
        normal = [streams.normal(Purpose.NOISE, step, (1001,)).cpu() for streams in (here, there)]
        assert float((normal[0] - normal[1]).abs().max()) <= 4e-6


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
