"""From predictions to tidy rows: value, interval, n and events, pooled and within strata."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.card import write_card
from omnisurv.errors import InputError
from omnisurv.evaluation.curves import FILE, HeldOutCurves
from omnisurv.files import atomic, writable
from omnisurv.metrics import (
    Difference,
    Estimate,
    Score,
    average_scores,
    difference,
    estimate,
    patient_draws,
)
from omnisurv.metrics.survival import survival_scores

COLUMNS = (
    "model",
    "subset",
    "group",
    "n",
    "events",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "note",
)
CASES = ("patient", "subset", "region", "dice", "hd95")
"""Columns of ``cases.csv``, of segmentation."""
DIFFERENCES = (
    "model",
    "against",
    "subset",
    "group",
    "n",
    "events",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "p",
)


@dataclass(frozen=True)
class Predictions:
    """One model's predictions of some patients.

    Attributes:
        model: name in the table.
        curves: survival probabilities, days × patients.
        risk: risk of each patient, higher = worse.
        subset: modalities the model was allowed to see.
        fold: fold these patients were held out in.
    """

    model: str
    curves: pd.DataFrame
    risk: pd.Series
    subset: str = "all"
    fold: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Tidy results with what they rest on.

    Attributes:
        table: a row for each model, subset, group and metric.
        differences: paired differences between the model and each baseline.
        predictions: risks of each model, patients in rows.
        notes: what had to give way.
        curves: survival curves of each model from all there is; None for other tasks.
        cases: Dice and HD95 of each patient, subset and region; None for other tasks.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    predictions: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    curves: HeldOutCurves | None = None
    cases: pd.DataFrame | None = None

    def to_json(self) -> str:
        """Return rows, differences and notes as JSON; NaN is null."""
        rows = {
            "rows": _records(self.table),
            "differences": _records(self.differences),
            "notes": self.notes,
        }
        return json.dumps(rows, indent=1)

    def save(self, folder: str | Path) -> Path:
        """Write ``metrics.json``, ``metrics.csv``, ``predictions.csv`` and the curves.

        In the folder of the run itself the figures are added to its model card.
        """
        folder = writable(Path(folder))
        with atomic(folder / "metrics.json") as path:
            path.write_text(self.to_json())
        with atomic(folder / "metrics.csv") as path:
            self.table.to_csv(path, index=False)
        with atomic(folder / "predictions.csv") as path:
            self.predictions.to_csv(path)
        if self.curves is not None:
            self.curves.save(folder)
        if self.cases is not None:
            with atomic(folder / "cases.csv") as path:
                self.cases.to_csv(path, index=False)
        if (folder / "config.yaml").exists():
            write_card(folder)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Evaluation":
        """Read what ``save`` wrote; raise InputError if there is none."""
        folder = Path(folder)
        if not (folder / "metrics.json").exists():
            raise InputError(f"{folder} holds no metrics.json; give the --out folder of evaluate")
        told = json.loads((folder / "metrics.json").read_text())
        risks = pd.read_csv(folder / "predictions.csv", dtype={"patient": str, 0: str})
        keys = ["fold", "patient"] if "fold" in risks else [str(risks.columns[0])]
        curves = HeldOutCurves.load(folder) if (folder / FILE).exists() else None
        table, pairs = pd.DataFrame(told["rows"]), pd.DataFrame(told["differences"])
        cases = None
        if (file := folder / "cases.csv").exists():
            cases = pd.read_csv(file, dtype={"patient": str}, float_precision="round_trip")
        return cls(table, pairs, risks.set_index(keys), told["notes"], curves, cases)

    def metric(self, name: str, subset: str = "all") -> pd.DataFrame:
        """Return one metric as models × groups, in the order of the table."""
        rows = self.table[(self.table["metric"] == name) & (self.table["subset"] == subset)]
        models, groups = rows["model"].unique(), rows["group"].unique()
        wide = rows.pivot_table(index="model", columns="group", values="value", sort=False)
        return wide.reindex(index=models, columns=groups)

    def _repr_html_(self) -> str:
        return self.table.round(3).to_html(index=False)


Row = tuple[object, ...]


def score_row(model: str, subset: str, group: str, metric: str, e: Estimate) -> Row:
    """Return one row of ``COLUMNS``."""
    return (
        *(model, subset, group, e.n, e.events),
        *(metric, e.value, e.ci_low, e.ci_high, e.reason),
    )


def difference_row(
    model: str | None, against: str, subset: str, group: str, metric: str, d: Difference
) -> Row:
    """Return one row of ``DIFFERENCES``."""
    return (
        *(model, against, subset, group, d.n, d.events),
        *(metric, d.value, d.ci_low, d.ci_high, d.p),
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records"))
    return records


def groups_of(obs: pd.DataFrame, strata: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Return who is in ``all`` and in each class of each stratum."""
    groups = {"all": np.ones(len(obs), dtype=bool)}
    for column in strata:
        for level in sorted(obs[column].dropna().astype(str).unique()):
            groups[level] = (obs[column].astype(str) == level).to_numpy()
    return groups


@dataclass(frozen=True)
class Fold:
    """The patients of one held-out part and the follow-up the models were trained on."""

    obs: pd.DataFrame
    follow_up: pd.DataFrame


def score_survival(
    predictions: Iterable[Predictions],
    folds: Mapping[int, Fold],
    strata: Sequence[str],
    *,
    draws: int = 1000,
    level: float = 0.95,
    reference: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every model on every subset and group.

    With several folds a metric is the mean over folds, since models of different folds share
    no scale; patients are resampled across all of them.

    Args:
        predictions: of all models, subsets and folds.
        folds: for each fold its patients (``time`` days, ``event``, strata) and training
            follow-up.
        strata: columns of ``obs`` within which every figure is also given.
        draws: bootstrap draws.
        level: of the intervals.
        reference: the model compared with all others, pairwise.

    Returns:
        The table and the paired differences.
    """
    collected: dict[tuple[str, str], list[Predictions]] = {}
    for prediction in predictions:
        collected.setdefault((prediction.subset, prediction.model), []).append(prediction)
    rows, pairs, scored = [], [], {}
    for (subset, model), parts in collected.items():
        for group, (scores, n) in _group_scores(parts, folds, strata).items():
            weights = patient_draws(n, draws)
            scored[subset, group, model] = scores
            for metric, score in scores.items():
                rows.append(
                    score_row(model, subset, group, metric, estimate(score, weights, level))
                )
    for (subset, group, model), scores in scored.items():
        first = scored.get((subset, group, reference or ""))
        if first is None or model == reference:
            continue
        for metric in ("c_harrell", "c_antolini", "ibs"):
            if (first[metric].n, first[metric].events) == (scores[metric].n, scores[metric].events):
                weights = patient_draws(scores[metric].n, draws)
                d = difference(first[metric], scores[metric], weights)
                pairs.append(difference_row(reference, model, subset, group, metric, d))
    return pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(pairs, columns=list(DIFFERENCES))


@dataclass(frozen=True)
class _Folded:
    """The scores of one fold, with its patients and who of them had the event."""

    scores: dict[str, Score]
    event: "pd.Series[float]"


def _group_scores(
    parts: Sequence[Predictions], folds: Mapping[int, Fold], strata: Sequence[str]
) -> dict[str, tuple[dict[str, Score], int]]:
    """Return for each group the mean score over folds of each metric, and the patients."""
    by_group: dict[str, list[_Folded]] = {}
    for part in parts:
        fold = folds[part.fold]
        obs = fold.obs.loc[part.curves.columns]
        for group, chosen in groups_of(obs, strata).items():
            inside = obs[chosen]
            if inside.empty:
                continue
            scores = survival_scores(
                fold.follow_up["time"],
                fold.follow_up["event"],
                inside["time"],
                inside["event"],
                part.curves.index.to_numpy(float),
                part.curves[inside.index].to_numpy(float),
                part.risk[inside.index].to_numpy(float),
            )
            by_group.setdefault(group, []).append(_Folded(scores, inside["event"]))
    return {group: _mean(folded) for group, folded in by_group.items()}


def gather_curves(predictions: Iterable[Predictions], folds: Mapping[int, Fold]) -> HeldOutCurves:
    """Return every model's curves from all there is, with the endpoints of the folds."""
    return HeldOutCurves.gather(
        ((p.model, p.fold, p.curves) for p in predictions if p.subset == "all"),
        {number: fold.obs for number, fold in folds.items()},
        {number: fold.follow_up for number, fold in folds.items()},
    )


def _mean(folded: Sequence[_Folded]) -> tuple[dict[str, Score], int]:
    """Average over folds; a patient held out in several repeats is one patient."""
    if len(folded) == 1:
        return folded[0].scores, len(folded[0].event)
    event = pd.concat([part.event for part in folded])
    event = event[~event.index.duplicated()]
    places = [event.index.get_indexer(part.event.index) for part in folded]
    return {
        metric: average_scores(
            [(part.scores[metric], where) for part, where in zip(folded, places, strict=True)],
            len(event),
            int(event.sum()),
        )
        for metric in folded[0].scores
    }, len(event)
