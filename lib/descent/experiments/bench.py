"""The bench a chapter works at: run an experiment, enter its estimates in the ledger, keep its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pandas import DataFrame

from descent.claims import DATA_MISSING, Ledger, load_paper, quotes
from descent.experiments.common import Experiment, Settings
from descent.experiments.perform import perform
from descent.results import provenance, save_table

__all__ = ["Bench"]


class Bench:
    """Runs experiments under one set of parameters and judges the claims of one paper by them.

    An experiment whose image data are absent gives None, and the tests of its own name in each of its claims
    ("P3-C3.cifar" for the experiment "cifar") are entered as not tested, with that reason.
    """

    def __init__(self, paper: str, settings: Settings, folder: Path | None = None) -> None:
        stated = load_paper(paper)
        self.settings = settings
        self.conditions = provenance(
            settings.scale, settings.device, settings.seed, settings.replicas,
            modules=[f"descent.experiments.{stated.chapter}"],
        )
        self.ledger = Ledger(stated, self.conditions, folder)

    def run(self, experiment: Experiment) -> Any:
        """Run the experiment, judge its claims, write its tables; return its result."""
        found = perform(experiment, self.settings)
        if found.missing:
            for claim in experiment.claims:
                self.ledger.skip(f"{claim}.{experiment.name}", DATA_MISSING)
            return None
        about = {"experiment": experiment.name, "config": found.config}
        self.ledger.add(found.estimates, **about, seconds=found.seconds)
        for name, frame in found.tables.items():
            save_table(name, frame, self.conditions, self.ledger.folder, **about)
        return found.result

    def verdicts(self) -> DataFrame:
        """Close the ledger; return per claim the test that decided, its estimate, the region demanded, the verdict."""
        self.close()
        frame = self.ledger.table()[["claim", "estimate", "region", "verdict"]].set_index("claim")
        frame.insert(0, "deciding test", [record.headline.test.key for record in self.ledger.records])
        return frame

    def close(self) -> Path:
        """Write the records; without momentum in the headline arm, what compares it with plain descent is undefined."""
        for key in self.ledger.apart:
            self.ledger.skip(key, "not run by the chapter, see `descent paper`")
        if self.settings.momentum == 0:
            for key in self.ledger.lacking:
                self.ledger.skip(key, "undefined at headline momentum 0")
        return self.ledger.save()

    def strings(self) -> dict[str, str]:
        """Return what prose may quote: each test's estimate under its key, each verdict under "<claim>.verdict"."""
        return quotes(self.ledger.records)
