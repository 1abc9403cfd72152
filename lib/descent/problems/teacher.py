"""Gaussian inputs, labels of a teacher, and a two-layer ReLU student: data without margins to tell apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from descent.engine.probes import Leaves, Params
from descent.engine.streams import Purpose, Streams

__all__ = ["TEACHERS", "Student", "labelled", "student_start"]

NEURONS = 5
"""Neurons of the nonlinear teachers."""

TEACHERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda hidden: hidden[..., 0],
    "ReLU": lambda hidden: torch.relu(hidden[..., :-1]).sum(-1) - torch.relu(hidden[..., 1:]).sum(-1),
    "cubic": lambda hidden: hidden.pow(3).sum(-1),
}
"""Outputs (…, n) from the teacher's hidden values (…, n, 5); the label is their sign."""


@dataclass(frozen=True, eq=False)
class Student:
    """The mean of log(1 + e^(−yf)), f = Σ_k a_k relu(w_k·x), on inputs (R, n, d) with labels ±1 (R, n).

    Params "w" (R, h, d) and "a" (R, h), both trained, on all examples.
    """

    inputs: Tensor
    labels: Tensor

    def gradient(self, params: Params, streams: Streams, step: int) -> Leaves:
        """Return the gradient of the loss."""
        w, a = _leaves(params)
        hidden = torch.bmm(self.inputs, w.mT).relu_()  # (R, n, h)
        slope = -self.labels * torch.sigmoid(-self.labels * _outputs(hidden, a)) / self.labels.shape[1]
        back = (hidden > 0) * a.unsqueeze(1) * slope.unsqueeze(-1)
        return {"w": torch.bmm(back.mT, self.inputs), "a": torch.bmm(slope.unsqueeze(1), hidden).squeeze(1)}

    def value(self, params: Params) -> Tensor:
        """Return the training loss, (R,)."""
        return softplus(-self.labels * self.outputs(params, self.inputs)).mean(-1)

    def outputs(self, params: Params, inputs: Tensor) -> Tensor:
        """Return f on inputs (R, T, d), (R, T)."""
        w, a = _leaves(params)
        return _outputs(torch.bmm(inputs, w.mT).relu_(), a)


def labelled(streams: Streams, teacher: str, examples: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Draw inputs N(0, I) and a teacher per replica; return inputs (R, n, d) and labels ±1 (R, n).

    teacher: its name in TEACHERS.
    """
    inputs = streams.normal(Purpose.DATA, 0, (examples, dimension))
    weights = streams.normal(Purpose.LABEL, 0, (NEURONS, dimension)) / dimension**0.5
    outputs = TEACHERS[teacher](inputs @ weights.mT)
    return inputs, torch.where(outputs > 0, 1.0, -1.0).to(inputs)


def student_start(streams: Streams, hidden: int, dimension: int) -> Leaves:
    """Draw w ~ N(0, 1/d) and a ~ N(0, 1/h).

    hidden: number of hidden units h.
    """
    drawn = streams.normal(Purpose.INIT, 0, (hidden, dimension + 1))
    return {"w": drawn[..., :-1].contiguous() / dimension**0.5, "a": drawn[..., -1].contiguous() / hidden**0.5}


def _outputs(hidden: Tensor, a: Tensor) -> Tensor:
    return torch.bmm(hidden, a.unsqueeze(-1)).squeeze(-1)


def _leaves(params: Params) -> tuple[Tensor, Tensor]:
    if isinstance(params, Tensor):
        raise TypeError('a student has the leaves "w" and "a", got one tensor')
    return params["w"], params["a"]
