"""Files that people write, text and YAML: what cannot be read is refused with the name of the file and the line."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

__all__ = ["parse_yaml", "read_text", "read_yaml"]

ODD = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What PyYAML makes of odd texts beside its own errors, of the 31st of February for one."""
SHALLOW = 2000
"""Brackets in a text, or signs in a line, from which on it might be nested too deep."""
MERGE = "tag:yaml.org,2002:merge"


def read_text(path: Path) -> str:
    """Return the text of a file; raise ValueError naming file and line where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        line = path.read_bytes().count(b"\n", 0, fault.start) + 1
        raise ValueError(f"{path.name}, line {line} is not UTF-8 ({fault.reason}); save the file as UTF-8") from None


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; raise ValueError naming file and line where that cannot be said for sure."""
    return parse_yaml(read_text(path), path.name)


def parse_yaml(text: str, name: str) -> Any:
    """Return what YAML holds that stands in the file `name`.

    Raises: ValueError naming file and line where it is not YAML, or where a mapping has one key twice: a reader of
    YAML would silently take the last of them.
    """
    with contextlib.suppress(yaml.YAMLError, *ODD):
        if _is_shallow(text):
            return yaml.load(text, _Quick)
    try:
        return yaml.load(text, _Plain)  # which says best what is wrong
    except yaml.MarkedYAMLError as fault:
        line = f", line {fault.problem_mark.line + 1}" if fault.problem_mark else ""
        raise ValueError(f"{name}{line} is not YAML: {fault.problem}; {_remedy(str(fault.problem))}") from fault
    except (yaml.YAMLError, *ODD) as fault:
        raise ValueError(f"{name} is not YAML: {' '.join(str(fault).split())}; correct it") from fault


def _is_shallow(text: str) -> bool:
    """Tell whether a text is surely not nested so deep that libyaml would run out of stack, and Python with it."""
    return text.count("[") + text.count("{") < SHALLOW and all(len(line) < SHALLOW for line in text.splitlines())


class _Once:
    """What makes a loader refuse keys that occur twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                name = self.construct_object(key)  # type: ignore[attr-defined]
                if name in seen:
                    problem = f"the key {name!r} occurs twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(name)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]
        return found


class _Plain(_Once, yaml.SafeLoader):
    """The safe loader, which makes plain values only."""


class _Quick(_Once, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same by libyaml, where it is: ten times as fast."""


def _remedy(problem: str) -> str:
    if "occurs twice" in problem:
        return "keep one"
    return "indent with spaces instead of tabs" if r"'\t'" in problem else "correct it"
