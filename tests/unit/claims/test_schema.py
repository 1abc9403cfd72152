"""The records of every chapter are what data/ledger.schema.json says they are."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from descent.book.commands.cli import main
from descent.claims.schema import ledger_schema

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "data" / "published"
FILES = [*sorted(PUBLISHED.glob("records/*.json")), *sorted(PUBLISHED.glob("*/gpu/edition1.json"))]
CHECK = jsonschema.Draft202012Validator(json.loads((ROOT / "data" / "ledger.schema.json").read_text()))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(CHECK.schema)
    assert len(FILES) >= 5


def test_it_is_the_one_this_library_makes():
    assert (ROOT / "data" / "ledger.schema.json").read_text(encoding="utf-8") == ledger_schema()


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_published_records_follow_it(file):
    assert [fault.message for fault in CHECK.iter_errors(json.loads(file.read_text()))] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.pop("verdict"),
        lambda record: record.update(verdict="seems fine"),
        lambda record: record["tests"][0]["estimates"][0].update(value="about one"),
        lambda record: record.update(surprise=1),
        lambda record: record.update(interval=[1.0]),
        lambda record: record.update(id="claim one"),
    ],
    ids=["no verdict", "another word", "a text for a number", "a field unknown", "half an interval", "no id"],
)
def test_what_does_not_follow_it_is_found(spoil):
    content = copy.deepcopy(json.loads(FILES[0].read_text()))
    spoil(content["records"][0])
    assert list(CHECK.iter_errors(content))


def test_claims_as_json(capsys):
    assert main(["--root", str(ROOT), "claims", "--json"]) == 0
    claims = {claim["id"]: claim for claim in json.loads(capsys.readouterr().out)["claims"]}
    assert len(claims) >= 128
    assert claims["P3-C1"]["tests"][0]["rule"]["kind"] == "direction"
    assert claims["P3-C1"]["verdict"] in (None, "holds", "fails", "inconclusive", "not tested here")
