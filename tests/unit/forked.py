"""Processes that begin at once: forked from one that has loaded the library, and killed like any other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["descent.experiments.saddles", "descent.book.commands.paper", "descent.runs.night"])


def forked(action: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start a function of a module in a process of its own; loading torch for each would take seconds."""
    process = CONTEXT.Process(target=action, args=arguments)
    process.start()
    return process
