"""Nights of chapters at a tiny size: other images and experiments for a while, and what a night's records say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from descent.claims import Outcome, load_records
from descent.experiments.lab import Experiment, Lab
from descent.runs import campaign, night, units


@contextmanager
def instead(module: Any, load: Any, experiments: Sequence[Experiment[Any, Any]]) -> Iterator[None]:
    """Let a module load other images, and campaigns know these experiments alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load", load)
        patch.setattr(campaign, "_experiments", lambda _: experiments)
        units._origin.cache_clear()
        yield
    units._origin.cache_clear()


def state(package: str, lab: Lab, out: Path) -> night.Night:
    """Return the night of all experiments of a package."""
    todo = night.tasks(package, lab)
    return night.Night(todo, out, lambda _: None, {task.name for task in todo})


def outcome(out: Path, key: str) -> Outcome:
    """Return what the records in a folder say of a test, such as "S-39.below_cnn"."""
    records = {each.claim.id: each for each in load_records(out / "records.json")}
    claim, _, test = key.partition(".")
    return next(each for each in records[claim].outcomes if each.test.key == test)
