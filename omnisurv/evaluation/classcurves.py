"""ROC and precision-recall curves of a label, with bands over patients."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from omnisurv.evaluation.classification import LABEL
from omnisurv.metrics import patient_draws
from omnisurv.metrics.bootstrap import ratio
from omnisurv.metrics.classification import precision_curves, roc_curves

POINTS = np.linspace(0.0, 1.0, 101)
"""Where ROC and precision-recall curves are told."""


def class_curves(
    predictions: pd.DataFrame, models: Sequence[str], draws: int = 200
) -> pd.DataFrame:
    """Return ROC and precision-recall curves, the mean over folds, with 95 % bands.

    Args:
        predictions: of an evaluation of a label.
        models: who is drawn; the first has a band, and of more than two classes a curve for each.
        draws: of the bootstrap over patients.

    Returns:
        Rows of ``model``, ``positive`` (class against the rest), ``curve`` (``roc``, ``pr``), ``x``
        (share of false positives, or recall), ``value`` (share of true positives, or precision),
        ``ci_low``, ``ci_high``, ``n`` and ``positives``.
    """
    several = predictions.index.nlevels > 1
    folds = (
        [part.droplevel("fold") for _, part in predictions.groupby(level="fold")]
        if several
        else [predictions]
    )
    classes = _classes_of(predictions, models[0])
    shown = [name for name in classes if (predictions[LABEL] == name).any()]
    asked = [(models[0], name) for name in (classes[1:] if len(classes) == 2 else shown)]
    if len(classes) == 2:
        asked += [(model, classes[1]) for model in models[1:]]
    rows = [
        _curve(folds, model, positive, curve, draws if model == models[0] else 0)
        for model, positive in asked
        for curve in ("roc", "pr")
    ]
    return pd.concat(rows, ignore_index=True)


def _curve(
    folds: Sequence[pd.DataFrame], model: str, positive: str, curve: str, draws: int
) -> pd.DataFrame:
    """Return a curve, the mean over the folds that have the class, with a band if drawn."""
    patients = pd.Index([p for part in folds for p in part.index]).unique()
    weights = np.ones((1, len(patients)), dtype=np.float32)
    if draws:
        weights = np.vstack([weights, patient_draws(len(patients), draws)])
    draw = roc_curves if curve == "roc" else precision_curves
    each = []
    for part in folds:
        value = part[f"{model}: {positive}"].fillna(0.0).to_numpy(float)
        where = patients.get_indexer(part.index)
        each.append(draw(weights[:, where], (part[LABEL] == positive).to_numpy(), value, POINTS))
    known = np.isfinite(each)
    mean = ratio(np.where(known, each, 0.0).sum(axis=0), known.sum(axis=0))
    drawn = mean[1:][np.isfinite(mean[1:]).all(axis=1)]
    band = np.quantile(drawn, [0.025, 0.975], axis=0) if len(drawn) else np.nan
    low, high = np.broadcast_to(band, (2, len(POINTS)))
    truth = pd.concat([part[LABEL] for part in folds])
    truth = truth[~truth.index.duplicated()]
    return pd.DataFrame(
        {
            "model": model,
            "positive": positive,
            "curve": curve,
            "x": POINTS,
            "value": mean[0],
            "ci_low": low,
            "ci_high": high,
            "n": len(truth),
            "positives": int((truth == positive).sum()),
        }
    )


def _classes_of(predictions: pd.DataFrame, model: str) -> list[str]:
    """Return the classes of which a model's probabilities are told."""
    start = f"{model}: "
    return [str(name).removeprefix(start) for name in predictions if str(name).startswith(start)]
