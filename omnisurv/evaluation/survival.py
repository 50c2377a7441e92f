"""A survival model on patients it has not seen, from every subset of their modalities."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.baselines import (
    CLASSIFICATION_BASELINES,
    IMPUTATION_BASELINES,
    SURVIVAL_BASELINES,
)
from omnisurv.baselines.preparation import CLINICAL, STRATUM
from omnisurv.baselines.survival import Inputs
from omnisurv.errors import DataError
from omnisurv.evaluation.inputs import Subsets, matrix, tables_of, views
from omnisurv.evaluation.scoring import (
    Evaluation,
    Fold,
    Predictions,
    gather_curves,
    score_survival,
)
from omnisurv.task import stratum_of
from omnisurv.tasks.survival import SurvivalModel

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort


def evaluate_survival(
    model: SurvivalModel,
    cohort: "Cohort",
    *,
    subsets: Subsets = "each",
    train: "Cohort | None" = None,
) -> Evaluation:
    """Score a survival model with baselines and controls; see ``evaluate``."""
    cohort = cohort.with_endpoint()
    if not len(cohort) or not (cohort.obs["event"] == 1).any():
        raise DataError(
            f"{len(cohort)} patients have a usable endpoint and none of them an event: "
            "there is nothing to score"
        )
    predictions = list(model_predictions(model, cohort, subsets))
    notes: list[str] = []
    if train is not None:
        train.require_disjoint(cohort)
        predictions += baseline_predictions(model, train, cohort, notes)
    fold = Fold(cohort.obs, model.follow_up)
    title = model.recipe.title
    table, differences = score_survival(predictions, {0: fold}, cohort.strata, reference=title)
    curves = gather_curves(predictions, {0: fold})
    return Evaluation(table, differences, risks(predictions), notes, curves)


def model_predictions(
    model: SurvivalModel, cohort: "Cohort", subsets: Subsets, fold: int = 0
) -> Iterator[Predictions]:
    """Predict from everything each patient has, then from each subset; see ``views``."""
    for name, who, subset in views(model, cohort, subsets):
        yield Predictions(model.recipe.title, *model.predict_both(who, subset), name, fold)


def baseline_predictions(
    model: SurvivalModel, train: "Cohort", cohort: "Cohort", notes: list[str], fold: int = 0
) -> list[Predictions]:
    """Fit every baseline on the training patients and predict the others."""
    train = train.with_endpoint()
    time, event = train.obs["time"].to_numpy(float), train.obs["event"].to_numpy(float)
    tables = tables_of(model, train, notes)
    known, asked = _inputs(model, train, tables), _inputs(model, cohort, tables)
    predictions = []
    for name, entry in SURVIVAL_BASELINES.items():
        X = known[entry.inputs]
        if entry.inputs != "none" and not X.shape[1]:
            notes.append(f"{name}: left out, the cohort has nothing that it reads ({entry.inputs})")
            continue
        fitted = entry.fit(X, time, event, seed=model.recipe.seed)
        notes += [f"{name}: {note}" for note in fitted.notes]
        X = asked[entry.inputs].reindex(columns=X.columns)
        predictions.append(
            Predictions(name, fitted.predict_curves(X), fitted.predict_risk(X), fold=fold)
        )
    return predictions


def _inputs(
    model: SurvivalModel, cohort: "Cohort", names: Sequence[str]
) -> dict[Inputs, pd.DataFrame]:
    """Return the tables that baselines read."""
    every = matrix(model, cohort, names)
    is_clinical = every.columns.get_level_values(0) == CLINICAL
    clinical = every.loc[:, is_clinical]
    classes = np.array([*model.strata, None], dtype=object)[stratum_of(cohort, model.strata)]
    stratum = pd.DataFrame({(STRATUM, ""): classes}, index=cohort.patients)
    return {
        "none": cohort.obs[[]],
        "clinical": clinical,
        "stratified": pd.concat([clinical, stratum], axis=1) if is_clinical.any() else clinical,
        "omics": every.loc[:, ~is_clinical],
        "all": every,
        "availability": cohort.availability.reindex(
            columns=list(model.modalities), fill_value=False
        ),
    }


def descriptions(table: pd.DataFrame) -> list[str]:
    """Say what each baseline in a table of scores is."""
    said = {name: entry.description for name, entry in SURVIVAL_BASELINES.items()}
    said |= {name: entry.description for name, entry in IMPUTATION_BASELINES.items()}
    if "balanced_accuracy" in set(table["metric"]):
        said = {name: entry.description for name, entry in CLASSIFICATION_BASELINES.items()}
    return [f"{name}: {said[name]}" for name in table["model"].unique() if name in said]


def risks(predictions: Sequence[Predictions]) -> pd.DataFrame:
    """Return the risk of each patient by model, and by model[subset] for subsets.

    Rows are patients; with several folds, (fold, patient).
    """
    columns: dict[str, dict[int, pd.Series]] = {}
    for p in predictions:
        name = p.model if p.subset == "all" else f"{p.model}[{p.subset}]"
        columns.setdefault(name, {})[p.fold] = p.risk
    tables = {name: pd.concat(parts, names=["fold", "patient"]) for name, parts in columns.items()}
    table = pd.DataFrame(tables)
    return table.droplevel("fold") if len(table.index.unique("fold")) == 1 else table
