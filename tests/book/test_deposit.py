"""What a deposited archive says of itself, held against the rules of the formats that matter to a reader of them."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import date
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import pytest
from descent.book.commands import release
from descent.book.site import deposit
from descent.book.sources import edition, records
from descent.book.sources.edition import Author, Edition
from descent.book.sources.project import find_project
from toybook import REPOSITORY

EDITION = Edition(
    "A Book", authors=(Author("Lee", "Ann"), Author("A Group")), number="1.2.3", released=date(2026, 1, 2),
    licence="MIT", keywords=("one", "two"),
)  # fmt: skip
TABLE = b"momentum,kind\n0.9,exact\n"
NOTE = {"columns": [["momentum", "float64"], ["kind", "text"]], "experiment": "e"}
FILES = {
    Path("LICENSE"): b"Do as you like.\n",
    Path("data/published/A b/t.csv"): TABLE,
    Path("data/published/A b/t.json"): json.dumps(NOTE).encode(),
    Path("data/published/loose.csv"): b"x\n1\n",
}
RESOURCE = {
    "type": "object",
    "required": ["$schema", "name", "path", "type", "schema", "hash", "bytes"],
    "properties": {
        "$schema": {"const": "https://datapackage.org/profiles/2.0/dataresource.json"},
        "name": {"type": "string", "pattern": "^[-a-z0-9._]+$"},
        "path": {"type": "string", "pattern": r"^(?!/)(?!.*\.\./)[^~].*$"},
        "type": {"const": "table"},
        "hash": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
        "bytes": {"type": "integer", "minimum": 0},
        "encoding": {"const": "utf-8"},
        "schema": {
            "type": "object",
            "required": ["fields"],
            "properties": {
                "fields": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "type"],
                        "properties": {
                            "name": {"type": "string"},
                            "type": {"enum": ["string", "number", "integer", "boolean"]},
                        },
                    },
                }
            },
        },
    },
}
PACKAGE = {
    "type": "object",
    "required": ["$schema", "name", "resources"],
    "properties": {
        "$schema": {"const": "https://datapackage.org/profiles/2.0/datapackage.json"},
        "name": {"type": "string", "pattern": "^[-a-z0-9._/]+$"},
        "licenses": {
            "type": "array",
            "items": {"type": "object", "anyOf": [{"required": ["name"]}, {"required": ["path"]}]},
        },
        "contributors": {"type": "array", "items": {"type": "object", "required": ["title"]}},
        "resources": {"type": "array", "minItems": 1, "items": RESOURCE},
    },
}


def crate_faults(content, files):
    """Return what RO-Crate 1.2 demands of a package with its files that a metadata file does not keep."""
    graph = content["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    descriptor, faults = entities.get("ro-crate-metadata.json", {}), []
    root = entities.get(descriptor.get("about", {}).get("@id"), {})

    def demand(true, text):
        faults.extend([] if true else [text])

    demand(content["@context"] == "https://w3id.org/ro/crate/1.2/context", "the context is that of the version")
    demand(len(entities) == len(graph), "no two entities share an @id")
    demand(all("@type" in entity for entity in graph), "every entity has a type")
    demand(descriptor.get("@type") == "CreativeWork", "the descriptor is a CreativeWork")
    demand(descriptor.get("conformsTo") == {"@id": "https://w3id.org/ro/crate/1.2"}, "the descriptor names the version")
    demand(root.get("@type") == "Dataset", "the root is a Dataset")
    demand(root.get("@id") == "./", "the root of an attached package is ./")
    demand(all(root.get(name) for name in ("name", "description", "license")), "the root has name, text and licence")
    demand(re.fullmatch(r"\d{4}-\d\d-\d\d", root.get("datePublished", "")), "the root has a day of publication")
    for part in root.get("hasPart", []):
        demand(entities.get(part["@id"], {}).get("@type") == "File", f"{part['@id']} is described as a File")
    places = {unquote(id) for id, entity in entities.items() if entity["@type"] == "File"}
    demand(places == {place.as_posix() for place in files}, "files and entities are the same")
    demand(not [id for id in entities if re.search(r"\s|\\", id)], "identifiers are valid references")
    known = {id for entity in graph for id in _references(entity)}
    demand(known - {"https://w3id.org/ro/crate/1.2"} <= set(entities), "what is referred to is described")
    return faults


def _references(entity):
    for name, value in entity.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and "@id" in each and name != "@id":
                yield each["@id"]


def test_the_crate_keeps_the_rules_and_describes_every_file():
    content = json.loads(deposit.crate(EDITION, FILES))
    assert crate_faults(content, FILES) == []
    table = next(entity for entity in content["@graph"] if entity["@id"] == "data/published/A%20b/t.csv")
    assert table["sha256"] == hashlib.sha256(TABLE).hexdigest()
    assert (table["encodingFormat"], table["contentSize"]) == ("text/csv", str(len(TABLE)))
    people = [entity for entity in content["@graph"] if entity["@type"] in ("Person", "Organization")]
    assert [person["name"] for person in people] == ["Ann Lee", "A Group"]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda graph: graph[0].pop("conformsTo"), "names the version"),
        (lambda graph: graph[1].pop("license"), "name, text and licence"),
        (lambda graph: graph.pop(), "is described as a File"),
        (lambda graph: graph.append(dict(graph[-1])), "no two entities"),
        (lambda graph: graph[1].update(author={"@id": "#nobody"}), "what is referred to"),
    ],
)
def test_the_rules_can_be_broken(fault, named):
    content = json.loads(deposit.crate(EDITION, FILES))
    fault(content["@graph"])
    assert any(named in text for text in crate_faults(content, FILES))


def test_the_data_package_has_every_table_that_says_what_it_is():
    content = json.loads(deposit.package(EDITION, FILES))
    jsonschema.validate(content, PACKAGE)
    (resource,) = content["resources"]
    assert resource["path"] == "data/published/A b/t.csv"
    assert resource["hash"] == f"sha256:{hashlib.sha256(TABLE).hexdigest()}"
    assert resource["schema"]["fields"] == [{"name": "momentum", "type": "number"}, {"name": "kind", "type": "string"}]


def test_the_repository_s_own_deposit_keeps_the_rules_of_all_three(published):
    book = find_project(REPOSITORY)
    files = {
        p.relative_to(book.root): p.read_bytes() for name in release.PUBLISHED for p in release._required(book, name)
    }
    this = edition.read(book)
    assert crate_faults(json.loads(deposit.crate(this, files)), files) == []
    tables = json.loads(deposit.package(this, files))
    jsonschema.validate(tables, PACKAGE)
    names = [resource["name"] for resource in tables["resources"]]
    assert len(names) == len(set(names)) >= 10
    claims = json.loads(deposit.forrt(this, published, records.papers(book)))["claims"]
    assert len(claims) == len(published)
    _check_words(claims, {record.claim.id: record for record in published})


def _check_words(claims, found):
    words = {
        "holds": "Validated",
        "fails": "Contradicted",
        "inconclusive": "Inconclusive",
        "not tested here": "NotTested",
    }
    for claim in claims:
        record = found[claim["id"]]
        assert claim["outcome"]["validationStatus"].endswith("/" + words[str(record.verdict)])
        cited = claim.get("citation", {}).get("relation", "")
        assert bool(cited) == (record.claim.known != "derived" and not record.claim.identity)
        assert not cited or cited.endswith({"holds": "confirms", "fails": "disputes"}.get(str(record.verdict), ""))
        assert len(claim["study"]["tests"]) == len(record.outcomes)
