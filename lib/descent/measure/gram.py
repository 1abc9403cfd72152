"""The Gram matrix K = J Jᵀ of a network's outputs with respect to its parameters, without per-example gradients.

J has one row per example and output, so K is (nC, nC), rows example by example; one output gives (n, n). Its spectrum
over n is that of the Gauss–Newton matrix, and much of the geometry of a minimum needs no vector of p parameters.

A dense layer with inputs A (n, a) adds (A Aᵀ + 1) ∘ (D Dᵀ), D (n, d) its output sensitivities from one backward pass
of Σ_i f_i, the 1 for the bias (the "ghost" route; Goodfellow 2015 for norms). A layer applied at P positions, such as a
convolution on patches, sums over pairs of positions, or forms its gradients a few output channels at a time where that
is less work. Which layers a network has is found by hooks, and checked against autograd's own gradient; whatever is not
explained by them goes through torch.func, exactly as well and more slowly.

    K = gram(net, run.params, inputs)          # (R, n, n) for a stack; any nn.Module does, alone too
    blocks(K, len(inputs))                     # (R, n, C, n, C)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Route", "blocks", "gram"]

Leaves = Mapping[str, Tensor]
Route = Literal["ghost", "exact"]
"""How a Gram matrix is found: layer by layer, or from the Jacobian."""

_CHECKED = 16  # examples on which it is checked that the layers explain the gradient
_ROWS = 200  # examples whose products are taken at a time: few enough that they stay in cache until they are used


def gram(
    model: Any,
    params: Leaves | None,
    inputs: Tensor,
    *,
    rows: Tensor | None = None,
    route: Route | None = None,
    budget: int = 1 << 29,
) -> Tensor:
    """Return K (R, nC, nC) of every replica, in the parameters' type.

    model: an nn.Module, or a stack whose `module` (attribute or method) is the module of one replica; params: leaves
    (R, …) by their names there, None for the module's own; inputs (n, …), the same for all replicas, or with rows (D,
    n) those of `Examples`: replica r has inputs[rows[r mod D]]. route: by default "ghost" where it applies, else
    "exact". budget: bytes of working memory beside K and the layers' inputs and sensitivities. rows: which examples
    each draw has.
    Raises: ValueError where outputs of different examples are coupled by batch statistics, or where route="ghost"
    does not apply, with the reason.
    """
    module = _module_of(model)
    _refuse_batch_statistics(module)
    if params is None:
        params = {name: leaf.unsqueeze(0) for name, leaf in module.named_parameters()}
    each = zip(*(leaf.detach() for leaf in params.values()), strict=True)
    stack = [dict(zip(params, one, strict=True)) for one in each]
    kind = next(iter(params.values())).dtype
    x = inputs.to(kind) if rows is None else inputs

    def seen(replica: int) -> Tensor:
        return x if rows is None else x[rows[replica % len(rows)]].to(kind)

    if route != "exact":
        reason = _unexplained(module, stack[0], seen(0)[:_CHECKED])
        if reason and route == "ghost":
            raise ValueError(f'{reason}; leave out route="ghost" to go through torch.func')
        route = "exact" if reason else "ghost"
    one = _exact if route == "exact" else _ghost
    return torch.stack([one(module, leaves, seen(r), budget) for r, leaves in enumerate(stack)])


def blocks(gram: Tensor, examples: int) -> Tensor:
    """Return K (…, nC, nC) as blocks (…, n, C, n, C)."""
    each = gram.shape[-1] // examples
    return gram.reshape(*gram.shape[:-2], examples, each, examples, each)


class _Unexplained(Exception):
    """The layers known here do not account for the whole gradient."""


@dataclass(frozen=True, eq=False)
class _Tap:
    """One call of a layer: what went in, and zeros added to what came out, whose gradient is its sensitivity."""

    layer: nn.Module
    value: Tensor
    probe: Tensor


def _ghost(module: nn.Module, leaves: dict[str, Tensor], inputs: Tensor, budget: int) -> Tensor:
    """Return K (nC, nC) as a sum over layers."""
    with torch.enable_grad():
        taps, outputs = _watch(module, leaves, inputs)
        passes = _gradients(outputs, [tap.probe for tap in taps.values()])
    size = outputs.numel()
    k = inputs.new_zeros(size, size)
    for tap, slopes in zip(taps.values(), passes, strict=True):
        if slopes is not None:
            _PARTS[type(tap.layer)](tap.layer, tap.value, slopes.transpose(0, 1)).add_to(k, budget)
    return k.triu_().add_(k.triu(1).T)  # the layers fill the upper half


def _gradients(outputs: Tensor, targets: list[Tensor]) -> list[Tensor | None]:
    """Return the gradients of Σ_i f_ic in each target, (C, …); None where nothing depends on it."""
    passes = [torch.autograd.grad(c, targets, retain_graph=True, allow_unused=True) for c in outputs.sum(dim=0)]
    found: list[Tensor | None] = []
    for target, parts in zip(targets, zip(*passes, strict=True), strict=True):
        known = [torch.zeros_like(target) if part is None else part for part in parts]
        found.append(None if all(part is None for part in parts) else torch.stack(known))
    return found


def _unexplained(module: nn.Module, leaves: dict[str, Tensor], inputs: Tensor) -> str:
    """Say what the ghost route would miss, or nothing: compare Σ_i ∇f_i as the layers give it with autograd's.

    It tells a parameter of no known layer, and a weight used outside its layer as well, tied to another for example.
    """
    learned = [name for name, _ in module.named_parameters()]
    free = {name: leaf.detach().requires_grad_(name in learned) for name, leaf in leaves.items()}
    try:
        with torch.enable_grad():
            taps, outputs = _watch(module, free, inputs)
            passes = _gradients(outputs, [*(tap.probe for tap in taps.values()), *(free[name] for name in learned)])
        explained: dict[str, Tensor] = {}
        for (prefix, tap), slopes in zip(taps.items(), passes, strict=False):
            if slopes is not None:
                part = _PARTS[type(tap.layer)](tap.layer, tap.value, slopes.transpose(0, 1))
                explained |= {f"{prefix}{name}": total for name, total in part.totals().items()}
    except _Unexplained as reason:
        return str(reason)
    return _difference(explained, dict(zip(learned, passes[len(taps) :], strict=True)))


def _difference(explained: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None]) -> str:
    """Name the first parameter whose gradient (C, …), autograd's, is not the one explained, (C, size)."""
    for name, gradient in gradients.items():
        if gradient is None:
            continue
        if name not in explained:
            return f"parameter {name} belongs to no dense layer, convolution or group norm"
        mine, theirs = explained[name], gradient.flatten(1)
        if float((mine - theirs).norm()) > 1e-3 * float(mine.norm() + theirs.norm()):
            return f"parameter {name} is also used outside its layer"
    return ""


def _watch(module: nn.Module, leaves: Leaves, inputs: Tensor) -> tuple[dict[str, _Tap], Tensor]:
    """Return a tap on every known layer by its prefix, and the outputs (n, C)."""
    taps: dict[str, _Tap] = {}

    def tapped(prefix: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
            if prefix in taps:
                raise _Unexplained(f"layer {prefix[:-1] or type(layer).__name__} is used more than once")
            if len(output) != len(inputs) or len(args[0]) != len(inputs):
                raise _Unexplained(f"layer {prefix[:-1] or type(layer).__name__} does not keep the examples first")
            probe = torch.zeros_like(output, requires_grad=True)
            taps[prefix] = _Tap(layer, args[0].detach(), probe)
            return output + probe

        return hook

    with ExitStack() as stack:
        for name, layer in module.named_modules():
            if type(layer) in _PARTS:
                stack.callback(layer.register_forward_hook(tapped(f"{name}." if name else "")).remove)
        outputs = functional_call(module, dict(leaves), (inputs,))
    return taps, outputs.reshape(len(inputs), -1)


@dataclass(frozen=True, eq=False)
class _Product:
    """A layer whose gradient is Σ_p D_p ⊗ A_p: values A (n, P, a), ones appended for a bias, slopes D (n, C, P, d)."""

    values: Tensor
    slopes: Tensor
    bias: bool

    def totals(self) -> dict[str, Tensor]:
        """Return the gradients of Σ_i f_ic, (C, size) by leaf."""
        full = torch.einsum("ncpd,npa->cda", self.slopes, self.values)
        if not self.bias:
            return {"weight": full.flatten(1)}
        return {"weight": full[..., :-1].flatten(1), "bias": full[..., -1]}

    def add_to(self, k: Tensor, budget: int) -> None:
        """Add the layer's share of K, by whichever way has fewer products."""
        (_, outputs, positions, channels), width = self.slopes.shape, self.values.shape[2]
        pairs = positions**2 * (width + outputs**2 * channels)
        (self._by_pairs if pairs <= outputs**2 * width * channels else self._by_gradients)(k, budget)

    def _by_pairs(self, k: Tensor, budget: int) -> None:
        """K_{ic,je} += Σ_pq (A_ip·A_jq)(D_icp·D_jeq), some examples i at a time, only for those j from i on."""
        n, outputs, positions, _ = self.slopes.shape
        row = (outputs * positions) ** 2 * n * k.element_size()
        step = max(1, min(_ROWS, budget // (3 * row)))
        for i in range(0, n, step):
            some, rest = slice(i, i + step), slice(i, None)
            inner = self.values[some].flatten(0, 1) @ self.values[rest].flatten(0, 1).T
            outer = self.slopes[some].flatten(0, 2) @ self.slopes[rest].flatten(0, 2).T
            into = k[i * outputs : (i + step) * outputs, i * outputs :]
            if outputs == positions == 1:
                into.addcmul_(inner, outer)
                continue
            inner = inner.view(-1, 1, positions, n - i, 1, positions)
            outer = outer.view(-1, outputs, positions, n - i, outputs, positions)
            into += outer.mul_(inner).sum(dim=(2, 5)).view_as(into)

    def _by_gradients(self, k: Tensor, budget: int) -> None:
        """K += g gᵀ with the examples' gradients g (nC, ·) for some output channels at a time."""
        n, outputs, _, channels = self.slopes.shape
        step = max(1, budget // (2 * n * outputs * self.values.shape[2] * k.element_size()))
        for d in range(0, channels, step):
            rows = (self.slopes[..., d : d + step].mT @ self.values.unsqueeze(1)).flatten(2).flatten(0, 1)
            k.addmm_(rows, rows.T)


@dataclass(frozen=True, eq=False)
class _Scale:
    """A scale and a shift per channel: their gradients (n, C, channels), few enough to be formed."""

    scale: Tensor
    shift: Tensor

    def totals(self) -> dict[str, Tensor]:
        """Return the gradients of Σ_i f_ic, (C, channels) by leaf."""
        return {"weight": self.scale.sum(dim=0), "bias": self.shift.sum(dim=0)}

    def add_to(self, k: Tensor, budget: int) -> None:
        """Add the layer's share of K."""
        for rows in (self.scale.flatten(0, 1), self.shift.flatten(0, 1)):
            k.addmm_(rows, rows.T)


def _dense(layer: nn.Module, value: Tensor, slopes: Tensor) -> _Product:
    """Take any axes between the examples and the features as positions."""
    n, outputs = slopes.shape[:2]
    value = value.reshape(n, -1, value.shape[-1])
    return _product(layer, value, slopes.reshape(n, outputs, -1, slopes.shape[-1]))


def _convolution(layer: nn.Module, value: Tensor, slopes: Tensor) -> _Product:
    """Take the patches under the kernel as values, one position each."""
    conv = cast(nn.Conv2d, layer)  # as `_PARTS` has it
    if conv.groups != 1 or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise _Unexplained("a convolution with groups, named padding or padding other than zeros")
    patches = functional.unfold(value, conv.kernel_size, conv.dilation, conv.padding, conv.stride).mT
    return _product(layer, patches, slopes.flatten(3).mT)


def _product(layer: nn.Module, values: Tensor, slopes: Tensor) -> _Product:
    if layer.bias is None:
        return _Product(values, slopes, bias=False)
    return _Product(functional.pad(values, (0, 1), value=1.0), slopes, bias=True)


def _group_norm(layer: nn.Module, value: Tensor, slopes: Tensor) -> _Scale:
    norm = cast(nn.GroupNorm, layer)  # as `_PARTS` has it
    normal = functional.group_norm(value, norm.num_groups, eps=norm.eps).unsqueeze(1)
    return _Scale((slopes * normal).flatten(3).sum(dim=3), slopes.flatten(3).sum(dim=3))


_PARTS: dict[type[nn.Module], Callable[[nn.Module, Tensor, Tensor], _Product | _Scale]] = {
    nn.Linear: _dense,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
}


def _exact(module: nn.Module, leaves: Leaves, inputs: Tensor, budget: int) -> Tensor:
    """Return K (nC, nC) from the Jacobian of one example after the other, in pieces of at most half the budget."""
    learned = {name for name, _ in module.named_parameters()}
    free = {name: leaf for name, leaf in leaves.items() if name in learned}
    fixed = {name: leaf for name, leaf in leaves.items() if name not in learned}

    def outputs(some: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = functional_call(module, some | fixed, (x.unsqueeze(0),))
        return found.reshape(-1)

    def rows(examples: Tensor) -> Tensor:
        parts = vmap(jacrev(outputs), in_dims=(None, 0))(free, examples)
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts.values()], dim=2).flatten(0, 1)

    with torch.no_grad():
        size = rows(inputs[:1]).nbytes
        step = max(1, budget // (2 * size))
        pieces = [inputs[i : i + step] for i in range(0, len(inputs), step)]
        if len(pieces) == 1:
            jacobian = rows(inputs)
            return jacobian @ jacobian.T
        return torch.cat([torch.cat([left @ rows(p).T for p in pieces], dim=1) for left in map(rows, pieces)])


def _module_of(model: Any) -> nn.Module:
    """Return the torch module of one replica; one that has to be built gets no memory for its parameters."""
    if isinstance(model, nn.Module):
        return model
    with torch.device("meta"):
        module = getattr(model, "module", None)
        module = module() if callable(module) and not isinstance(module, nn.Module) else module
    if not isinstance(module, nn.Module):
        raise ValueError(f"a Gram matrix needs an nn.Module or a stack with a `module`, got {type(model).__name__}")
    return module


def _refuse_batch_statistics(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and (part.training or part.running_mean is None):
            raise ValueError(
                f"{name or 'the module'} normalises by the statistics of the batch, so that no example has a gradient "
                "of its own; call eval() with running statistics, or use GroupNorm"
            )
