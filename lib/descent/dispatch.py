"""Which kernels compute: one thread of AVX2 on x86-64, so that the same numbers come out wherever that can be had.

Left alone, matrix products and elementary functions take the widest instructions a processor has, and a product of a
stack of matrices may even round by a matrix's place in the stack. With these variables set the processors of one
architecture compute alike but for rare shapes; what still differs are last digits (see `results.compare`). They are
read when torch and NumPy are loaded, hence no import of either here. What is set already is left as it is, so that
other kernels can be tried.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["AVX2", "ONE_THREAD", "child_environment", "fix", "fixed", "kernels", "processor"]

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Results do not depend on how many cores a machine has."""

AVX2 = {
    "MKL_CBWR": "AVX2",  # torch's matrix products
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "OPENBLAS_CORETYPE": "Haswell",  # linear algebra of NumPy and SciPy
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # elementary functions of NumPy, from 2.4 on
}
"""How the libraries are told to use AVX2 and nothing wider."""

CHOICE = "DESCENT_KERNELS"
"""The variable by which a reader leaves the kernels to the libraries."""

CPUINFO = Path("/proc/cpuinfo")
_READ = dict(os.environ)


def fixed() -> dict[str, str]:
    """Return the variables that fix threads and kernels on this machine; the threads alone where it has no AVX2.

    Only Linux says which instructions there are without a library that would then be loaded. DESCENT_KERNELS=any in
    the environment leaves the kernels to the libraries.
    """
    has, free = set(_about().get("flags", "").split()), os.environ.get(CHOICE) == "any"
    return ONE_THREAD | (AVX2 if {"avx2", "fma"} <= has and not free else {})


def fix() -> None:
    """Set what is not set yet; too late, and therefore nothing, once NumPy or torch are loaded."""
    if not {"numpy", "torch"} & set(sys.modules):
        os.environ.update(fixed() | os.environ)
        _READ.update(os.environ)


def child_environment() -> dict[str, str]:
    """Return the environment of a process that computes for this one: one thread, and kernels fixed unless chosen."""
    return fixed() | os.environ | ONE_THREAD


def kernels(capability: str, read: Mapping[str, str] | None = None) -> str:
    """Return in words which kernels compute.

    capability: what torch says of its own loops; read: the variables that the libraries found when they were loaded,
    which is what was set when this module was loaded, or by `fix`.

    >>> kernels("AVX512", {"MKL_CBWR": "COMPATIBLE"})
    'AVX512, MKL_CBWR=COMPATIBLE'
    >>> kernels("AVX2", AVX2)
    'fixed AVX2'
    """
    read = _READ if read is None else read
    if AVX2.items() <= read.items() and capability == "AVX2":
        return "fixed AVX2"
    return ", ".join([capability, *(f"{name}={read[name]}" for name in AVX2 if name in read)])


def processor() -> str:
    """Return maker, family and model of the processor, as far as the system tells them."""
    about = _about()
    names = [about.get(name, "") for name in ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")]
    return " ".join(filter(None, names)) or re.sub(r"\W+", " ", platform.processor()).strip() or "unknown processor"


@functools.cache
def _about() -> dict[str, str]:
    """Return what Linux says of the first processor."""
    try:
        first = CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    rows = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in rows}
