"""Instruments ask a device nothing between two looks, and find there what they find on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.curvature import gauss_newton, hessian
from descent.measure.operators import Operator
from descent.measure.spectra import top_eigenpairs
from descent.measure.tracking import eigenpairs_above
from descent.nets.dense import MLP, CrossEntropy, Stacked
from descent.nets.supervised import Supervised
from elsewhere import COUNTS, NAME, elsewhere
from torch.testing import assert_close

R = 3


@pytest.fixture
def there():
    with elsewhere():
        yield torch.device(NAME)


def streams(device: torch.device | str = "cpu") -> Streams:
    return Streams(replica_seeds(3, R, device), torch.float64)


def matrices(size: int, rank: int) -> torch.Tensor:
    factors = streams().normal(Purpose.DATA, 0, (size, rank))
    return factors @ factors.mT


def operator(matrix: torch.Tensor, device: torch.device | str = "cpu") -> Operator:
    matrix = matrix.to(device)
    like = {"": torch.zeros(*matrix.shape[:2], dtype=matrix.dtype, device=device)}
    return Operator(lambda v: (matrix @ v.unsqueeze(-1)).squeeze(-1), like)


def spent(run):
    before = replace(COUNTS)
    found = run()
    return COUNTS - before, found


@pytest.mark.parametrize("rank", [60, 20, 1], ids=["whole", "closing", "closed at once"])
@pytest.mark.parametrize("look", [2, 7])
def test_lanczos_finds_there_what_it_finds_here(there, rank, look):
    matrix = matrices(60, rank)
    here = top_eigenpairs(operator(matrix), 4, streams(), tolerance=1e-10, look=look)
    found = top_eigenpairs(operator(matrix, there), 4, streams(there), tolerance=1e-10, look=look)
    assert torch.equal(found.products.cpu(), here.products)
    assert torch.equal(found.converged.cpu(), here.converged)
    assert_close(found.values.cpu(), here.values, rtol=1e-12, atol=1e-12 * float(here.values.max()))
    assert_close(found.vectors.cpu().abs(), here.vectors.abs(), rtol=0, atol=1e-9)


def test_lanczos_waits_at_looks_alone(there):
    away = operator(matrices(60, 60), there)

    def waits(steps, look):
        return spent(lambda: top_eigenpairs(away, 4, streams(there), tolerance=0.0, steps=steps, look=look))[0].waits

    assert waits(40, 50) - waits(20, 50) == 0  # twenty products more, and no wait
    assert waits(40, 5) - waits(20, 5) == 4  # one a look


@pytest.mark.parametrize("kind", [hessian, gauss_newton])
@pytest.mark.parametrize("stacked", [False, True], ids=["by hand", "by graph"])
def test_products_wait_for_nothing(there, kind, stacked):
    net = MLP((6, 5, 3))
    inputs = torch.arange(240.0, dtype=torch.float64).view(40, 6).sin().to(there)
    model = Stacked(net.module().to(there, torch.float64)) if stacked else net
    task = Supervised(model, CrossEntropy(), inputs, (torch.arange(40) % 3).to(there), sampling="full")
    curvature = kind(task, model.initial(streams(there)))
    v = torch.ones(R, curvature.size, dtype=torch.float64, device=there)
    assert spent(lambda: [curvature(v) for _ in range(3)])[0].waits == 0


@pytest.mark.parametrize("rank", [60, 3], ids=["whole", "closing"])
def test_tracking_finds_there_what_it_finds_here(there, rank):
    matrix = matrices(60, rank)
    level = 0.5 * float(torch.linalg.eigvalsh(matrix).max())
    start_here = start = None
    for moved in (matrix, 1.01 * matrix):
        here = eigenpairs_above(operator(moved), level, streams(), start=start_here)
        found = eigenpairs_above(operator(moved, there), level, streams(there), start=start)
        start_here, start = here.basis, found.basis
        assert found.products == here.products
        assert torch.equal(found.count.cpu(), here.count)
        assert_close(found.values.cpu(), here.values, rtol=1e-12, atol=0, equal_nan=True)


def test_tracking_waits_once_a_product_and_not_for_its_start(there):
    away = operator(matrices(60, 60), there)
    start = torch.linalg.qr(streams().normal(Purpose.PROBE, 1, (60, 12))).Q.mT.to(there)

    def waits(products, start=None):
        settings = {"tolerance": 0.0, "products": products, "start": start}
        return spent(lambda: eigenpairs_above(away, 1.0, streams(there), **settings))[0].waits

    assert waits(30) - waits(20) == 10
    assert waits(20, start) < waits(20) - 10  # twelve vectors multiplied without a question
