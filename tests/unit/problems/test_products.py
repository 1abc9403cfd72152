"""Products of scalars: gradients against autograd, noises, and the first-order law of their drift."""

from __future__ import annotations

import pytest
import torch
from descent.engine import Purpose, Streams, heavy_ball, replica_seeds, train
from descent.problems.hyperbola import Hyperbola
from descent.problems.products import Products, end_sharpness, imbalance

F64 = torch.float64


def streams(replicas: int) -> Streams:
    return Streams(replica_seeds(4, replicas), F64)


@pytest.mark.parametrize("factors", [2, 3, 4])
def test_gradient_is_that_of_the_loss(factors: int) -> None:
    x = streams(20).normal(Purpose.INIT, 0, (factors,)).requires_grad_()
    problem = Products(target=0.7)
    (slope,) = torch.autograd.grad(problem.value(x).sum(), x)
    torch.testing.assert_close(problem.gradient(x.detach(), streams(20), 0), slope, rtol=1e-12, atol=1e-13)


def test_a_factor_of_zero_is_no_trouble() -> None:
    x = torch.tensor([[0.0, 2.0, 3.0]], dtype=F64)
    assert Products().gradient(x, streams(1), 0).tolist() == [[-6.0, 0.0, 0.0]]


def test_two_factors_are_the_hyperbola() -> None:
    x = streams(20).normal(Purpose.INIT, 0, (2,))
    for batch in (None, 3):
        torch.testing.assert_close(
            Products(batch_size=batch).gradient(x, streams(20), 5),
            Hyperbola(batch_size=batch).gradient(x, streams(20), 5),
            rtol=1e-12, atol=1e-13,
        )  # fmt: skip


def test_label_noise_moves_the_target() -> None:
    many, sigma = 20_000, 0.3
    x = torch.tensor([[0.5, 2.0]], dtype=F64).expand(many, 2)  # a minimiser: nothing is left but the noise
    drawn = Products(label_noise=sigma).gradient(x, streams(many), 0)
    torch.testing.assert_close(drawn[:, 0], 4 * drawn[:, 1])
    assert float(drawn[:, 1].std()) == pytest.approx(sigma * 0.5, rel=0.03)


def test_end_sharpness_is_the_curvature_of_a_minimiser() -> None:
    x = torch.tensor([1.6, 0.8, 1 / 1.28], dtype=F64)
    hessian = torch.autograd.functional.hessian(lambda w: Products().value(w), x)  # type: ignore[no-untyped-call]
    assert float(end_sharpness(x[None])) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_drift_is_the_law_of_small_steps(momentum: float) -> None:
    """Δ(w₁² − w₃²) of a run, against the law integrated along it: within 1.4 %, which grows with e·c."""
    e, c, problem = 0.002, (1 + momentum) / (1 - momentum), Products()
    x = torch.tensor([[1.6, 0.8, 0.5]], dtype=F64)
    rates: list[torch.Tensor] = []

    class Watched:
        def gradient(self, params: torch.Tensor, given: Streams, step: int) -> torch.Tensor:
            rates.append(problem.drift(params)[0, 0, 2] * imbalance(params)[0, 0, 2])
            return problem.gradient(params, given, step)

    end = train(Watched(), x, heavy_ball(e * (1 - momentum), momentum), 4000, streams(1)).params
    change = float(imbalance(torch.as_tensor(end))[0, 0, 2] - imbalance(x)[0, 0, 2])
    assert change == pytest.approx(e * c * e * float(torch.stack(rates).sum()), rel=0.014)
    assert change < 0


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="label_noise is a standard deviation"):
        Products(label_noise=-0.1)
