"""Calibration: do predicted probabilities come true?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisurv.metrics.bootstrap import Score, Weights, ratio, undefined
from omnisurv.metrics.curves import (
    ArrayLike,
    Bools,
    Floats,
    endpoint_arrays,
    kaplan_meier_curve,
    prediction_array,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DCalibration:
    """Result of the D-calibration test.

    Attributes:
        p: of the chi-square test, in [0, 1]; small = not calibrated. NaN without patients.
        statistic: chi-square with ``len(share) - 1`` degrees of freedom.
        share: (bins,) share of patients whose S at their event falls in each of the equal
            intervals of [0, 1], lowest first; all equal when calibrated.
    """

    p: float
    statistic: float
    share: Floats


def d_calibration(event: ArrayLike, S_own: ArrayLike, bins: int = 10) -> DCalibration:
    """Test whether S at the event times is uniform on [0, 1] (Haider et al. 2020).

    A censored patient with S(c) could have an event anywhere below: the patient is spread over
    the intervals in (0, S(c)] in proportion to their width.

    Args:
        event: (n,) 1 = event, 0 = censored.
        S_own: (n,) each patient's predicted S at the own time (``Curves.own(time)``), in [0, 1].
        bins: equal intervals of [0, 1], at least 2.

    Raises:
        ValueError: wrong shapes, probabilities outside [0, 1], or fewer than 2 bins.
    """
    _, events = endpoint_arrays(np.ones(np.shape(event)), event)
    spread = _spread(events, S_own, bins)
    weights = np.ones((1, len(spread)), dtype=np.float32)
    statistic, p = _chi_square(spread, weights)
    return DCalibration(float(p[0]), float(statistic[0]), ratio(spread.sum(axis=0), len(spread)))


def d_calibration_score(event: ArrayLike, S_own: ArrayLike, bins: int = 10) -> Score:
    """Return the p-value of ``d_calibration`` as a ``Score`` (without interval)."""
    _, events = endpoint_arrays(np.ones(np.shape(event)), event)
    if not len(events):
        return undefined(0, 0, "no patient")
    spread = _spread(events, S_own, bins)
    return Score(
        lambda weights: _chi_square(spread, weights)[1],
        len(events),
        int(events.sum()),
        interval=False,
    )


def _spread(events: Bools, S_own: ArrayLike, bins: int) -> Floats:
    """Return how much of each patient falls into each interval, (n, bins), rows sum to 1."""
    S = prediction_array(S_own, len(events), "S_own")
    if bins < 2:
        raise ValueError(f"D-calibration needs at least 2 bins, got {bins}")
    if not ((S >= 0) & (S <= 1)).all():
        raise ValueError("S_own must lie in [0, 1]")
    edges = np.linspace(0, 1, bins + 1)
    exact = np.zeros((len(S), bins))
    exact[np.arange(len(S)), np.clip(np.searchsorted(edges, S, side="right") - 1, 0, bins - 1)] = 1
    below = np.clip(S[:, None] - edges[:-1], 0, 1 / bins)
    share = np.divide(below, S[:, None], out=exact.copy(), where=S[:, None] > 0)
    return np.where(events[:, None], exact, share)


def _chi_square(spread: Floats, weights: Weights) -> tuple[Floats, Floats]:
    from scipy.special import chdtrc

    bins = spread.shape[1]
    observed = weights @ spread
    expected = observed.sum(axis=1, keepdims=True) / bins
    statistic = ratio((observed - expected) ** 2, expected).sum(axis=1)
    return statistic, np.asarray(chdtrc(bins - 1, statistic), dtype=float)


def calibration_at(
    time: ArrayLike, event: ArrayLike, S_at: ArrayLike, at: float, groups: int = 10
) -> "pd.DataFrame":
    """Compare predicted with observed survival at one time, by groups of prediction.

    Args:
        time: (n,) days > 0.
        event: (n,) 0/1.
        S_at: (n,) predicted S at ``at`` (``Curves.at(at)[0]``), in [0, 1].
        at: days.
        groups: quantile groups of ``S_at``; equal predictions stay together, so there may be
            fewer.

    Returns:
        One row per group, worst prognosis first: ``at`` (days), ``n``, ``events`` (until
        ``at``), ``predicted`` (mean), ``observed`` (Kaplan–Meier; NaN where nobody in the group
        was followed that far), ``ci_low``, ``ci_high`` (95 %, log-log Greenwood).

    Raises:
        ValueError: wrong shapes, or predictions that are not finite.
    """
    import pandas as pd

    times, events = endpoint_arrays(time, event)
    S = prediction_array(S_at, len(times), "S_at")
    inner = np.unique(np.quantile(S, np.linspace(0, 1, groups + 1)[1:-1])) if len(S) else S
    member = np.searchsorted(inner, S, side="left")
    rows = []
    for group in np.unique(member):
        inside = member == group
        observed, low, high = _observed(times[inside], events[inside], at)
        rows.append(
            {
                "at": at,
                "n": int(inside.sum()),
                "events": int((events & inside & (times <= at)).sum()),
                "predicted": float(S[inside].mean()),
                "observed": observed,
                "ci_low": low,
                "ci_high": high,
            }
        )
    columns = ["at", "n", "events", "predicted", "observed", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def _observed(times: Floats, events: Bools, at: float) -> tuple[float, float, float]:
    """Return Kaplan–Meier at ``at`` with its 95 % log-log interval."""
    survival = float(kaplan_meier_curve(times, events).at(at))
    nan = float("nan")
    if times.max() < at and survival > 0:
        return nan, nan, nan
    if survival in (0.0, 1.0):
        return survival, nan, nan
    unique, place = np.unique(times, return_inverse=True)
    deaths = np.bincount(place, weights=events)
    at_risk = np.bincount(place)[::-1].cumsum()[::-1]
    early = unique <= at
    greenwood = (deaths / (at_risk * np.maximum(at_risk - deaths, 1)))[early].sum()
    width = 1.959964 * np.sqrt(greenwood) / abs(np.log(survival))
    return survival, float(survival ** np.exp(width)), float(survival ** np.exp(-width))
