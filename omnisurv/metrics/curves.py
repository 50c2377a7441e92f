"""Survival curves on raw times, Kaplan–Meier, and the horizon that scores are taken to.

Times are in days throughout; ``n`` is the number of patients.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
ArrayLike: TypeAlias = npt.ArrayLike
Between: TypeAlias = Literal["linear", "step"]

ROUNDING = 1e-6


def endpoint_arrays(time: ArrayLike, event: ArrayLike) -> tuple[Floats, Bools]:
    """Return ``time`` as float days and ``event`` as bool, both (n,).

    Raises:
        ValueError: if the lengths differ, a time is not finite and positive, or an event is
            neither 0 nor 1.
    """
    times = np.asarray(time, dtype=float)
    events = np.asarray(event, dtype=float)
    if times.ndim != 1 or times.shape != events.shape:
        raise ValueError(
            f"time and event must be of one length, got shapes {times.shape} and {events.shape}"
        )
    if not (np.isfinite(times).all() and (times > 0).all()):
        bad = int(np.flatnonzero(~(np.isfinite(times) & (times > 0)))[0])
        raise ValueError(f"time must be finite and > 0 days, got {times[bad]} at position {bad}")
    if not np.isin(events, (0.0, 1.0)).all():
        raise ValueError("event must be 0 (censored) or 1 (event) for every patient")
    return times, events.astype(bool)


def prediction_array(values: ArrayLike, n: int, what: str) -> Floats:
    """Return ``values`` as a finite float (n,); ``what`` names it in the ValueError."""
    array = np.asarray(values, dtype=float)
    if array.shape != (n,):
        raise ValueError(f"{what} must have shape ({n},), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite for {int((~np.isfinite(array)).sum())} patients")
    return array


@dataclass(frozen=True)
class Curves:
    """Survival curves S(t) of n patients, to be read at any raw time.

    Attributes:
        times: (m,) days, increasing, >= 0. Where the grid starts after 0, S(0) = 1 is put first.
        S: (m, n) probabilities in [0, 1], falling (or level) in time.
        between: ``linear`` joins the grid points (a constant density within each interval);
            ``step`` is right-continuous, S(t) = S(last grid point <= t). Beyond the last
            grid point either stays constant.
    """

    times: Floats
    S: Floats
    between: Between = "linear"

    def __post_init__(self) -> None:
        times = np.asarray(self.times, dtype=float)
        S = np.asarray(self.S, dtype=float)
        _check_curves(times, S)
        if times[0] > 0:
            times = np.concatenate([[0.0], times])
            S = np.concatenate([np.ones((1, S.shape[1])), S])
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "S", np.clip(S, 0.0, 1.0))

    @property
    def n(self) -> int:
        """The number of patients."""
        return int(self.S.shape[1])

    def at(self, when: ArrayLike, first: int = 0) -> Floats:
        """Return S at ``when`` (k,) days >= 0 of the patients from ``first`` on, (k, n - first)."""
        left, right, share = self._locate(np.atleast_1d(np.asarray(when, dtype=float)))
        S = self.S[:, first:]
        low = S[left]
        return low + share[:, None] * (S[right] - low)

    def own(self, when: ArrayLike) -> Floats:
        """Return S of each patient at that patient's own time: ``when`` (n,) -> (n,)."""
        when = prediction_array(when, self.n, "time")
        left, right, share = self._locate(when)
        patient = np.arange(self.n)
        low = self.S[left, patient]
        return low + share * (self.S[right, patient] - low)

    def restricted_mean(self, horizon: float) -> Floats:
        """Return the mean survival time up to ``horizon`` days, (n,) in days."""
        grid = np.union1d(self.times[self.times < horizon], [0.0, horizon])
        S = self.at(grid)
        width = np.diff(grid)[:, None]
        heights = S[:-1] if self.between == "step" else (S[:-1] + S[1:]) / 2
        area: Floats = (heights * width).sum(axis=0)
        return area

    def _locate(self, when: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
        if not (when >= 0).all():
            raise ValueError("survival curves can only be read at times >= 0 days")
        left = np.searchsorted(self.times, when, side="right") - 1
        right = np.minimum(left + 1, len(self.times) - 1)
        if self.between == "step":
            return left, left, np.zeros(len(when))
        gap = self.times[right] - self.times[left]
        share = np.divide(when - self.times[left], gap, out=np.zeros(len(when)), where=gap > 0)
        return left, right, share


def _check_curves(times: Floats, S: Floats) -> None:
    if times.ndim != 1 or S.ndim != 2 or len(times) != len(S) or len(times) == 0:
        raise ValueError(
            f"curves need times (m,) and S (m, patients), got shapes {times.shape} and {S.shape}"
        )
    if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
        raise ValueError("times of survival curves must be finite, >= 0 and strictly increasing")
    if not ((S >= -ROUNDING) & (S <= 1 + ROUNDING)).all():
        raise ValueError("survival probabilities must lie in [0, 1], without NaN")
    if (np.diff(S, axis=0) > ROUNDING).any():
        raise ValueError("survival curves must not rise with time (rows are times, not patients)")


@dataclass(frozen=True)
class StepFunction:
    """A right-continuous step function that is 1 before its first time.

    Attributes:
        times: (m,) days, increasing.
        values: (m,) the value from that time on.
    """

    times: Floats
    values: Floats

    def at(self, when: ArrayLike) -> Floats:
        """Return the value at ``when`` (k,)."""
        return self._read(when, "right")

    def before(self, when: ArrayLike) -> Floats:
        """Return the left limit at ``when`` (k,): the value just before that time."""
        return self._read(when, "left")

    @property
    def limit(self) -> float:
        """The last observed time, in days, at which the value is still above 0 (0 if none)."""
        positive = self.times[self.values > 0]
        return float(positive[-1]) if len(positive) else 0.0

    def _read(self, when: ArrayLike, side: Any) -> Floats:
        padded = np.concatenate([[1.0], self.values])
        values: Floats = padded[np.searchsorted(self.times, np.asarray(when, float), side=side)]
        return values


def kaplan_meier_curve(time: ArrayLike, event: ArrayLike) -> StepFunction:
    """Kaplan–Meier estimate of survival (Kaplan & Meier 1958).

    Args:
        time: (n,) days > 0.
        event: (n,) 1 = event, 0 = censored.

    Raises:
        ValueError: as ``endpoint_arrays``.
    """
    times, events = endpoint_arrays(time, event)
    unique, deaths, _, at_risk = _counts(times, events)
    return StepFunction(unique, np.cumprod(1 - deaths / at_risk, dtype=np.float64))


def censoring_curve(time: ArrayLike, event: ArrayLike) -> StepFunction:
    """Kaplan–Meier estimate G of staying uncensored, for inverse-probability weights.

    Events at a time come before the censorings at that time and so are not at risk of them
    (as in scikit-survival).

    Args:
        time: (n,) days > 0, of the *training* patients.
        event: (n,) 1 = event, 0 = censored.

    Raises:
        ValueError: as ``endpoint_arrays``.
    """
    times, events = endpoint_arrays(time, event)
    unique, deaths, censored, at_risk = _counts(times, events)
    at_risk = at_risk - deaths
    drop = np.divide(censored, at_risk, out=np.zeros(len(unique)), where=at_risk > 0)
    return StepFunction(unique, np.cumprod(1 - drop, dtype=np.float64))


def weighted_survival(
    times: Floats, events: Bools, weights: npt.NDArray[Any], at: Floats
) -> Floats:
    """Return Kaplan–Meier curves of patients (n,) under weights (draws, n) at days, (draws, q)."""
    order = np.argsort(times, kind="stable")
    unique, edges = np.unique(times[order], return_index=True)
    ordered = weights[:, order].astype(float)
    total = np.add.reduceat(ordered, edges, axis=1)
    deaths = np.add.reduceat(ordered * events[order], edges, axis=1)
    at_risk = np.cumsum(total[:, ::-1], axis=1)[:, ::-1]
    drop = np.divide(deaths, at_risk, out=np.zeros_like(deaths), where=at_risk > 0)
    curve = np.concatenate([np.ones((len(weights), 1)), np.cumprod(1 - drop, axis=1)], axis=1)
    return curve[:, np.searchsorted(unique, at, side="right")]


def _counts(times: Floats, events: Bools) -> tuple[Floats, Floats, Floats, Floats]:
    """Return distinct times with events, censorings and patients at risk at each."""
    unique, place = np.unique(times, return_inverse=True)
    deaths = np.bincount(place, weights=events, minlength=len(unique)).astype(float)
    total = np.bincount(place, minlength=len(unique)).astype(float)
    at_risk: Floats = total[::-1].cumsum()[::-1]
    return unique, deaths, total - deaths, at_risk


def horizon(
    train_time: ArrayLike,
    train_event: ArrayLike,
    test_time: ArrayLike | None = None,
    quantile: float = 0.8,
) -> float:
    """Return the time, in days, up to which integrated scores are taken.

    It is the ``quantile`` of the training patients' follow-up times (events and censorings
    alike), lowered where need be to where training patients can still be censored later
    (G > 0) and, with ``test_time``, to just before the longest follow-up in the test set.
    Test patients followed for longer are thereby censored administratively at the horizon.

    Raises:
        ValueError: as ``endpoint_arrays``; or if there is no training patient.
    """
    times, _ = endpoint_arrays(train_time, train_event)
    if len(times) == 0:
        raise ValueError("a horizon needs at least one training patient")
    limit = min(float(np.quantile(times, quantile)), censoring_curve(times, train_event).limit)
    if test_time is not None and np.size(test_time):
        limit = min(limit, float(np.nextafter(np.max(np.asarray(test_time, dtype=float)), 0.0)))
    return limit
