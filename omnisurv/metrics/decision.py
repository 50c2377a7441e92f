"""Net benefit: what acting on a predicted risk is worth, beside acting on everybody or nobody."""

from functools import partial

import numpy as np

from omnisurv.metrics.bootstrap import Score, Weights, ratio
from omnisurv.metrics.curves import (
    ArrayLike,
    Bools,
    Floats,
    endpoint_arrays,
    prediction_array,
    weighted_survival,
)


def net_benefit_scores(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, at: float, thresholds: ArrayLike
) -> list[Score]:
    """Return the net benefit of acting on those at or above each risk as a ``Score``.

    True positives less false positives times the odds of the threshold, per patient (Vickers &
    Elkin 2006); who has the event by ``at`` among those above is told by their Kaplan–Meier
    curve (Vickers et al. 2008).

    Args:
        time: (n,) days > 0.
        event: (n,) 0/1.
        risk: (n,) predicted probability of the event by ``at``; all ones for acting on everybody.
        at: days.
        thresholds: (q,) risks in [0, 1) above which one would act.

    Returns:
        A score for each threshold; NaN where nobody above it was followed that far.

    Raises:
        ValueError: wrong shapes, or risks that are not finite.
    """
    times, events = endpoint_arrays(time, event)
    risks = prediction_array(risk, len(times), "risk")
    scores = []
    for threshold in np.asarray(thresholds, dtype=float):
        above = risks >= threshold
        odds = threshold / (1 - threshold)
        weigh = partial(_benefit, times=times, events=events, above=above, at=at, odds=odds)
        told = above.any() and times[above].max() < at
        reason = "nobody above the threshold was followed that far" if told else ""
        scores.append(Score(weigh, len(times), int(events.sum()), reason))
    return scores


def _benefit(
    weights: Weights, times: Floats, events: Bools, above: Bools, at: float, odds: float
) -> Floats:
    """Return the net benefit under each row of ``weights``, (draws,)."""
    if not above.any():
        return np.zeros(len(weights))
    if times[above].max() < at:
        return np.full(len(weights), np.nan)
    share = ratio(weights[:, above].sum(axis=1), weights.sum(axis=1))
    S = weighted_survival(times[above], events[above], weights[:, above], np.array([at]))[:, 0]
    benefit: Floats = share * ((1 - S) - S * odds)
    return benefit
