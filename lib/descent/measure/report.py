"""What the instruments say about one trained model: gradient noise, curvature, alignment, largest stable step.

    print(measure_model(net, inputs, labels, lr=0.1, momentum=0.9, batch_size=16))                # cross-entropy
    print(measure_model(net, inputs, targets, lr=0.02, momentum=0.9, batch_size=16, factor=1.0))  # square loss

The examples of a batch are drawn from `inputs`. Everything comes from the Gram matrix of the output gradients
(`descent.measure.gram`, `descent.measure.several_outputs`) in float64; nothing is trained and the module is not
changed. The optimizer is torch.optim.SGD without dampening; any other convention is first translated with
`descent.theory.mode.convert`.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from descent.measure.alignment import block_alignment
from descent.measure.gram import blocks, gram
from descent.measure.several_outputs import block_load, block_threshold, cross_entropy, square_loss
from descent.theory.linear import batch_share

__all__ = ["INTERPOLATES", "LARGEST", "Report", "measure_model"]

INTERPOLATES = 0.05
"""Root mean square residual, in units of the targets', below which a model counts as one that fits its data; for class
labels the share of the loss that Newton's step would take, below which it counts as being at a minimum."""

LARGEST = 8000
"""Examples times outputs, the side of the Gram matrix: beyond it memory and time are no longer those of a look."""

FITS = (
    "The residuals are {:.0%} of the targets. Curvature, alignment and stability are those of the Gauss–Newton "
    "matrix:\nthe residuals' own curvature is ignored. Train on, or read the last two lines as a guide only."
)
MOVES = (
    "Newton's step would still take {:.0%} of the loss: there is no minimum here at which a run could stay or not.\n"
    "Where classes are separated there is none at any distance, and curvature falls as the loss does."
)
RESTS = (
    "Curvature and stability are those of the Gauss–Newton matrix: what the outputs' own curvature adds where the\n"
    "loss has slopes left is ignored. It adds nothing for a model that is linear in its parameters."
)


@dataclass(frozen=True)
class Report:
    """What `measure_model` found.

    residual: root mean square of f − y over that of y; right: share of examples whose label has the largest output;
    to_gain: share of the loss that Newton's step by the Gauss–Newton matrix would take. gradient: |∇L|;
    gradient_noise: C² = E|∇f_i − ∇L|² of one example; batch_noise: E|ξ|² of one batch; sharpness: largest eigenvalue of
    the Gauss–Newton matrix of the loss; alignment: its loss alignment with the centred noise, times the number of
    outputs, 1 where noise and curvature are unrelated; largest_lr: lr at which E|x|² ceases to be bounded at this batch
    size and momentum; noiseless_lr: the same for full batches, 2(1 + momentum)/sharpness; load: Λ at the lr used,
    stable below 1. What is not defined is not a number: residual of labels, right of numbers, alignment without
    residuals and of labels, largest_lr and load of labels away from a minimum.
    """

    examples: int
    outputs: int  # how many numbers the model returns
    parameters: int  # how many numbers are trained
    lr: float
    momentum: float
    batch_size: int
    loss: float
    residual: float
    right: float
    to_gain: float
    gradient: float
    gradient_noise: float
    batch_noise: float
    sharpness: float
    alignment: float
    largest_lr: float
    noiseless_lr: float
    load: float

    @property
    def labels(self) -> bool:
        """Whether the loss is the cross-entropy of class labels, and not the square loss of numbers."""
        return not math.isnan(self.right)

    @property
    def caveat(self) -> str:
        """What must be known before the numbers are used; empty where the model fits its data."""
        if self.labels:
            return MOVES.format(min(self.to_gain, 1.0)) if math.isnan(self.load) else RESTS
        return "" if self.residual <= INTERPOLATES else FITS.format(self.residual)

    def __str__(self) -> str:
        """Return one line per quantity."""
        each, batch = math.sqrt(self.gradient_noise), math.sqrt(self.batch_noise)
        fit = (
            f"{self.right:.0%} of the labels right" if self.labels else f"residuals {self.residual:.2g} of the targets"
        )
        rows = {
            "model": f"{self.parameters} parameters, {self.examples} examples"
            + (f", {self.outputs} outputs" if self.outputs > 1 else ""),
            "loss": f"{self.loss:.2g}, {fit}",
            "gradient": f"{self.gradient:.2g}",
            "noise of a batch": f"{batch:.2g}, of one example {each:.2g}",
            "sharpness": f"{self.sharpness:.3g}",
            "loss alignment": "undefined without residuals" if math.isnan(self.alignment) else f"{self.alignment:.2f}",
            "largest stable lr": f"{_said(self.largest_lr, '.3g')}, with full batches {self.noiseless_lr:.3g}",
            f"load at lr {self.lr:g}": f"{_said(self.load, '.2g')}, {_stays(self.load)}",
        }
        if self.labels:
            del rows["loss alignment"]
        lines = [f"{name:<20}{value}" for name, value in rows.items()]
        return "\n".join([*lines, *([self.caveat] if self.caveat else [])])


def _said(value: float, form: str) -> str:
    return "undefined" if math.isnan(value) else format(value, form)


def _stays(load: float) -> str:
    if math.isnan(load):
        return "no minimum to stay at"
    return "stable" if load < 1 else "not stable"


def measure_model(
    module: nn.Module,
    inputs: Tensor | ArrayLike,
    targets: Tensor | ArrayLike,
    *,
    lr: float,
    momentum: float = 0.0,
    batch_size: int = 1,
    factor: float = 0.5,
    replacement: bool = True,
) -> Report:
    """Measure a trained model on its data: what its loss, noise and curvature are, and which steps it can take.

    Whole numbers (n,) as targets of several outputs are class labels, and the loss is that of nn.CrossEntropyLoss;
    any other targets, (n,) or shaped like the outputs, are numbers, and the loss is factor·mean (f − y)².

    module: the trained module, in eval mode where that matters; inputs: (n, …), tensor or array, tokens where the
    module embeds them; targets: labels (n,), or numbers (n,) or (n, C); lr, momentum: of torch.optim.SGD without
    dampening; batch_size: examples of one step; factor: of the square loss, 1 for nn.MSELoss; replacement: whether
    batches are drawn with replacement, independently of each other.
    Raises: ValueError where the model or the numbers cannot be measured, saying why and what to do.

    >>> net, x = nn.Linear(2, 1, bias=False).double(), [[1.0, 0.0], [0.0, 2.0]]
    >>> found = measure_model(net, x, net(torch.tensor(x).double()), lr=0.1)
    >>> print(f"sharpness {found.sharpness:.2f}, largest stable lr {found.largest_lr:.2f}")
    sharpness 2.00, largest stable lr 0.50
    """
    _check_numbers(lr, momentum, batch_size, factor)
    _check_module(module)
    module, x, y = _brought(module, inputs, targets)
    outputs = _outputs(module, x)
    n, count = outputs.shape
    labels = _are_labels(outputs, y)
    view = cross_entropy(outputs, y) if labels else square_loss(outputs, _numbers(outputs, y), factor)
    k = view.seen(gram(module, None, x)[0])
    share = _share(batch_size, n, replacement)
    sharpness, to_gain = _sharpness(k, n), view.to_gain(k)
    gradient, noise = _moments(k, view.residuals)
    moving = labels and to_gain > INTERPOLATES
    return Report(
        examples=n, outputs=count, parameters=sum(leaf.numel() for leaf in module.parameters()),
        lr=lr, momentum=momentum, batch_size=batch_size, loss=float(view.losses.mean()),
        residual=math.nan if labels else float((outputs - _numbers(outputs, y)).norm() / y.norm()),
        right=float((outputs.argmax(dim=1) == y).double().mean()) if labels else math.nan, to_gain=to_gain,
        gradient=math.sqrt(gradient), gradient_noise=noise, batch_noise=share * noise,
        sharpness=sharpness, alignment=math.nan if labels else _alignment(k, view.residuals),
        largest_lr=math.nan if moving else block_threshold(k, count, momentum, share=share),
        noiseless_lr=2 * (1 + momentum) / sharpness,
        load=math.nan if moving else block_load(k, count, lr, momentum, share=share),
    )  # fmt: skip


class _Tokens(nn.Module):
    """A module that embeds its inputs: the instruments hand on real numbers, it is given whole ones."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.module(inputs.long())
        return found


def _brought(
    module: nn.Module, inputs: Tensor | ArrayLike, targets: Tensor | ArrayLike
) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a copy of the module, inputs and targets in float64 on the module's device; labels stay whole."""
    where = next((leaf.device for leaf in module.parameters()), torch.device("cpu"))
    x, y = (torch.as_tensor(given).detach().to(where) for given in (inputs, targets))
    module = deepcopy(module).double()
    tokens = any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in module.modules())
    y = y.double() if y.is_floating_point() else y.long()
    return (_Tokens(module) if tokens and not x.is_floating_point() else module), x.double(), y


def _outputs(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs of every example, (n, C)."""
    n = len(inputs)
    with torch.no_grad():
        found: Tensor = module(inputs)
    if found.ndim not in (1, 2) or len(found) != n:
        raise ValueError(
            f"the module returns {tuple(found.shape)} for {n} inputs, not one row of outputs per example, (n,) or "
            "(n, C); of a sequence measure one position, through a module that returns outputs[:, -1]"
        )
    found = found.reshape(n, -1)
    if found.numel() > LARGEST:
        raise ValueError(
            f"{n} examples of {found.shape[1]} outputs make a Gram matrix of {found.numel()} rows, above {LARGEST}; "
            f"pass a random subset of at most {LARGEST // found.shape[1]} examples"
        )
    _check_finite("outputs", found)
    return found


def _are_labels(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether the targets are class labels: whole numbers (n,) beside several outputs."""
    n, count = outputs.shape
    if len(targets) != n:
        raise ValueError(f"targets: {len(targets)} of them for {n} inputs; pass one per example")
    if count == 1 or targets.is_floating_point() or targets.shape != (n,):
        return False
    if not bool(((targets >= 0) & (targets < count)).all()):
        raise ValueError(
            f"targets: class labels of {count} outputs are 0 … {count - 1}, got {int(targets.min())} to "
            f"{int(targets.max())}; count the classes from 0"
        )
    return True


def _numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return targets of the square loss, (n, C)."""
    n, count = outputs.shape
    if targets.numel() != outputs.numel():
        raise ValueError(
            f"targets are {tuple(targets.shape)} for outputs {tuple(outputs.shape)}; for the square loss pass "
            "numbers of the same shape, for the cross-entropy class labels, whole numbers (n,)"
        )
    _check_finite("targets", targets.reshape(n, count))
    if not bool(targets.any()):
        raise ValueError("targets: all are 0, so that no residual can be judged against them; pass those trained on")
    return targets.reshape(n, count).double()


def _check_finite(name: str, values: Tensor) -> None:
    bad = int((~values.isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(values)} {name} are not finite; measure a run before it diverges")


def _share(batch_size: int, examples: int, replacement: bool) -> float:
    """Return the part of one example's noise that a batch keeps."""
    if batch_size > examples and not replacement:
        raise ValueError(f"a batch of {batch_size} out of {examples} examples: no more without replacement")
    return float(batch_share(batch_size, None if replacement else examples))


def _moments(k: Tensor, residuals: Tensor) -> tuple[float, float]:
    """Return |∇L|² = tᵀKt/n² and C² = Σ t_iᵀK_ii t_i/n − |∇L|², t the residuals (n, C)."""
    n, t = len(residuals), residuals.flatten()
    own = torch.einsum("icid->icd", blocks(k, n))
    gradient = float(t @ k @ t) / n**2
    each = float(torch.einsum("ic,icd,id->", residuals, own, residuals)) / n
    return max(gradient, 0.0), max(each - gradient, 0.0)


def _alignment(k: Tensor, residuals: Tensor) -> float:
    """Return C times the centred loss alignment of the square loss with C outputs."""
    n, count = residuals.shape
    power = residuals.square().sum(dim=1).mean()
    mean = (k @ residuals.flatten()).square().sum() / n / (power * k.square().sum())
    return count * float(block_alignment(blocks(k, n), residuals) - mean)


def _sharpness(k: Tensor, examples: int) -> float:
    found = float(torch.linalg.eigvalsh(k)[-1]) / examples
    if not found > 0:
        raise ValueError(
            "no output depends on a parameter at these inputs: each unit is dead, or the output constant; "
            "measure another initialisation"
        )
    return found


def _check_module(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if part.training and isinstance(part, _BatchNorm | _DropoutNd):
            raise ValueError(
                f"layer {name or '(the module itself)'} ({type(part).__name__}) is in training mode: "
                "outputs depend on the batch or on chance; call module.eval() first"
            )
    frozen = [name for name, leaf in module.named_parameters() if not leaf.requires_grad]
    if frozen:
        raise ValueError(
            f"parameter {frozen[0]} is frozen, but every parameter is counted as trained; pass the "
            "trained part as the module, and what the frozen part makes of the data as inputs"
        )


def _check_numbers(lr: float, momentum: float, batch_size: int, factor: float) -> None:
    for name, value in (("lr", lr), ("factor", factor)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, got {value}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    if batch_size < 1:
        raise ValueError(
            f"batch_size must be at least 1, got {batch_size}; for full batches pass len(inputs) with replacement=False"
        )
