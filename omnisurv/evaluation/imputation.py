"""Imputed modalities against the measured ones, beside mean, nearest neighbours and ridge."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from omnisurv.baselines import IMPUTATION_BASELINES
from omnisurv.core import Batch
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
from omnisurv.imputation import reconstruct
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
    matrices = None
    if train is not None:
        train.require_disjoint(cohort)
        matrices = _matrices(model.batch(train), train), _matrices(batch, cohort)
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
        truth = part.values(name).flatten(1).numpy().astype(float)
        scored = np.isfinite(truth).any(0)
        patients = cohort.patients[who.numpy()]
        truth = truth[:, scored]
        flat = [v.reshape(len(v), -1)[:, scored] for v in (found.mean, found.low, found.high)]
        events = int((cohort.obs["event"][patients] == 1).sum())
        finite = bool(np.isfinite(flat[1]).all())
        if not finite:
            notes.append(f"{name}: too few held-out patients for a {LEVEL:.0%} interval")
        predictions = {model.recipe.title: flat if finite else flat[:1]}
        if matrices is not None:
            predictions |= _baselines(model, *matrices, name, patients, scored)
        groups = groups_of(cohort.obs.loc[patients], cohort.strata)
        _score(rows, pairs, predictions, truth, groups, name, events, draws)
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
    known: dict[str, pd.DataFrame],
    asked: dict[str, pd.DataFrame],
    name: str,
    patients: pd.Index,
    scored: NDArray[np.bool_],
) -> dict[str, list[Floats]]:
    """Fit mean, nearest neighbours and ridge on the training patients, in the same units."""
    predictions = {}
    for baseline, entry in IMPUTATION_BASELINES.items():
        fitted = entry.fit(known, name, seed=model.recipe.seed)
        table = fitted.predict(asked, patients).reindex(columns=np.flatnonzero(scored))
        predictions[baseline] = [table.fillna(0.0).to_numpy(float)]
    return predictions


def _matrices(batch: Batch, cohort: "Cohort") -> dict[str, pd.DataFrame]:
    """Return each modality in standard units, a row for each patient who has it."""
    matrices = {}
    for name, where in batch.layout.slices.items():
        has = batch.observed[:, where].any(1)
        values = batch.values(name)[has].flatten(1)
        columns = torch.isfinite(values).any(0).nonzero()[:, 0].tolist()
        matrices[name] = pd.DataFrame(
            values[:, columns].numpy().astype(float),
            index=cohort.patients[has.numpy()],
            columns=columns,
        )
    return matrices
