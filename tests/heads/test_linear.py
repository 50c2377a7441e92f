"""The ridge-penalised logistic hazard against likelihoods written with loops."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from omnisurv.heads.linear import Discrete, fit_linear, log_likelihood, nll

INTERVALS = 6


def draw(n=80, features=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    hazard = torch.sigmoid(-1.5 + 1.2 * x[:, :1]).expand(n, INTERVALS)
    dies = torch.rand(n, INTERVALS, generator=generator) < hazard
    dies[:, 0] = False
    first = torch.where(dies.any(1), dies.int().argmax(1), INTERVALS - 1)
    leaves = torch.randint(1, INTERVALS, (n,), generator=generator)
    interval = torch.minimum(first, leaves)
    event = dies.any(1) & (first <= leaves)
    return x - x.mean(0), Discrete(interval, event.double())


def loop_nll(logits, target):
    """Sum over the intervals a patient enters: -log h where he dies, -log(1 - h) elsewhere."""
    total = 0.0
    for row, interval, event in zip(
        logits.tolist(), target.interval.tolist(), target.event.tolist(), strict=True
    ):
        for step in range(interval + 1):
            hazard = 1 / (1 + math.exp(-row[step]))
            died = event == 1 and step == interval
            total -= math.log(hazard if died else 1 - hazard)
    return total / len(logits)


def test_nll_is_pycox_and_the_loop():
    from pycox.models.loss import NLLLogistiHazardLoss

    _, target = draw()
    logits = torch.randn(80, INTERVALS, generator=torch.Generator().manual_seed(5)).double()
    ours = float(nll(logits, target))
    assert ours == pytest.approx(loop_nll(logits, target), rel=1e-12)
    theirs = NLLLogistiHazardLoss()(logits, target.interval, target.event)
    assert ours == pytest.approx(float(theirs), rel=1e-12)
    assert float(log_likelihood(logits, target)) == pytest.approx(-80 * ours, rel=1e-12)


def independent(x, target, penalty, offset=None):
    """Minimise the same penalised likelihood with scipy, without Newton or elimination."""
    died = torch.zeros(len(x), INTERVALS, dtype=torch.float64)
    at_risk = torch.zeros_like(died)
    for i, (interval, event) in enumerate(zip(*map(torch.Tensor.tolist, target), strict=True)):
        at_risk[i, : interval + 1] = 1.0
        died[i, interval] = event
    rate = (died.sum(0) + 0.5) / (at_risk.sum(0) + 1.0)
    prior = torch.logit(rate)

    def objective(theta):
        values = torch.tensor(theta, requires_grad=True)
        baseline, weight = values[:INTERVALS], values[INTERVALS:]
        fixed = baseline if offset is None else offset
        logits = fixed + (x @ weight)[:, None]
        loss = (F.softplus(logits) * at_risk - logits * died).sum()
        loss = loss + (penalty * weight**2).sum() / 2
        if offset is None:
            loss = loss + 0.01 * ((baseline - prior) ** 2).sum() / 2
        loss.backward()
        return float(loss.detach()), values.grad.numpy()

    start = np.zeros(INTERVALS + x.shape[1])
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.x[:INTERVALS], found.x[INTERVALS:]


@pytest.mark.parametrize("ridge", [0.0, 5.0, 500.0])
def test_fit_linear_is_the_minimum_scipy_finds(ridge):
    x, target = draw()
    penalty = torch.full((3,), ridge)
    baseline, weight = fit_linear(x, target, penalty, intervals=INTERVALS)
    expected_baseline, expected_weight = independent(x, target, penalty)
    np.testing.assert_allclose(weight.numpy(), expected_weight, atol=1e-5)
    np.testing.assert_allclose(baseline.numpy(), expected_baseline, atol=1e-4)


def test_fit_linear_with_an_offset_is_the_minimum_scipy_finds():
    x, target = draw(seed=2)
    offset = torch.randn(80, INTERVALS, generator=torch.Generator().manual_seed(1)).double() - 1.5
    penalty = torch.tensor([1.0, 10.0, 100.0])
    baseline, weight = fit_linear(x, target, penalty, offset=offset)
    _, expected = independent(x, target, penalty, offset)
    np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)
    assert (baseline == 0).all()


def test_fit_linear_finds_the_planted_weight_and_shrinks_it():
    x, target = draw(n=2000)
    free = fit_linear(x, target, torch.zeros(3), intervals=INTERVALS)[1]
    assert float(free[0]) == pytest.approx(1.2, abs=0.15)
    assert free[1:].abs().max() < 0.15
    shrunk = fit_linear(x, target, torch.full((3,), 1000.0), intervals=INTERVALS)[1]
    assert 0 < float(shrunk[0]) < float(free[0]) / 2


def test_fit_linear_stays_finite_where_scipy_would_not():
    """Separated data, a constant input, and a grid whose last intervals nobody reaches."""
    x = torch.tensor([[-1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    target = Discrete(torch.tensor([2, 2, 1, 1]), torch.tensor([0.0, 0.0, 1.0, 1.0]))
    baseline, weight = fit_linear(x, target, torch.full((2,), 0.1), intervals=9)
    assert baseline.shape == (9,)
    assert baseline.isfinite().all()
    assert weight.isfinite().all()
    assert float(weight[0]) > 0
    assert float(weight[1]) == 0
