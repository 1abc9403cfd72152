"""All eigenvalues above a level, for every replica at once, followed along a run from the eigenvectors found last.

At its edge a run has one eigenvalue near 2(1 + β)/lr, later several: which of them are above a fraction of it, and how
many? Here nobody says beforehand how many there are. From an orthonormal basis V the pairs are those of VᵀAV; the basis
grows by the residual of the worst pair that is wanted, one product each, until all above the level have converged and
the next one below is known to be below. It begins with the eigenvectors of the last look: a Hessian that has moved
little needs few products more than it has eigenvalues there. From nothing it is Lanczos, product for product.

    found = eigenpairs_above(hessian(objective, params), 0.5 * 2 / lr, streams)
    found.count, found.values                           # (R,), and (R, K) with NaN where a replica has fewer
    edge = EdgeSpectrum(objective, hyper, streams, every=20)
    train(objective, params, hyper, steps, streams, probes={"edge": edge}).records["edge.values"]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from descent.engine.probes import Leaves
from descent.engine.rules import Hyper
from descent.engine.streams import Purpose, Streams
from descent.measure.curvature import hessian
from descent.measure.operators import Operator
from descent.nets.supervised import Supervised

__all__ = ["Above", "EdgeSpectrum", "eigenpairs_above"]

_BELOW = 0.05  # residual asked of the first eigenvalue below the level, in units of itself
_GUARDS = 3 << 20  # starts are numbered from here, apart from the draws of other instruments at the same step


@dataclass(frozen=True, eq=False)
class Above:
    """Eigenvalues above the level in falling order (R, K), NaN beyond a replica's `count` (R,), and their vectors.

    vectors (R, K, p) are zero where values are NaN. converged (R,): every residual ‖A v − λ v‖ is at most tolerance·|λ|
    and the first eigenvalue below the level is known to be below it. basis (R, m, p): what to start from next time.
    products: vectors multiplied, per replica.
    """

    values: Tensor
    vectors: Tensor  # the unit eigenvectors
    count: Tensor
    converged: Tensor
    basis: Tensor
    products: int


def eigenpairs_above(
    operator: Operator,
    level: float | Tensor,
    streams: Streams,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    most: int = 20,
    products: int = 300,
    step: int = 0,
) -> Above:
    """Find every eigenpair above `level`, one number or (R,), but no more than the `most` largest.

    start: (R, m, p) to begin with, the `basis` of an earlier look; a random vector is always added, so that an
    eigenvalue that has come up unseen is found. It ends after `products` in any case. Of a multiple eigenvalue one copy
    may be all that is found.

    Raises: ValueError for streams of another number of replicas, or a start of another shape.
    """
    shape = (operator.replicas, operator.size)
    if streams.replicas != shape[0]:
        raise ValueError(f"the operator has {shape[0]} replicas and the streams {streams.replicas}")
    if start is not None and (start.ndim != 3 or (start.shape[0], start.shape[2]) != shape):
        raise ValueError(f"start must be ({shape[0]}, m, {shape[1]}), got {tuple(start.shape)}")
    space = _Space(operator, streams, step)
    levels = torch.as_tensor(level, dtype=operator.dtype, device=operator.device).expand(shape[0])
    wanted = (levels, tolerance, most)
    settled = space.grown(lambda: space.begin(start), *wanted)
    while not settled and space.size < min(products, shape[1]):
        settled = space.grown(lambda: space.add(space.worst()), *wanted)
    return space.found(most)


class _Space:
    """An orthonormal basis V (R, m, p), its products AV, and the Ritz pairs of VᵀAV in falling order.

    Tensors are replaced and never changed, so that an earlier state is the old references.
    """

    values: Tensor  # (R, m)
    vectors: Tensor  # (R, m, p)
    residuals: Tensor  # (R, m, p)
    above: Tensor  # (R, m): over the level, and among the most that are asked for
    open: Tensor  # (R, m): norms of the residuals that are still too large
    settled: Tensor  # (R,)

    def __init__(self, operator: Operator, streams: Streams, step: int) -> None:
        self.operator, self.streams, self.step, self.size = operator, streams, step, 0
        like = next(iter(operator.like.values()))
        self.basis = self.images = like.new_empty(operator.replicas, 0, operator.size)
        self.asking = operator.device.type == "cpu"
        self.weak = torch.zeros(operator.replicas, dtype=torch.bool, device=operator.device)

    def grown(self, grow: Callable[[], None], levels: Tensor, tolerance: float, most: int) -> bool:
        """Let the space grow, solve it, and tell whether everyone is settled.

        A device is asked once, at the end. Where it then says that a vector had nothing to add, which is rare, the
        space grows again from what it was, with a question at every vector.
        """
        before = dict(vars(self))
        grow()
        self.solve(levels, tolerance, most)
        if self.asking:
            return bool(self.settled.all())
        settled, weak = torch.stack([self.settled.all(), self.weak.any()]).tolist()
        if weak:
            vars(self).update(before, asking=True)
            settled = self.grown(grow, levels, tolerance, most)
            self.asking = False
        return bool(settled)

    def begin(self, start: Tensor | None) -> None:
        """Add the vectors (R, m, p) to start from, and a random one."""
        for vector in () if start is None else start.unbind(1):
            self.add(vector)
        self.add(self.draw())

    def draw(self) -> Tensor:
        """Draw a vector (R, p), another one at every size."""
        number = self.step + ((_GUARDS + self.size) << 32)
        return self.streams.normal(Purpose.PROBE, number, (self.operator.size,)).to(self.basis)

    def add(self, vector: Tensor) -> None:
        """Add what of a vector (R, p) lies outside the space, or of a random one if nothing does, and multiply it."""
        left = self._outside(vector)
        weak = left.norm(dim=1) <= 1e-7 * vector.norm(dim=1).clamp_min(1e-30)
        if not self.asking:
            self.weak = self.weak | weak
        elif bool(weak.any()):
            left = torch.where(weak.unsqueeze(1), self._outside(self.draw()), left)
        unit = torch.nn.functional.normalize(left, dim=1)
        self.basis = torch.cat([self.basis, unit.unsqueeze(1)], dim=1)
        self.images = torch.cat([self.images, self.operator(unit).unsqueeze(1)], dim=1)
        self.size += 1

    def solve(self, levels: Tensor, tolerance: float, most: int) -> None:
        """Solve VᵀAV, and tell who needs no further products: pairs above the level and the first one below."""
        projected = self.basis @ self.images.mT
        values, inside = torch.linalg.eigh((projected + projected.mT) / 2)
        self.values, inside = values.flip(1), inside.flip(2).mT
        self.vectors, images = inside @ self.basis, inside @ self.images
        self.residuals = images - self.values.unsqueeze(2) * self.vectors
        norms = self.residuals.norm(dim=2)
        self.above = self.values > levels.unsqueeze(1)
        self.above[:, most:] = False
        first_below = self.above.sum(dim=1, keepdim=True) == torch.arange(self.size, device=levels.device)
        loose = torch.maximum(_BELOW * self.values.abs(), 1e-6 * levels.abs().unsqueeze(1))
        done = norms <= torch.where(self.above, tolerance * self.values.abs(), loose)
        wanted = (self.above | first_below) & (torch.arange(self.size, device=levels.device) < most)
        self.open = torch.where(wanted & ~done, norms, 0.0)
        self.settled = ~(wanted & ~done).any(dim=1) & ~(self.above.all(dim=1) & (self.size < most))

    def worst(self) -> Tensor:
        """Return the largest residual (R, p) among the pairs still wanted."""
        place = self.open.argmax(dim=1)
        return self.residuals[torch.arange(len(place), device=place.device), place]

    def found(self, most: int) -> Above:
        """Return the pairs above the level."""
        count = self.above.sum(dim=1)
        width = int(count.max())
        kept = self.above[:, :width]
        values = torch.where(kept, self.values[:, :width], torch.nan)
        vectors = torch.where(kept.unsqueeze(2), self.vectors[:, :width], 0.0)
        basis = self.vectors[:, : min(width + 1, self.size)]  # the first below may be the next above
        return Above(values, vectors, count, self.settled, basis, self.size)

    def _outside(self, vector: Tensor) -> Tensor:
        """Take out of a vector (R, p) what lies in the space, twice: what is left may be what round-off put back."""
        for _ in range(2):
            inside = torch.bmm(self.basis, vector.unsqueeze(2))
            vector = vector - torch.bmm(self.basis.mT, inside).squeeze(2)
        return vector


@dataclass(eq=False)
class EdgeSpectrum:
    """A probe of the Hessian's eigenvalues above a fraction of the edge 2(1 + β)/lr of heavy ball on full batches.

    Recorded: "values" (R, most), in units of the edge, NaN beyond those there are; "count" (R,), `most` where there may
    be more; "products". It keeps the eigenvectors of its last look, from which the next one starts; what it finds
    depends on them within `tolerance` only. Use a new one for every run.
    """

    objective: Supervised
    hyper: Hyper
    streams: Streams
    every: int
    fraction: float = 0.5  # of the edge, above which eigenvalues are recorded
    most: int = 10
    tolerance: float = 1e-3
    _start: Tensor | None = field(default=None, init=False, repr=False)

    def __call__(self, step: int, params: Leaves, velocity: Leaves) -> dict[str, Tensor]:
        """Return the eigenvalues over the edge, their number, and the products spent."""
        operator = hessian(self.objective, params)
        edge = (2 * (1 + self.hyper.momentum) / self.hyper.lr).to(operator.device, operator.dtype)
        found = eigenpairs_above(
            operator, self.fraction * edge, self.streams,
            start=self._start, tolerance=self.tolerance, most=self.most, step=step,
        )  # fmt: skip
        self._start = found.basis
        values = edge.new_full((len(edge), self.most), torch.nan)
        values[:, : found.values.shape[1]] = found.values / edge.unsqueeze(1)
        spent = torch.full_like(found.count, found.products)
        return {"values": values, "count": found.count, "products": spent}
