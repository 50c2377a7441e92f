"""Time-dependent AUC: at a time, do those who had the event rank above those who did not?"""

from functools import partial

import numpy as np

from omnisurv.metrics.bootstrap import Score, Weights, ratio, undefined
from omnisurv.metrics.curves import (
    ArrayLike,
    Floats,
    censoring_curve,
    endpoint_arrays,
    weighted_survival,
)

_CHUNK = 100  # bootstrap draws held in memory at a time


def auc_cumulative_dynamic(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    at: ArrayLike,
) -> tuple[Floats, float]:
    """Cumulative/dynamic time-dependent AUC (Uno et al. 2007; Hung & Chiang 2010).

    At time t, cases had their event by t, weighted 1/G(T−); controls are event-free beyond t.

    Args:
        train_time: (k,) days > 0 of the training patients, for the censoring distribution.
        train_event: (k,) 0/1.
        time: (n,) days > 0.
        event: (n,) 0/1.
        risk: (n,) or, if it changes with time, (q, n); higher = worse.
        at: (q,) increasing days.

    Returns:
        The AUC at each time (q,), NaN where there is no case or no control; and their mean,
        weighted by the fall of the test patients' Kaplan–Meier curve between the times
        (Lambert & Chevret 2014), NaN where all are.

    Raises:
        ValueError: wrong shapes, or risks that are not finite.
    """
    timed = _TimedAUC(train_time, train_event, time, event, risk, at)
    ones = np.ones((1, len(timed.times)), dtype=np.float32)
    return timed.each(ones)[0], float(timed.mean(ones)[0])


def auc_score(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    at: ArrayLike,
) -> Score:
    """Return the mean AUC as a ``Score``; arguments as ``auc_cumulative_dynamic``."""
    timed = _TimedAUC(train_time, train_event, time, event, risk, at)
    n, events = len(timed.times), int(timed.events.sum())
    if not np.isfinite(timed.each(np.ones((1, n), dtype=np.float32))).any():
        return undefined(n, events, "no time with both a case and a control")
    return Score(timed.mean, n, events)


def auc_scores(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    at: ArrayLike,
) -> list[Score]:
    """Return the AUC at each time as a ``Score``; arguments as ``auc_cumulative_dynamic``."""
    timed = _TimedAUC(train_time, train_event, time, event, risk, at)
    n, events = len(timed.times), int(timed.events.sum())
    scores = []
    for k, known in enumerate(np.isfinite(timed.each(np.ones((1, n), dtype=np.float32))[0])):
        reason = "" if known else "no case or no control at this time"
        scores.append(Score(partial(timed.alone, k=k), n, events, reason))
    return scores


class _TimedAUC:
    """The AUC at several times under patient weights."""

    def __init__(
        self,
        train_time: ArrayLike,
        train_event: ArrayLike,
        time: ArrayLike,
        event: ArrayLike,
        risk: ArrayLike,
        at: ArrayLike,
    ) -> None:
        G = censoring_curve(train_time, train_event)
        self.times, self.events = endpoint_arrays(time, event)
        self.at = np.atleast_1d(np.asarray(at, dtype=float))
        n = len(self.times)
        self.risk = np.broadcast_to(np.asarray(risk, dtype=float), (len(self.at), n))
        if not np.isfinite(self.risk).all():
            raise ValueError("risk is not finite for every patient")
        known = self.events & (self.times <= G.times[-1]) & (G.before(self.times) > 0)
        self.case_weight = ratio(known, np.where(known, G.before(self.times), 1.0))

    def each(self, weights: Weights) -> Floats:
        """Return the AUC under each row of ``weights`` at each time, (draws, q)."""
        blocks = [weights[b : b + _CHUNK] for b in range(0, len(weights), _CHUNK)]
        return np.concatenate(
            [np.stack([self._auc(w, k) for k in range(len(self.at))], axis=1) for w in blocks]
        )

    def alone(self, weights: Weights, k: int) -> Floats:
        """Return the AUC under each row of ``weights`` at time number ``k``, (draws,)."""
        blocks = [weights[b : b + _CHUNK] for b in range(0, len(weights), _CHUNK)]
        return np.concatenate([self._auc(block, k) for block in blocks])

    def _auc(self, weights: Weights, k: int) -> Floats:
        order = np.argsort(self.risk[k], kind="stable")
        edges = np.flatnonzero(np.diff(self.risk[k][order], prepend=-np.inf))
        cases = weights * np.where(self.times <= self.at[k], self.case_weight, 0.0)
        controls = weights * (self.times > self.at[k]).astype(float)
        cases = np.add.reduceat(cases[:, order], edges, axis=1)
        controls = np.add.reduceat(controls[:, order], edges, axis=1)
        below = np.cumsum(controls, axis=1) - controls
        agreeing = (cases * (below + controls / 2)).sum(axis=1)
        return ratio(agreeing, cases.sum(axis=1) * controls.sum(axis=1))

    def mean(self, weights: Weights) -> Floats:
        """Return the mean over times under each row of ``weights``, (draws,)."""
        auc = self.each(weights)
        curve = weighted_survival(self.times, self.events, weights, self.at)
        fall = -np.diff(curve, axis=1, prepend=1.0)
        fall = np.where(np.isfinite(auc), fall, 0.0)
        return ratio((np.where(np.isfinite(auc), auc, 0.0) * fall).sum(axis=1), fall.sum(axis=1))


def auc_times(train_time: ArrayLike, train_event: ArrayLike, end: float) -> Floats:
    """Return the deciles (10 % to 90 %) of the training event times before ``end``, in days."""
    times, events = endpoint_arrays(train_time, train_event)
    before = times[events & (times < end)]
    return np.unique(np.quantile(before, np.linspace(0.1, 0.9, 9))) if len(before) else before
