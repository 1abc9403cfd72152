"""Other processors, imitated on this one: the tests that touch arithmetic, and a whole chapter, under other kernels.

Which kernels compute depends on the processor, and last digits with it. Here the libraries are told to behave as on
other processors. Whatever asks for more than a machine can promise is red under one of these settings:

    python tests/kernels.py              # all settings, as `make test-elsewhere` does
    python tests/kernels.py narrow       # one of them
    python tests/kernels.py wide -- tests/unit/engine/test_train.py -k chunks
    DESCENT_CHAPTER=margins python tests/kernels.py wide -- tests/book/elsewhere_chapter.py

A setting runs what is not marked slow and executes a chapter; "mixed" runs everything, since without AVX convolutions
take several times as long.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from descent import dispatch

TESTS = Path(__file__).parent
PLACES = (
    "engine", "nets", "theory", "problems", "stats", "measure", "oracles", "experiments", "runs", "test_elsewhere.py",
)  # fmt: skip
"""Where the tests of tests/unit are whose outcome could hang on last digits; the others hang on words and files."""
WORDS = ("budget", "cluster", "registration", "sameness", "sweep")
"""Tests among them that hang on words, or on processes."""


@dataclass(frozen=True)
class Setting:
    """What another processor is imitated by, and the chapter that is executed there."""

    about: str
    chapter: str
    variables: dict[str, str]
    slow: bool = False


SETTINGS = {
    "wide": Setting(
        "whatever this processor has", "smoothing", {dispatch.CHOICE: "any"},
    ),
    "narrow": Setting(
        "a processor without AVX", "saddles",
        {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41",
         "OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
    ),
    "mixed": Setting(
        "an older AVX2 processor: other products, other linear algebra", "geometry",
        {"MKL_CBWR": "AVX", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX",
         "OPENBLAS_CORETYPE": "Sandybridge", "NPY_DISABLE_CPU_FEATURES": ""},
        slow=True,
    ),
}  # fmt: skip


def arithmetic() -> list[str]:
    """Return the files of tests whose outcome could hang on last digits; raise ValueError for a name without a file."""
    files = [file for place in PLACES for file in _files(TESTS / "unit" / place)]
    found = {file.stem.removeprefix("test_"): str(file) for file in files}
    if strange := set(WORDS) - set(found):
        raise ValueError(f"WORDS names tests that are not there: {', '.join(sorted(strange))}")
    return [file for name, file in found.items() if name not in WORDS]


def _files(place: Path) -> list[Path]:
    files = [place] if place.is_file() else sorted(place.glob("test_*.py"))
    if not files:
        raise ValueError(f"PLACES names {place.name}, where no test is")
    return files


def run(setting: Setting, chosen: Sequence[str]) -> int:
    """Run tests under a setting, by default the tests above and its chapter; return pytest's exit status."""
    clean = {name: value for name, value in os.environ.items() if name not in {*dispatch.AVX2, dispatch.CHOICE}}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    command += chosen or usual(setting)
    environment = clean | setting.variables | {"DESCENT_CHAPTER": setting.chapter}
    return subprocess.run(command, env=environment, cwd=TESTS.parent, check=False).returncode


def usual(setting: Setting) -> list[str]:
    """Return what pytest is asked for under a setting: first the chapter, which takes longest."""
    files = [str(TESTS / "book" / "elsewhere_chapter.py"), *arithmetic()]
    return files if setting.slow else ["-m", "not slow", *files]


def main(arguments: Sequence[str]) -> int:
    """Run the named settings, or all, and say how each ended; return how many are red."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    names, chosen = list(arguments[:at]), arguments[at + 1 :]
    if strange := set(names) - set(SETTINGS):
        print(f"no setting {', '.join(sorted(strange))}: there are {', '.join(SETTINGS)}", file=sys.stderr)
        return 2
    ended = []
    for name in names or SETTINGS:
        print(f"== {name}: {SETTINGS[name].about}", flush=True)
        clock = time.monotonic()
        status = run(SETTINGS[name], chosen)
        ended.append((name, status, time.monotonic() - clock))
    for name, status, seconds in ended:
        print(f"{name}: {'red' if status else 'green'}, {seconds:.0f} s")
    return sum(bool(status) for _, status, _ in ended)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
