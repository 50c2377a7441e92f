"""A survival model on patients it has not seen, from every subset of their modalities."""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.baselines import SURVIVAL_BASELINES
from omnisurv.errors import DataError, did_you_mean
from omnisurv.evaluation.imputation import evaluate_imputation
from omnisurv.evaluation.scoring import Evaluation, Fold, Predictions, score_survival
from omnisurv.prediction import SurvivalModel

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort

Subsets = Literal["all", "each", "none"] | Sequence[Collection[str]]


def evaluate(
    model: "FittedModel",
    cohort: "Cohort",
    *,
    subsets: Subsets = "each",
    train: "Cohort | None" = None,
    task: Literal["survival", "imputation"] | None = None,
    allow_seen: bool = False,
) -> Evaluation:
    """Judge a model on patients that none of its stages has seen.

    Args:
        model: a survival model, or any model for ``task="imputation"``.
        cohort: patients to evaluate, of this or another cohort.
        subsets: ``each`` modality alone and left out, ``all`` combinations, or a list of them.
        train: the training patients, on whom the baselines are fitted; none without them.
        task: ``survival`` for survival models unless said otherwise.
        allow_seen: evaluate patients that the weights saw; the notes then say so.

    Raises:
        SeenPatientsError: a stage of the weights saw some of these patients.
        DataError: nobody to evaluate.
    """
    if not allow_seen:
        model.require_unseen(cohort)
    if task == "imputation" or not isinstance(model, SurvivalModel):
        result = evaluate_imputation(model, cohort, train=train)
    else:
        result = evaluate_survival(model, cohort, subsets=subsets, train=train)
    if allow_seen:
        result.notes.append("patients seen in training were allowed (--allow-seen)")
    return result


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
    return Evaluation(table, differences, risks(predictions), notes)


def model_predictions(
    model: SurvivalModel, cohort: "Cohort", subsets: Subsets, fold: int = 0
) -> Iterator[Predictions]:
    """Predict from everything each patient has, then from each subset.

    A subset is judged on the patients who have any of it.
    """
    title = model.recipe.title
    yield Predictions(
        title, model.predict_survival_function(cohort), model.predict(cohort), "all", fold
    )
    names = [n for n in model.modalities if n in cohort.availability.columns]
    for subset in subsets_of(names, subsets):
        who = cohort.patients[cohort.availability[list(subset)].any(axis=1)]
        if len(who):
            part = cohort.subset(who)
            yield Predictions(
                title,
                model.predict_survival_function(part, subset),
                model.predict(part, subset),
                "+".join(subset),
                fold,
            )


def subsets_of(names: Sequence[str], subsets: Subsets) -> list[tuple[str, ...]]:
    """Return the combinations of modalities to evaluate, the complete one aside."""
    if subsets == "none":
        return []
    if subsets == "all":
        sizes = range(1, len(names))
        return [subset for size in sizes for subset in combinations(names, size)]
    if subsets == "each":
        alone = [(name,) for name in names]
        without = [tuple(n for n in names if n != name) for name in names]
        return list(dict.fromkeys([*alone, *without])) if len(names) > 1 else []
    for name in (name for subset in subsets for name in subset):
        if name not in names:
            raise DataError(
                f"subset: model and cohort share no modality '{name}'.{did_you_mean(name, names)}"
            )
    return [tuple(subset) for subset in subsets]


def baseline_predictions(
    model: SurvivalModel, train: "Cohort", cohort: "Cohort", notes: list[str], fold: int = 0
) -> list[Predictions]:
    """Fit every baseline on the training patients and predict the others."""
    train = train.with_endpoint()
    time, event = train.obs["time"].to_numpy(float), train.obs["event"].to_numpy(float)
    clinical = [n for n in getattr(model.recipe, "linear", ()) if n in model.modalities]
    omics = [n for n in model.modalities if n not in clinical]
    tables = {
        "none": (train.obs[[]], cohort.obs[[]]),
        "clinical": (matrix(model, train, clinical), matrix(model, cohort, clinical)),
        "omics": (matrix(model, train, omics), matrix(model, cohort, omics)),
        "availability": (
            train.availability.reindex(columns=list(model.modalities), fill_value=False),
            cohort.availability.reindex(columns=list(model.modalities), fill_value=False),
        ),
    }
    predictions = []
    for name, entry in SURVIVAL_BASELINES.items():
        X_train, X_test = tables[entry.inputs]
        if entry.inputs != "none" and not X_train.shape[1]:
            notes.append(f"{name}: left out, the cohort has no {entry.inputs} modality")
            continue
        fitted = entry.fit(X_train, time, event, seed=model.recipe.seed)
        notes += [f"{name}: {note}" for note in fitted.notes]
        predictions.append(
            Predictions(name, fitted.predict_curves(X_test), fitted.predict_risk(X_test), fold=fold)
        )
    return predictions


def matrix(model: "FittedModel", cohort: "Cohort", names: Sequence[str]) -> pd.DataFrame:
    """Return patients × features in the model's standard units; NaN where not measured."""
    patches = model.batch(cohort).patches
    parts = []
    for name in names:
        values = patches[name].flatten(1).numpy().astype(float)
        columns = [f"{name}:{i}" for i in range(values.shape[1])]
        parts.append(pd.DataFrame(values, index=cohort.patients, columns=columns))
    table = pd.concat(parts, axis=1) if parts else pd.DataFrame(index=cohort.patients)
    return table.loc[:, _real(model, names)] if parts else table


def _real(model: "FittedModel", names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which columns hold a feature; the others pad the last patch."""
    real = []
    for name in names:
        tokeniser = model.tokenisers[name]
        probe = np.ones((1, tokeniser.length, tokeniser.width), np.float32)
        data = tokeniser.untokenise(probe, ["probe"])
        real.append(np.isfinite(tokeniser.tokenise(data)).ravel())
    return np.concatenate(real)


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
