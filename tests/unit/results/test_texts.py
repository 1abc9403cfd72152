"""Files that people write: what cannot be read for sure is refused with the name of the file and the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from descent import claims
from descent.results import parse_yaml, read_text, read_yaml


def test_what_is_sound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.yaml"
    path.write_text("base: &base {a: 1}\nπ:\n  <<: *base\n  b: [2, true]\n", encoding="utf-8")
    assert read_yaml(path) == {"base": {"a": 1}, "π": {"a": 1, "b": [2, True]}}
    assert parse_yaml("<<: {a: 1}\na: 2", "own.yaml") == {"a": 2}  # an own value goes before a merged one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n\tc: 2", r"odd\.yaml, line 3 is not YAML: .*indent with spaces instead of tabs"),
        ("a: 1\nb: [1, 2\nc: 3", r"odd\.yaml, line 3 is not YAML: expected ',' or '\]'"),
        ("a: 1\nb: 2\na: 3", r"odd\.yaml, line 3 is not YAML: the key 'a' occurs twice; keep one"),
        ("a:\n  - {b: 1, 'b': 2}", r"odd\.yaml, line 2 is not YAML: the key 'b' occurs twice"),
        ("yes: 1\ntrue: 2", r"odd\.yaml, line 2 is not YAML: the key True occurs twice"),
        ("a: 2021-02-31", r"odd\.yaml is not YAML: day is out of range"),
        ("!!bool perhaps", r"odd\.yaml is not YAML: 'perhaps'"),
        ("!!python/object/apply:os.getcwd []", r"odd\.yaml, line 1 is not YAML: could not determine a constructor"),
        ("[" * 5000, r"odd\.yaml is not YAML: maximum recursion depth"),
    ],
)
def test_what_is_not_is_refused_by_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        parse_yaml(text, "odd.yaml")
    assert "\n" not in str(refused.value)


def test_text_in_another_encoding_is_refused_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_bytes("# A title\n\nGauß".encode("latin-1"))
    with pytest.raises(ValueError, match=r"page\.md, line 3 is not UTF-8 .*save the file as UTF-8"):
        read_text(path)


def test_a_claims_file_with_a_key_twice_is_refused(tmp_path: Path, repository: Path) -> None:
    text = (repository / "data" / "claims" / "P4.yaml").read_text(encoding="utf-8")
    path = tmp_path / "P4.yaml"
    path.write_text(text + "\ntitle: Another\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"P4\.yaml, line \d+ is not YAML: the key 'title' occurs twice; keep one"):
        claims.load_paper(path)


def test_one_paper_in_two_files_is_refused_by_both_names(tmp_path: Path, repository: Path) -> None:
    source = repository / "data" / "claims"
    for name, origin in (("P4.yaml", "P4.yaml"), ("copy.yaml", "P4.yaml"), ("margins.yaml", "margins.yaml")):
        (tmp_path / name).write_bytes((source / origin).read_bytes())
    with pytest.raises(ValueError, match=r"P4\.yaml and copy\.yaml: paper: both state the claims of P4; keep one file"):
        claims.load_papers(tmp_path)
