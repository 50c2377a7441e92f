"""Survival curves of the patients a model was judged on, and what figures draw of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.files import atomic, writable
from omnisurv.metrics import (
    Curves,
    DCalibration,
    Score,
    auc_scores,
    average_scores,
    brier_scores,
    calibration_at,
    d_calibration,
    estimate,
    horizon,
    net_benefit_scores,
    patient_draws,
)
from omnisurv.metrics.bootstrap import Weights

GRID = 201
"""Times that the curves of all models are kept at, from 0 to the longest follow-up."""
YEARS, DAYS_PER_YEAR = (1, 2, 3, 5, 10), 365.25
SHOWN, TIMES = 3, 25
"""Horizons of a calibration plot, and times of the curves over time."""
PER_GROUP, GROUPS = 25, 10
"""Patients in a group of a calibration plot at least, and groups at most."""
THRESHOLDS = np.linspace(0.01, 0.99, 99)
EVERYBODY = "everybody"
FILE, FOLLOW_UP = "curves.parquet", "curves_follow_up.csv"


@dataclass(frozen=True)
class HeldOutCurves:
    """What every model predicted from all there is, and what came of it.

    Attributes:
        models: by name, survival probabilities, days × (fold, patient), float32.
        endpoint: (fold, patient): ``time`` (days) and ``event``.
        follow_up: ``fold``, ``time`` and ``event`` of the training patients, for the weights of
            censoring.
    """

    models: dict[str, pd.DataFrame]
    endpoint: pd.DataFrame
    follow_up: pd.DataFrame

    @classmethod
    def gather(
        cls,
        curves: Iterable[tuple[str, int, pd.DataFrame]],
        endpoints: Mapping[int, pd.DataFrame],
        follow_ups: Mapping[int, pd.DataFrame],
    ) -> "HeldOutCurves":
        """Bring curves of several models and folds to one grid.

        Args:
            curves: model, fold, and survival probabilities, days × patients.
            endpoints: of each fold, ``time`` and ``event`` of those held out.
            follow_ups: of each fold, ``time`` and ``event`` of those trained on.
        """
        days = np.linspace(0.0, max(float(e["time"].max()) for e in endpoints.values()), GRID)
        parts: dict[str, dict[int, pd.DataFrame]] = {}
        for model, fold, frame in curves:
            values = Curves(frame.index.to_numpy(float), frame.to_numpy(float)).at(days)
            index = pd.Index(days, name="days")
            kept = pd.DataFrame(values.astype(np.float32), index, frame.columns)
            parts.setdefault(model, {})[fold] = kept
        names = ["fold", "patient"]
        ends = {fold: e[["time", "event"]].astype(float) for fold, e in endpoints.items()}
        ups = {fold: f[["time", "event"]].astype(float) for fold, f in follow_ups.items()}
        return cls(
            {model: pd.concat(folded, axis=1, names=names) for model, folded in parts.items()},
            pd.concat(ends, names=names),
            pd.concat(ups, names=["fold"]).reset_index("fold").reset_index(drop=True),
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``curves.parquet``, a row for each model and patient, and the follow-up."""
        folder = writable(Path(folder))
        rows = pd.concat({m: c.T for m, c in self.models.items()}, names=["model"])
        rows.columns = rows.columns.map("{:.17g}".format)
        ends = self.endpoint.loc[rows.reset_index("model", drop=True).index]
        rows.insert(0, "time", ends["time"].to_numpy())
        rows.insert(1, "event", ends["event"].to_numpy())
        with atomic(folder / FILE) as path:
            rows.reset_index().to_parquet(path, index=False, compression="zstd")
        with atomic(folder / FOLLOW_UP) as path:
            self.follow_up.to_csv(path, index=False)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "HeldOutCurves":
        """Read what ``save`` wrote."""
        rows = pd.read_parquet(Path(folder) / FILE).set_index(["model", "fold", "patient"])
        follow_up = pd.read_csv(Path(folder) / FOLLOW_UP)
        endpoint = rows[["time", "event"]].droplevel("model")
        endpoint = endpoint[~endpoint.index.duplicated()]
        rows = rows.drop(columns=["time", "event"])
        rows.columns = pd.Index(rows.columns.astype(float), name="days")
        parts = {str(n): rows.loc[[n]].droplevel("model").T for n in rows.index.unique("model")}
        return cls(parts, endpoint, follow_up)

    def once(self, model: str) -> tuple[Curves, pd.DataFrame]:
        """Return curves and endpoint of each patient once: the first time one was held out."""
        frame = self.models[model]
        first = frame.loc[:, ~frame.columns.get_level_values("patient").duplicated()]
        ends = self.endpoint.loc[first.columns]
        return Curves(first.index.to_numpy(float), first.to_numpy(float)), ends

    def horizon(self) -> float:
        """Return the days up to which every fold can be scored."""
        return min(
            horizon(train["time"], train["event"], self.endpoint.loc[fold]["time"])
            for fold, train in self.follow_up.groupby("fold")
        )

    def years(self) -> list[float]:
        """Return up to three round horizons, in days, that can be judged; half of it if none."""
        end = self.horizon()
        days = [year * DAYS_PER_YEAR for year in YEARS if year * DAYS_PER_YEAR <= end]
        return days[-SHOWN:] or [end / 2]


def calibration_table(curves: HeldOutCurves, model: str, at: Sequence[float]) -> pd.DataFrame:
    """Return predicted and observed survival at some days, by groups of the prediction.

    Columns as ``metrics.calibration_at``; each patient enters once.
    """
    own, ends = curves.once(model)
    groups = int(np.clip(len(ends) // PER_GROUP, 2, GROUPS))
    tables = [
        calibration_at(ends["time"], ends["event"], row, day, groups)
        for day, row in zip(at, own.at(np.asarray(at)), strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def d_calibration_of(curves: HeldOutCurves, model: str) -> DCalibration:
    """Return the test of whether S at the event times is uniform; each patient enters once."""
    own, ends = curves.once(model)
    return d_calibration(ends["event"], own.own(ends["time"]))


def scores_over_time(
    curves: HeldOutCurves, models: Sequence[str], *, draws: int = 1000
) -> pd.DataFrame:
    """Return time-dependent AUC and Brier score of some models, up to the common horizon.

    Weights of censoring are from each fold's training patients; with several folds, the mean over
    them. Only the first model gets an interval: 95 %, pointwise, over patients.

    Returns:
        Rows of ``model``, ``metric`` (``auc``, ``brier``), ``at`` (days), ``value``, ``ci_low``,
        ``ci_high``, ``n`` and ``events``.
    """
    at = np.linspace(0.0, curves.horizon(), TIMES + 1)[1:]
    rows: list[dict[str, Any]] = []
    for model in models:
        for metric, scores in _scores(curves, model, at).items():
            weights = patient_draws(scores[0].n, draws) if model == models[0] else None
            for day, score in zip(at, scores, strict=True):
                told = {"model": model, "metric": metric, "at": day}
                rows.append({**told, **_told(score, weights)})
    return pd.DataFrame(rows)


def _scores(curves: HeldOutCurves, model: str, at: NDArray[Any]) -> dict[str, list[Score]]:
    """Return the mean score over folds at each time; a patient of several repeats is one."""
    frame = curves.models[model]
    patients = pd.Index(frame.columns.get_level_values("patient").unique())
    ends = curves.endpoint.loc[frame.columns].droplevel("fold")
    events = int(ends[~ends.index.duplicated()]["event"].sum())
    parts: dict[str, list[list[tuple[Score, Any]]]] = {"auc": [], "brier": []}
    for fold in frame.columns.unique("fold"):
        own = frame[fold]
        train = curves.follow_up[curves.follow_up["fold"] == fold]
        test = curves.endpoint.loc[fold].loc[own.columns]
        S = Curves(own.index.to_numpy(float), own.to_numpy(float))
        given = (train["time"], train["event"], test["time"], test["event"])
        where = patients.get_indexer(own.columns)
        parts["auc"].append([(s, where) for s in auc_scores(*given, 1 - S.at(at), at)])
        parts["brier"].append([(s, where) for s in brier_scores(*given, S, at)])
    return {
        metric: [average_scores(list(same), len(patients), events) for same in zip(*folded)]  # noqa: B905
        for metric, folded in parts.items()
    }


def net_benefit(
    curves: HeldOutCurves, models: Sequence[str], at: float, *, draws: int = 1000
) -> pd.DataFrame:
    """Return the net benefit of acting on each model's risk of an event by ``at`` days.

    Each patient enters once. Only the first model gets an interval: 95 %, pointwise, over
    patients.

    Returns:
        Rows of ``model`` (``everybody`` last: acting on all of them), ``threshold``, ``value``,
        ``ci_low``, ``ci_high``, ``n`` and ``events``; the value is NaN where nobody above the
        threshold was followed that far.
    """
    rows: list[dict[str, Any]] = []
    for model in (*models, EVERYBODY):
        S, ends = curves.once(models[0] if model == EVERYBODY else model)
        risk = np.ones(S.n) if model == EVERYBODY else 1 - S.at(at)[0]
        scores = net_benefit_scores(ends["time"], ends["event"], risk, at, THRESHOLDS)
        weights = patient_draws(S.n, draws) if model == models[0] else None
        rows += [
            {"model": model, "threshold": threshold, **_told(score, weights)}
            for threshold, score in zip(THRESHOLDS, scores, strict=True)
        ]
    return pd.DataFrame(rows)


def _told(score: Score, weights: Weights | None) -> dict[str, float]:
    """Return value, interval (NaN without weights), n and events."""
    nan = float("nan")
    found = {"value": score.value, "ci_low": nan, "ci_high": nan}
    if weights is not None:
        e = estimate(score, weights)
        found |= {"ci_low": e.ci_low, "ci_high": e.ci_high}
    return {**found, "n": score.n, "events": score.events}
