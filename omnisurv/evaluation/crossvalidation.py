"""Repeated cross-validation: everything that learns is fitted again inside each fold."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from omnisurv.baselines import SURVIVAL_BASELINES
from omnisurv.errors import CheckpointError
from omnisurv.evaluation.scoring import Evaluation, Fold, Predictions, score_survival
from omnisurv.evaluation.survival import (
    Subsets,
    baseline_predictions,
    descriptions,
    model_predictions,
    risks,
)
from omnisurv.files import atomic, writable
from omnisurv.recipe import Recipe
from omnisurv.training import finetune, pretrain

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

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
    """
    parts = cohort.folds(n=folds, repeats=repeats)
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
            "baselines": list(SURVIVAL_BASELINES),
        }
        held_out[index] = Fold(test.obs, train.with_endpoint().obs[["time", "event"]])
        folder = None if out is None else writable(Path(out)) / f"fold_{index:02d}"
        found = _read(folder, told, index)
        if found is None:
            if progress is not None:
                progress(f"fold {index + 1}/{len(parts)}", index, len(parts), "")
            start = pretrain(recipe, train, progress=progress) if pretrained else recipe
            model = finetune(start, train, progress=progress)
            own: list[str] = []
            predicted = [*model_predictions(model, test, subsets, index)]
            predicted += baseline_predictions(model, train, test, own, index)
            found = predicted, own
            _write(folder, told, *found)
        predictions += found[0]
        notes += found[1]
    table, differences = score_survival(
        predictions, held_out, cohort.strata, reference=recipe.title
    )
    notes = [*descriptions(table), *_distinct(notes)]
    return Evaluation(table, differences, risks(predictions), notes)


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
