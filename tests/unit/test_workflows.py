"""What runs on other machines asks for things that exist here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONTAINER = ROOT / ".devcontainer" / "devcontainer.json"


def wanted(text: str) -> tuple[set[str], set[str]]:
    """Return the targets of make and the scripts of the repository that a text asks for."""
    makes = re.findall(r"\bmake ([a-z.][\w./-]*)", text)
    return {name.replace(".venv", "$(VENV)") for name in makes}, set(re.findall(r"\bbash (\S+)", text))


def missing(text: str) -> list[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(READY):", "$(VENV)/.ready:")
    makes, scripts = wanted(text)
    found = [f"make {name}" for name in sorted(makes) if f"\n{name}:" not in makefile]
    return found + [name for name in sorted(scripts) if not (ROOT / name).is_file()]


@pytest.mark.parametrize("path", [*FLOWS, CONTAINER], ids=lambda path: path.name)
def test_what_is_asked_for_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert any(wanted(text))
    assert missing(text) == []
    assert missing(text.replace("bash .ci/run", "bash .ci/gone").replace("make .venv", "make gone")) != []


def test_two_pythons_build_it_and_a_pull_request_is_shown() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))["jobs"]["build"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    shown = [step for step in job["steps"] if "pull_request" in step.get("if", "")]
    assert [step["with"]["path"] for step in shown] == ["_build/html"]


def test_once_a_week_everything_is_made_anew_and_links_are_followed() -> None:
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8"))
    assert flow[True]["schedule"]  # YAML reads the word `on` as a truth
    text = json.dumps(flow["jobs"])
    assert "bash .ci/run" in text
    assert "--builder linkcheck" in text
    assert "cache" not in text.replace("from empty caches", "")
