"""In which arithmetic the products of a training step are computed, and whether the step is compiled.

"float32" means 24 bits throughout: an accelerator computes the convolutions of float32 numbers with 11 bits unless it
is told not to. "tf32" tells it to do so, in products as well. "bf16" computes the network in bfloat16 (8 bits), by
autocast; parameters, momentum, gradients of parameters, the loss and every mean stay float32. On a CPU "tf32" is
float32.

    with arithmetic("float32", device):      # whatever is measured here is measured in full precision
        top = top_eigenpairs(hessian(objective, params), 1, streams)
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from descent.engine.probes import Leaves

__all__ = ["PRECISIONS", "TOLERANCE", "Compiled", "Precision", "arithmetic", "autocast", "compiled", "gradients"]

Precision = Literal["float32", "tf32", "bf16"]
"""In which type products of matrices are taken."""

PRECISIONS: tuple[str, ...] = get_args(Precision)
"""All of them."""

TOLERANCE = 1e-4
"""How far from the float32 gradient a compiled one may lie, relative, beyond twice where the plain one lies.

In the median replica, because a ReLU whose input lies within rounding of zero may open in one and not in the other.
"""

Outcome = Callable[[Leaves, Tensor, Tensor], Tensor]
"""The sum over replicas of the mean loss, from parameters, inputs and targets."""


@contextlib.contextmanager
def arithmetic(precision: Precision, device: torch.device | str) -> Iterator[None]:
    """Set how an accelerator multiplies float32 numbers, and put it back afterwards; elsewhere do nothing."""
    if torch.device(device).type != "cuda":
        yield
        return
    before = _flags()
    try:
        _set_flags((precision == "tf32",) * 2)
        yield
    finally:
        _set_flags(before)


def autocast(precision: Precision, device: torch.device | str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a forward pass runs at that precision."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def gradients(total: Outcome, params: Leaves, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient of `total` by every leaf, in the order of the leaves.

    total: the function, a sum over replicas of means over a batch; one that has `parts(params, inputs)` says in how
    many parts the batch is taken.
    """
    parts = getattr(total, "parts", None)
    count = 1 if parts is None else parts(params, inputs)
    if count == 1:
        return _gradients(total, params, inputs, targets)
    found = [torch.zeros_like(leaf) for leaf in params.values()]
    for some, theirs in zip(inputs.tensor_split(count, dim=1), targets.tensor_split(count, dim=1), strict=True):
        share = some.shape[1] / inputs.shape[1]
        for whole, part in zip(found, _gradients(total, params, some, theirs), strict=True):
            whole.add_(part, alpha=share)
    return tuple(found)


def _gradients(total: Outcome, params: Leaves, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    free = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
    with torch.enable_grad():
        found = total(free, inputs, targets)
    return torch.autograd.grad(found, list(free.values()))


class Compiled:
    """`gradients` of `total` with its forward and backward pass compiled, one program per shape.

    The first call of a shape is compared with `exact`, the same function in float32: RuntimeError beyond TOLERANCE.
    What cannot be compiled goes on uncompiled, with a warning.

    total: the function whose gradient is taken, a sum over replicas; exact: the same one in float32.
    """

    def __init__(self, total: Outcome, exact: Outcome) -> None:
        self.plain, self.exact, self.failed = total, exact, False
        self.checked: set[tuple[object, ...]] = set()
        self.program: Outcome | None = None

    def __call__(self, params: Leaves, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient by every leaf; the next call may overwrite it."""
        if self.failed:
            return gradients(self.plain, params, inputs, targets)
        shape = (*inputs.shape, inputs.dtype, str(inputs.device))
        if shape in self.checked:
            return self._run(params, inputs, targets)
        plain = gradients(self.plain, params, inputs, targets)
        with arithmetic("float32", inputs.device):
            exact = gradients(self.exact, params, inputs, targets)
        try:
            found = self._run(params, inputs, targets)
        except Exception as fault:  # a missing compiler has as many faces as there are systems
            self.failed = True
            warnings.warn(
                f"the training step of inputs {tuple(inputs.shape)} could not be compiled and goes on "
                f"uncompiled ({type(fault).__name__}: {str(fault).partition(chr(10))[0][:200]}); "
                "install a C++ compiler, or leave `compiled` off",
                stacklevel=2,
            )
            return plain
        allowed, reached = 2 * _apart(plain, exact) + TOLERANCE, _apart(found, exact)
        if not reached <= allowed:
            raise RuntimeError(
                f"the compiled gradient of inputs {tuple(inputs.shape)} lies {reached:.1e} of its "
                f"length from the float32 one (allowed: {allowed:.1e}); pass compiled=False, and report "
                "the torch version"
            )
        self.checked.add(shape)
        return found

    def _run(self, params: Leaves, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        cuda = inputs.device.type == "cuda"
        if self.program is None:
            self.program = _compile(self.plain, "reduce-overhead" if cuda else "default")
        if cuda:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with torch._dynamo.config.patch(recompile_limit=64):
            return gradients(self.program, params, inputs, targets)


@functools.lru_cache(maxsize=64)
def compiled(make: Callable[[Any, Any, Precision], Outcome], model: Any, loss: Any, precision: Precision) -> Compiled:
    """Return the compiled gradients of make(model, loss, precision), the same object for the same arguments.

    make: from model, loss and precision to the function whose gradient is taken.
    """
    return Compiled(make(model, loss, precision), make(model, loss, "float32"))


def _compile(total: Outcome, mode: str) -> Outcome:
    program: Outcome = torch.compile(total, dynamic=False, mode=mode)
    return program


def _apart(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """Return the distance of two gradients over the length of the second, in the median replica."""
    pairs = [(a.flatten(1).double(), b.flatten(1).double()) for a, b in zip(found, exact, strict=True)]
    wrong = torch.stack([(a - b).square().sum(1) for a, b in pairs]).sum(0)
    size = torch.stack([b.square().sum(1) for _, b in pairs]).sum(0)
    return float((wrong / size.clamp_min(1e-30)).sqrt().median())


def _flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def _set_flags(flags: tuple[bool, bool]) -> None:
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
