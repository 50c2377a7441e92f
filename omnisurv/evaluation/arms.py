"""Arms of a study on the same patients, some with one model for every subset of modalities."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from omnisurv.evaluation.classification import (
    ClassPredictions,
    class_predictions,
    probabilities,
    score_classes,
)
from omnisurv.evaluation.scoring import DIFFERENCES, Evaluation, Fold, Predictions, score_survival
from omnisurv.evaluation.segmentation import MEAN, compare_cases, judge_cases, score_cases
from omnisurv.evaluation.survival import model_predictions, risks
from omnisurv.tasks.classification import ClassificationModel, label_values
from omnisurv.tasks.segmentation import SegmentationModel

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

ALL = "all"
"""What evaluations call everything there is, which for the judged is one subset more."""

P = TypeVar("P", Predictions, ClassPredictions)
Arms = Mapping[str, Sequence[tuple[Sequence[tuple[str, ...]], Any]]]
"""The fitted models of each arm, all of one task, with the subsets that each serves."""


def judge_arms(
    arms: Arms, judged: "Cohort", train: "Cohort", pool: Executor | None = None
) -> Evaluation:
    """Score all arms from every subset, and the mean over subsets, by what they were trained for.

    Args:
        arms: the models of each; the first arm is compared with the others.
        judged: patients who have all modalities.
        train: those trained on, of whom survival scores take the censoring.
        pool: processes for label maps, which take long.
    """
    reference, ((_, first), *_) = next(iter(arms.items()))
    if isinstance(first, SegmentationModel):
        return _judge_segmentation(arms, judged, reference, pool)
    if isinstance(first, ClassificationModel):
        return _judge_label(arms, judged, first, reference)
    return _judge_survival(arms, judged.with_endpoint(), train.with_endpoint(), reference)


def _judge_segmentation(
    arms: Arms, judged: "Cohort", reference: str, pool: Executor | None
) -> Evaluation:
    tables, differences, notes = [], [], []
    cases: dict[str, pd.DataFrame] = {}
    for arm, parts in arms.items():
        results = [judge_cases(model, judged, subsets=s, pool=pool) for s, model in parts]
        notes += [note for _, said in results for note in said]
        found = pd.concat([every for every, _ in results])
        cases[arm] = found[(found["model"] != "null") & (found["subset"] != ALL)]
        tables.append(score_cases(arm, cases[arm], judged, averaged=True))
        if arm != reference:
            differences.append(compare_cases(cases[reference], cases[arm], (reference, arm)))
    every = pd.concat([part.assign(model=arm) for arm, part in cases.items()])
    told = pd.concat(differences) if differences else pd.DataFrame(columns=list(DIFFERENCES))
    return Evaluation(
        pd.concat(tables), told, judged.obs[[]], list(dict.fromkeys(notes)), cases=every
    )


def _judge_label(
    arms: Arms, judged: "Cohort", first: ClassificationModel, reference: str
) -> Evaluation:
    judged = first.scored(judged)
    predictions = _predicted(class_predictions, arms, judged)
    averaged, count = _averaged(predictions)
    truth = label_values(judged, first.label).astype(str)
    table, differences = score_classes(
        [*predictions, *averaged],
        dict.fromkeys(range(count), truth),
        dict.fromkeys(range(count), judged.obs),
        (),
        classes=first.classes,
        reference=reference,
    )
    return Evaluation(table, differences, probabilities(predictions, {0: truth}))


def _judge_survival(arms: Arms, judged: "Cohort", train: "Cohort", reference: str) -> Evaluation:
    predictions = _predicted(model_predictions, arms, judged)
    averaged, count = _averaged(predictions)
    fold = Fold(judged.obs, train.obs[["time", "event"]])
    table, differences = score_survival(
        [*predictions, *averaged], dict.fromkeys(range(count), fold), (), reference=reference
    )
    return Evaluation(table, differences, risks(predictions))


def _predicted(predict: Callable[..., Iterable[P]], arms: Arms, judged: "Cohort") -> list[P]:
    """Return what every arm predicts from each subset that it serves."""
    return [
        replace(predicted, model=arm)
        for arm, parts in arms.items()
        for subsets, model in parts
        for predicted in predict(model, judged, subsets)
        if predicted.subset != ALL
    ]


def _averaged(predictions: Sequence[P]) -> tuple[list[P], int]:
    """Return the predictions of all subsets as folds of one, whose scores are averaged."""
    numbers = {name: n for n, name in enumerate(dict.fromkeys(p.subset for p in predictions))}
    return [replace(p, subset=MEAN, fold=numbers[p.subset]) for p in predictions], len(numbers)
