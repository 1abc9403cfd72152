"""What the instruments say about one trained model: gradient noise, curvature, alignment, largest stable step.

    print(measure_model(net, inputs, targets, lr=0.02, momentum=0.9, batch_size=16, factor=1.0))

One output, the loss factor·mean (f − y)², and the examples of a batch drawn from `inputs`. Everything comes from the
Gram matrix of the output gradients (`descent.measure.gram`) in float64; nothing is trained and the module is not
changed. The optimizer is torch.optim.SGD without dampening; any other convention is first translated with
`descent.theory.mode.convert`.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from descent.measure.alignment import loss_alignment, trace_of_noise
from descent.measure.gram import gram
from descent.measure.stability import leading, threshold
from descent.theory.linear import batch_share, gram_rows, mean_square_load

__all__ = ["INTERPOLATES", "Report", "measure_model"]

INTERPOLATES = 0.05
"""Root mean square residual, in units of the targets', below which a model counts as one that fits its data."""

CAVEAT = (
    "The residuals are {:.0%} of the targets. Curvature, alignment and stability are those of the Gauss–Newton "
    "matrix:\nthe residuals' own curvature is ignored. Train on, or read the last two lines as a guide only."
)


@dataclass(frozen=True)
class Report:
    """What `measure_model` found.

    residual: root mean square of f − y over that of y; gradient: |∇L|; gradient_noise: C² = E|∇f_i − ∇L|² of one
    example; batch_noise: E|ξ|² of one batch; sharpness: largest eigenvalue of the Gauss–Newton matrix of the loss;
    alignment: its loss alignment with the centred noise, 1 where noise and curvature are unrelated, not a number
    without residuals; largest_lr: lr at which E|x|² ceases to be bounded at this batch size and momentum;
    noiseless_lr: the same for full batches, 2(1 + momentum)/sharpness; load: Λ at the lr used, stable below 1.
    """

    examples: int
    parameters: int
    lr: float
    momentum: float
    batch_size: int
    loss: float
    residual: float
    gradient: float
    gradient_noise: float
    batch_noise: float
    sharpness: float
    alignment: float
    largest_lr: float
    noiseless_lr: float
    load: float

    @property
    def caveat(self) -> str:
        """What must be known before the numbers are used; empty where the model fits its data."""
        return "" if self.residual <= INTERPOLATES else CAVEAT.format(self.residual)

    def __str__(self) -> str:
        """Return one line per quantity."""
        each, batch = math.sqrt(self.gradient_noise), math.sqrt(self.batch_noise)
        rows = {
            "model": f"{self.parameters} parameters, {self.examples} examples",
            "loss": f"{self.loss:.2g}, residuals {self.residual:.2g} of the targets",
            "gradient": f"{self.gradient:.2g}",
            "noise of a batch": f"{batch:.2g}, of one example {each:.2g}",
            "sharpness": f"{self.sharpness:.3g}",
            "loss alignment": "undefined without residuals" if math.isnan(self.alignment) else f"{self.alignment:.2f}",
            "largest stable lr": f"{self.largest_lr:.3g}, with full batches {self.noiseless_lr:.3g}",
            f"load at lr {self.lr:g}": f"{self.load:.2g}, {'stable' if self.load < 1 else 'not stable'}",
        }
        lines = [f"{name:<20}{value}" for name, value in rows.items()]
        return "\n".join([*lines, *([self.caveat] if self.caveat else [])])


def measure_model(
    module: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    lr: float,
    momentum: float = 0.0,
    batch_size: int = 1,
    factor: float = 0.5,
    replacement: bool = True,
) -> Report:
    """Measure a trained model of one output on its data, (n, …) and (n,) or (n, 1).

    lr, momentum: of torch.optim.SGD without dampening; factor: of the loss factor·mean (f − y)², 1 for nn.MSELoss;
    replacement: whether batches are drawn with replacement, independently of each other.
    Raises: ValueError where the model or the numbers cannot be measured, saying why and what to do.
    """
    _check_numbers(lr, momentum, batch_size, factor)
    _check_module(module)
    module = deepcopy(module).double()
    x, y = inputs.detach().double(), targets.detach().double().flatten()
    misfit = _outputs(module, x, y) - y
    # A loss of curvature 2·factor in its output, brought to half the mean square.
    k, r = 2 * factor * gram(module, None, x), math.sqrt(2 * factor) * misfit
    sharpness = _sharpness(k)
    gradient, noise = _moments(k[0], r)
    share = float(batch_share(batch_size, None if replacement else len(y)))
    return Report(
        examples=len(y), parameters=sum(leaf.numel() for leaf in module.parameters()),
        lr=lr, momentum=momentum, batch_size=batch_size,
        loss=float(r.square().mean()) / 2, residual=float(misfit.norm() / y.norm()),
        gradient=math.sqrt(gradient), gradient_noise=noise, batch_noise=share * noise,
        sharpness=sharpness, alignment=float(loss_alignment(k[0], r).centred),
        largest_lr=float(threshold(k, batch_size, momentum, replacement=replacement)),
        noiseless_lr=2 * (1 + momentum) / sharpness,
        load=mean_square_load(gram_rows(k[0].cpu().numpy()), lr, momentum, share),
    )  # fmt: skip


def _moments(k: Tensor, r: Tensor) -> tuple[float, float]:
    """Return |∇L|² = rᵀKr/n² and C² = Σ r²K_ii/n − |∇L|² of the loss Σ r²/2n."""
    return max(float(r @ k @ r) / len(r) ** 2, 0.0), max(float(trace_of_noise(k, r)), 0.0)


def _sharpness(k: Tensor) -> float:
    found = float(leading(k).sharpness)
    if not found > 0:
        raise ValueError(
            "no output depends on a parameter at these inputs: each unit is dead, or the output constant; "
            "measure another initialisation"
        )
    return found


def _outputs(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the one output of every example, (n,)."""
    n = len(inputs)
    if len(targets) != n:
        raise ValueError(f"targets: {len(targets)} numbers for {n} inputs; pass one target per example, (n,) or (n, 1)")
    with torch.no_grad():
        found: Tensor = module(inputs)
    if found.shape not in ((n,), (n, 1)):
        raise ValueError(
            f"the module returns {tuple(found.shape)} for {n} inputs, not one number per example; "
            "of several outputs measure one at a time, through a module that returns outputs[:, :1]"
        )
    for name, values in (("outputs", found), ("targets", targets)):
        bad = int((~values.isfinite()).sum())
        if bad:
            raise ValueError(f"{bad} of {n} {name} are not finite; measure a run before it diverges")
    if not bool(targets.any()):
        raise ValueError("targets: all are 0, so that no residual can be judged against them; pass those trained on")
    return found.flatten()


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
