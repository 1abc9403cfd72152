"""Lanczos for a stack: known spectra, degenerate and lost matrices, its own error bound, and scipy on networks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.curvature import gauss_newton, hessian
from descent.measure.operators import Operator
from descent.measure.spectra import End, residual_norms, top_eigenpairs
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

R = 3
STREAMS = Streams(replica_seeds(0, R), torch.float64)
ENDS = {"largest": lambda x: x, "smallest": lambda x: -x, "magnitude": torch.abs}


def operator(matrices: Tensor) -> Operator:
    return Operator(lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1), {"": matrices[:, :, 0]})


def with_spectrum(values: Tensor) -> Tensor:
    """Return matrices (R, p, p) with eigenvalues (p,) and random eigenvectors."""
    q = torch.linalg.qr(STREAMS.normal(Purpose.DATA, 0, (len(values), len(values)))).Q
    return q @ torch.diag(values.double()) @ q.mT


def padded(values: Sequence[float], size: int) -> Tensor:
    return torch.cat([torch.tensor(values, dtype=torch.float64), torch.zeros(size - len(values), dtype=torch.float64)])


def from_the_end(values: Tensor, end: End, k: int) -> Tensor:
    return values[ENDS[end](values).argsort(descending=True)][:k]


@pytest.mark.parametrize("end", ENDS)
def test_known_spectrum(end: End) -> None:
    values = torch.linspace(-1.3, 2.0, 200, dtype=torch.float64) ** 3
    a = operator(with_spectrum(values))
    found = top_eigenpairs(a, 6, STREAMS, end=end, tolerance=1e-8)
    assert bool(found.converged.all())
    assert torch.allclose(found.values, from_the_end(values, end, 6).expand(R, -1), rtol=1e-12)
    assert torch.allclose(found.vectors @ found.vectors.mT, torch.eye(6, dtype=torch.float64), atol=1e-13)
    assert bool((found.products < 200).all())


def test_reported_residuals_are_those_of_the_products() -> None:
    a = operator(with_spectrum(torch.linspace(0, 1, 300) ** 4))
    for tolerance in (1e-2, 1e-4, 1e-8):
        found = top_eigenpairs(a, 5, STREAMS, tolerance=tolerance)
        true = residual_norms(a, found)
        assert torch.allclose(true, found.residuals, rtol=1e-6, atol=1e-14)
        assert bool((true <= tolerance * found.values.abs()).all())
        assert bool(found.converged.all())
        assert bool((found.residuals.amax(dim=1) > 1e-4 * tolerance).all()), "stopped far later than asked"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("spectrum", "k"),
    [
        ([], 4),  # nothing at all
        ([3, 2, 1], 5),  # more than the rank
        ([10, 10, 10, 9, -20], 3),  # a threefold eigenvalue, the space closing after four products
        ([3, 3, 1, 1, -1, -1], 4),
        ([1] * 40, 7),  # the identity
        ([2, 1], 40),  # all of them
    ],
)
def test_degenerate_spectra(spectrum: list[float], k: int, end: End) -> None:
    values = padded(spectrum, 40)
    a = operator(with_spectrum(values))
    found = top_eigenpairs(a, k, STREAMS, end=end)
    assert bool(found.converged.all())
    expected = from_the_end(values, end, k)
    ours, theirs = (found.values.abs(), expected.abs()) if end == "magnitude" else (found.values, expected)
    assert torch.allclose(ours, theirs.expand(R, -1), atol=1e-12)
    assert torch.allclose(found.vectors @ found.vectors.mT, torch.eye(k, dtype=torch.float64), atol=1e-12)
    assert float(residual_norms(a, found).max()) < 1e-12


def test_one_parameter() -> None:
    found = top_eigenpairs(operator(torch.full((R, 1, 1), -2.0, dtype=torch.float64)), 1, STREAMS)
    assert found.values.tolist() == [[-2.0]] * R
    assert bool(found.converged.all())


def test_equals_textbook_lanczos_step_by_step() -> None:
    matrices = with_spectrum(torch.linspace(-1, 3, 50))
    found = top_eigenpairs(operator(matrices), 4, STREAMS, steps=9, tolerance=1e-15)
    assert found.products.tolist() == [9] * R
    start = STREAMS.normal(Purpose.PROBE, 0, (50,))
    for r in range(R):
        basis = start[r : r + 1] / start[r].norm()
        for _ in range(8):
            w = matrices[r] @ basis[-1]
            for _ in range(2):
                for q in basis:
                    w = w - (q @ w) * q
            basis = torch.cat([basis, w[None] / w.norm()])
        ritz = torch.linalg.eigvalsh(basis @ matrices[r] @ basis.T)
        assert torch.allclose(found.values[r], ritz.flip(0)[:4], rtol=1e-12)


def test_too_few_products_are_flagged() -> None:
    a = operator(with_spectrum(torch.linspace(0, 1, 200)))
    found = top_eigenpairs(a, 5, STREAMS, steps=12)
    assert found.products.tolist() == [12] * R
    assert not bool(found.converged.any())
    assert torch.allclose(residual_norms(a, found), found.residuals, rtol=1e-8)


def test_a_lost_replica_is_flagged_and_leaves_the_others_alone() -> None:
    matrices = with_spectrum(padded([5, 4, 3, 2, 1], 30))
    clean = top_eigenpairs(operator(matrices), 3, STREAMS)
    for bad in (torch.nan, torch.inf):
        spoilt = matrices.clone()
        spoilt[1, 0, 0] = bad
        found = top_eigenpairs(operator(spoilt), 3, STREAMS)
        assert bool(found.values[1].isnan().all())
        assert bool(found.residuals[1].isnan().all())
        assert not bool(found.converged[1].any())
        assert torch.equal(found.values[[0, 2]], clean.values[[0, 2]])
    everyone = top_eigenpairs(operator(torch.full_like(matrices, torch.nan)), 3, STREAMS)
    assert not bool(everyone.converged.any())


def test_replicas_do_not_see_each_other() -> None:
    matrices = with_spectrum(torch.linspace(0, 1, 60) ** 3)
    together = top_eigenpairs(operator(matrices), 3, STREAMS, tolerance=1e-10)
    pieces = [operator(matrices[r : r + 1]) for r in range(R)]
    joined = top_eigenpairs(Operator.joined(pieces), 3, STREAMS, tolerance=1e-10)
    for r in range(R):
        alone = top_eigenpairs(pieces[r], 3, STREAMS.subset(slice(r, r + 1)), tolerance=1e-10)
        assert torch.equal(alone.values[0], joined.values[r])
        assert alone.products[0] == joined.products[r] <= together.products[r]
        assert torch.allclose(alone.values[0], together.values[r], rtol=1e-12)


def test_single_precision_reaches_the_tolerance() -> None:
    values = torch.cat([torch.linspace(1, 5, 10), torch.linspace(0, 0.5, 290)])
    matrices = with_spectrum(values)
    found = top_eigenpairs(operator(matrices.float()), 10, STREAMS)
    assert bool(found.converged.all())
    assert found.values.dtype == torch.float32
    assert torch.allclose(found.values, from_the_end(values, "largest", 10).expand(R, -1), rtol=1e-5)
    assert float((found.vectors @ found.vectors.mT - torch.eye(10)).abs().max()) < 1e-5


def test_eigenvalues_of_a_network_equal_those_of_scipy_over_curvlinops() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports, and forward differentiation, script functions: torch warns of it
        curvlinops = pytest.importorskip("curvlinops")
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
    net = MLP((8, 12, 10, 4))
    inputs, targets = STREAMS.normal(Purpose.DATA, 1, (40, 8))[0], torch.arange(40) % 4
    task, params = Supervised(net, CrossEntropy(), inputs, targets, sampling="full"), net.initial(STREAMS)
    others = (curvlinops.HessianLinearOperator, curvlinops.GGNLinearOperator)
    for make, other in zip((hessian, gauss_newton), others, strict=True):
        ours = top_eigenpairs(make(task, params), 6, STREAMS, tolerance=1e-9)
        for r in range(R):
            module = net.module().double()
            module.load_state_dict({k: leaf[r] for k, leaf in params.items()})
            theirs = other(module, nn.CrossEntropyLoss(), list(module.parameters()), [(inputs, targets)])
            expected = eigsh(theirs.to_scipy(), k=6, which="LA", return_eigenvectors=False)
            assert torch.allclose(ours.values[r], torch.from_numpy(expected).flip(0), rtol=1e-10)


def test_errors_say_what_to_change() -> None:
    a = operator(with_spectrum(torch.ones(5)))
    with pytest.raises(ValueError, match="of size 5 has 5 eigenpairs, got k = 6"):
        top_eigenpairs(a, 6, STREAMS)
    with pytest.raises(ValueError, match="end must be one of largest, smallest, magnitude"):
        top_eigenpairs(a, 1, STREAMS, end="top")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 replicas and the streams 2"):
        top_eigenpairs(a, 1, STREAMS.subset(slice(0, 2)))
