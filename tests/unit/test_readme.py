"""The example of the README runs as printed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_every_action_is_listed() -> None:
    """Whatever make can be asked for stands in `make help`."""
    makefile = README.with_name("Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.M)
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, check=True, cwd=README.parent).stdout
    assert re.findall(r"^  make (\S+)", listed, re.M) == phony.split()


def test_it_can_be_read_in_one_sitting_and_names_pages_that_exist() -> None:
    """What is told elsewhere is on a page of the book."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    toc = README.with_name("_toc.yml").read_text(encoding="utf-8")
    pages = re.findall(r"`(chapters/[\w-]+)\.md`", text)
    assert len(pages) > 5
    assert all(page in toc for page in pages)


def test_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.fullmatch(r"loss, momentum minus matched plain SGD: −?\d\.\d+ \[.+, .+\]\n", printed)
