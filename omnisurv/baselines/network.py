"""The small networks of ``logistic_hazard_mlp``."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from omnisurv.baselines.preparation import Floats
from omnisurv.metrics.curves import Bools

_INTERVALS = 10
_EPOCHS = 400
_PATIENCE = 30


def fit_logistic_hazard(
    Z: Floats, times: Floats, events: Bools, seed: int, folds: int
) -> tuple[Floats, Callable[[Floats], Floats]]:
    """Fit ``folds`` networks on standardised features (n, p), each stopped by another fold.

    Returns:
        The cut points (m,) in days, and a function from features (k, p) to the networks' mean
        survival probabilities (k, m) at them.
    """
    import torch
    from pycox.preprocessing.label_transforms import LabTransDiscreteTime
    from sklearn.model_selection import StratifiedKFold

    intervals = max(2, min(_INTERVALS, len(np.unique(times[events])) // 2))
    labels = LabTransDiscreteTime(intervals, scheme="quantiles")
    with warnings.catch_warnings():
        # Tied event times give fewer quantiles, which is right.
        warnings.filterwarnings("ignore", message="cuts are not unique")
        index, observed = labels.fit_transform(times, events.astype(float))
    data = (
        torch.as_tensor(Z, dtype=torch.float32),
        torch.as_tensor(np.asarray(index), dtype=torch.int64),
        torch.as_tensor(np.asarray(observed), dtype=torch.float32),
    )
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    networks = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for learn, held in splitter.split(Z, events):
            start = _hazards(index[learn], observed[learn], len(labels.cuts))
            network = _network(Z.shape[1], start)
            networks.append(_train(network, data, learn, held))

    def survival(rows: Floats) -> Floats:
        x = torch.as_tensor(rows, dtype=torch.float32)
        with torch.no_grad():
            hazards = [torch.sigmoid(network(x)).double() for network in networks]
        curves: Floats = torch.stack([torch.cumprod(1 - h, dim=1) for h in hazards]).mean(0).numpy()
        return curves

    return np.asarray(labels.cuts, dtype=float), survival


def _hazards(index: Any, observed: Any, intervals: int) -> Floats:
    """Return the hazard of everybody together in each interval, off 0 and 1."""
    died = np.bincount(index, weights=observed, minlength=intervals)
    at_risk = np.bincount(index, minlength=intervals)[::-1].cumsum()[::-1]
    hazards: Floats = (died + 0.5) / (at_risk + 1)
    return hazards


def _network(features: int, hazards: Floats) -> Any:
    """Return a network that starts from the same hazards for everybody."""
    import torch

    last = torch.nn.Linear(32, len(hazards))
    with torch.no_grad():
        last.bias.copy_(torch.as_tensor(np.log(hazards / (1 - hazards))))
        last.weight.mul_(0.1)
    return torch.nn.Sequential(
        torch.nn.Linear(features, 32), torch.nn.ReLU(), torch.nn.Dropout(0.2), last
    )


def _train(network: Any, data: tuple[Any, ...], learn: Any, held: Any) -> Any:
    """Fit in full batches; return the network with its best weights on the held-out patients."""
    import torch
    from pycox.models.loss import nll_logistic_hazard

    x, index, observed = data
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-2)
    best, best_loss, waited = copy.deepcopy(network.state_dict()), float("inf"), 0
    for _ in range(_EPOCHS):
        network.train()
        optimiser.zero_grad()
        nll_logistic_hazard(network(x[learn]), index[learn], observed[learn]).backward()
        optimiser.step()
        network.eval()
        with torch.no_grad():
            loss = float(nll_logistic_hazard(network(x[held]), index[held], observed[held]))
        waited += 1
        if loss < best_loss:
            best, best_loss, waited = copy.deepcopy(network.state_dict()), loss, 0
        if waited > _PATIENCE:
            break
    network.load_state_dict(best)
    return network
