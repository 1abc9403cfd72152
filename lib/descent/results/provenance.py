"""Under which conditions a result was made; no host names, no paths, and nothing that names a person."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from descent import dispatch
from descent.results.digests import library_digest

if TYPE_CHECKING:
    import torch

__all__ = ["NIGHT", "Provenance", "joined", "provenance"]

NIGHT = "night"
"""The scale at which what is stated for paper scale alone is measured on two cores, unit by unit."""
SCALES = ("cpu", "gpu", NIGHT)
AND = " and "  # between the conditions of several places


@dataclass(frozen=True)
class Provenance:
    """The conditions of a run.

    device_class: "cpu", or the accelerator's model name; instructions: operating system, processor (maker, family,
    model) and kernels, which decide the last digits, see `dispatch`; matmul, convolution: float32 precision as torch
    names it; library: digest of the source that ran; date: day of the run, outside every hash and comparison.
    """

    scale: str
    device_class: str
    dtype: str
    threads: int  # how many torch used
    instructions: str
    matmul: str
    convolution: str
    python: str  # its version
    torch: str  # its version
    numpy: str  # its version
    seed: int
    replicas: int
    library: str
    date: str = field(compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """What the last digits of a number hang on, beside the code that computes it."""
        return (
            self.device_class,
            self.instructions,
            str(self.threads),
            self.python,
            self.torch,
            self.numpy,
            self.matmul,
            self.convolution,
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Provenance:
        """Read what to_json wrote; raise ValueError for missing or unknown fields."""
        expected = {item.name for item in fields(cls)}
        if set(content) != expected:
            raise ValueError(
                f"provenance: fields {sorted(expected ^ set(content))} are missing or unknown; "
                "was the file written by another version of the library?"
            )
        return cls(**content)


def provenance(
    scale: str,
    device: str | torch.device,
    seed: int,
    replicas: int,
    *,
    modules: Iterable[str],
    dtype: torch.dtype | str | None = None,
) -> Provenance:
    """Record the present conditions; `modules` (with all they import) is the source that runs.

    dtype: that of the training runs, torch's default if not given.
    Raises: ValueError for an unknown scale, an absent device, or a module without source.
    """
    import torch

    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    return Provenance(
        scale=scale, device_class=device_class(device),
        dtype=str(dtype or torch.get_default_dtype()).removeprefix("torch."),
        threads=torch.get_num_threads(), instructions=_instructions(torch.backends.cpu.get_cpu_capability()),
        matmul=torch.get_float32_matmul_precision(),
        convolution=torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        python=platform.python_version(), torch=str(torch.__version__), numpy=np.__version__,
        seed=seed, replicas=replicas, library=library_digest(modules),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip


def joined(several: Sequence[Provenance]) -> Provenance:
    """Return the conditions of what was made in several places: where they differ each is named once.

    several: the conditions, one per place, which may be joined themselves.
    """
    first = several[0]
    texts = [item.name for item in fields(first) if isinstance(getattr(first, item.name), str) and item.name != "date"]
    named = {name: {one for made in several for one in getattr(made, name).split(AND)} for name in texts}
    words: dict[str, Any] = {name: AND.join(sorted(found)) for name, found in named.items()}
    return replace(first, date=max(made.date for made in several), **words)


def device_class(device: str | torch.device) -> str:
    """Return "cpu", or the model name of an accelerator."""
    import torch

    kind = torch.device(device)
    if kind.type != "cuda":
        return kind.type
    if not torch.cuda.is_available():
        raise ValueError(f'device {str(device)!r} is not available here: use device="cpu"')
    return torch.cuda.get_device_name(kind)


def _instructions(capability: str) -> str:
    return f"{platform.system()} {platform.machine()}, {dispatch.processor()}, {dispatch.kernels(capability)} kernels"
