"""The elastic-net Cox baseline for many features."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from omnisurv.baselines.fitted import SurvivalBaseline, inner_folds, marginal, proportional, surv
from omnisurv.baselines.preparation import Floats, Scaling, numeric
from omnisurv.metrics import concordance_harrell
from omnisurv.metrics.curves import Bools, endpoint_arrays


def coxnet(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Elastic-net Cox (l1 ratio 0.5) on many features.

    The 1,000 features of highest variance are kept (of each modality, if the columns are a
    MultiIndex that begins with it), filled with the mean and scaled. The penalty is the one
    with the best mean Harrell C over up to five inner folds.
    """
    times, events = endpoint_arrays(time, event)
    X = _most_variable(X, keep=1000)
    scaling = Scaling.fit(X, fill_mean=True)
    folds = inner_folds(events)
    if folds < 2 or not len(scaling.columns):
        return marginal(times, events, ["too few events or columns: Kaplan–Meier instead"])
    notes: list[str] = []
    path = _coxnet_path(scaling.apply(X), times, events, notes)
    if path is None:
        return marginal(times, events, [*notes, "Kaplan–Meier instead"])
    best = _best_alpha(X, times, events, path.alphas_, folds, seed)
    notes.append(f"penalty {best:.4g} chosen by {folds}-fold inner cross-validation")
    return proportional(path, scaling.apply, notes, alpha=best)


def _most_variable(X: pd.DataFrame, keep: int) -> pd.DataFrame:
    values = numeric(X)
    known = np.isfinite(values).any(axis=0)
    spread = np.zeros(X.shape[1])
    spread[known] = np.nanvar(values[:, known], axis=0)
    table = pd.Series(spread)
    if X.columns.nlevels > 1:
        rank = table.groupby(np.asarray(X.columns.get_level_values(0))).rank(
            ascending=False, method="first"
        )
    else:
        rank = table.rank(ascending=False, method="first")
    return X.iloc[:, np.flatnonzero(((rank <= keep) & (table > 0)).to_numpy())]


def _coxnet_path(
    Z: Floats, times: Floats, events: Bools, notes: list[str], alphas: Floats | None = None
) -> Any:
    """Return models along the path of penalties, shortened until it can be computed, or None."""
    from sklearn.exceptions import ConvergenceWarning
    from sksurv.linear_model import CoxnetSurvivalAnalysis

    for ratio in (0.05, 0.1, 0.3, 0.6):
        if alphas is not None:
            alphas = alphas[alphas >= alphas[0] * ratio]
        model = CoxnetSurvivalAnalysis(
            l1_ratio=0.5, n_alphas=30, alphas=alphas, alpha_min_ratio=ratio, fit_baseline_model=True
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                warnings.filterwarnings("ignore", message="all coefficients are zero")
                return model.fit(Z, surv(times, events))
        except (ArithmeticError, ValueError, ConvergenceWarning):
            notes.append(f"elastic net did not converge down to {ratio:g} of the largest penalty")
    return None


def _best_alpha(
    X: pd.DataFrame, times: Floats, events: Bools, alphas: Floats, folds: int, seed: int
) -> float:
    """Return the penalty with the best mean C over inner folds, the largest of equals."""
    from sklearn.model_selection import StratifiedKFold

    scores = []
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(times, events):
        scaling = Scaling.fit(X.iloc[train], fill_mean=True)
        if not len(scaling.columns):
            continue
        path = _coxnet_path(scaling.apply(X.iloc[train]), times[train], events[train], [], alphas)
        if path is None:
            continue
        risks = scaling.apply(X.iloc[test]) @ path.coef_
        row = np.full(len(alphas), np.nan)
        row[: risks.shape[1]] = [concordance_harrell(times[test], events[test], r) for r in risks.T]
        scores.append(row)
    known = np.isfinite(np.array(scores).reshape(-1, len(alphas)))
    total = np.where(known, np.array(scores).reshape(known.shape), 0.0).sum(axis=0)
    mean = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), 0.0)
    return float(alphas[int(np.argmax(np.round(mean, 10)))])
