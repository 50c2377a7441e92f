"""A model of a label on patients it has not seen, from every subset of their modalities."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.baselines import CLASSIFICATION_BASELINES
from omnisurv.baselines.classification import Inputs
from omnisurv.baselines.preparation import CLINICAL
from omnisurv.evaluation.inputs import Subsets, matrix, tables_of, views
from omnisurv.evaluation.scoring import (
    COLUMNS,
    DIFFERENCES,
    Evaluation,
    Row,
    difference_row,
    groups_of,
    score_row,
)
from omnisurv.metrics import (
    Score,
    average_scores,
    classification_scores,
    difference,
    estimate,
    patient_draws,
)
from omnisurv.tasks.classification import ClassificationModel, label_values

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

COMPARED = ("auc", "average_precision", "balanced_accuracy", "brier")
"""Metrics of which paired differences are given."""
LABEL = "label"
"""Column of the predictions that holds the true class."""


@dataclass(frozen=True)
class ClassPredictions:
    """One model's probabilities (patients × classes) of some patients.

    Attributes:
        model: name in the table.
        probability: rows add up to 1.
        subset: modalities the model was allowed to see.
        fold: fold these patients were held out in.
    """

    model: str
    probability: pd.DataFrame
    subset: str = "all"
    fold: int = 0


def evaluate_classification(
    model: ClassificationModel,
    cohort: "Cohort",
    *,
    subsets: Subsets = "each",
    train: "Cohort | None" = None,
) -> Evaluation:
    """Score a model of a label with baselines and controls; see ``evaluate``.

    Rows count the patients of the second class as ``events`` where there are two classes; of more
    classes ``events`` is NaN. Who is of no class that the model knows is not scored.
    """
    notes = _strangers(model, cohort)
    cohort = model.scored(cohort)
    predictions = list(class_predictions(model, cohort, subsets))
    if train is not None:
        train.require_disjoint(cohort)
        predictions += class_baselines(model, train, cohort, notes)
    return judge(predictions, {0: cohort}, model.label, model.classes, model.recipe.title, notes)


def judge(
    predictions: Sequence[ClassPredictions],
    folds: Mapping[int, "Cohort"],
    label: str,
    classes: Sequence[str],
    title: str,
    notes: list[str],
) -> Evaluation:
    """Score predictions of a label and lay them out, the truth beside.

    Args:
        predictions: of all models, subsets and folds.
        folds: the patients of each fold, all of a known class.
        label: of the cohort.
        classes: its classes in order.
        title: the model that is compared with all others.
        notes: what had to give way.
    """
    any_fold = next(iter(folds.values()))
    strata = [name for name in any_fold.strata if name != label]
    truth = {fold: label_values(part, label).astype(str) for fold, part in folds.items()}
    obs = {fold: part.obs for fold, part in folds.items()}
    table, differences = score_classes(
        predictions, truth, obs, strata, classes=classes, reference=title
    )
    return Evaluation(table, differences, probabilities(predictions, truth), notes)


def class_predictions(
    model: ClassificationModel, cohort: "Cohort", subsets: Subsets, fold: int = 0
) -> Iterator[ClassPredictions]:
    """Predict from everything each patient has, then from each subset; see ``views``."""
    for name, who, subset in views(model, cohort, subsets):
        yield ClassPredictions(model.recipe.title, model.predict_proba(who, subset), name, fold)


def class_baselines(
    model: ClassificationModel,
    train: "Cohort",
    cohort: "Cohort",
    notes: list[str],
    fold: int = 0,
) -> list[ClassPredictions]:
    """Fit every baseline on the training patients and predict the others."""
    train = model.scored(train)
    code = model.codes(train)
    names = tables_of(model, train, notes)
    known, asked = _inputs(model, train, names), _inputs(model, cohort, names)
    predictions = []
    for name, entry in CLASSIFICATION_BASELINES.items():
        X = known[entry.inputs]
        if entry.inputs != "none" and not X.shape[1]:
            notes.append(f"{name}: left out, the cohort has nothing that it reads ({entry.inputs})")
            continue
        fitted = entry.fit(X, code, len(model.classes), seed=model.recipe.seed)
        notes += [f"{name}: {note}" for note in fitted.notes]
        found = fitted.probability(asked[entry.inputs].reindex(columns=X.columns))
        frame = pd.DataFrame(found, index=cohort.patients, columns=model.classes)
        predictions.append(ClassPredictions(name, frame, fold=fold))
    return predictions


def _inputs(
    model: ClassificationModel, cohort: "Cohort", names: Sequence[str]
) -> dict[Inputs, pd.DataFrame]:
    """Return the tables that baselines read."""
    every = matrix(model, cohort, names)
    return {
        "none": cohort.obs[[]],
        "clinical": every.loc[:, every.columns.get_level_values(0) == CLINICAL],
        "all": every,
        "availability": cohort.availability.reindex(
            columns=list(model.modalities), fill_value=False
        ),
    }


def _strangers(model: ClassificationModel, cohort: "Cohort") -> list[str]:
    """Say how many patients are not scored, and why."""
    values = label_values(cohort, model.label)
    unknown = int(values.isna().sum())
    other = values.notna() & ~values.isin(model.classes)
    notes = [f"{model.label}: not known of {unknown} patients, not scored"] if unknown else []
    if other.any():
        names = ", ".join(sorted(map(str, values[other].unique())))
        notes.append(
            f"{model.label}: {int(other.sum())} patients are of classes that no training patient "
            f"had ({names}), not scored"
        )
    return notes


def score_classes(
    predictions: Iterable[ClassPredictions],
    truth: Mapping[int, "pd.Series[str]"],
    obs: Mapping[int, pd.DataFrame],
    strata: Sequence[str],
    *,
    classes: Sequence[str],
    reference: str,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every model on every subset and group.

    With several folds a metric is the mean over folds, since models of different folds share
    no scale; patients are resampled across all of them.

    Args:
        predictions: of all models, subsets and folds.
        truth: the class of each patient of each fold.
        obs: the patients of each fold, with their strata.
        strata: columns of ``obs`` within which every figure is also given.
        classes: of the label, in order.
        reference: the model compared with all others, pairwise.
        draws: bootstrap draws.
        level: of the intervals.

    Returns:
        The table and the paired differences.
    """
    collected: dict[tuple[str, str], list[ClassPredictions]] = {}
    for prediction in predictions:
        collected.setdefault((prediction.subset, prediction.model), []).append(prediction)
    rows: list[Row] = []
    pairs: list[Row] = []
    scored: dict[tuple[str, str, str], dict[str, Score]] = {}
    for (subset, model), parts in collected.items():
        for group, scores in _group_scores(parts, truth, obs, strata, classes).items():
            scored[subset, group, model] = scores
            for metric, score in scores.items():
                e = estimate(score, patient_draws(score.n, draws), level)
                rows.append(score_row(model, subset, group, metric, e))
    for (subset, group, model), scores in scored.items():
        first = scored.get((subset, group, reference))
        if first is None or model == reference or first["auc"].n != scores["auc"].n:
            continue
        for metric in COMPARED:
            d = difference(first[metric], scores[metric], patient_draws(scores[metric].n, draws))
            pairs.append(difference_row(reference, model, subset, group, metric, d))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    differences = pd.DataFrame(pairs, columns=list(DIFFERENCES))
    if len(classes) > 2:
        table["events"], differences["events"] = np.nan, np.nan
    return table, differences


def _group_scores(
    parts: Sequence[ClassPredictions],
    truth: Mapping[int, "pd.Series[str]"],
    obs: Mapping[int, pd.DataFrame],
    strata: Sequence[str],
    classes: Sequence[str],
) -> dict[str, dict[str, Score]]:
    """Return for each group the mean score over folds of each metric."""
    folded: dict[str, list[tuple[dict[str, Score], pd.Series]]] = {}
    for part in parts:
        there = part.probability.reindex(columns=list(classes), fill_value=0.0)
        who = obs[part.fold].loc[there.index]
        for group, chosen in groups_of(who, strata).items():
            own = truth[part.fold].loc[there.index[chosen]]
            if len(own):
                code = pd.Series(pd.Categorical(own, list(classes)).codes, index=own.index)
                scores = classification_scores(code, there.to_numpy()[chosen])
                folded.setdefault(group, []).append((scores, code))
    return {group: _mean(each, len(classes)) for group, each in folded.items()}


def _mean(folded: Sequence[tuple[dict[str, Score], pd.Series]], classes: int) -> dict[str, Score]:
    """Average over folds; a patient held out in several repeats is one patient."""
    if len(folded) == 1:
        return folded[0][0]
    code = pd.concat([part for _, part in folded])
    code = code[~code.index.duplicated()]
    places = [code.index.get_indexer(part.index) for _, part in folded]
    events = int((code == 1).sum()) if classes == 2 else 0
    return {
        metric: average_scores(
            [(scores[metric], where) for (scores, _), where in zip(folded, places, strict=True)],
            len(code),
            events,
        )
        for metric in folded[0][0]
    }


def probabilities(
    predictions: Sequence[ClassPredictions], truth: Mapping[int, "pd.Series[str]"]
) -> pd.DataFrame:
    """Return the true class and, by ``model: class``, the probability of each.

    Subsets are ``model[subset]: class``. Rows are patients; with several folds, (fold, patient).
    """
    names = ["fold", "patient"]
    columns: dict[str, dict[int, pd.Series]] = {}
    for p in predictions:
        name = p.model if p.subset == "all" else f"{p.model}[{p.subset}]"
        for own in p.probability:
            columns.setdefault(f"{name}: {own}", {})[p.fold] = p.probability[own]
    found = {name: pd.concat(parts, names=names) for name, parts in columns.items()}
    table = pd.DataFrame({LABEL: pd.concat(dict(truth), names=names), **found})
    return table.droplevel("fold") if len(table.index.unique("fold")) == 1 else table
