"""Words by machine code are the words of torch, bit for bit; and nothing is missed where there is no numba."""

from __future__ import annotations

import importlib

import pytest
import torch
from descent.engine import compiled
from descent.engine.compiled import Columns, writer
from descent.engine.streams import Purpose, Streams, replica_seeds

LATE = (1 << 33) + 5
KINDS = {
    "normal": lambda streams, step, size: streams.normal(Purpose.NOISE, step, (size,)),
    "uniform": lambda streams, step, size: streams.uniform(Purpose.INIT, step, (size,)),
    "signs": lambda streams, step, size: streams.signs(Purpose.PROBE, step, (size,)),
    "integers": lambda streams, step, size: streams.integers(Purpose.BATCH, step, 1797, (size,)),
    "sample": lambda streams, step, size: streams.sample(Purpose.BATCH, step, 400, size),
    "permutation": lambda streams, step, size: streams.permutation(Purpose.ORDER, step, 10 + size),
}


@pytest.fixture
def loaded(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "_LOADING", compiled._Loading(words=compiled.PATIENCE))


def drawn(kind, dtype, replicas, size):
    """Return the draws of steps one after the other, late ones among them, so that blocks of many sizes are made."""
    streams = Streams(replica_seeds(3, replicas), dtype)
    return [KINDS[kind](streams, step, size) for step in (*range(9), LATE, LATE + 1, LATE + 2)]


@pytest.mark.parametrize(("replicas", "size"), [(1, 1), (3, 5), (700, 3), (33_000, 1), (9_000, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_machine_code_gives_the_same_bits(loaded, monkeypatch, kind, dtype, replicas, size):
    by_code = drawn(kind, dtype, replicas, size)
    assert compiled._LOADING.writers
    monkeypatch.setattr(compiled, "_LOADING", compiled._Loading(writers={}))
    by_torch = drawn(kind, dtype, replicas, size)
    assert all(torch.equal(one, other) for one, other in zip(by_code, by_torch, strict=True))


def test_every_kind_has_its_code(loaded):
    from descent.engine import streams

    kinds = [streams._INTEGERS, streams._SAMPLE, streams._PERMUTATION]
    kinds += [kind for table in streams._FLOAT.values() for kind in table.values()]
    assert {kind.write.__name__.removeprefix("_") for kind in kinds} == set(writer.__globals__["_load"]())


def test_a_few_words_load_nothing(monkeypatch):
    monkeypatch.setattr(compiled, "_LOADING", compiled._Loading())
    assert writer("raw", compiled.PATIENCE - 1) is None
    assert compiled._LOADING.writers is None


def test_without_numba_everything_goes_on(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(compiled, "_LOADING", compiled._Loading(words=compiled.PATIENCE))
    monkeypatch.setattr(importlib, "import_module", missing)
    assert writer("raw", 1) is None
    assert Streams(replica_seeds(0, 4)).normal(Purpose.NOISE, 0).shape == (4,)


def test_a_wrong_word_would_be_seen(loaded, monkeypatch):
    def wrong(columns: Columns, out):
        out.fill_(0.25)

    monkeypatch.setattr(compiled, "_LOADING", compiled._Loading(compiled.PATIENCE, {"uniform32": wrong}))
    assert drawn("uniform", torch.float32, 2, 2)[0].eq(0.25).all()
