"""Cox regression with a ridge penalty."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from omnisurv.baselines.fitted import (
    Design,
    SurvivalBaseline,
    dropped,
    marginal,
    proportional,
    surv,
)
from omnisurv.baselines.preparation import Floats, Scaling
from omnisurv.metrics.curves import Bools, endpoint_arrays


def cox(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Cox regression with a light ridge (½ per squared standardised coefficient).

    Missing values take the training median (mode for two-valued columns); constant columns are
    dropped. Where the fit diverges, as under separation or with very few events, the penalty
    grows tenfold at a time; if nothing helps the result is the Kaplan–Meier curve. ``notes``
    says so.
    """
    times, events = endpoint_arrays(time, event)
    scaling = Scaling.fit(X)
    notes = dropped(X, scaling)
    if not events.any() or not len(scaling.columns):
        why = "no event" if not events.any() else "no usable column"
        return marginal(times, events, [*notes, f"{why} in training: Kaplan–Meier instead"])
    return ridge_cox(scaling.apply, X, times, events, 1.0, notes)


def ridge_cox(
    design: Design,
    X: pd.DataFrame,
    times: Floats,
    events: Bools,
    penalty: float | Floats,
    notes: list[str],
) -> SurvivalBaseline:
    """Fit, with a penalty (of all or of each column) that grows tenfold until the fit converges."""
    Z = design(X)
    for factor in (1.0, 10.0, 100.0, 1e3, 1e4):
        model = try_cox(Z, times, events, factor * penalty)
        if model is not None:
            return proportional(model, design, notes)
        notes.append(f"Cox did not converge at ridge penalty {np.min(factor * penalty):g}")
    return marginal(times, events, [*notes, "Kaplan–Meier instead"])


def try_cox(Z: Floats, times: Floats, events: Bools, penalty: float | Floats) -> Any:
    """Return the fitted model, or None where it diverges or grows implausible coefficients."""
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    model = CoxPHSurvivalAnalysis(alpha=penalty, ties="efron", n_iter=200)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.fit(Z, surv(times, events))
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, Warning):
        return None
    # e^5 = 148-fold hazard for one standard deviation is separation, not biology
    return model if np.isfinite(model.coef_).all() and np.abs(model.coef_).max() < 5 else None
