"""One runner for chapters, checks and campaigns: what it hands back, and what a configuration does not hang on."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import pytest
from descent.data.images import DataMissing
from descent.experiments.arms import configure
from descent.experiments.common import Experiment, Settings
from descent.runs import campaign
from descent.runs.perform import configuration, perform
from descent.stats.estimate import Estimate
from pandas import DataFrame

CHAPTERS = ("flatness", "geometry", "margins", "saddles", "smoothing", "synthesis")
EXPERIMENTS = {
    f"{chapter}-{item.name}": item
    for chapter in CHAPTERS
    for item in importlib.import_module(f"descent.experiments.{chapter}").EXPERIMENTS
}


@dataclass(frozen=True)
class Setup:
    seed: int
    many: int

    @classmethod
    def cpu(cls, settings):
        return cls(settings.seed, 20 * settings.replicas)


def number(value):
    return Estimate(value, value, value, 1, "exact")


def experiment(**changes):
    parts = {
        "name": "one",
        "claims": (),
        "run": lambda settings: configure(Setup, settings).many,
        "estimates": lambda many: {"a": number(many), "b": [number(1.0), number(2.0)]},
        "tables": lambda many: {"t": DataFrame({"many": [many]})},
    }
    return Experiment(**parts | changes)


def test_a_finding_holds_what_was_measured():
    found = perform(experiment(), Settings(replicas=40))
    assert (found.result, found.missing) == (800, "")
    assert found.estimates == {"a": (number(800),), "b": (number(1.0), number(2.0))}
    assert found.tables["t"]["many"].tolist() == [800]
    assert found.seconds > 0


def test_missing_data_are_no_fault_and_a_missing_file_is_one():
    def lacking(fault):
        def run(settings):
            raise fault

        return lambda settings: run(configure(Setup, settings))

    found = perform(experiment(run=lacking(DataMissing("no pictures"))), Settings())
    assert (found.missing, found.result, dict(found.estimates), dict(found.tables)) == ("no pictures", None, {}, {})
    with pytest.raises(FileNotFoundError):
        perform(experiment(run=lacking(FileNotFoundError("a bug"))), Settings())


def test_another_way_to_run_has_the_same_configuration():
    assert perform(experiment(), Settings(), lambda _: 7).result == 7
    assert perform(experiment(), Settings(), lambda _: 7).config == perform(experiment(), Settings()).config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_seed_and_replicas_are_no_part_of_a_configuration(name):
    """So that a run with others compares with what was published."""
    item = EXPERIMENTS[name]
    assert configuration(item, Settings()) == configuration(item, Settings(seed=3, replicas=64))
    assert configuration(item, Settings()) == configuration(item, Settings(replicas=5000))


def test_other_physics_is_another_configuration():
    item = EXPERIMENTS["saddles-escape"]
    assert configuration(item, Settings()) != configuration(item, Settings(momentum=0.5))
    assert configuration(item, Settings()) != configuration(item, Settings(lr=1e-3))


def test_a_campaign_and_a_chapter_have_one_configuration():
    task = campaign.Task("descent.experiments.saddles", "features", Settings(replicas=40))
    assert campaign.run(task)["config"] == configuration(EXPERIMENTS["saddles-features"], Settings())
