"""Imputed modalities against the measured ones, beside mean, nearest neighbours and ridge."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.baselines import IMPUTATION_BASELINES
from omnisurv.core import Batch, Layout
from omnisurv.core.masking import all_but
from omnisurv.errors import DataError
from omnisurv.evaluation.scoring import (
    COLUMNS,
    DIFFERENCES,
    Evaluation,
    Row,
    difference_row,
    groups_of,
    score_row,
)
from omnisurv.imputation import impute, reconstruct
from omnisurv.metrics import Score, difference, estimate, imputation_scores, patient_draws

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort

METRICS = {"mse": "mse", "r2": "r2_pooled", "pearson": "pearson", "coverage_90": "coverage_90"}
"""Names in the table and what they are. R² is pooled over features: averaged, a few features
that hardly vary in a small test set would decide it."""
LEVEL = 0.9

Floats = NDArray[Any]


def evaluate_imputation(
    model: "FittedModel", cohort: "Cohort", *, train: "Cohort | None" = None, draws: int = 200
) -> Evaluation:
    """Hide each modality whole from patients who have it and predict it from their others.

    Values are compared in the model's standard units, so that a gene with a heavy tail counts
    as much as any other; ``modality`` (and ``subset``) in the table name what was predicted.
    """
    batch = model.batch(cohort)
    known = asked = None
    if train is not None:
        train.require_disjoint(cohort)
        known, asked = _Tables(model.batch(train), train), _Tables(batch, cohort)
    rows: list[Row] = []
    pairs: list[Row] = []
    notes: list[str] = []
    for name in batch.layout.lengths:
        visible, who = all_but(batch.observed, batch.layout, name)
        if len(who) < 2:
            notes.append(f"{name}: {len(who)} patients have it and another modality; not scored")
            continue
        part = batch.rows(who)
        found = reconstruct(model, part, name, visible[who], LEVEL)
        truth = _compared(part.values(name).numpy(), batch.layout, name)
        scored: NDArray[np.bool_] = np.any(np.isfinite(truth), axis=0)
        patients = cohort.patients[who.numpy()]
        flat = [_compared(found.mean, batch.layout, name)[:, scored]]
        half = found.half.reshape(-1)
        if not _is_slide(batch.layout, name) and np.isfinite(half[scored]).all():
            flat += [flat[0] - half[scored], flat[0] + half[scored]]
        else:
            notes.append(_without_interval(batch.layout, name))
        predictions = {model.recipe.title: flat}
        if known is not None and asked is not None:
            predictions |= _baselines(model, known, asked, name, patients, scored)
        groups = groups_of(cohort.obs.loc[patients], cohort.strata)
        events = int((cohort.obs["event"][patients] == 1).sum())
        _score(rows, pairs, predictions, truth[:, scored], groups, name, events, draws)
    if not rows:
        raise DataError("no modality could be predicted from another: " + "; ".join(notes))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.insert(1, "modality", table["subset"])
    return Evaluation(
        table,
        pd.DataFrame(pairs, columns=list(DIFFERENCES)),
        pd.DataFrame(index=cohort.patients),
        notes,
    )


def _is_slide(layout: Layout, name: str) -> bool:
    return layout.block(name) < layout.lengths[name]


def _compared(patches: Floats, layout: Layout, name: str) -> Floats:
    """Return what is compared, (n, f): every value, but of a slide the mean patch of its tiles.

    Where in a tile a nucleus lies is chance; what can be foretold is how the tissue looks.
    """
    values = np.asarray(patches, dtype=float)
    if _is_slide(layout, name):
        there = np.isfinite(values)
        count = np.maximum(there.sum(axis=1), 1)
        mean = np.where(there, values, 0.0).sum(axis=1) / count
        return np.where(there.any(axis=1), mean, np.nan)
    return values.reshape(len(values), -1)


def _without_interval(layout: Layout, name: str) -> str:
    if _is_slide(layout, name):
        return f"{name}: compared by the mean patch of its tiles, for which there is no interval"
    return f"{name}: too few held-out patients for a {LEVEL:.0%} interval"


class _Tables:
    """The modalities of a cohort as plain tables in standard units, for the baselines."""

    def __init__(self, batch: Batch, cohort: "Cohort") -> None:
        self.batch, self.cohort = batch, cohort
        self.coarse = {name: self._table(name, coarse=True) for name in batch.layout.lengths}

    def of(self, target: str) -> dict[str, pd.DataFrame]:
        """Return what is compared of the target; of other pictures the mean of each patch."""
        return {**self.coarse, target: self._table(target, coarse=False)}

    def _table(self, name: str, *, coarse: bool) -> pd.DataFrame:
        layout = self.batch.layout
        has = self.batch.observed[:, layout.slices[name]].any(1)
        patches = self.batch.rows(has).values(name)
        if coarse and layout.is_picture(name) and not _is_slide(layout, name):
            patches = patches.nanmean(-1, keepdim=True)
        values = _compared(patches.numpy(), layout, name)
        columns = np.flatnonzero(np.isfinite(values).any(axis=0))
        patients = self.cohort.patients[has.numpy()]
        return pd.DataFrame(values[:, columns], index=patients, columns=columns)


def _score(
    rows: list[Row],
    pairs: list[Row],
    predictions: dict[str, list[Floats]],
    truth: Floats,
    groups: dict[str, NDArray[np.bool_]],
    name: str,
    events: int,
    draws: int,
) -> None:
    title = next(iter(predictions))
    for group, chosen in groups.items():
        if chosen.sum() < 2:
            continue
        weights = patient_draws(int(chosen.sum()), draws)
        first: dict[str, Score] = {}
        for model_name, values in predictions.items():
            bounds = {"low": values[1][chosen], "high": values[2][chosen]} if values[1:] else {}
            scores = imputation_scores(
                truth[chosen], values[0][chosen], **bounds, level=LEVEL, events=events
            )
            first = first or scores
            for metric, key in METRICS.items():
                if key in scores:
                    e = estimate(scores[key], weights)
                    rows.append(score_row(model_name, name, group, metric, e))
            if model_name != title:
                for metric in ("mse", "r2"):
                    key = METRICS[metric]
                    d = difference(first[key], scores[key], weights)
                    pairs.append(difference_row(title, model_name, name, group, metric, d))


def _baselines(
    model: "FittedModel",
    known: _Tables,
    asked: _Tables,
    name: str,
    patients: pd.Index,
    scored: NDArray[np.bool_],
) -> dict[str, list[Floats]]:
    """Fit mean, nearest neighbours and ridge on the training patients, in the same units."""
    predictions = {}
    train, test = known.of(name), asked.coarse
    for baseline, entry in IMPUTATION_BASELINES.items():
        fitted = entry.fit(train, name, seed=model.recipe.seed)
        table = fitted.predict(test, patients).reindex(columns=np.flatnonzero(scored))
        predictions[baseline] = [table.fillna(0.0).to_numpy(float)]
    return predictions


def hidden_values(
    model: "FittedModel", cohort: "Cohort", name: str
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return a modality's measured values and what is imputed for them from the others.

    Raw expression is logged; then each feature is standardised by its measured values.
    """
    others = cohort.drop_modalities([name])
    who = cohort.patients[cohort.availability[name] & others.availability.any(axis=1)]
    data = impute(model, others.subset(who), [name]).values[name]
    index, columns = data.obs_names, data.var_names
    own = cohort[name]
    logged = own.uns.get("scale") in ("linear", "counts")
    frames = {"mean": data.X, "low": data.layers["low"], "high": data.layers["high"]}
    found = {k: pd.DataFrame(v, index=index, columns=columns) for k, v in frames.items()}
    truth = pd.DataFrame(own.X, index=own.obs_names, columns=own.var_names)
    truth = truth.reindex(index=index, columns=columns)
    if logged:
        truth, found = _logged(truth), {k: _logged(v) for k, v in found.items()}
    centre, spread = truth.mean(), truth.std()
    varied = spread.index[spread > 0]
    return (
        ((truth - centre) / spread)[varied],
        {k: ((v - centre) / spread)[varied] for k, v in found.items()},
    )


def _logged(values: pd.DataFrame) -> pd.DataFrame:
    logs = np.log1p(values.clip(lower=0).to_numpy(dtype=float))
    return pd.DataFrame(logs, index=values.index, columns=values.columns)
