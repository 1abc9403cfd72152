"""What every rule must keep, tried on three random replicas before a run, with a message that names the offender."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from descent.engine.probes import Leaves
from descent.engine.rule import Rule
from descent.engine.streams import Purpose, Streams, replica_seeds

__all__ = ["BrokenRuleError", "check"]

_ROWS = 3


class BrokenRuleError(ValueError):
    """A rule does not keep the contract; the text says which part of it, where, and what to do."""


def check(rule: Rule, leaves: Mapping[str, tuple[torch.Size, torch.dtype]]) -> None:
    """Raise BrokenRuleError unless the rule keeps to its contract on leaves of these shapes, without the replica axis.

    State and steps are tensors of the right shape and type, and finite; calling changes no input; twice the same call
    gives the same; replicas do not mix; an element sees only what `reads` says.

    leaves: shape and type of every leaf, without the replica axis.
    """
    index = torch.tensor([0, rule.replicas // 2, rule.replicas - 1])
    trial = _Trial(rule.subset(index).to("cpu"), _drawn(leaves, 0), [_drawn(leaves, 1), _drawn(leaves, 2)])
    trial.state = _tensors(trial, trial.call(lambda: trial.rule.init(trial.params)))
    kept = dict(trial.state)
    for count, gradient in enumerate(trial.gradients, start=1):
        before = [{k: v.clone() for k, v in part.items()} for part in (gradient, trial.state, trial.params)]
        steps, after = trial.update(gradient, trial.state, trial.params, count)
        _same_inputs(trial, before, (gradient, trial.state, trial.params))
        _shaped(trial, steps, after, kept)
        _alike(trial, steps, after, gradient, count)
        _apart(trial, steps, gradient, count)
        _narrow(trial, steps, gradient, count)
        trial.state = after


class _Trial:
    """A rule of three replicas with parameters and gradients to try it on."""

    def __init__(self, rule: Rule, params: Leaves, gradients: Sequence[Leaves]) -> None:
        self.rule, self.params, self.gradients = rule, params, gradients
        self.state: Leaves = {}
        self.name = getattr(getattr(rule, "function", None), "__qualname__", type(rule).__qualname__)

    def fail(self, contract: str, what: str) -> BrokenRuleError:
        return BrokenRuleError(f"{self.name} breaks the contract “{contract}”: {what}")

    def call(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except BrokenRuleError:
            raise
        except Exception as fault:  # whatever a reader's code may raise
            text = f"{type(fault).__name__}: {str(fault).partition(chr(10))[0]}"
            raise self.fail("it runs", f"it raised {text}") from fault

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, count: int, rows: Any = None) -> Any:
        rule = self.rule if rows is None else self.rule.subset(rows)
        age = torch.full((rule.replicas,), float(count), dtype=torch.float64)
        found = self.call(lambda: rule.update(gradient, state, params, age))
        if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, dict) for part in found):
            raise self.fail("it returns (steps, state)", f"it returned {type(found).__name__}; return two dictionaries")
        return found


def _drawn(leaves: Mapping[str, tuple[torch.Size, torch.dtype]], step: int) -> Leaves:
    found = {}
    for place, (name, (shape, dtype)) in enumerate(leaves.items()):
        wide = Streams(replica_seeds(place, _ROWS), torch.float64)
        found[name] = wide.normal(Purpose.PROBE, step, tuple(shape)).to(dtype)
    return found


def _tensors(trial: _Trial, state: Any) -> Leaves:
    """Return the first state, which must be tensors by "slot/leaf"."""
    if not isinstance(state, dict):
        raise trial.fail("init returns a dictionary", f"it returned {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise trial.fail(
                "the state is tensors (R, …)",
                f"{key!r} is the Python number {value!r}, which all replicas would share; "
                "use a tensor with one entry per replica, or `age`"
                if isinstance(value, (bool, int, float))
                else f"{key!r} is a {type(value).__name__}; use a tensor (R, …)",
            )
        if value.ndim == 0 or len(value) != _ROWS:
            raise trial.fail("the state is tensors (R, …)", f"{key!r} has shape {tuple(value.shape)} for {_ROWS} rows")
        if "/" not in key or key.partition("/")[2] not in trial.params:
            raise trial.fail('slots are named "slot/leaf"', f"{key!r} names no leaf of {', '.join(trial.params)}")
    return state


def _same_inputs(trial: _Trial, before: Sequence[Leaves], now: Sequence[Leaves]) -> None:
    for what, old, new in zip(("gradient", "state", "parameters"), before, now, strict=True):
        for name, leaf in old.items():
            if not torch.equal(leaf, new[name]):
                raise trial.fail(
                    "inputs stay as they are", f"it changed the {what} {name!r} in place; use g * 2, not g.mul_(2)"
                )


def _shaped(trial: _Trial, steps: Leaves, after: Leaves, kept: Leaves) -> None:
    for what, found, asked in (("step of", steps, trial.params), ("state", after, kept)):
        if found.keys() != asked.keys():
            missing, more = sorted(asked.keys() - found.keys()), sorted(found.keys() - asked.keys())
            raise trial.fail("names stay", f"{what} {missing} is missing and {more} is new; return every one, always")
        for name, leaf in found.items():
            if not isinstance(leaf, Tensor):
                why = f"{what} {name!r} became a {type(leaf).__name__}; keep a tensor, as torch.full_like makes"
                raise trial.fail("the state is tensors (R, …)", why)
            if leaf.shape != asked[name].shape or leaf.dtype != asked[name].dtype:
                is_, was = (f"{tuple(t.shape)} {str(t.dtype)[6:]}" for t in (leaf, asked[name]))
                raise trial.fail("shapes and types stay", f"{what} {name!r} is {is_} where {was} belongs")
            if not bool(leaf.isfinite().all()):
                raise trial.fail("numbers are finite", f"{what} {name!r} has NaN or infinities on plain random numbers")


def _alike(trial: _Trial, steps: Leaves, after: Leaves, gradient: Leaves, count: int) -> None:
    again, then = trial.update(gradient, trial.state, trial.params, count)
    for what, one, two in (("step of", steps, again), ("state", after, then)):
        for name, leaf in one.items():
            if not torch.equal(leaf, two[name]):
                raise trial.fail(
                    "the same call gives the same", f"{what} {name!r} differs the second time; keep what changes in "
                    "the state, and draw no random numbers"
                )  # fmt: skip


def _apart(trial: _Trial, steps: Leaves, gradient: Leaves, count: int) -> None:
    """Ask for replicas that move alike alone, and in another order."""
    orders = [torch.tensor([i]) for i in range(_ROWS)] + [torch.tensor([2, 0, 1])]
    for rows in orders:
        own = [{name: leaf[rows] for name, leaf in part.items()} for part in (gradient, trial.state, trial.params)]
        found, _ = trial.update(own[0], own[1], own[2], count, rows)
        for name, leaf in found.items():
            if not _equal(trial, leaf, steps[name][rows]):
                raise trial.fail(
                    "replicas do not mix", f"the step of {name!r} depends on the other rows of the stack; "
                    "reduce over all axes but the first"
                )  # fmt: skip


def _narrow(trial: _Trial, steps: Leaves, gradient: Leaves, count: int) -> None:
    """Ask whether one number of the gradient moves only what `reads` allows it to."""
    if trial.rule.reads == "replica":
        return
    for name, leaf in gradient.items():
        changed = {key: value.clone() for key, value in gradient.items()}
        changed[name].view(_ROWS, -1)[:, 0] *= -1.7
        found, _ = trial.update(changed, trial.state, trial.params, count)
        others = [key for key in gradient if key != name]
        if any(not torch.equal(found[key], steps[key]) for key in others):
            raise trial.fail('`reads` says "replica" where leaves mix', f"the gradient of {name!r} moves other leaves")
        rest = [part[name].reshape(_ROWS, -1)[:, 1:] for part in (found, steps)]
        if trial.rule.reads == "element" and leaf[0].numel() > 1 and not torch.equal(*rest):
            raise trial.fail(
                '`reads` says "leaf" where elements mix', f"one number of the gradient of {name!r} moves others; "
                "reduce over no axis, or write a Rule whose `reads` is \"leaf\" or \"replica\""
            )  # fmt: skip


def _equal(trial: _Trial, a: Tensor, b: Tensor) -> bool:
    """Compare to the bit; products of matrices, whose kernels depend on how many there are, to a ten-thousandth."""
    if trial.rule.reads == "element":
        return torch.equal(a, b)
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max())))
