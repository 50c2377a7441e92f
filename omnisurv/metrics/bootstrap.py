"""Scores under patient weights, and from them bootstrap intervals and paired differences.

Resampling patients with replacement is the same as weighting them by how often each was drawn.
So every metric here is a function of weights (draws, n): all ones give its value, drawn counts
its bootstrap distribution, and one set of counts for two models their paired difference.
The model and the training set are held fixed; the intervals are about the test patients.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnisurv.metrics.curves import Floats

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Score:
    """A metric of n patients, ready to be taken under any patient weights.

    Attributes:
        weigh: (draws, n) weights >= 0 -> (draws,) values, NaN where undefined.
        n: patients scored.
        events: events among them.
        reason: why the value is NaN; empty where it is not.
        interval: False for values such as a p-value that get no bootstrap interval.
    """

    weigh: Callable[[Weights], Floats]
    n: int
    events: int
    reason: str = ""
    interval: bool = True

    @property
    def value(self) -> float:
        """The metric with every patient counted once; NaN where undefined."""
        if self.n == 0:
            return float("nan")
        return float(self.weigh(np.ones((1, self.n), dtype=np.float32))[0])


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % percentile interval over patients; NaN comes with a reason."""

    value: float
    ci_low: float
    ci_high: float
    n: int
    events: int
    reason: str = ""


@dataclass(frozen=True)
class Difference:
    """First model minus second on the same patients, with interval and two-sided p."""

    value: float
    ci_low: float
    ci_high: float
    p: float
    n: int
    events: int
    reason: str = ""


def patient_draws(n: int, draws: int = 1000, seed: int = 0) -> Weights:
    """Return how often each of ``n`` patients is drawn in each bootstrap sample, (draws, n).

    Raises:
        ValueError: if ``n`` or ``draws`` is below 1.
    """
    if n < 1 or draws < 1:
        raise ValueError(f"a bootstrap needs at least 1 patient and 1 draw, got {n} and {draws}")
    picked = np.random.default_rng(seed).integers(0, n, size=(draws, n))
    cell = picked + n * np.arange(draws)[:, None]
    return np.bincount(cell.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float32)


def estimate(score: Score, weights: Weights, level: float = 0.95) -> Estimate:
    """Return the score's value and percentile bootstrap interval (Efron & Tibshirani 1993).

    Args:
        score: the metric.
        weights: (draws, n) from ``patient_draws(score.n)``.
        level: of the interval, in (0, 1).

    Draws in which the metric is undefined are left out; where they are more than half, the
    interval is NaN and the reason says so.

    Raises:
        ValueError: if ``weights`` are not of ``score.n`` patients.
    """
    value = score.value
    if np.isnan(value) or not score.interval:
        nan = float("nan")
        return Estimate(value, nan, nan, score.n, score.events, score.reason)
    low, high, reason = _percentiles(_drawn(score, weights), level)
    return Estimate(value, low, high, score.n, score.events, reason)


def difference(first: Score, second: Score, weights: Weights, level: float = 0.95) -> Difference:
    """Return ``first - second`` on the same patients by the paired bootstrap.

    ``p`` is two-sided, twice the smaller share of draws on either side of 0 (draws at 0 count
    on both; one is added to numerator and denominator, so p is never 0).

    Args:
        first: metric of one model.
        second: the same metric of another model, on the same patients in the same order.
        weights: (draws, n) from ``patient_draws(first.n)``.
        level: of the interval, in (0, 1).

    Raises:
        ValueError: if the two scores are not of the same number of patients and events.
    """
    if (first.n, first.events) != (second.n, second.events):
        raise ValueError(
            f"a paired difference needs the same patients: {first.n} with {first.events} events "
            f"against {second.n} with {second.events}"
        )
    nan = float("nan")
    value = first.value - second.value
    reason = first.reason or second.reason
    if np.isnan(value):
        return Difference(value, nan, nan, nan, first.n, first.events, reason)
    drawn = _drawn(first, weights) - _drawn(second, weights)
    low, high, reason = _percentiles(drawn, level)
    drawn = drawn[np.isfinite(drawn)]
    side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (1 + int(side)) / (1 + len(drawn))) if not reason else nan
    return Difference(value, low, high, p, first.n, first.events, reason)


def average_scores(parts: Sequence[tuple[Score, npt.ArrayLike]], n: int, events: int) -> Score:
    """Return the mean of one metric over folds (or repeats of folds) as a score of all patients.

    Each fold is scored by itself, since models of different folds need not share a scale.

    Args:
        parts: for each fold its score and the positions (n_fold,) of its patients among the n.
        n: patients in all.
        events: events among them.

    Folds in which the metric is undefined are left out of the mean.
    """
    places = [(score, np.asarray(members, dtype=int)) for score, members in parts if score.n]

    def weigh(weights: Weights) -> Floats:
        values = np.array([score.weigh(weights[:, members]) for score, members in places])
        known = np.isfinite(values)
        total = np.where(known, values, 0.0).sum(axis=0)
        return ratio(total, known.sum(axis=0))

    defined = any(np.isfinite(score.value) for score, _ in places)
    reason = "" if defined else next((s.reason for s, _ in parts if s.reason), "no fold to average")
    if not places:
        return undefined(n, events, reason)
    return Score(weigh, n, events, reason, interval=all(score.interval for score, _ in places))


def combine(scores: Mapping[str, Score], rule: Callable[..., Floats]) -> Score:
    """Return ``rule(**values)`` of several scores of the same patients as one score."""
    first = next(iter(scores.values()))
    reason = next((score.reason for score in scores.values() if score.reason), "")

    def weigh(weights: Weights) -> Floats:
        return rule(**{name: score.weigh(weights) for name, score in scores.items()})

    return Score(weigh, first.n, first.events, reason)


def undefined(n: int, events: int, reason: str) -> Score:
    """Return a score that is NaN whatever the weights, and says why."""
    return Score(lambda weights: np.full(len(weights), np.nan), n, events, reason)


def patient_mean(values: Floats, events: int) -> Score:
    """Return the mean over patients of ``values`` (n,), NaN left out, as a score."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)

    def weigh(weights: Weights) -> Floats:
        return ratio(weights @ filled, weights.astype(float) @ known)

    reason = "" if known.any() else "undefined for every patient"
    return Score(weigh, len(values), events, reason)


def ratio(top: npt.ArrayLike, bottom: npt.ArrayLike) -> Floats:
    """Return ``top / bottom`` elementwise, NaN where ``bottom`` is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, float), np.asarray(bottom, float))
    value: Floats = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    return value


def _drawn(score: Score, weights: Weights) -> Floats:
    if weights.ndim != 2 or weights.shape[1] != score.n:
        raise ValueError(f"weights of shape {weights.shape} do not fit {score.n} patients")
    return score.weigh(weights)


def _percentiles(drawn: Floats, level: float) -> tuple[float, float, str]:
    known = drawn[np.isfinite(drawn)]
    if 2 * len(known) < len(drawn):
        share = 1 - len(known) / len(drawn)
        nan = float("nan")
        return nan, nan, f"no interval: undefined in {share:.0%} of the bootstrap samples"
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), ""
