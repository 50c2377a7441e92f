"""Concordance on raw times: Harrell, Uno and Antolini, with one rule for pairs and ties.

A pair (i, j) is comparable when i had an event and j was still event-free when it happened:
``time_i < time_j``, or ``time_i == time_j`` with j censored there (j is known to have outlived
i). Two events at one time are not comparable. Equal predictions count one half, so a constant
predictor scores exactly 0.5. Without a comparable pair the result is NaN.
Predictions tie when they are equal to the last bit; no tolerance is applied.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from omnisurv.metrics.bootstrap import Score, Weights, ratio
from omnisurv.metrics.curves import (
    ArrayLike,
    Between,
    Bools,
    Curves,
    Floats,
    censoring_curve,
    endpoint_arrays,
    horizon,
    prediction_array,
)

_CELLS = 500_000  # entries of the largest temporary matrix
Positions: TypeAlias = npt.NDArray[np.intp]
# sorted positions of k cases, first column -> their own outlook (k,) at their time, and that of
# all patients from that column on, (k or 1, n - first); higher = better
Outlook: TypeAlias = Callable[[Positions, int], tuple[Floats, Floats]]


def concordance_harrell(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> float:
    """Harrell's C (Harrell et al. 1982): share of comparable pairs in which risk agrees.

    Args:
        time: (n,) days > 0.
        event: (n,) 1 = event, 0 = censored.
        risk: (n,) any scale, higher = worse.

    Returns:
        C in [0, 1]; NaN where no pair is comparable.

    Raises:
        ValueError: wrong shapes, times not positive, events not 0/1, risk not finite.
    """
    return harrell_score(time, event, risk).value


def concordance_uno(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    tau: float | None = None,
) -> float:
    """Uno's C (Uno et al. 2011): Harrell's C with weights 1/G(T−)², G from training.

    Args:
        train_time: (m,) days > 0 of the training patients, for the censoring distribution G.
        train_event: (m,) 0/1.
        time: (n,) days > 0.
        event: (n,) 0/1.
        risk: (n,) higher = worse.
        tau: days; only events before it make pairs. Default: ``horizon(train_time,
            train_event)``. Events so late that G(T−) is 0 or unknown make no pairs either.

    Returns:
        C in [0, 1]; NaN where no pair is comparable before tau.

    Raises:
        ValueError: as ``concordance_harrell``.
    """
    return uno_score(train_time, train_event, time, event, risk, tau).value


def concordance_antolini(
    time: ArrayLike,
    event: ArrayLike,
    times: ArrayLike,
    S: ArrayLike,
    between: Between = "linear",
) -> float:
    """Antolini's time-dependent C (Antolini et al. 2005) on raw times.

    A comparable pair agrees when S_i(T_i) < S_j(T_i); equality counts one half (the original
    gives it nothing, which scores a constant predictor 0).

    Args:
        time: (n,) days > 0, raw, never bin indices.
        event: (n,) 0/1.
        times: (m,) days, the grid of the curves.
        S: (m, n) survival probabilities.
        between: how curves run between grid points, see ``Curves``.

    Returns:
        C in [0, 1]; NaN where no pair is comparable.

    Raises:
        ValueError: wrong shapes, or curves that are no survival curves.
    """
    curves = Curves(np.asarray(times, float), np.asarray(S, float), between)
    return antolini_score(time, event, curves).value


def harrell_score(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> Score:
    """Return Harrell's C as a ``Score``; arguments as ``concordance_harrell``."""
    times, events = endpoint_arrays(time, event)
    values = prediction_array(risk, len(times), "risk")
    return _score(times, events, _fixed(values), np.ones(len(times)))


def uno_score(
    train_time: ArrayLike,
    train_event: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    tau: float | None = None,
) -> Score:
    """Return Uno's C as a ``Score``; arguments as ``concordance_uno``."""
    times, events = endpoint_arrays(time, event)
    values = prediction_array(risk, len(times), "risk")
    G = censoring_curve(train_time, train_event)
    tau = horizon(train_time, train_event) if tau is None else tau
    # G(T−) is above 0 up to the first observed time after ``limit``; beyond it nothing is known.
    early = (times < tau) & (G.before(times) > 0) & (times <= G.times[-1])
    weight = ratio(early, G.before(times) ** 2 * early + ~early)
    return _score(times, events, _fixed(values), weight)


def antolini_score(time: ArrayLike, event: ArrayLike, curves: Curves) -> Score:
    """Return Antolini's C as a ``Score`` of ``curves`` of the same n patients."""
    times, events = endpoint_arrays(time, event)
    if curves.n != len(times):
        raise ValueError(f"curves of {curves.n} patients do not fit {len(times)} times")

    def outlook(order: Positions) -> Outlook:
        # columns sorted once: reading a contiguous part of each row is what makes this fast
        ordered = Curves(curves.times, curves.S[:, order], curves.between)
        when = times[order]
        own = ordered.own(when)
        return lambda cases, first: (own[cases], ordered.at(when[cases], first))

    return _score(times, events, outlook, np.ones(len(times)))


def _fixed(risk: Floats) -> "Callable[[Positions], Outlook]":
    def outlook(order: Positions) -> Outlook:
        health = -risk[order]
        return lambda cases, first: (health[cases], health[None, first:])

    return outlook


@dataclass(frozen=True)
class _Pairs:
    """Comparable pairs of patients sorted by time, events before censorings at equal times.

    Sorted so, the patients comparable with a case are all those from position ``start`` on.
    """

    order: Positions  # (n,) positions in the caller's order
    cases: Positions  # (k,) sorted positions of events that count
    start: Positions  # (k,) first comparable sorted position of each case
    weight: Floats  # (k,) weight of each case
    outlook: Outlook

    def weigh(self, weights: Weights) -> Floats:
        """Return C under each row of ``weights`` (draws, n)."""
        sorted_weights = weights[:, self.order].astype(np.float32)
        later = np.zeros((len(weights), len(self.order) + 1))
        later[:, :-1] = np.cumsum(sorted_weights[:, ::-1], axis=1, dtype=float)[:, ::-1]
        agreeing, comparable = np.zeros(len(weights)), np.zeros(len(weights))
        step = max(1, _CELLS // max(len(self.order), 1))
        for begin in range(0, len(self.cases), step):
            block = slice(begin, begin + step)
            # float32 counts halves exactly up to 2^23, far above any cohort
            won = sorted_weights[:, self.start[begin] :] @ self._wins(block).T
            case = sorted_weights[:, self.cases[block]] * self.weight[block]
            agreeing += (case * won).sum(axis=1)
            comparable += (case * later[:, self.start[block]]).sum(axis=1)
        return ratio(agreeing, comparable)

    def _wins(self, block: slice) -> npt.NDArray[np.float32]:
        """Return 1, ½ or 0 for each case of the block and each patient from its first start."""
        cases, start = self.cases[block], self.start[block]
        first = int(start[0])
        own, other = self.outlook(cases, first)
        wins: npt.NDArray[np.float32] = (own[:, None] < other).astype(np.float32)
        wins += np.float32(0.5) * (own[:, None] == other)
        wins[np.arange(first, len(self.order)) < start[:, None]] = 0
        return wins


def _score(
    times: Floats, events: Bools, outlook: Callable[[Positions], Outlook], weight: Floats
) -> Score:
    order = np.lexsort((~events, times))
    sorted_times, sorted_events = times[order], events[order]
    # the number of patients with an earlier time, or with an event at the same time
    before = np.searchsorted(sorted_times, sorted_times, side="left")
    tied_events = np.zeros(len(times), dtype=int)
    np.add.at(tied_events, before, sorted_events)
    start = before + tied_events[before]
    kept = np.flatnonzero(sorted_events & (start < len(times)) & (weight[order] > 0))
    pairs = _Pairs(order, kept, start[kept], weight[order][kept], outlook(order))
    return Score(pairs.weigh, len(times), int(events.sum()), _why_undefined(events, kept))


def _why_undefined(events: Bools, cases: Positions) -> str:
    if len(cases):
        return ""
    if not events.any():
        return f"no event among {len(events)} patients"
    return "no comparable pair: nobody is known to outlive an event that counts"
