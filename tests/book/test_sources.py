"""A chapter's source is refused early when a tool further down would go wrong silently."""

from __future__ import annotations

import os

import pytest
from descent.book.execute import digest
from descent.book.sources import parameters, source
from descent.book.sources.project import BookError, find_project
from toybook import edit, make


@pytest.fixture
def project(tmp_path):
    return make(tmp_path)


def test_pages_and_notebooks_come_in_reading_order(project):
    assert project.pages == ("index", "alpha", "beta", "ledger", "status")
    assert project.notebooks == ("alpha", "beta")
    assert find_project(project.chapters).root == project.root


def test_a_page_without_source_is_named(project):
    edit(project.root / "_toc.yml", "chapters/beta", "chapters/gamma")
    with pytest.raises(BookError, match=r"chapters/gamma\.md does not exist"):
        _ = project.notebooks


def test_short_header_is_refused(project):
    edit(project.source("alpha"), "  display_name: Python 3\n", "")
    with pytest.raises(BookError, match=r"header lacks kernelspec\.display_name"):
        source.read(project.source("alpha"))


def test_metadata_filter_is_refused(project):
    edit(project.source("alpha"), "jupytext:\n", "jupytext:\n  cell_metadata_filter: -all\n")
    with pytest.raises(BookError, match="cell_metadata_filter"):
        source.read(project.source("alpha"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("print(f", "print f", r"alpha\.md: code cell 3, line 1: .*: print f"),
        ("value = law", "%time\nvalue = = law", r"alpha\.md: code cell 2, line 5: invalid syntax: value = = law"),
        (":tags: [parameters]", ":tags: [parameters", r"alpha\.md: Code cell 1 at line \d+ .*: Invalid YAML; correct"),
        (":tags: [parameters]", ":tags: parameters", r"alpha\.md: 'parameters' is not of type 'array'; correct the"),
        ("kernelspec:", "\tkernelspec:", r"alpha\.md, line 8 is not YAML: .*spaces instead of tabs"),
    ],
    ids=["syntax", "syntax below a magic", "options", "tags", "header"],
)
def test_what_is_wrong_with_a_cell_or_the_header_is_named(project, old, new, message):
    edit(project.source("alpha"), old, new)
    with pytest.raises(BookError, match=message):
        digest.inputs(project, "alpha", {})


def test_a_page_in_another_encoding_is_named(project):
    project.source("status").write_bytes("# Gauß\n".encode("latin-1"))
    with pytest.raises(BookError, match=r"status\.md, line 1 is not UTF-8"):
        _ = project.notebooks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root: chapters/index\nchapters:\n\t- file: a", r"_toc\.yml, line 3 is not YAML: .*spaces instead of tabs"),
        ("root: chapters/index\nroot: chapters/alpha", r"_toc\.yml, line 2 is not YAML: the key 'root' occurs twice"),
        ("- chapters/index", r"_toc\.yml: the field root is missing"),
        ("", r"_toc\.yml: the field root is missing"),
        ("root: 7", r"_toc\.yml: root: 7 is no page"),
        ("root: chapters/index\nchapters:\n- file: [a]", r"_toc\.yml: file: \['a'\] is no page"),
    ],
)
def test_a_table_of_contents_that_cannot_be_read_is_named(project, text, message):
    (project.root / "_toc.yml").write_text(text)
    with pytest.raises(BookError, match=message):
        _ = project.notebooks


def test_missing_parameters_tag_is_refused(project):
    edit(project.source("alpha"), ":tags: [parameters]\n", "")
    with pytest.raises(BookError, match="0 cells tagged `parameters`"):
        source.read(project.source("alpha"))


def test_parameters_have_names_defaults_and_types(project):
    assert source.parameters(project.source("alpha")) == {"seed": 0, "replicas": 32, "lr": 0.5, "scale": "cpu"}


def test_parameters_cell_with_code_is_refused(project):
    edit(project.source("alpha"), "seed = 0", "seed = int('0')")
    with pytest.raises(BookError, match=r"only lines like `name = 1\.0`, not line 1"):
        source.parameters(project.source("alpha"))


def test_given_parameters_take_the_type_of_the_default(project):
    given = parameters.given(project, ["alpha"], ["lr=1", "scale=gpu", "seed=7"])["alpha"]
    assert given == {"lr": 1.0, "scale": "gpu", "seed": 7}
    assert isinstance(given["lr"], float)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("momentun=0.9", r"unknown parameter 'momentun=0.9'.*seed \(int, default 0\), replicas"),
        ("seed", "unknown parameter 'seed'; write name=value"),
        ("seed=x", "seed must be of type int, not 'x'"),
        ("seed=1.5", "seed must be of type int"),
    ],
)
def test_wrong_parameters_are_refused_naming_the_valid_ones(project, pair, message):
    with pytest.raises(BookError, match=message):
        parameters.given(project, ["alpha"], [pair])


def test_imports_are_followed_through_the_library(project):
    (project.library / "toy" / "other.py").write_text("from . import base\n\n\ndef value(lr):\n    return base.save\n")
    moved = [key for key in digest.inputs(project, "beta", {}) if key.startswith("library")]
    assert moved[:2] == ["library toy.base, imports", "library toy.base, save"]
    assert moved[2:] == ["library toy.other, imports", "library toy.other, value"]


def test_magics_are_no_obstacle(project):
    edit(project.source("alpha"), "from toy import law", "%matplotlib inline\nfrom toy import law")
    assert "library toy.law, value" in digest.inputs(project, "alpha", {})


def test_prose_is_no_input_of_an_execution_but_code_and_tags_are(project):
    before = digest.inputs(project, "alpha", {})
    edit(project.source("alpha"), "A sentence", "Another sentence")
    assert digest.inputs(project, "alpha", {}) == before
    edit(project.source("alpha"), "[nbval-check-output]", "[nbval-check-output, hide-input]")
    assert digest.moved(before, digest.inputs(project, "alpha", {})) == ["chapter source"]


def test_data_that_appears_is_an_input(project, monkeypatch):
    edit(project.source("alpha"), "[nbval-check-output]", "[nbval-check-output, needs-toyset]")
    monkeypatch.setenv("DESCENT_DATA", str(project.root / "sets"))
    before = digest.inputs(project, "alpha", {})
    assert before["data set toyset"] == "absent"
    (project.root / "sets" / "toyset").mkdir(parents=True)
    (project.root / "sets" / "toyset" / "train.parquet").write_bytes(b"1")
    assert digest.moved(before, digest.inputs(project, "alpha", {})) == ["data set toyset"]


def test_another_content_of_the_same_name_and_size_is_another_data_set(project, monkeypatch, tmp_path):
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path))
    file = tmp_path / "toyset" / "raw" / "images"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"cats")
    before, stat = digest.data_set(project, "toyset"), file.stat()
    file.write_bytes(b"dogs")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest.data_set(project, "toyset") != before


@pytest.mark.parametrize(
    "spelling",
    ['chapter: "alpha"', "chapter: 'alpha'", "chapter: alpha  # the first", "chapter:\n  alpha", '"chapter": alpha'],
)
def test_claims_belong_to_their_chapter_however_it_is_spelled(project, spelling):
    edit(project.claims / "T1.yaml", "chapter: alpha", spelling)
    assert project.claim_files("alpha") == (project.claims / "T1.yaml",)
    assert project.claim_files("beta") == (project.claims / "T2.yaml",)
    before = digest.inputs(project, "alpha", {})
    edit(project.claims / "T1.yaml", "near its", "close to its")
    assert digest.moved(before, digest.inputs(project, "alpha", {})) == ["data file data/claims/T1.yaml"]


def test_the_margins_belong_to_every_chapter(project):
    before = digest.inputs(project, "alpha", {})
    (project.claims / "margins.yaml").write_text("schema: 1\n", encoding="utf-8")
    assert all(project.claims / "margins.yaml" in project.claim_files(chapter) for chapter in ("alpha", "beta"))
    assert digest.moved(before, digest.inputs(project, "alpha", {})) == ["data file data/claims/margins.yaml"]


def test_a_chapter_named_within_a_text_claims_nothing(project):
    edit(project.claims / "T2.yaml", "title: A toy", "title: |\n  A toy\n\n  chapter: alpha")
    assert project.claim_files("alpha") == (project.claims / "T1.yaml",)


@pytest.mark.parametrize("content", [b"chapter: [", b"chapter: \xff", b"\tchapter: alpha"])
def test_a_claims_file_that_is_not_yaml_is_named(project, content):
    (project.claims / "T1.yaml").write_bytes(content)
    with pytest.raises(BookError, match=r"T1\.yaml, line 1 is not (YAML|UTF-8)"):
        project.claim_files("beta")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("momentum=0.999", "flatness: momentum must be at most 0.99 for the experiment crossover"),
        ("replicas=1000000000", "flatness: replicas must be at most 1000000"),
        ("device=meta", "flatness: device 'meta': nothing can be computed on it here; use \"cpu\""),
    ],
)
def test_what_no_experiment_can_be_run_with_is_refused_before_anything_runs(repository, pair, message):
    with pytest.raises(BookError, match=message):
        parameters.given(find_project(repository), ["flatness"], [pair])


def test_the_books_own_chapters_are_sound(repository):
    project = find_project(repository)
    for chapter in project.notebooks:
        assert source.parameters(project.source(chapter))


def test_a_module_that_is_no_python_is_named(project):
    edit(project.library / "toy" / "law.py", "2 * lr", "2 * * lr")
    with pytest.raises(BookError, match=r"law\.py, line \d+ is not Python: .*; correct it"):
        digest.inputs(project, "alpha", {})


def test_the_library_is_hashed_wherever_the_book_lies(project):
    """Also in a folder named as a floor of the library that is to be left out."""
    above = project.root.name
    before = digest.library(project, without=(above,))
    edit(project.library / "toy" / "law.py", "2 * lr", "lr * 2")
    assert digest.library(project, without=(above,)) != before
