"""A device that is not the CPU, on a machine that has none: everything is computed on the CPU and kept apart from it.

Within `elsewhere()` tensors may be made on "meta" or sent there, a device that torch knows and that has no memory of
its own. Each is a CPU tensor in a wrapper that says it is there. Whatever mixes the two kinds fails as it would on a
real device, and nothing comes back but by `.cpu()`, `.to("cpu")`, `.item()` and the like. Numbers are the CPU's, to the
last bit.

    python tests/unit/elsewhere.py saddles [EXPERIMENT …]      # a chapter's experiments at CPU scale on such a device
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from descent.experiments.lab import Lab
from descent.runs.perform import perform
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "meta"
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
"""What may be given tensors of both kinds: copies, and indexing elsewhere by indices on the CPU."""
WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default}
"""What cannot go on before the device has said a number: its value, or how large the result is."""


@dataclass
class Counts:
    """What has been asked of the device: kernels, waits for a number to come back, and tensors sent there."""

    kernels: int = 0
    waits: int = 0
    sent: int = 0

    def __sub__(self, other: Counts) -> Counts:
        """Return what came after the other ones."""
        return Counts(self.kernels - other.kernels, self.waits - other.waits, self.sent - other.sent)


COUNTS = Counts()
"""Since the module was loaded."""


class Away(Tensor):
    """A CPU tensor that says it is elsewhere; autograd sees the wrapper alone."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Away:
        """Wrap."""
        made: Away = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME),
        )
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        """Return what is inside."""
        return f"Away({self.inner!r})"

    def tolist(self) -> Any:
        """Bring the numbers back, as a real device does."""
        COUNTS.waits += 1
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute where the mode does not reach, in autograd's threads."""
        return _compute(func, args, kwargs or {})


class _Machine(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Unwrap, compute on the CPU, and wrap what belongs elsewhere."""
    away = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Away)]
    _check(func, args, kwargs)
    goes = isinstance(args[0], Away) if func in COPIES | INDEXING else bool(away)
    if kwargs.get("device") is not None:
        goes = torch.device(kwargs["device"]).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu")}
    _count(func, bool(away), goes)
    found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    known = {id(each.inner): each for each in away}  # what was changed in place is handed back as it came

    def outer(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, Away):
            return value
        return known[id(value)] if id(value) in known else Away(value) if goes else value

    return tree_map(outer, found)


def _count(func: Callable[..., Any], away: bool, goes: bool) -> None:
    """Enter one operation: what comes back is waited for, and what is copied there from here is sent."""
    COUNTS.kernels += goes and not func.is_view  # type: ignore[attr-defined]
    COUNTS.waits += away and (not goes or func in WAITING)
    COUNTS.sent += goes and not away and func in COPIES


def _check(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> None:
    """Refuse what a real device would refuse; numbers without dimensions may come from the CPU."""
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    away = [tuple(each.shape) for each in tensors if isinstance(each, Away)]
    here = [tuple(each.shape) for each in tensors if not isinstance(each, Away) and each.ndim]
    mixing = func in COPIES or (func in INDEXING and isinstance(args[0], Away))
    if away and here and not mixing:
        raise RuntimeError(
            f"{func}: expected all tensors on one device, got some elsewhere, of shapes {away}, and "
            f"some on the CPU, of shapes {here}"
        )


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Away) else value


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Let NAME be a device that can compute."""
    with contextlib.ExitStack() as stack:
        for owner, name, stand_in in (
            (torch, "tensor", _sent(torch.tensor)),
            (torch, "as_tensor", _sent(torch.as_tensor)),
            (Tensor, "new_tensor", _new_tensor),
            (torch, "inference_mode", _inference_mode),
        ):  # what torch would make without numbers on NAME, and tensors that cannot be wrapped
            stack.enter_context(mock.patch.object(owner, name, stand_in))
        stack.enter_context(_Machine())
        yield


def _sent(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a tensor here and send it where it belongs."""

    def made(data: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        found = make(data, dtype=dtype)
        return found if device is None else found.to(device)

    return made


def _inference_mode(mode: bool = True) -> contextlib.AbstractContextManager[Any]:
    return torch.no_grad() if mode else contextlib.nullcontext()


def _new_tensor(like: Tensor, data: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    return torch.tensor(data, dtype=dtype or like.dtype, device=device or like.device)


def main(chapter: str, names: Sequence[str]) -> int:
    """Run experiments there, say what became of each, and return how many failed."""
    failed = 0
    for item in importlib.import_module(f"descent.experiments.{chapter}").EXPERIMENTS:
        if names and item.name not in names:
            continue
        clock = time.perf_counter()
        try:
            with elsewhere():
                perform(item, Lab(replicas=40, device=NAME))
            said = "ok"
        except Exception as fault:
            failed, said = failed + 1, f"{type(fault).__name__}: {fault}"
        print(f"{item.name}: {said} ({time.perf_counter() - clock:.0f} s)", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
