"""Repeated cross-validation: everything that learns is fitted again inside each fold."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from omnisurv.baselines import SURVIVAL_BASELINES
from omnisurv.errors import CheckpointError, DataError
from omnisurv.evaluation.classfolds import cross_validate_classes
from omnisurv.evaluation.inputs import Subsets
from omnisurv.evaluation.scoring import (
    Evaluation,
    Fold,
    Predictions,
    gather_curves,
    score_survival,
)
from omnisurv.evaluation.survival import (
    baseline_predictions,
    descriptions,
    model_predictions,
    risks,
)
from omnisurv.evaluation.trials import Reports, from_scratch, pretrain_first, scores_of
from omnisurv.files import atomic, writable
from omnisurv.recipe import Recipe
from omnisurv.task import kind_of
from omnisurv.tasks.classification import ClassificationModel
from omnisurv.training import finetune, pretrain

if TYPE_CHECKING:
    from optuna import Trial

    from omnisurv.data.cohort import Cohort
    from omnisurv.tasks.survival import SurvivalModel

Progress = Callable[[str, int, int, str], None]


def cross_validate(
    recipe: Recipe,
    cohort: "Cohort",
    *,
    folds: int | None = None,
    repeats: int | None = None,
    subsets: Subsets = "none",
    pretrained: bool = True,
    out: str | Path | None = None,
    progress: Progress | None = None,
    baselines: bool | None = None,
    trial: "Trial | None" = None,
    task: str = "survival",
) -> Evaluation:
    """Pre-train, fine-tune and score in each fold, with baselines in the same folds.

    Metrics are means over folds; intervals resample patients across all of them.

    Args:
        recipe: settings.
        cohort: all patients.
        folds: parts; the spec's by default.
        repeats: repeats of the folds; the spec's by default.
        subsets: modality subsets to score as well.
        pretrained: whether to pre-train; without, survival is trained from scratch.
        out: folder for each fold's predictions; folds that are there are not done again.
        progress: called with (label, epoch, epochs, text).
        baselines: whether to fit them beside; for a trial not, by default.
        trial: of an Optuna study, told after each fold where its pruner pairs folds
            (``WilcoxonPruner``), after each epoch otherwise; see ``evaluation.trials``.
        task: ``survival``, or a label of the cohort, whose classes the folds then hold alike.

    Raises:
        DataError: a task that is not cross-validated, or a label that cannot be learnt.
        TrialPruned: the trial's pruner says so, or a fold's score is NaN.
    """
    if task != "survival":
        judged = _of_label(task, cohort, trial)
        result = judged(
            recipe, cohort, task, folds=folds, repeats=repeats, subsets=subsets,
            pretrained=pretrained, baselines=baselines is not False, out=out, progress=progress,
        )  # fmt: skip
        return replace(result, notes=[*descriptions(result.table), *_distinct(result.notes)])
    parts = cohort.folds(n=folds, repeats=repeats)
    fitted = list(SURVIVAL_BASELINES) if (trial is None if baselines is None else baselines) else []
    reports = None if trial is None else Reports(trial, len(parts))
    predictions: list[Predictions] = []
    held_out: dict[int, Fold] = {}
    notes: list[str] = []
    for index, (train, test) in enumerate(parts):
        test = test.with_endpoint()
        told = {
            "recipe": json.loads(recipe.model_dump_json()),
            "data": cohort.fingerprint(),
            "held_out": sorted(test.hashed_ids()),
            "settings": {"subsets": _plain(subsets), "pretrained": pretrained},
            "baselines": fitted,
        }
        held_out[index] = Fold(test.obs, train.with_endpoint().obs[["time", "event"]])
        folder = None if out is None else writable(Path(out)) / f"fold_{index:02d}"
        found = _read(folder, told, index)
        if found is None:
            if progress is not None:
                progress(f"fold {index + 1}/{len(parts)}", index, len(parts), "")
            model = _fit(recipe, train, test, pretrained, progress, reports)
            own: list[str] = []
            predicted = [*model_predictions(model, test, subsets, index)]
            if fitted:
                predicted += baseline_predictions(model, train, test, own, index)
            found = predicted, own
            _write(folder, told, *found)
        if reports is not None:
            first = found[0][0]
            scores = scores_of(held_out[index].follow_up, test.obs, first.curves, first.risk)
            reports.fold(scores[reports.metric])
        predictions += found[0]
        notes += found[1]
    table, differences = score_survival(
        predictions, held_out, cohort.strata, reference=recipe.title
    )
    notes = [*descriptions(table), *_distinct(notes)]
    curves = gather_curves(predictions, held_out)
    return Evaluation(table, differences, risks(predictions), notes, curves)


def _fit(
    recipe: Recipe,
    train: "Cohort",
    test: "Cohort",
    pretrained: bool,
    progress: Progress | None,
    reports: Reports | None,
) -> "SurvivalModel":
    if reports is not None:
        source = pretrain_first if pretrained else from_scratch
        return reports.fit(recipe, train, test, source, progress)
    start = pretrain(recipe, train, progress=progress) if pretrained else recipe
    model: SurvivalModel = finetune(start, train, progress=progress)
    return model


def _of_label(task: str, cohort: "Cohort", trial: "Trial | None") -> Callable[..., Evaluation]:
    """Return what cross-validates a label; raise DataError if the task is none."""
    if kind_of(task, cohort) is not ClassificationModel:
        raise DataError(f"task '{task}' is not cross-validated; evaluate it on a test part instead")
    if trial is not None:
        raise DataError(f"a trial is judged by survival, not by '{task}'; leave the task out")
    return cross_validate_classes


def _plain(subsets: Subsets) -> str | list[list[str]]:
    return subsets if isinstance(subsets, str) else [list(subset) for subset in subsets]


def _distinct(notes: list[str]) -> list[str]:
    """Return notes that differ in more than their numbers, which differ from fold to fold."""
    first: dict[str, str] = {}
    for note in notes:
        first.setdefault(re.sub(r"[\d.]+", "#", note), note)
    return list(first.values())


def _write(
    folder: Path | None, told: dict[str, object], found: list[Predictions], notes: list[str]
) -> None:
    """Write a fold's predictions; the note that says it is whole comes last."""
    if folder is None:
        return
    writable(folder)
    index = []
    for number, part in enumerate(found):
        index.append({"model": part.model, "subset": part.subset})
        with atomic(folder / f"curves_{number:03d}.parquet") as path:
            frame = part.curves.copy()
            frame.columns = frame.columns.astype(str)
            frame.to_parquet(path)
        with atomic(folder / f"risk_{number:03d}.csv") as path:
            part.risk.to_csv(path)
    with atomic(folder / "fold.json") as path:
        path.write_text(json.dumps({**told, "predictions": index, "notes": notes}))


def _read(
    folder: Path | None, told: dict[str, object], fold: int
) -> tuple[list[Predictions], list[str]] | None:
    """Return a finished fold's predictions and notes; None if it has to be done."""
    if folder is None or not (folder / "fold.json").exists():
        return None
    written = json.loads((folder / "fold.json").read_text())
    if {k: written.get(k) for k in told} != told:
        raise CheckpointError(
            f"{folder} holds a fold of another recipe, cohort, split or version; "
            "choose another --out"
        )
    found = []
    for number, entry in enumerate(written["predictions"]):
        curves = pd.read_parquet(folder / f"curves_{number:03d}.parquet")
        risk = pd.read_csv(folder / f"risk_{number:03d}.csv", index_col=0, dtype={0: str})["risk"]
        risk.index = risk.index.astype(str)
        found.append(Predictions(entry["model"], curves, risk, entry["subset"], fold))
    return found, written["notes"]
