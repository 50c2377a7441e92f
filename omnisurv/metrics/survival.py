"""Brier scores and CS-score, and all survival scores of a model at once.

One definition of the integrated Brier score: inverse-probability-of-censoring weights from the
*training* patients, G(T−) for events and G(t) for those at risk, divided by n (Graf et al.
1999), trapezoid over ``GRID_POINTS`` equally spaced times from 0 to the horizon, divided by the
horizon. Libraries' defaults differ from one another by a factor of two on the same predictions.
"""

import numpy as np

from omnisurv.metrics.auc import auc_score, auc_times
from omnisurv.metrics.bootstrap import Score, combine, patient_mean, ratio, undefined
from omnisurv.metrics.calibration import d_calibration_score
from omnisurv.metrics.concordance import antolini_score, harrell_score, uno_score
from omnisurv.metrics.curves import (
    ArrayLike,
    Between,
    Bools,
    Curves,
    Floats,
    StepFunction,
    censoring_curve,
    endpoint_arrays,
    horizon,
)

GRID_POINTS = 101


def brier_score(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    times: ArrayLike,
    S: ArrayLike,
    at: ArrayLike,
    between: Between = "linear",
) -> Floats:
    """Brier score at given times, weighted for censoring (Graf et al. 1999).

    Args:
        train_time: (k,) days > 0 of the training patients, for the censoring distribution.
        train_event: (k,) 0/1.
        time: (n,) days > 0.
        event: (n,) 0/1.
        times: (m,) days, the grid of the curves.
        S: (m, n) survival probabilities.
        at: (q,) days >= 0 at which to score.
        between: how curves run between grid points, see ``Curves``.

    Returns:
        (q,) scores >= 0, lower is better, 0.25 for S = ½ in expectation. NaN at times beyond
        the last at which a training patient could still be censored later (G > 0). Patients
        followed for longer than ``at`` count as at risk there, whatever follows.

    Raises:
        ValueError: wrong shapes, or curves that are no survival curves.
    """
    curves = Curves(np.asarray(times, float), np.asarray(S, float), between)
    when = np.atleast_1d(np.asarray(at, dtype=float))
    G = censoring_curve(train_time, train_event)
    known = when <= G.limit
    losses = _losses(G, *endpoint_arrays(time, event), curves, np.where(known, when, 0.0))
    return np.where(known, losses.mean(axis=1), np.nan)


def integrated_brier_score(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    times: ArrayLike,
    S: ArrayLike,
    at: ArrayLike | None = None,
    between: Between = "linear",
) -> float:
    """Integrated Brier score, as defined at the top of this module.

    Args:
        train_time: (k,) days > 0 of the training patients.
        train_event: (k,) 0/1.
        time: (n,) days > 0.
        event: (n,) 0/1.
        times: (m,) days, the grid of the curves.
        S: (m, n) survival probabilities.
        at: (q,) increasing days to integrate over instead (and divide by their range); those
            beyond where the score is known are cut off.
        between: how curves run between grid points, see ``Curves``.

    Returns:
        The score, >= 0, lower is better; NaN where fewer than two times are known.

    Raises:
        ValueError: wrong shapes, or curves that are no survival curves.
    """
    curves = Curves(np.asarray(times, float), np.asarray(S, float), between)
    grid = brier_grid(horizon(train_time, train_event, time)) if at is None else at
    return ibs_score(train_time, train_event, time, event, curves, grid).value


def brier_grid(end: float) -> Floats:
    """Return the times, in days, over which the Brier score is integrated up to ``end``."""
    return np.linspace(0.0, end, GRID_POINTS)


def ibs_score(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    curves: Curves,
    grid: ArrayLike,
) -> Score:
    """Return the integrated Brier score over ``grid`` (q,) days as a ``Score``."""
    G = censoring_curve(train_time, train_event)
    endpoint = endpoint_arrays(time, event)
    when = np.asarray(grid, dtype=float)
    when = when[when <= G.limit]
    if len(when) < 2 or when[-1] <= when[0] or not len(endpoint[0]):
        reason = "no time to integrate over within the training follow-up"
        return undefined(len(endpoint[0]), int(endpoint[1].sum()), reason)
    losses = _losses(G, *endpoint, curves, when)
    own = np.trapezoid(losses, when, axis=0) / (when[-1] - when[0])
    return patient_mean(own, int(endpoint[1].sum()))


def brier_scores(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    curves: Curves,
    at: ArrayLike,
) -> list[Score]:
    """Return the Brier score at each of ``at`` (q,) days as a ``Score``; see ``brier_score``."""
    G = censoring_curve(train_time, train_event)
    endpoint = endpoint_arrays(time, event)
    when = np.asarray(at, dtype=float)
    events = int(endpoint[1].sum())
    losses = _losses(G, *endpoint, curves, np.minimum(when, G.limit))
    return [
        patient_mean(own, events)
        if day <= G.limit
        else undefined(len(own), events, "beyond the training follow-up")
        for day, own in zip(when, losses, strict=True)
    ]


def _losses(G: StepFunction, times: Floats, events: Bools, curves: Curves, at: Floats) -> Floats:
    """Return each patient's weighted squared error at each time, (q, n)."""
    if curves.n != len(times):
        raise ValueError(f"curves of {curves.n} patients do not fit {len(times)} times")
    S = curves.at(at)
    happened = (times <= at[:, None]) & events
    at_risk = times > at[:, None]
    # G(T−) > 0 wherever T <= at <= limit; later events never enter and are not divided by
    weight_event = ratio(1.0, np.where(times <= G.limit, G.before(times), 1.0))
    weight_risk = 1 / G.at(at)[:, None]
    losses: Floats = S**2 * happened * weight_event + (1 - S) ** 2 * at_risk * weight_risk
    return losses


def cs_score(c: float, ibs: float) -> float:
    """CS-score ``(C + 1 − IBS) / 2`` in [0, 1], higher is better (as used for impuTMAE)."""
    return (c + 1 - ibs) / 2


def survival_scores(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    times: ArrayLike,
    S: ArrayLike,
    risk: ArrayLike | None = None,
    end: float | None = None,
    between: Between = "linear",
) -> dict[str, Score]:
    """Return every survival score of one model on one set of patients.

    Args:
        train_time: (k,) days > 0 of the training patients.
        train_event: (k,) 0/1.
        time: (n,) days > 0.
        event: (n,) 0/1.
        times: (m,) days, the grid of the curves.
        S: (m, n) survival probabilities.
        risk: (n,) higher = worse; default minus the mean survival time up to ``end``.
        end: horizon in days of ``c_uno``, ``ibs`` and ``auc``; default ``horizon(train_time,
            train_event, time)``. It is lowered to that where it lies beyond.
        between: how curves run between grid points, see ``Curves``.

    Returns:
        ``c_antolini c_harrell c_uno ibs cs auc d_calibration_p``; ``cs`` is from Antolini's C,
        ``auc`` from 1 − S(t) at the deciles of training event times (``auc_times``).

    Raises:
        ValueError: wrong shapes, or curves that are no survival curves.
    """
    curves = Curves(np.asarray(times, float), np.asarray(S, float), between)
    limit = horizon(train_time, train_event, time)
    end = limit if end is None else min(end, limit)
    train, test = (train_time, train_event), endpoint_arrays(time, event)
    risk = -curves.restricted_mean(end) if risk is None else risk
    at = auc_times(*train, end)
    antolini = antolini_score(*test, curves)
    ibs = ibs_score(*train, *test, curves, brier_grid(end))
    return {
        "c_antolini": antolini,
        "c_harrell": harrell_score(*test, risk),
        "c_uno": uno_score(*train, *test, risk, end),
        "ibs": ibs,
        "cs": combine({"c": antolini, "ibs": ibs}, lambda c, ibs: (c + 1 - ibs) / 2),
        "auc": auc_score(*train, *test, 1 - curves.at(at), at)
        if len(at)
        else undefined(len(test[0]), int(test[1].sum()), "no training event before the horizon"),
        "d_calibration_p": d_calibration_score(test[1], curves.own(test[0])),
    }
