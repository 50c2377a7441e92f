"""How well predicted class probabilities tell patients' classes, with scores for the bootstrap.

The values are those of scikit-learn under sample weights, which the tests hold them to; here
all weights of a bootstrap are gone through at once, a few hundred times as fast.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from omnisurv.metrics.bootstrap import Score, Weights, ratio, undefined
from omnisurv.metrics.curves import Bools, Floats

Codes = npt.NDArray[np.int64]


def classification_scores(code: npt.ArrayLike, probability: npt.ArrayLike) -> dict[str, Score]:
    """Return ``auc``, ``average_precision``, ``balanced_accuracy`` and ``brier``.

    Of two classes, AUC and average precision are of the second, the positive one; of more they
    are the mean over classes of each against the rest, classes that nobody here has left out. The
    predicted class is the most probable one. The Brier score of two classes is the mean squared
    error of the positive one's probability, of more the sum over classes (Brier 1950).

    Args:
        code: (n,) class of each patient, counted from 0.
        probability: (n, k) of each class, rows adding up to 1.

    Returns:
        Scores whose ``events`` are the patients of the positive class; 0 of more classes.

    Raises:
        ValueError: wrong shapes, or probabilities that are not finite.
    """
    codes, p = _checked(code, probability)
    n, k = p.shape
    events = int((codes == 1).sum()) if k == 2 else 0
    present = [c for c in range(k) if (codes == c).any()]
    if len(present) < 2:
        reason = "all patients are of one class" if n else "no patient"
        ranked = {name: undefined(n, events, reason) for name in ("auc", "average_precision")}
    else:
        asked = [1] if k == 2 else present
        ranked = {
            "auc": Score(partial(_mean, roc_auc, codes, p, asked), n, events),
            "average_precision": Score(partial(_mean, precision_mean, codes, p, asked), n, events),
        }
    hit = p.argmax(axis=1) == codes
    wrong = np.square(p - np.eye(k)[codes]).sum(axis=1) / (2 if k == 2 else 1)
    return {
        **ranked,
        "balanced_accuracy": Score(partial(_recall, hit, codes, present), n, events),
        "brier": Score(lambda w: ratio(w @ wrong, w.sum(axis=1, dtype=float)), n, events),
    }


def roc_auc(weights: Weights, positive: Bools, value: Floats) -> Floats:
    """Return the area under the ROC curve under each row of ``weights`` (draws, n)."""
    true, false = _above(weights, positive, value)
    pairs = np.diff(false, axis=1) * (true[:, 1:] + true[:, :-1]) / 2
    return ratio(pairs.sum(axis=1), true[:, -1] * false[:, -1])


def precision_mean(weights: Weights, positive: Bools, value: Floats) -> Floats:
    """Return the average precision under each row of ``weights``: precision over recall's steps."""
    true, false = _above(weights, positive, value)
    gained = np.diff(true, axis=1) * _precision(true, false)[:, 1:]
    return ratio(gained.sum(axis=1), true[:, -1])


def roc_curves(weights: Weights, positive: Bools, value: Floats, at: Floats) -> Floats:
    """Return the share of true positives at each share ``at`` of false ones, (draws, q)."""
    true, false = _above(weights, positive, value)
    x, y = ratio(false, false[:, -1:]), ratio(true, true[:, -1:])
    found = np.full((len(true), len(at)), np.nan)
    for row in np.flatnonzero(np.isfinite(x[:, -1]) & np.isfinite(y[:, -1])):
        found[row] = np.interp(at, x[row], y[row])
    return found


def precision_curves(weights: Weights, positive: Bools, value: Floats, at: Floats) -> Floats:
    """Return the best precision at a recall of at least each of ``at``, (draws, q)."""
    true, false = _above(weights, positive, value)
    best = np.maximum.accumulate(_precision(true, false)[:, ::-1], axis=1)[:, ::-1]
    recall = ratio(true, true[:, -1:])
    found = np.full((len(true), len(at)), np.nan)
    for row in np.flatnonzero(np.isfinite(recall[:, -1])):
        place = np.searchsorted(recall[row], np.asarray(at) - 1e-9)
        found[row] = best[row][np.minimum(place, best.shape[1] - 1)]
    return found


def _precision(true: Floats, false: Floats) -> Floats:
    return np.nan_to_num(ratio(true, true + false))


def _above(weights: Weights, positive: Bools, value: Floats) -> tuple[Floats, Floats]:
    """Return weights of true and false positives above every distinct value, and of all last."""
    order = np.argsort(-value, kind="stable")
    edges = np.flatnonzero(np.diff(value[order], prepend=np.inf))
    here = weights[:, order].astype(float)
    each = [np.add.reduceat(here * who[order], edges, axis=1) for who in (positive, ~positive)]
    true, false = (np.pad(np.cumsum(part, axis=1), ((0, 0), (1, 0))) for part in each)
    return true, false


def _mean(
    metric: Callable[[Weights, Bools, Floats], Floats],
    codes: Codes,
    p: Floats,
    asked: list[int],
    weights: Weights,
) -> Floats:
    """Return the mean of a metric over classes, each against the rest."""
    each = [metric(weights, codes == c, p[:, c]) for c in asked]
    mean: Floats = np.mean(each, axis=0)
    return mean


def _recall(hit: Bools, codes: Codes, present: list[int], weights: Weights) -> Floats:
    """Return the mean over classes of the share that is predicted rightly."""
    each = [
        ratio(weights @ (hit & (codes == c)), weights @ (codes == c).astype(float)) for c in present
    ]
    mean: Floats = np.mean(each, axis=0) if each else np.full(len(weights), np.nan)
    return mean


def _checked(code: npt.ArrayLike, probability: npt.ArrayLike) -> tuple[Codes, Floats]:
    codes, p = np.asarray(code, dtype=np.int64), np.asarray(probability, dtype=float)
    if p.ndim != 2 or codes.shape != (len(p),) or p.shape[1] < 2:
        raise ValueError(
            f"codes {codes.shape} and probabilities {p.shape} are not (n,) and (n, k >= 2)"
        )
    if not np.isfinite(p).all():
        raise ValueError("probabilities are not finite for every patient")
    if len(codes) and not (codes.min() >= 0 and codes.max() < p.shape[1]):
        raise ValueError(f"codes must lie in 0 to {p.shape[1] - 1}")
    return codes, p
