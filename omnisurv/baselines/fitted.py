"""What every fitted survival baseline is: two functions of a feature table, and its notes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from omnisurv.baselines.preparation import Floats, Scaling
from omnisurv.metrics import kaplan_meier_curve
from omnisurv.metrics.curves import Bools

Design: TypeAlias = Callable[[pd.DataFrame], Floats]
"""From a feature table to the numbers (n, columns) that a model was fitted on."""


@dataclass(frozen=True)
class SurvivalBaseline:
    """A fitted baseline, as two functions of a feature table (patients × features).

    Attributes:
        times: (m,) days of the curves.
        survival: table -> (n, m) probabilities.
        risk: table -> (n,), higher = worse.
        notes: what the fit had to give way on, for the report.
    """

    times: Floats
    survival: Callable[[pd.DataFrame], Floats]
    risk: Callable[[pd.DataFrame], Floats]
    notes: list[str] = field(default_factory=list)

    def predict_curves(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return survival probabilities, days (increasing, from 0) × patients."""
        times, S = self.times, np.clip(self.survival(X).T, 0.0, 1.0)
        if times[0] > 0:
            times, S = np.append(0.0, times), np.vstack([np.ones(len(X)), S])
        return pd.DataFrame(S, index=pd.Index(times, name="days"), columns=X.index)

    def predict_risk(self, X: pd.DataFrame) -> "pd.Series[float]":
        """Return a risk per patient, higher = worse."""
        return pd.Series(self.risk(X), index=X.index, name="risk")


def same_for_all(times: Floats, S: Floats, notes: Sequence[str] = ()) -> SurvivalBaseline:
    """Return one curve (m,) and one risk for everybody."""
    return SurvivalBaseline(
        times, lambda X: np.tile(S, (len(X), 1)), lambda X: np.zeros(len(X)), [*notes]
    )


def marginal(times: Floats, events: Bools, notes: Sequence[str] = ()) -> SurvivalBaseline:
    """Return the Kaplan–Meier curve of the training patients for everybody."""
    curve = kaplan_meier_curve(times, events)
    return same_for_all(curve.times, curve.values, notes)


def dropped(X: pd.DataFrame, scaling: Scaling) -> list[str]:
    """Say how many columns the scaling could not use."""
    lost = X.shape[1] - len(scaling.columns)
    return [f"{lost} of {X.shape[1]} columns constant or empty in training: dropped"] * (lost > 0)


def inner_folds(events: Bools) -> int:
    """Return how many folds, five at most, leave two events and a censored patient in each."""
    censored = int((~events).sum())
    return min(5, int(events.sum()) // 2, censored or len(events))


def surv(times: Floats, events: Bools) -> Any:
    """Return the endpoint as scikit-survival's structured array."""
    from sksurv.util import Surv

    return Surv.from_arrays(event=events, time=times)


def proportional(model: Any, design: Design, notes: list[str], **which: float) -> SurvivalBaseline:
    """Return a fitted scikit-survival model; ``which`` goes to its predict methods."""

    def survival(X: pd.DataFrame) -> Floats:
        with np.errstate(over="ignore"):
            rows = model.predict_survival_function(design(X), return_array=True, **which)
        return np.asarray(rows, dtype=float)

    return SurvivalBaseline(
        np.asarray(model.unique_times_, dtype=float),
        survival,
        lambda X: np.asarray(model.predict(design(X), **which), dtype=float),
        notes,
    )
