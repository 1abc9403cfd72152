"""One runner for chapters, checks and campaigns: what it hands back, and what a configuration does not hang on."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, replace

import pytest
from descent.claims import Ledger, load_paper
from descent.data.images import DataMissing
from descent.experiments.lab import SCALES, Experiment, Lab, Share
from descent.results import digest, provenance
from descent.runs import campaign
from descent.runs.perform import Finding, enter, perform
from descent.stats.estimate import Estimate
from pandas import DataFrame

CHAPTERS = ("flatness", "geometry", "margins", "normalised", "saddles", "smoothing", "synthesis")
PACKAGES = {chapter: importlib.import_module(f"descent.experiments.{chapter}") for chapter in CHAPTERS}
EXPERIMENTS = {f"{chapter}-{item.name}": item for chapter, package in PACKAGES.items() for item in package.EXPERIMENTS}


@dataclass(frozen=True)
class Setup:
    many: Share = Share(times=20)  # noqa: RUF009  # frozen
    width: int = 3


def number(value):
    return Estimate(value, value, value, 1, "exact")


def experiment(**changes):
    parts = {"name": "one", "small": Setup(), "large": Setup(width=30),
             "run": lambda config, lab: lab.count(config.many) + config.width,
             "estimates": lambda many: {"a": number(many), "b": [number(1.0), number(2.0)]},
             "tables": lambda many: {"t": DataFrame({"many": [many]})}}  # fmt: skip
    return Experiment(**parts | changes)


def test_a_finding_holds_what_was_measured():
    found = perform(experiment(), Lab(replicas=40))
    assert (found.result, found.missing) == (803, "")
    assert found.estimates == {"a": (number(803),), "b": (number(1.0), number(2.0))}
    assert found.tables["t"]["many"].tolist() == [803]
    assert found.seconds > 0
    assert perform(experiment(), Lab(replicas=40), "gpu").result == 830


def test_an_experiment_says_which_scale_it_lacks():
    with pytest.raises(ValueError, match="one has no configuration for scale 'night'"):
        perform(experiment(), Lab(), "night")
    assert perform(experiment(night=Setup(width=7)), Lab(replicas=40), "night").result == 807


def test_missing_data_are_no_fault_and_a_missing_file_is_one():
    def lacking(fault):
        def run(config, lab):
            raise fault

        return run

    found = perform(experiment(run=lacking(DataMissing("no pictures"))), Lab())
    assert (found.missing, found.result, dict(found.estimates), dict(found.tables)) == ("no pictures", None, {}, {})
    with pytest.raises(FileNotFoundError):
        perform(experiment(run=lacking(FileNotFoundError("a bug"))), Lab())


def test_a_lab_that_will_not_do_is_refused_before_anything_runs():
    def check(config, lab):
        raise ValueError("too few")

    with pytest.raises(ValueError, match="too few"):
        perform(experiment(check=check, run=None), Lab())


def test_another_way_to_run_has_the_same_configuration():
    assert perform(experiment(), Lab(), run=lambda config, lab: 7).result == 7
    assert perform(experiment(), Lab(), run=lambda config, lab: 7).config == perform(experiment(), Lab()).config


def test_seed_and_replicas_are_no_part_of_a_configuration_and_physics_is_where_it_was_asked_for():
    """So that a run with others compares with what was published."""
    usual = perform(experiment(), Lab()).config
    assert perform(experiment(), Lab(seed=3, replicas=64)).config == usual
    assert perform(experiment(), Lab(momentum=0.5, lr=1.0)).config == usual  # it asked for neither
    assert perform(experiment(small=Setup(width=4)), Lab()).config != usual
    asking = {"run": lambda config, lab: lab.momentum}
    found = [perform(experiment(**asking), Lab(momentum=m, lr=lr)).config for m, lr in ((0.5, 1), (0.5, 2), (0.9, 1))]
    assert found[0] == found[1] != found[2]


def test_what_only_the_estimates_ask_for_counts_too():
    asking = {"run": lambda config, lab: lab, "estimates": lambda lab: {"a": number(lab.lr)}, "tables": lambda lab: {}}
    assert len({perform(experiment(**asking), Lab(lr=lr)).config for lr in (1.0, 2.0)}) == 2


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_configuration_holds_what_a_reader_sets(name):
    """So that a run with another seed or other replicas compares with what was published, whatever the experiment."""
    item = EXPERIMENTS[name]
    for scale in (*SCALES, *(["night"] if item.night is not None else [])):
        config = item.config(scale)
        assert not {"seed", "device", "headline", "lab"} & set(field_names(config)), scale
        assert digest(config) == digest(replace(config)), scale


def field_names(config):
    """Yield the names of the fields of a configuration, at any depth."""
    for field in dataclasses.fields(config):
        yield field.name
        value = getattr(config, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(part):
                yield from field_names(part)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_test_names_an_experiment_there_is(chapter):
    package = PACKAGES[chapter]
    names = {item.name: item for item in package.EXPERIMENTS}
    for claim in load_paper(package.PAPER).claims:
        for test in claim.tests:
            assert test.by in names, f"{claim.id}.{test.key}"
            assert set(test.scales) <= set(names[test.by].scales), f"{claim.id}.{test.key}"


def ledger(tmp_path):
    return Ledger("P3", provenance("cpu", "cpu", 0, 40, modules=["descent.stats.estimate"]), tmp_path)


def test_a_test_that_needs_momentum_is_not_made_without(tmp_path):
    made, keys = ledger(tmp_path), ("P3-X4.clean", "P3-X4.noisy")
    enter(
        made, "annealed_networks", Finding("c", 1.0, estimates={key: (number(3.0),) for key in keys}), Lab(momentum=0.0)
    )
    assert made.text(keys[0]) == "not tested here: undefined at headline momentum 0"
    other = ledger(tmp_path)
    enter(other, "annealed_networks", Finding("c", 1.0, estimates={key: (number(3.0),) for key in keys}), Lab())
    assert [other.verdict(key) for key in keys] != ["not tested here"] * 2


def test_what_names_another_experiment_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"stiff measures P3-X4\.clean: give these tests `by: stiff`"):
        enter(ledger(tmp_path), "stiff", Finding("c", 1.0, estimates={"P3-X4.clean": (number(3.0),)}), Lab())


def test_missing_data_are_the_reason_for_every_test_of_the_experiment(tmp_path):
    made = ledger(tmp_path)
    enter(made, "cifar", Finding("c", 1.0, missing="no pictures"), Lab())
    assert made.text("P3-C3.cifar") == "not tested here: data missing"


@pytest.mark.slow
def test_a_campaign_and_a_chapter_have_one_configuration():
    task = campaign.Task("descent.experiments.saddles", "features", Lab(replicas=40))
    assert campaign.run(task)["config"] == perform(EXPERIMENTS["saddles-features"], Lab()).config
