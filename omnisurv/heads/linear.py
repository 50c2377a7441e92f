"""Ridge-penalised logistic hazard, fitted to convergence."""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from omnisurv.shapes import Float, Int, Tensor


class Discrete(NamedTuple):
    """Endpoint on the time grid: the interval of each patient, and 1.0 where the event is in it."""

    interval: Int[Tensor, " b"]
    event: Float[Tensor, " b"]

    def rows(self, index: Tensor) -> "Discrete":
        """Return some patients."""
        return Discrete(self.interval[index], self.event[index])

    def to(self, device: torch.device) -> "Discrete":
        """Return the endpoint on a device."""
        return Discrete(self.interval.to(device), self.event.to(device))


def nll(logits: Float[Tensor, "b t"], target: Discrete) -> Float[Tensor, ""]:
    """Return the mean negative log-likelihood of the logistic hazard, on pycox's loss.

    Source: impuTMAE eq. 3; Gensheimer & Narasimhan 2019; Kvamme & Borgan 2019.
    """
    from pycox.models.loss import nll_logistic_hazard

    loss: Tensor = nll_logistic_hazard(logits, target.interval, target.event.to(logits.dtype))
    return loss


def log_likelihood(logits: Float[Tensor, "b t"], target: Discrete) -> Float[Tensor, ""]:
    """Return the total log-likelihood."""
    return -nll(logits, target) * len(logits)


def fit_linear(
    x: Float[Tensor, "b f"],
    target: Discrete,
    penalty: Float[Tensor, " f"],
    *,
    intervals: int = 0,
    offset: Float[Tensor, "b t"] | None = None,
    iterations: int = 30,
) -> tuple[Float[Tensor, " t"], Float[Tensor, " f"]]:
    """Fit ``logit h = baseline + x·w`` (or ``offset + x·w``) by Newton's method, in float64.

    The penalty is ``Σ penalty·w² / 2`` on the total log-likelihood, as in ridge Cox (Verweij &
    van Houwelingen 1994). A weak pull bounds the baseline of intervals without events.

    Args:
        x: inputs, centred.
        target: endpoint on the grid.
        penalty: of each weight.
        intervals: length of the grid, where the last ones may hold nobody.
        offset: logits to start from, instead of a fitted baseline.
        iterations: Newton steps at most.

    Returns:
        Baseline (zeros with an offset) and weights.
    """
    x, penalty = x.double(), penalty.double()
    intervals = max(intervals, int(target.interval.max()) + 1)
    at_risk, died = _person_periods(target, offset.shape[1] if offset is not None else intervals)
    rate = (died.sum(0) + 0.5) / (at_risk.sum(0) + 1.0)
    prior = torch.logit(rate.clamp(1e-6, 0.999))
    baseline = prior.clone() if offset is None else torch.zeros_like(prior)
    weight = x.new_zeros(x.shape[1])
    fixed = offset if offset is not None else torch.zeros_like(at_risk)
    for _ in range(iterations):
        hazard = torch.sigmoid(fixed + baseline + (x @ weight)[:, None])
        residual = at_risk * hazard - died
        curvature = at_risk * hazard * (1.0 - hazard)
        gradient = x.T @ residual.sum(1) + penalty * weight
        hessian = (x * curvature.sum(1, keepdim=True)).T @ x + torch.diag(penalty + 1e-8)
        if offset is None:
            # Eliminating the baseline (a diagonal block) leaves a small system.
            diagonal = curvature.sum(0) + 0.01
            slope = residual.sum(0) + 0.01 * (baseline - prior)
            cross = x.T @ curvature
            gradient = gradient - cross @ (slope / diagonal)
            hessian = hessian - (cross / diagonal) @ cross.T
            step = torch.linalg.solve(hessian, gradient)
            baseline = baseline - (slope - cross.T @ step) / diagonal
        else:
            step = torch.linalg.solve(hessian, gradient)
        # A ridge fit from zero rarely overshoots; a cap makes it certain.
        weight = weight - step * (2.0 / step.norm().clamp_min(2.0))
        if bool((step.abs() < 1e-8).all()):
            break
    return baseline, weight


def _person_periods(target: Discrete, intervals: int) -> tuple[Tensor, Tensor]:
    """Return who is at risk (b, t) and who dies in which interval, as pycox's loss has it."""
    steps = torch.arange(intervals)
    at_risk = (steps[None] <= target.interval[:, None]).double()
    died = F.one_hot(target.interval, intervals).double() * target.event.double()[:, None]
    return at_risk, died
