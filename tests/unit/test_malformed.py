"""Malformed input of every kind meets a clear error of the project, never a traceback or a hang."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from descent.book.sources.parameters import given
from descent.book.sources.project import BookError, find_project
from descent.claims import load_paper, load_records, save_records
from descent.claims.reruns import load_bundle
from descent.data import image_files
from descent.results import load_table, parse_yaml, provenance, save_table
from hypothesis import HealthCheck, settings, strategies
from hypothesis import given as fuzz
from pandas import DataFrame

pytestmark = pytest.mark.slow
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # by libyaml, where it is: a tenth of the time
ROOT = Path(__file__).parents[2]
PROJECT = find_project(ROOT)
CLAIMS = (ROOT / "data" / "claims" / "P4.yaml").read_text(encoding="utf-8")
BUNDLE = (ROOT / "tests" / "book" / "geometry-f4b24c58.zip").read_bytes()
DEFAULTS = {"scale": "cpu", "seed": 0, "replicas": 1000, "device": "cpu", "momentum": 0.9, "lr": 5e-4}

OWN = (ValueError, BookError, image_files.DataDamaged, image_files.DataMissing)


def thorough(cases):
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=cases, suppress_health_check=quiet, derandomize=True, deadline=None)


def refused(action, *names):
    """Do it; an error must be the project's own and name what it is about."""
    try:
        return action()
    except (BookError, ValueError) as error:
        fault = error
    assert type(fault) in OWN, repr(fault)
    assert any(name in str(fault) for name in names), str(fault)
    assert "Traceback" not in str(fault)
    return None


@strategies.composite
def spoiled(draw, content: bytes):
    """Return the content with a piece cut out, overwritten, doubled, or its end missing."""
    place = draw(strategies.integers(0, len(content) - 1))
    length = draw(strategies.integers(1, 200))
    how = draw(strategies.sampled_from(("cut", "write", "double", "end")))
    if how == "end":
        return content[:place]
    if how == "cut":
        return content[:place] + content[place + length :]
    if how == "double":
        return content[: place + length] + content[place:]
    junk = draw(strategies.binary(min_size=1, max_size=length))
    return content[:place] + junk + content[place + len(junk) :]


@thorough(30)
@fuzz(spoiled(BUNDLE))
def test_a_spoiled_bundle_is_refused_or_says_what_it_said(tmp_path, content):
    path = tmp_path / "sent.zip"
    path.write_bytes(content)
    bundle = refused(lambda: load_bundle(path), "sent.zip in ")
    assert bundle is None or bundle.parameters == {"seed": 1001, "replicas": 64}


# What YAML and JSON can hold, at random.
WORDS = strategies.text(max_size=8)
LEAVES = strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | WORDS
TREES = strategies.recursive(
    LEAVES,
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@strategies.composite
def regrown(draw, content):
    """Return a tree with one branch, somewhere, replaced by another or left out."""
    tree = json.loads(json.dumps(content))
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return tree
        key = draw(strategies.sampled_from(keys))
        if isinstance(node[key], (dict, list)) and node[key] and draw(strategies.integers(0, 3)):
            node = node[key]
            continue
        if draw(strategies.booleans()):
            node[key] = draw(TREES)
        else:
            del node[key]
        return tree


@thorough(500)
@fuzz(strategies.text(max_size=20))
def test_any_text_as_a_parameter(text):
    refused(lambda: given(PROJECT, ["saddles"], [text]), "unknown parameter", "must be", "device")


@thorough(500)
@fuzz(strategies.sampled_from(sorted(DEFAULTS)), strategies.text(max_size=12) | strategies.floats().map(str))
def test_any_value_of_a_parameter(name, text):
    found = refused(lambda: given(PROJECT, ["saddles"], [f"{name}={text}"]), name)
    if found is not None:
        assert type(found["saddles"][name]) is type(DEFAULTS[name])


@thorough(400)
@fuzz(spoiled(CLAIMS.encode()))
def test_a_claims_file_with_bytes_spoiled(tmp_path, content):
    path = tmp_path / "P4.yaml"
    path.write_bytes(content)
    refused(lambda: load_paper(path), "P4")


@thorough(400)
@fuzz(regrown(parse_yaml(CLAIMS, "P4.yaml")))
def test_a_claims_file_with_a_branch_replaced(tmp_path, tree):
    path = tmp_path / "P4.yaml"
    path.write_text(yaml.dump(tree, Dumper=Dumper, allow_unicode=True), encoding="utf-8")
    refused(lambda: load_paper(path), "P4")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "records.json"
    (first, *_) = load_records(ROOT / "data" / "published" / "records" / "saddles.json")
    save_records(path, [first])
    return path.read_bytes()


@pytest.mark.parametrize("cases", [400])
def test_spoiled_records(tmp_path, records, cases):
    path = tmp_path / "records.json"
    (whole,) = (record["sha256"] for record in json.loads(records)["records"])

    @thorough(cases)
    @fuzz(spoiled(records) | regrown(json.loads(records)).map(lambda tree: json.dumps(tree).encode()))
    def check(content):
        path.write_bytes(content)
        found = refused(lambda: load_records(path), "records.json", "P3-C1", "a record without id")
        assert all(record.to_json()["sha256"] == whole for record in found or ())  # what is read is what was written

    check()


@pytest.mark.parametrize("cases", [400])
def test_spoiled_tables(tmp_path, cases):
    made = provenance("cpu", "cpu", 0, 32, modules=["descent.stats.estimate"])
    frame = DataFrame({"name": ["a", "b"], "value": [1.5, np.nan], "count": [1, 2]})
    save_table("table", frame, made, tmp_path)
    good, about = ((tmp_path / f"table.{kind}").read_bytes() for kind in ("csv", "json"))
    whole, other = load_table(tmp_path / "table.csv"), regrown(json.loads(about))

    @thorough(cases)
    @fuzz(spoiled(good) | strategies.just(good), spoiled(about) | other.map(json.dumps).map(str.encode))
    def check(table, note):
        (tmp_path / "table.csv").write_bytes(table)
        (tmp_path / "table.json").write_bytes(note)
        found = refused(lambda: load_table(tmp_path / "table.csv"), "table.csv", "table.json")
        if found is not None and table == good:
            assert list(found.frame.columns) == list(whole.frame.columns) or note != about

    check()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a small Parquet file in the layout of CIFAR-10, and what is known of it."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import io

    import pyarrow
    from PIL import Image

    def png(shade):
        out = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), shade, np.uint8)).save(out, "PNG")
        return out.getvalue()

    images = [{"bytes": png(20 * i), "path": None} for i in range(4)]
    path = tmp_path_factory.mktemp("pictures") / "train.parquet"
    parquet.write_table(pyarrow.table({"img": images, "label": [0, 1, 2, 3]}), path)
    return path.read_bytes(), replace(image_files.KNOWN["cifar10"], counts={"train": 4, "test": 4})


@pytest.mark.parametrize("cases", [400])
def test_spoiled_pictures(tmp_path, pictures, cases):
    good, known = pictures
    path = tmp_path / "train.parquet"

    @thorough(cases)
    @fuzz(spoiled(good))
    def check(content):
        path.write_bytes(content)
        found = refused(lambda: image_files.read(path, known, "train"), "train.parquet")
        assert found is None or found["images"].shape == (4, 32, 32, 3)

    check()
