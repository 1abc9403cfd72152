"""Shared by all tests: where the repository is, and one thread per process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the folder of the book itself."""
    return Path(__file__).parents[1]
