"""The forms of the repository's issues: what they ask for exists, and they are what the host takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in FOLDER.glob("*.yml") if path.name != "config.yml")
NEEDS = {
    "input": {"label"},
    "textarea": {"label"},
    "dropdown": {"label", "options"},
    "checkboxes": {"label", "options"},
}


@pytest.mark.parametrize("path", FORMS, ids=[path.stem for path in FORMS])
def test_a_form_is_one_that_the_host_takes(path):
    form = yaml.safe_load(path.read_text())
    assert set(form) <= {"name", "description", "title", "labels", "body"}
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[\w-]+", id) for id in ids)
    for field in form["body"]:
        assert NEEDS[field["type"]] <= set(field["attributes"])
        assert set(field) <= {"type", "id", "attributes", "validations"}
        options = [o if isinstance(o, str) else o["label"] for o in field["attributes"].get("options", [])]
        assert len(options) == len(set(options))
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_whoever_challenges_errs_or_adds_finds_a_form():
    assert {"challenge", "erratum", "new-claim"} <= {path.stem for path in FORMS}


def test_the_commands_that_forms_name_exist():
    from descent.book.commands.cli import parser

    texts = [path.read_text() for path in (*FORMS, FOLDER.parent / "PULL_REQUEST_TEMPLATE.md")]
    named = {command for text in texts for command in re.findall(r"`descent ([\w-]+)", text)}
    known = set(parser()._subparsers._group_actions[0].choices)
    assert {"run", "new", "reruns"} <= named <= known
