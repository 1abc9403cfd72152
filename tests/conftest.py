"""Shared by all tests: where the repository is, and the same threads and kernels as everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from descent import dispatch

dispatch.fix()  # before a test loads torch; what the environment says already stands, see tests/kernels.py


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the folder of the book itself."""
    return Path(__file__).parents[1]


SLOWEST = (
    "elsewhere_chapter", "test_accessible", "test_endings", "test_accessible_chapters", "test_site", "test_campaign",
    "test_faults", "test_intervals_cover", "test_interaction", "test_precision", "test_reference", "test_reading",
    "test_pages", "test_chapters", "test_cluster",
)  # fmt: skip
"""The files that take longest, in that order: one begun last would keep a process busy while the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; refuse a test named by an address in memory.

    Such a test has another name in every process that shares the work.
    """
    items.sort(key=lambda item: (*SLOWEST, item.path.stem).index(item.path.stem))
    if unstable := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError("give these parameters an ids= of their own:\n" + "\n".join(unstable))
