"""Kernels are fixed before torch is loaded, wherever a processor has them; provenance says which ones computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from descent import dispatch

REPORT = """
import json, sys
from descent import dispatch
for first in sys.argv[1:] or [""]:
    exec(first)
    dispatch.fix()
    import torch
    from descent.results import provenance
    made = provenance("cpu", "cpu", 0, 2, modules=["descent.stats.intervals"])
    print(json.dumps([made.instructions, made.threads, torch.backends.cpu.get_cpu_capability()]))
"""


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """Return a file to write the system's words about a processor into."""
    monkeypatch.delenv("DESCENT_KERNELS", raising=False)
    monkeypatch.setattr(dispatch, "CPUINFO", tmp_path / "cpuinfo")
    dispatch._about.cache_clear()
    yield tmp_path / "cpuinfo"
    dispatch._about.cache_clear()


def reports(*first: str, **chosen: str) -> list[tuple[str, int, str]]:
    """Return what a fresh process records of its arithmetic: once, or each time that something was done first."""
    ours = {*dispatch.AVX2, *dispatch.ONE_THREAD, dispatch.CHOICE}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    run = subprocess.run(
        [sys.executable, "-c", REPORT, *first], capture_output=True, text=True, check=True, env=clean | chosen
    )
    return [tuple(json.loads(line)) for line in run.stdout.splitlines()]


def test_a_processor_with_avx2_uses_that_and_nothing_wider(cpuinfo):
    cpuinfo.write_text("vendor_id : A\ncpu family : 25\nmodel : 17\nflags : sse avx2 fma avx512f\n\nvendor_id : B\n")
    assert dispatch.fixed() == dispatch.ONE_THREAD | dispatch.AVX2
    assert dispatch.processor() == "A 25 17"


@pytest.mark.parametrize("about", ["flags : sse sse2\n", "CPU implementer : 0x41\nCPU part : 0xd0c\n", None])
def test_a_processor_without_it_computes_as_its_libraries_choose(cpuinfo, about):
    if about is not None:
        cpuinfo.write_text(about)
    assert dispatch.fixed() == dispatch.ONE_THREAD
    assert dispatch.processor()


def test_kernels_can_be_left_to_the_libraries(cpuinfo, monkeypatch):
    cpuinfo.write_text("flags : sse avx2 fma avx512f\n")
    monkeypatch.setenv("DESCENT_KERNELS", "any")
    assert dispatch.fixed() == dispatch.ONE_THREAD


def test_what_the_reader_chose_stays(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert dispatch.child_environment()["MKL_CBWR"] == "COMPATIBLE"


@pytest.mark.parametrize("around", [None, "8"])
def test_a_child_computes_on_one_thread_whatever_its_surroundings_say(monkeypatch, around):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if around is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", around)
    assert dispatch.child_environment()["OMP_NUM_THREADS"] == "1"


@pytest.mark.slow
def test_a_fresh_process_records_the_kernels_that_compute():
    ((words, threads, capability),) = reports()
    assert threads == 1
    if "MKL_CBWR" in dispatch.fixed():
        assert capability == "AVX2"
        assert words.endswith("fixed AVX2 kernels")
    assert dispatch.processor() in words


@pytest.mark.slow
def test_too_late_is_not_called_fixed():
    late = "import os; os.environ.update(dispatch.AVX2)"
    for words, _, capability in reports("import torch; torch.zeros(3).exp()", late):
        assert "fixed" not in words
        assert capability in words


@pytest.mark.slow
def test_other_kernels_are_named():
    ((words, _, capability),) = reports(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE")
    assert capability in ("DEFAULT", "NO AVX")
    assert "MKL_CBWR=COMPATIBLE" in words
