"""Scores of imputed values against measured ones. What nobody measured is never scored.

``truth`` and ``predicted`` are (n, p), patients × features, in one unit; NaN in ``truth`` is a
value that was not measured. ``by="feature"`` scores each feature and averages (a feature with
few measurements counts like any other); ``by="pooled"`` puts all measured values together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from omnisurv.metrics.bootstrap import Score, Weights, patient_mean, ratio
from omnisurv.metrics.curves import ArrayLike, Bools, Floats

By: TypeAlias = Literal["feature", "pooled"]
_CELLS = 2_000_000  # entries of the largest temporary matrix
_FLAT = 1e-12  # share of a feature's variance below which a sample of it counts as constant


def mse(truth: ArrayLike, predicted: ArrayLike, by: By = "feature") -> float:
    """Mean squared error, in squared units, >= 0; NaN where nothing was measured.

    Raises:
        ValueError: shapes differ, or a measured value has no finite prediction.
    """
    return _error_score(_Pairs.of(truth, predicted), "mse", by, 0).value


def rmse(truth: ArrayLike, predicted: ArrayLike, by: By = "feature") -> float:
    """Root mean squared error (per feature, then averaged), in units, >= 0; raises as ``mse``."""
    return _error_score(_Pairs.of(truth, predicted), "rmse", by, 0).value


def mae(truth: ArrayLike, predicted: ArrayLike, by: By = "feature") -> float:
    """Mean absolute error, in units, >= 0; NaN where nothing was measured; raises as ``mse``."""
    return _error_score(_Pairs.of(truth, predicted), "mae", by, 0).value


def r2(truth: ArrayLike, predicted: ArrayLike, by: By = "feature") -> float:
    """Share of variance explained, 1 − SSE/SST about each feature's mean, in (−∞, 1].

    Features that are constant or measured once are left out. Pooled sums SSE and SST over
    features first, each SST still about its own feature's mean: knowing which gene is high on
    average earns nothing. NaN where no feature varies; raises as ``mse``.
    """
    return _error_score(_Pairs.of(truth, predicted), "r2", by, 0).value


def pearson(
    truth: ArrayLike, predicted: ArrayLike, across: Literal["patients", "features"] = "patients"
) -> float:
    """Mean Pearson correlation in [−1, 1].

    ``across="patients"`` correlates each feature over patients and averages over features: does
    the imputation tell patients apart? ``across="features"`` correlates each patient's profile
    and averages over patients; high values come free, as all profiles are alike. A constant
    prediction of something that varies scores 0; where the truth does not vary (or is measured
    once) it is left out. NaN where nothing is left; raises as ``mse``.
    """
    if across == "features":
        return _pearson_by_patient(truth, predicted, 0).value
    return _error_score(_Pairs.of(truth, predicted), "pearson", "feature", 0).value


def coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """Share in [0, 1] of measured values inside their interval [``low``, ``high``], all (n, p).

    NaN where nothing was measured.

    Raises:
        ValueError: shapes differ, or a measured value has no finite interval.
    """
    return _coverage_score(truth, low, high, 0).value


def imputation_scores(
    truth: ArrayLike,
    predicted: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    level: float = 0.9,
    events: int = 0,
) -> dict[str, Score]:
    """Return every imputation score of one modality, ready for the patient bootstrap.

    Args:
        truth: (n, p) measured values, NaN where not measured.
        predicted: (n, p) imputed values.
        low: (n, p) lower ends of the intervals, if there are any.
        high: (n, p) upper ends.
        level: the intervals' nominal level, named in the key.
        events: events among the n patients, carried along.

    Returns:
        ``mse rmse mae r2 pearson`` by feature, ``mse_pooled rmse_pooled mae_pooled r2_pooled``,
        ``pearson_profile`` (by patient) and, with intervals, ``coverage_90`` or what the level
        is.

    Raises:
        ValueError: shapes differ, or a measured value has no finite prediction.
    """
    pairs = _Pairs.of(truth, predicted)
    names = ("mse", "rmse", "mae", "r2")
    scores = {name: _error_score(pairs, name, "feature", events) for name in (*names, "pearson")}
    scores |= {f"{name}_pooled": _error_score(pairs, name, "pooled", events) for name in names}
    scores["pearson_profile"] = _pearson_by_patient(truth, predicted, events)
    if low is not None and high is not None:
        scores[f"coverage_{100 * level:g}"] = _coverage_score(truth, low, high, events)
    return scores


@dataclass(frozen=True)
class _Pairs:
    """Measured values and predictions, both centred on the feature's mean, 0 if unmeasured."""

    measured: Bools
    y: Floats
    x: Floats

    @classmethod
    def of(cls, truth: ArrayLike, predicted: ArrayLike) -> "_Pairs":
        y, x = np.asarray(truth, dtype=float), np.asarray(predicted, dtype=float)
        measured = np.isfinite(y)
        _require_finite(measured, x, "prediction")
        centre = ratio(np.where(measured, y, 0).sum(axis=0), measured.sum(axis=0))
        return cls(measured, np.where(measured, y - centre, 0), np.where(measured, x - centre, 0))


def _require_finite(measured: Bools, values: Floats, what: str) -> None:
    if measured.ndim != 2 or measured.shape != values.shape:
        raise ValueError(
            f"truth and {what} must be of one shape (patients, features), "
            f"got {measured.shape} and {values.shape}"
        )
    lost = int((measured & ~np.isfinite(values)).sum())
    if lost:
        raise ValueError(f"{lost} of {int(measured.sum())} measured values have no {what}")


@dataclass(frozen=True)
class _Moments:
    """Weighted sums over patients for a block of features, each (draws, block)."""

    n: Floats
    squared: Floats
    absolute: Floats
    yy: Floats
    xx: Floats
    xy: Floats
    varies: Bools


def _moments(pairs: _Pairs, weights: Weights) -> Iterator[_Moments]:
    w = weights.astype(float)
    step = max(1, _CELLS // max(len(w), len(pairs.y), 1))
    for begin in range(0, pairs.y.shape[1], step):
        block = (slice(None), slice(begin, begin + step))
        y, x, m = pairs.y[block], pairs.x[block], pairs.measured[block].astype(float)
        n = w @ m
        mean_y, mean_x = ratio(w @ y, n), ratio(w @ x, n)
        yy = np.maximum(w @ y**2 - n * mean_y**2, 0)
        scale = ratio((y**2).sum(axis=0), m.sum(axis=0))
        yield _Moments(
            n=n,
            squared=w @ (y - x) ** 2,
            absolute=w @ np.abs(y - x),
            yy=yy,
            xx=np.maximum(w @ x**2 - n * mean_x**2, 0),
            xy=w @ (x * y) - n * mean_x * mean_y,
            varies=yy > _FLAT * n * scale,
        )


def _r2(m: _Moments) -> Floats:
    return np.where(m.varies, 1 - ratio(m.squared, m.yy), np.nan)


def _pearson(m: _Moments) -> Floats:
    moving = m.varies & (m.xx > _FLAT * m.yy)
    r = np.clip(ratio(m.xy, np.sqrt(m.xx * m.yy)), -1, 1)
    return np.where(moving, r, np.where(m.varies, 0.0, np.nan))


_BY_FEATURE: dict[str, Callable[[_Moments], Floats]] = {
    "mse": lambda m: ratio(m.squared, m.n),
    "rmse": lambda m: np.sqrt(ratio(m.squared, m.n)),
    "mae": lambda m: ratio(m.absolute, m.n),
    "r2": _r2,
    "pearson": _pearson,
}

# name -> what is summed above and below the line, and what is made of the ratio
_Pooling: TypeAlias = tuple[
    Callable[[_Moments], Floats], Callable[[_Moments], Floats], Callable[[Floats], Floats]
]
_POOLED: dict[str, _Pooling] = {
    "mse": (lambda m: m.squared, lambda m: m.n, lambda value: value),
    "rmse": (lambda m: m.squared, lambda m: m.n, np.sqrt),
    "mae": (lambda m: m.absolute, lambda m: m.n, lambda value: value),
    "r2": (lambda m: m.squared * m.varies, lambda m: m.yy * m.varies, lambda value: 1 - value),
}


def _error_score(pairs: _Pairs, name: str, by: By, events: int) -> Score:
    if by not in ("feature", "pooled"):
        raise ValueError(f"by must be 'feature' or 'pooled', got '{by}'")

    def weigh(weights: Weights) -> Floats:
        top, bottom = np.zeros(len(weights)), np.zeros(len(weights))
        for moments in _moments(pairs, weights):
            if by == "pooled":
                above, below, _ = _POOLED[name]
                top += above(moments).sum(axis=1)
                bottom += below(moments).sum(axis=1)
            else:
                values = _BY_FEATURE[name](moments)
                known = np.isfinite(values)
                top += np.where(known, values, 0).sum(axis=1)
                bottom += known.sum(axis=1)
        value = ratio(top, bottom)
        return _POOLED[name][2](value) if by == "pooled" else value

    return _with_reason(Score(weigh, len(pairs.y), events), pairs.measured)


def _with_reason(score: Score, measured: Bools) -> Score:
    if not measured.any():
        return Score(score.weigh, score.n, score.events, "no value was measured")
    if np.isnan(score.value):
        return Score(score.weigh, score.n, score.events, "no measured feature varies")
    return score


def _pearson_by_patient(truth: ArrayLike, predicted: ArrayLike, events: int) -> Score:
    flipped = _Pairs.of(np.transpose(truth), np.transpose(predicted))
    ones = np.ones((1, len(flipped.y)), dtype=np.float32)
    blocks = [_pearson(moments)[0] for moments in _moments(flipped, ones)]
    return patient_mean(np.concatenate(blocks) if blocks else np.zeros(0), events)


def _coverage_score(truth: ArrayLike, low: ArrayLike, high: ArrayLike, events: int) -> Score:
    y, bottom, top = (np.asarray(a, dtype=float) for a in (truth, low, high))
    measured = np.isfinite(y)
    _require_finite(measured, bottom, "lower interval end")
    _require_finite(measured, top, "upper interval end")
    inside = (measured & (bottom <= y) & (y <= top)).sum(axis=1).astype(float)
    count = measured.sum(axis=1).astype(float)

    def weigh(weights: Weights) -> Floats:
        return ratio(weights @ inside, weights @ count)

    return Score(weigh, len(y), events, "" if measured.any() else "no value was measured")
