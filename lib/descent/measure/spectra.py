"""Eigenpairs at one end of a spectrum, for every replica at once, from products with vectors alone.

Lanczos with full reorthogonalisation: in an orthonormal basis Q of span{q, Aq, A²q, …} the matrix is tridiagonal,
T = QᵀAQ, and an eigenpair (θ, s) of T gives (θ, Qs) with ‖A Qs − θ Qs‖ = β |s_last|, β the length of what the last
product adds to the basis.

    top = top_eigenpairs(hessian(objective, params), 10, streams)
    top.values, top.residuals, top.converged           # (R, 10) each
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from descent.engine.streams import Purpose, Streams
from descent.measure.operators import Operator

__all__ = ["Eigenpairs", "End", "residual_norms", "top_eigenpairs"]

End = Literal["largest", "smallest", "magnitude"]
"""Which eigenvalues are looked for."""

_KEYS: dict[str, Callable[[Tensor], Tensor]] = {"largest": torch.clone, "smallest": torch.neg, "magnitude": torch.abs}


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenvalues (R, k) from the asked end inwards, unit vectors (R, k, p), and how good they are.

    residuals: ‖A v − λ v‖ (R, k) as Lanczos's recursion has it, true up to round-off, about ε‖A‖. converged (R, k): the
    residual is at most tolerance·|λ|, or round-off. A replica whose products are not finite has NaN for numbers and
    nothing converged. products (R,): how many vectors were multiplied.
    """

    values: Tensor
    vectors: Tensor  # the unit eigenvectors
    residuals: Tensor
    converged: Tensor
    products: Tensor
    tolerance: float


def top_eigenpairs(
    operator: Operator,
    k: int,
    streams: Streams,
    *,
    end: End = "largest",
    tolerance: float = 1e-4,
    steps: int = 300,
    step: int = 0,
    look: int | None = None,
) -> Eigenpairs:
    """Find k eigenpairs of every replica: the largest, the smallest, or those of largest magnitude.

    It ends when every replica has converged, and in any case after `steps` products or when the whole space is spanned.
    The start is a normal draw of `streams` for probes at `step`. look: products between two looks at T, 2 by default
    and 10 where a device has to be waited for, which happens at looks alone. The basis takes products·p numbers per
    replica. k: how many pairs; end: "largest", "smallest" or "magnitude".

    Of a multiple eigenvalue a Krylov space holds one copy. When the space closes on itself, it is continued from a new
    vector until that finds no further copy; in a large space that never closes, copies may be missing.

    Raises: ValueError for k outside 1 … p, an unknown end, or streams of another number of replicas.
    """
    if end not in _KEYS:
        raise ValueError(f"end must be one of {', '.join(_KEYS)}, got {end!r}")
    if not 1 <= k <= operator.size:
        raise ValueError(f"a matrix of size {operator.size} has {operator.size} eigenpairs, got k = {k}")
    if streams.replicas != operator.replicas:
        raise ValueError(f"the operator has {operator.replicas} replicas and the streams {streams.replicas}")
    look = look or (2 if operator.device.type == "cpu" else 10)
    found, first = [], 0
    for piece in operator.pieces or (operator,):
        rows = slice(first, first + piece.replicas)
        found.append(_lanczos(_Krylov(piece, streams.subset(rows), step), k, end, tolerance, steps, look))
        first = rows.stop
    values, vectors, residuals, converged, products = (torch.cat(column) for column in zip(*found, strict=True))
    return Eigenpairs(values, vectors, residuals, converged, products, tolerance)


def _lanczos(krylov: _Krylov, k: int, end: End, tolerance: float, steps: int, look: int) -> tuple[Tensor, ...]:
    """Extend the space until everyone is settled; return values, vectors, residuals, who converged, products."""
    last = min(max(k, steps), krylov.operator.size)
    while True:
        soonest = max(k, krylov.length + 1)
        seen = krylov.stretch(k, min(last, soonest + -soonest % look))
        ritz = _ritz(seen, k, _KEYS[end], tolerance)
        if krylov.length == last or bool(ritz.settled.all()):
            return krylov.pairs(ritz)


def residual_norms(operator: Operator, pairs: Eigenpairs) -> Tensor:
    """Return ‖A v − λ v‖ (R, k) by multiplying once more, k products.

    pairs: values and vectors.
    """
    found = [
        (operator(v) - value.unsqueeze(1) * v).norm(dim=1)
        for value, v in zip(pairs.values.unbind(1), pairs.vectors.unbind(1), strict=True)
    ]
    return torch.stack(found, dim=1)


class _Ritz(NamedTuple):
    """The k outermost eigenpairs of T: values, residuals, converged (R, k), vectors (R, k, m); who is done (R,)."""

    values: Tensor
    residuals: Tensor
    converged: Tensor
    vectors: Tensor
    settled: Tensor


class _Seen(NamedTuple):
    """What a look brings to the CPU in double precision, which is faster there at small matrices: T and how it ends.

    diagonal, coupling (R, m); beta, round_off, and the truths closed, finite (R,); block (R,).
    """

    diagonal: Tensor
    coupling: Tensor
    beta: Tensor
    round_off: Tensor
    closed: Tensor
    finite: Tensor
    block: Tensor

    def tridiagonal(self) -> Tensor:
        """Return T (R, m, m)."""
        beside = torch.diag_embed(self.coupling[:, :-1], offset=1)
        return torch.diag_embed(self.diagonal) + beside + beside.mT


def _ritz(seen: _Seen, k: int, key: Callable[[Tensor], Tensor], tolerance: float) -> _Ritz:
    """Solve T, and tell who needs no further products.

    A replica is settled when its k pairs and the outermost one of its last block have converged; when the space
    has just closed, also that one must add nothing to the k, or a further block could bring another copy of it.
    """
    values, vectors = torch.linalg.eigh(seen.tridiagonal())
    order = key(values).argsort(dim=1, descending=True)
    values, vectors = values.gather(1, order), vectors.gather(2, order.unsqueeze(1).expand_as(vectors)).mT
    residuals = vectors[:, :, -1].abs() * seen.beta.unsqueeze(1)
    converged = residuals <= torch.maximum(tolerance * values.abs(), seen.round_off.unsqueeze(1))
    inside = torch.arange(values.shape[1]) >= seen.block.unsqueeze(1)
    lead = ((vectors.square() * inside.unsqueeze(1)).sum(dim=2) > 0.3).int().argmax(dim=1, keepdim=True)
    exhausted = key(values).gather(1, lead).squeeze(1) <= key(values)[:, k - 1] + seen.round_off
    settled = converged[:, :k].all(dim=1) & converged.gather(1, lead).squeeze(1) & (exhausted | ~seen.closed)
    return _Ritz(values[:, :k], residuals[:, :k], converged[:, :k], vectors[:, :k], settled | ~seen.finite)


class _Krylov:
    """A growing orthonormal basis (R, m, p), and T by its diagonal and the couplings beside it, (R,) per step.

    Where the space has closed, β at round-off, the coupling is 0 and the next vector a new one; `block` (R,) is where
    the last uncoupled block of T begins. All of it stays on the device until a look. Tensors are replaced, and of the
    basis nothing is overwritten up to its newest vector, so that an earlier state is the old references.
    """

    def __init__(self, operator: Operator, streams: Streams, step: int) -> None:
        self.operator, self.streams, self.step, self.length = operator, streams, step, 0
        like = next(iter(operator.like.values()))
        self.basis = like.new_empty(operator.replicas, 16, operator.size)
        self.scale = self.beta = like.new_zeros(operator.replicas)
        self.finite = torch.ones_like(self.scale, dtype=torch.bool)
        self.closed = self.lapsed = ~self.finite
        self.block = torch.zeros_like(self.scale, dtype=torch.int64)
        self.diagonal: tuple[Tensor, ...] = ()
        self.coupling: tuple[Tensor, ...] = ()
        self.basis[:, 0] = torch.nn.functional.normalize(self._draw(), dim=1)

    def stretch(self, k: int, length: int) -> _Seen:
        """Extend to a length, or to where the space closes with k pairs in it, and look.

        A device is not asked on the way. Where the look finds that the space has closed meanwhile, which is rare, the
        products since the last look are taken again, one by one.
        """
        if self.operator.device.type != "cpu":
            before = dict(vars(self))
            self.lapsed = torch.zeros_like(self.closed)
            for _ in range(length - self.length):
                self.extend(asking=False)
            seen, lapsed = self.look()
            if not lapsed:
                return seen
            vars(self).update(before)
        while self.length < length:
            self.extend(asking=True)
            if self.length >= k and bool(self.closed.any()):
                break
        return self.look()[0]

    def look(self) -> tuple[_Seen, bool]:
        """Bring T and how it ends to the CPU, in one copy, and whether a vector was missing since the last look."""
        columns = (self.beta, self._round_off(), self.closed, self.finite, self.block, self.lapsed)
        told = torch.stack([column.double() for column in (*self.diagonal, *self.coupling, *columns)], dim=1).cpu()
        diagonal, coupling, ends = torch.split(told, [self.length, self.length, len(columns)], dim=1)
        beta, round_off, closed, finite, block, lapsed = ends.unbind(1)
        return _Seen(diagonal, coupling, beta, round_off, closed > 0, finite > 0, block), bool(lapsed.any())

    def extend(self, asking: bool) -> None:
        """Multiply the newest vector, and make the next one of what the product adds; a wait or two only if asking."""
        j, newest = self.length, self.basis[:, self.length]
        self.block = torch.where(self.closed, j, self.block)
        w = self.operator(newest)
        self.finite = self.finite & w.isfinite().all(dim=1)
        w = torch.where(self.finite.unsqueeze(1), w, 0.0)
        self.diagonal = (*self.diagonal, (w * newest).sum(dim=1))
        w.addcmul_(self.diagonal[-1].unsqueeze(1), newest, value=-1)
        if j > 0:
            w.addcmul_(self.coupling[-1].unsqueeze(1), self.basis[:, j - 1], value=-1)
        self.length = j + 1
        w, self.beta = self._rest(w, asking)
        self.closed = (self.beta <= self._round_off()) & self.finite
        self.coupling = (*self.coupling, torch.where(self.closed, 0.0, self.beta))
        self._append(w / self.beta.unsqueeze(1), asking)

    def _rest(self, w: Tensor, asking: bool) -> tuple[Tensor, Tensor]:
        """Return what of w (R, p) lies outside the basis, and its length (R,)."""
        before = w.norm(dim=1)
        w = self._outside(w)
        beta = w.norm(dim=1)
        self.scale = torch.maximum(self.scale, self.diagonal[-1].abs() + beta)
        again = (beta < 0.5 * before).any()  # "twice is enough": what is left may be what round-off put back
        if not asking:
            w = torch.where(again, self._outside(w), w)
            return w, w.norm(dim=1)
        if bool(again):
            w = self._outside(w)
            beta = w.norm(dim=1)
        return w, beta

    def _append(self, vector: Tensor, asking: bool) -> None:
        """Add the next vector, or a new one where the space has closed; if not asking, note that one is missing."""
        whole = self.length == self.operator.size
        if not asking:
            self.lapsed = self.lapsed if whole else self.lapsed | self.closed
        elif not whole and bool(self.closed.any()):
            drawn = self._outside(self._outside(self._draw()))
            vector = torch.where(self.closed.unsqueeze(1), torch.nn.functional.normalize(drawn, dim=1), vector)
        if self.length == self.basis.shape[1]:
            self.basis = torch.cat([self.basis, torch.empty_like(self.basis)], dim=1)
        self.basis[:, self.length] = torch.where(self.finite.unsqueeze(1), vector, 0.0)

    def _draw(self) -> Tensor:
        """Draw a vector (R, p), another one at every length."""
        drawn = self.streams.normal(Purpose.PROBE, self.step + (self.length << 32), (self.operator.size,))
        return drawn.to(self.basis)

    def _outside(self, w: Tensor) -> Tensor:
        """Take out of w (R, p) what lies in the basis."""
        basis = self.basis[:, : self.length]
        inside = torch.bmm(basis, w.unsqueeze(2))
        return torch.baddbmm(w.unsqueeze(1), inside.mT, basis, alpha=-1).squeeze(1)

    def _round_off(self) -> Tensor:
        return 20.0 * torch.finfo(self.basis.dtype).eps * self.scale

    def pairs(self, ritz: _Ritz) -> tuple[Tensor, ...]:
        """Return the fields of `Eigenpairs` in the type of the operator."""
        values, residuals, inside = (x.to(self.basis) for x in (ritz.values, ritz.residuals, ritz.vectors))
        vectors = torch.bmm(inside, self.basis[:, : self.length])
        lost = ~self.finite
        for numbers in (values, residuals, vectors):
            numbers[lost] = torch.nan
        converged = ritz.converged.to(lost.device) & self.finite.unsqueeze(1)
        return values, vectors, residuals, converged, torch.full_like(self.block, self.length)
