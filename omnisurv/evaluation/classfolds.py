"""Cross-validation of a label: folds that hold its classes alike, hospitals apart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from omnisurv.baselines import CLASSIFICATION_BASELINES
from omnisurv.errors import CheckpointError
from omnisurv.evaluation.classification import (
    ClassPredictions,
    class_baselines,
    class_predictions,
    judge,
)
from omnisurv.evaluation.inputs import Subsets
from omnisurv.evaluation.scoring import Evaluation
from omnisurv.files import atomic, writable
from omnisurv.recipe import Recipe
from omnisurv.tasks.classification import ClassificationModel, label_values
from omnisurv.training import Progress, finetune, pretrain

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort


def cross_validate_classes(
    recipe: Recipe,
    cohort: "Cohort",
    label: str,
    *,
    folds: int | None = None,
    repeats: int | None = None,
    subsets: Subsets = "none",
    pretrained: bool = True,
    baselines: bool = True,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Pre-train, fine-tune and score in each fold; see ``cross_validate``.

    Patients without a class are pre-trained on, or go with their group; they are never scored.
    """
    recipe.require_head(ClassificationModel.task)
    usable = ClassificationModel.usable(cohort, label)
    classes = [str(name) for name in label_values(usable, label).cat.categories]
    parts = cohort.folds(n=folds, repeats=repeats, label=label)
    predictions: list[ClassPredictions] = []
    held_out: dict[int, Cohort] = {}
    notes: list[str] = []
    for index, (train, test) in enumerate(parts):
        test = test.subset(test.patients[label_values(test, label).notna()])
        held_out[index] = test
        told = {
            "recipe": json.loads(recipe.model_dump_json()),
            "data": cohort.fingerprint(),
            "label": label,
            "truth": label_values(test, label).astype(str).to_dict(),
            "held_out": sorted(test.hashed_ids()),
            "subsets": subsets if isinstance(subsets, str) else [list(s) for s in subsets],
            "pretrained": pretrained,
            "baselines": list(CLASSIFICATION_BASELINES) if baselines else [],
        }
        folder = None if out is None else writable(Path(out)) / f"fold_{index:02d}"
        found = _read(folder, told, index)
        if found is None:
            if progress is not None:
                progress(f"fold {index + 1}/{len(parts)}", index, len(parts), "")
            start = pretrain(recipe, train, progress=progress) if pretrained else recipe
            model = finetune(start, train, label, progress=progress)
            own: list[str] = []
            predicted = list(class_predictions(model, test, subsets, index))
            if baselines:
                predicted += class_baselines(model, train, test, own, index)
            found = predicted, own
            _write(folder, told, *found)
        predictions += found[0]
        notes += found[1]
    return judge(predictions, held_out, label, classes, recipe.title, notes)


def _write(
    folder: Path | None,
    told: dict[str, object],
    found: Sequence[ClassPredictions],
    notes: list[str],
) -> None:
    """Write a fold's predictions; the note that says it is whole comes last."""
    if folder is None:
        return
    writable(folder)
    for number, part in enumerate(found):
        with atomic(folder / f"probability_{number:03d}.csv") as path:
            part.probability.to_csv(path)
    index = [{"model": part.model, "subset": part.subset} for part in found]
    with atomic(folder / "fold.json") as path:
        path.write_text(json.dumps({**told, "predictions": index, "notes": notes}))


def _read(
    folder: Path | None, told: dict[str, object], fold: int
) -> tuple[list[ClassPredictions], list[str]] | None:
    """Return a finished fold's predictions and notes; None if it has to be done."""
    if folder is None or not (folder / "fold.json").exists():
        return None
    written = json.loads((folder / "fold.json").read_text())
    if {key: written.get(key) for key in told} != told:
        raise CheckpointError(
            f"{folder} holds a fold of another recipe, cohort, split or version; "
            "choose another --out"
        )
    found = []
    for number, entry in enumerate(written["predictions"]):
        frame = pd.read_csv(
            folder / f"probability_{number:03d}.csv",
            index_col="patient",
            dtype={"patient": str},
            float_precision="round_trip",
        )
        found.append(ClassPredictions(entry["model"], frame, entry["subset"], fold))
    return found, written["notes"]
