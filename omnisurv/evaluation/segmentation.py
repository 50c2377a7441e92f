"""Label maps of patients that a model has not seen, from every subset of their sequences."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.audit import some
from omnisurv.data.readers.cubes import cut
from omnisurv.data.readers.labels import whole_labels
from omnisurv.data.readers.nifti import Grid
from omnisurv.data.regions import BACKGROUND, OUTSIDE, REGIONS
from omnisurv.data.store import Entry
from omnisurv.errors import DataError, InputError
from omnisurv.evaluation.inputs import Subsets, subsets_of
from omnisurv.evaluation.scoring import (
    CASES,
    COLUMNS,
    DIFFERENCES,
    Evaluation,
    Row,
    difference_row,
    groups_of,
    score_row,
)
from omnisurv.metrics import Difference, estimate, patient_draws
from omnisurv.metrics.bootstrap import patient_mean
from omnisurv.metrics.segmentation import Empty, dice, hd95
from omnisurv.tasks.segmentation import SegmentationModel, Segmented

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

METRICS = ("dice", "hd95")
MEAN = "mean"
"""Both the subset that is the mean over subsets and the region that is the mean over regions."""

Labels = NDArray[np.uint8]


def evaluate_segmentation(
    model: SegmentationModel,
    cohort: "Cohort",
    *,
    subsets: Subsets = "all",
    empty: Empty = "brats",
    draws: int = 1000,
) -> Evaluation:
    """Score label maps by Dice and HD95 (mm) of each region, on the whole volume of each patient.

    A subset is judged on the patients who have any of it. With ``all``, subset ``mean`` is each
    patient's mean over all combinations, of four sequences 15. Beside it stands the null, which
    finds nothing. All subsets are told from the same windows, each read and cut once.

    Args:
        model: the fitted model.
        cohort: patients; those without a label map or a sequence are left out.
        subsets: of the sequences; see ``evaluate``.
        empty: what to say of regions that a patient does not have; see ``metrics.segmentation``.
        draws: of the bootstrap over patients.

    Raises:
        DataError: nobody has a label map and a sequence that the model knows.
    """
    every, notes = judge_cases(model, cohort, subsets=subsets, empty=empty)
    title = model.recipe.title
    cases = every[every["model"] == title].drop(columns="model").reset_index(drop=True)
    table = pd.concat(
        [
            score_cases(name, every[every["model"] == name], cohort, draws, subsets == "all")
            for name in (title, "null")
        ],
        ignore_index=True,
    )
    told = pd.DataFrame(columns=list(DIFFERENCES))
    judged = pd.DataFrame(index=pd.Index(cases["patient"].unique()))
    return Evaluation(table, told, judged, notes, cases=cases)


def judge_cases(
    model: SegmentationModel,
    cohort: "Cohort",
    *,
    subsets: Subsets,
    empty: Empty = "brats",
    pool: Executor | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Return Dice and HD95 of each patient, subset and region, and whom they leave out and why.

    Args:
        model: the fitted model.
        cohort: patients; those without a label map or a sequence are left out.
        subsets: as in ``evaluate_segmentation``.
        empty: what to say of regions that a patient does not have.
        pool: processes that judge the patients beside each other; this one by default.

    Returns:
        The columns ``model``, which is also ``null``, and ``CASES``; and notes.

    Raises:
        DataError: nobody has a label map and a sequence that the model knows.
    """
    notes: list[str] = []
    cohort = _judged(model, cohort, notes)
    names = [name for name in model.sequences if name in cohort]
    asked: dict[str, tuple[str, ...] | None] = {"all": None}
    asked |= {"+".join(subset): subset for subset in subsets_of(names, subsets)}
    parts = [cohort.subset([patient]) for patient in cohort.patients] if pool else [cohort]
    judged = list((pool.map if pool else map)(partial(_judge_all, model, asked, empty), parts))
    rows = [row for found, _ in judged for row in found]
    alone = [patient for _, lacking in judged for patient in lacking]
    if alone:
        notes.append(
            f"{len(alone)} patients were judged on the cube alone, for raw files are gone: "
            f"{some(alone)}"
        )
    return pd.DataFrame(rows, columns=["model", *CASES]), notes


def compare_cases(
    ours: pd.DataFrame | None, theirs: pd.DataFrame, names: tuple[str, str], draws: int = 1000
) -> pd.DataFrame:
    """Return paired differences, ours minus theirs, of two tables of cases.

    They are of the patients whom both have, by subset, region and metric: the mean difference
    with its bootstrap interval, and p of Wilcoxon's signed-rank test (1 where nothing differs).

    Raises:
        DataError: they have no case in common, or ours are not of segmentation.
    """
    if ours is None:
        raise DataError(f"{names[0]} is no segmentation model; only those have cases to compare")
    keys = ["patient", "subset", "region"]
    pairs = _with_means(ours).merge(_with_means(theirs), on=keys, suffixes=("", "_theirs"))
    if not len(pairs):
        raise DataError(
            f"{names[0]} and {names[1]} have no patient and subset in common; evaluate both on "
            "the same cohort"
        )
    rows = []
    for place, part in pairs.groupby(["subset", "region"], sort=False):
        subset, region = (str(key) for key in place)
        for metric in METRICS:
            apart = (part[metric] - part[f"{metric}_theirs"]).dropna().to_numpy(float)
            if len(apart):
                found = _difference(apart, draws)
                rows.append(difference_row(*names, subset, "all", f"{metric}_{region}", found))
    return pd.DataFrame(rows, columns=list(DIFFERENCES))


def read_cases(folder: Path) -> pd.DataFrame:
    """Read ``cases.csv`` of an evaluated run, or of the ``--out`` folder of an evaluation.

    Raises:
        InputError: there is none, or it lacks a column.
    """
    file = folder / "cases.csv"
    if not file.exists():
        raise InputError(
            f"{folder} holds no cases.csv; first `omnisurv evaluate` it on the same patients, and "
            "give its --out"
        )
    cases = pd.read_csv(file, dtype={"patient": str}, float_precision="round_trip")
    lacking = [column for column in CASES if column not in cases]
    if lacking:
        raise InputError(f"{file} has no column '{lacking[0]}'; evaluate that run again")
    return cases


def _judged(model: SegmentationModel, cohort: "Cohort", notes: list[str]) -> "Cohort":
    """Return whom to evaluate, and note who and what is left out."""
    known = model.usable(cohort, model.task)
    blind = model.without_sequences(known)
    judged = known.subset(known.patients.difference(blind))
    if not len(judged):
        raise DataError(
            f"nobody with a label map has a sequence that the model knows "
            f"({', '.join(model.sequences)}); name them so in the spec"
        )
    rest = len(cohort) - len(judged)
    if rest:
        notes.append(f"{rest} patients left out: no label map, or no sequence the model knows")
    return judged


def _truth(cohort: "Cohort", found: Segmented) -> tuple[Labels, bool]:
    """Return a patient's label map, and whether it is of the whole volume."""
    maps = cohort.label_maps
    entry = maps.of(found.entry.patient) if maps is not None else None
    assert entry is not None
    labels = whole_labels(entry) if found.whole else None
    return (labels, True) if labels is not None else (np.array(entry.open()), False)


def _judge_all(
    model: SegmentationModel, asked: Mapping[str, Any], empty: Empty, cohort: "Cohort"
) -> tuple[list[tuple[object, ...]], list[str]]:
    """Return the rows of all patients, and those of whom the cube alone was judged."""
    rows: list[tuple[object, ...]] = []
    alone: list[str] = []
    for found in model.segment(cohort, list(asked.values())):
        truth, is_whole = _truth(cohort, found)
        alone += [] if is_whole else [found.entry.patient]
        rows += _score_case(model, cohort, found, truth, asked, empty)
    return rows, alone


def _score_case(
    model: SegmentationModel,
    cohort: "Cohort",
    found: Segmented,
    truth: Labels,
    asked: Mapping[str, Any],
    empty: Empty,
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one patient, the null's at the end."""
    patient, spacing = found.entry.patient, _spacing(found.entry)
    alone = cohort.subset([patient])
    scores = {
        seen: _scores(_alike(found.labels(seen), truth, found.entry), truth, spacing, empty)
        for seen in found.probability
    }
    for subset, names in asked.items():
        for region, values in scores.get(model.seen_of(alone, names), {}).items():
            yield (model.recipe.title, patient, subset, region, *values)
    nothing = np.full_like(truth, BACKGROUND)
    for region, values in _scores(nothing, truth, spacing, empty).items():
        yield ("null", patient, "all", region, *values)


def _alike(labels: Labels, truth: Labels, entry: Entry) -> Labels:
    """Return what was found where it can be judged: all of it, or the cube of the label map."""
    if labels.shape == truth.shape:
        return labels
    return cut(labels, entry.meta["start"], len(truth), OUTSIDE)


def _scores(
    labels: Labels, truth: Labels, spacing: Sequence[float], empty: Empty
) -> dict[str, tuple[float, float]]:
    """Return Dice and HD95 of each region; what is outside the volume is in none."""
    scores = {}
    for region, inside in REGIONS.items():
        found, there = np.isin(labels, inside) & (truth != OUTSIDE), np.isin(truth, inside)
        scores[region] = dice(found, there, empty), hd95(found, there, spacing, empty)
    return scores


def _spacing(entry: Entry) -> list[float]:
    """Return the sides of a voxel in mm, on canonical axes."""
    grid = Grid(tuple(entry.meta["shape"]), np.array(entry.meta["affine"]))
    return [float(s) for s in np.linalg.norm(grid.canonical().affine[:3, :3], axis=0)]


def _with_means(cases: pd.DataFrame) -> pd.DataFrame:
    """Return cases with the mean over their regions as one more."""
    mean = cases.groupby(["patient", "subset"], sort=False)[list(METRICS)].mean()
    return pd.concat([cases, mean.reset_index().assign(region=MEAN)], ignore_index=True)


def score_cases(
    name: str, cases: pd.DataFrame, cohort: "Cohort", draws: int = 1000, averaged: bool = False
) -> pd.DataFrame:
    """Return a row for each subset, group and metric, with intervals over patients.

    Args:
        name: of the model.
        cases: with the columns ``CASES``.
        cohort: the patients, and their strata.
        draws: of the bootstrap.
        averaged: whether to add the mean over subsets.
    """
    if averaged and (cases["subset"] != "all").any():
        mean = cases.groupby(["patient", "region"], sort=False)[list(METRICS)].mean()
        cases = pd.concat([cases, mean.reset_index().assign(subset=MEAN)], ignore_index=True)
    wide = _with_means(cases).pivot_table(
        index=["subset", "patient"], columns="region", values=list(METRICS), sort=False,
        dropna=False,
    )  # fmt: skip
    rows: list[Row] = []
    for subset in wide.index.unique("subset"):
        values = wide.loc[subset].dropna(how="all")
        for group, chosen in groups_of(cohort.obs.loc[values.index], cohort.strata).items():
            weights = patient_draws(int(chosen.sum()), draws)
            for metric in METRICS:
                for region in (*REGIONS, MEAN):
                    score = patient_mean(values[metric, region].to_numpy(float)[chosen], 0)
                    found = estimate(score, weights)
                    rows.append(score_row(name, str(subset), group, f"{metric}_{region}", found))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _difference(apart: NDArray[np.float64], draws: int) -> Difference:
    from scipy.stats import wilcoxon

    found = estimate(patient_mean(apart, 0), patient_draws(len(apart), draws))
    p = float(wilcoxon(apart).pvalue) if apart.any() else 1.0
    return Difference(found.value, found.ci_low, found.ci_high, p, len(apart), 0)
