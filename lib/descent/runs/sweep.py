"""A grid of configurations over any concurrent.futures executor; what comes back depends on neither."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import replace
from typing import Any, Generic, TypeVar

__all__ = ["SweepError", "grid", "sweep"]

Config = TypeVar("Config")
Result = TypeVar("Result")


class SweepError(RuntimeError, Generic[Result]):
    """Some configurations failed: `failures` maps their positions to the errors, `results` keeps the others.

    failures: errors by the position of the configuration; results: one per configuration, None where it failed.
    """

    def __init__(self, failures: dict[int, BaseException], results: list[Result | None], configs: Sequence[Any]):
        lines = [f"  {i}: {configs[i]!r}: {type(e).__name__}: {e}" for i, e in sorted(failures.items())]
        super().__init__(f"{len(failures)} of {len(configs)} configurations failed\n" + "\n".join(lines))
        self.failures, self.results = failures, results


def grid(base: Config, **axes: Iterable[Any]) -> list[Config]:
    """Return `base` (a frozen dataclass) with every combination of the values on the axes, last axis fastest.

    base: a frozen dataclass; axes: values of a field, by its name.
    """
    names, values = list(axes), [list(axis) for axis in axes.values()]
    return [replace(base, **dict(zip(names, point, strict=True))) for point in itertools.product(*values)]  # type: ignore[type-var]


def sweep(
    function: Callable[[Config], Result],
    configs: Iterable[Config],
    executor: Executor | None = None,
    *,
    footprint: Callable[[Config], int] | None = None,
    budget: int = 2 << 30,
    progress: Callable[[int, int], None] | None = None,
    each: Callable[[int, Result], None] | None = None,
) -> list[Result]:
    """Return function(config) for every configuration, in their order.

    executor: anything with the concurrent.futures interface (threads, processes, dask's
    Client.get_executor()); None runs one after the other here.
    footprint: bytes one configuration needs; as many run at once as fit into `budget`, at least one.
    progress: called with (finished, total); each: called with (position, result) as soon as there is one.
    Raises SweepError after everything else has finished, naming the configurations that failed.
    """
    todo = list(configs)
    results: list[Any] = [None] * len(todo)
    failures: dict[int, BaseException] = {}
    sizes = [0 if footprint is None else footprint(config) for config in todo]
    steps = _here(function, todo) if executor is None else _there(function, todo, executor, sizes, budget)
    for done, (index, future) in enumerate(steps, start=1):
        error = _error(future)
        if error is None:
            results[index] = future.result()
            if each is not None:
                each(index, results[index])
        else:
            failures[index] = error
        if progress is not None:
            progress(done, len(todo))
    if failures:
        raise SweepError(failures, results, todo)
    return results


def _error(future: Future[Any]) -> BaseException | None:
    """Return why there is no result; a future cancelled by whoever ran it has failed."""
    try:
        return future.exception()
    except CancelledError as cancelled:
        return cancelled


Finished = Iterable[tuple[int, "Future[Any]"]]


def _here(function: Callable[[Any], Any], configs: Sequence[Any]) -> Finished:
    for index, config in enumerate(configs):
        future: Future[Any] = Future()
        try:
            future.set_result(function(config))
        except Exception as error:
            future.set_exception(error)
        yield index, future


def _there(
    function: Callable[[Any], Any], configs: Sequence[Any], executor: Executor, sizes: Sequence[int], budget: int
) -> Finished:
    """Keep the executor busy without letting the running configurations outgrow the budget."""
    waiting, running = list(range(len(configs))), dict[Future[Any], int]()
    while waiting or running:
        used = sum(sizes[index] for index in running.values())
        while waiting and (not running or used + sizes[waiting[0]] <= budget):
            index = waiting.pop(0)
            running[executor.submit(function, configs[index])] = index
            used += sizes[index]
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future
