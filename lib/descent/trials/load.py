"""Rules by name: those built in, and those of a reader's file; and the file a reader begins with."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descent.engine.muon import muon
from descent.engine.normalised import adam, adamw, by_leaf, lion, normalised, sign
from descent.engine.rule import Rule
from descent.engine.rules import Hyper, ema, heavy_ball, nesterov, sgd

__all__ = ["BUILT_IN", "TEMPLATE", "Entry", "TrialError", "entry", "settings_of"]

Made = Hyper | Rule


class TrialError(Exception):
    """The trial cannot be run as it was asked for; the text says why and what to do."""


@dataclass(frozen=True)
class Entry:
    """A rule by name: made at rates (R,), as it is, and without its momentum."""

    name: str
    make: Callable[..., Made]  # from lr and settings to the rule
    settings: Mapping[str, float]
    momentum: bool  # whether it takes one
    digest: str = ""  # of the file it comes from, "" if built in

    def at(self, lr: Any) -> Made:
        """Return the rule at learning rates."""
        return self.make(lr=lr, **self.settings)

    def plain(self, lr: Any) -> Made:
        """Return the rule without momentum; plain descent where it has none to take away."""
        return self.make(lr=lr, **{**self.settings, "momentum": 0.0}) if self.momentum else sgd(lr)


def _muon(lr: Any, momentum: float = 0.95) -> Rule:
    """Muon on matrices, Adam elsewhere."""
    return by_leaf(muon(lr, momentum), otherwise=adam(lr), where=lambda name, shape: len(shape) > 1)


BUILT_IN: dict[str, tuple[Callable[..., Made], dict[str, float]]] = {
    "sgd": (sgd, {}),
    "heavy_ball": (heavy_ball, {"momentum": 0.9}),
    "ema": (ema, {"momentum": 0.9}),
    "nesterov": (nesterov, {"momentum": 0.9}),
    "sign": (sign, {"momentum": 0.9}),
    "lion": (lion, {"momentum": 0.9, "slow": 0.99}),
    "adam": (adam, {"momentum": 0.9, "second": 0.999}),
    "adamw": (adamw, {"momentum": 0.9, "second": 0.999}),
    "normalised": (normalised, {"momentum": 0.9}),
    "muon": (_muon, {"momentum": 0.95}),
}
"""What `--against` takes, with the settings used."""


def entry(name: str, settings: Mapping[str, float] | None = None) -> Entry:
    """Return a rule by the name of a built-in one, or by file and name, mine.py:MyRule.

    Raises: TrialError where there is none, or where it does not take these settings.
    """
    if ":" not in name:
        if name not in BUILT_IN:
            raise TrialError(f"there is no rule {name!r}; built in are {', '.join(BUILT_IN)}, or give FILE.py:NAME")
        make, own = BUILT_IN[name]
        return _tried(Entry(name, make, {**own, **(settings or {})}, "momentum" in own))
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    make = _attribute(path, attribute)
    given = {"momentum": 0.9, **(settings or {})}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if _takes(make, "momentum"):
        return _tried(Entry(attribute, make, given, True, digest))
    return _tried(Entry(attribute, make, dict(settings or {}), False, digest))


def settings_of(pairs: list[str]) -> dict[str, float]:
    """Return settings from pairs, texts such as "slow=0.99".

    pairs: one NAME=VALUE each.
    """
    found = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise TrialError(f"-p {pair}: give NAME=NUMBER, such as -p slow=0.99") from None
        if not (mark and name):
            raise TrialError(f"-p {pair}: give NAME=NUMBER, such as -p slow=0.99")
    return found


def _attribute(path: Path, name: str) -> Callable[..., Made]:
    """Return what a file defines under a name."""
    if not path.is_file():
        raise TrialError(f"{path} does not exist; `descent new rule {path.name}` writes one to begin with")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TrialError(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as fault:  # whatever a reader's file may raise
        raise TrialError(f"{path} cannot be loaded: {type(fault).__name__}: {fault}") from fault
    if not callable(getattr(module, name, None)):
        there = ", ".join(k for k, v in vars(module).items() if callable(v) and not k.startswith("_"))
        raise TrialError(f"{path} defines no {name!r}; it defines {there or 'nothing that can be called'}")
    made: Callable[..., Made] = getattr(module, name)
    return made


def _takes(make: Callable[..., Made], name: str) -> bool:
    parameters = inspect.signature(make).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _tried(found: Entry) -> Entry:
    """Make the rule once."""
    try:
        made = found.at([1e-3, 2e-3, 3e-3])
    except Exception as fault:  # likewise
        raise TrialError(f"{found.name} cannot be made with lr=… and {dict(found.settings)}: {fault}") from fault
    if not isinstance(made, (Hyper, Rule)):
        raise TrialError(f"{found.name} gave a {type(made).__name__}; it must give a Rule, as @elementwise does")
    return found


TEMPLATE = '''"""A rule of your own. Try it:

    descent compare-rule {file}:MyRule --against adam,heavy_ball --problem digits
"""

import torch
from descent.engine import elementwise


@elementwise(m=0.0)  # one buffer per leaf, which starts at 0; name more of them here
def MyRule(g, x, s, h, age):
    """g, x and s.m are (R, …), one row per replica; h.lr, h.momentum, … and age are (R, 1, …)."""
    m = h.momentum * s.m + (1 - h.momentum) * g
    return -h.lr * torch.sign(m), {{"m": m}}  # what is added to x, and the next buffers
'''
"""The text of a file with a rule of your own, to begin from."""
