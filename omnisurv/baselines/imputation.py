"""Imputation baselines: a modality from the others, as plain matrices.

``train`` maps each modality to patients × features (only patients who have it; NaN = not
measured). ``predict`` never looks at the target's own rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from omnisurv.baselines.components import Components
from omnisurv.baselines.preparation import Floats, Scaling, numeric
from omnisurv.errors import DataError, did_you_mean

Matrices = Mapping[str, pd.DataFrame]

_NEIGHBOURS = (5, 10, 20, 40, 80)
_ASKED = 300  # training patients asked for how many neighbours are best
_COMPONENTS = 50
_BLOCK = 256  # patients whose distances are held in memory at a time


@dataclass(frozen=True)
class ImputationBaseline:
    """A fitted baseline for one target modality.

    Attributes:
        columns: features of the target.
        values: matrices and patients -> (patients, features).
        notes: what the fit had to give way on, for the report.
    """

    columns: pd.Index
    values: Callable[[Matrices, pd.Index], Floats]
    notes: list[str] = field(default_factory=list)

    def predict(self, matrices: Matrices, patients: pd.Index) -> pd.DataFrame:
        """Return patients × features of the target in its own unit, no NaN."""
        return pd.DataFrame(self.values(matrices, patients), patients, self.columns)


class Fit(Protocol):
    """Fits an imputation baseline."""

    def __call__(self, train: Matrices, target: str, seed: int = 0) -> ImputationBaseline:
        """Fit on training patients."""


class Entry(NamedTuple):
    """One row of ``IMPUTATION_BASELINES``: how to fit it and what it is."""

    fit: Fit
    description: str


def mean(train: Matrices, target: str, seed: int = 0) -> ImputationBaseline:
    """Impute each feature's training mean."""
    y, centre, notes = _target(train, target)
    return ImputationBaseline(
        y.columns, lambda _, patients: np.tile(centre, (len(patients), 1)), notes
    )


def _mean_instead(train: Matrices, target: str) -> ImputationBaseline:
    fitted = mean(train, target)
    fitted.notes.append("nothing to learn it from but itself: training mean instead")
    return fitted


def knn(train: Matrices, target: str, seed: int = 0) -> ImputationBaseline:
    """Impute the mean of the training patients nearest in the other modalities.

    Features are standardised; the distance is Euclidean over what both patients have measured,
    scaled up for what they have not (as scikit-learn's nan-Euclidean). Who shares no measurement
    with any of them gets the training mean. How many neighbours, of 5 to 80, is chosen by
    leave-one-out error on the training patients (a seeded 300 of them, if there are more).
    """
    y, centre, notes = _target(train, target)
    others = _Others.fit(train, target)
    if not others.scalings:
        return _mean_instead(train, target)
    donors, donor_values = others.standardised(train, y.index), numeric(y)
    k = _best_k(donors, donor_values, centre, seed)

    def values(matrices: Matrices, patients: pd.Index) -> Floats:
        asked = others.standardised(matrices, patients)
        filled = np.tile(centre, (len(patients), 1))
        for begin in range(0, len(patients), _BLOCK):
            distances = nan_distances(asked[begin : begin + _BLOCK], donors)
            for row, distance in enumerate(distances, start=begin):
                filled[row] = _nearest_mean(distance, donor_values, centre, k)
        return filled

    return ImputationBaseline(y.columns, values, [*notes, f"{k} neighbours"])


def nan_distances(A: Floats, B: Floats) -> Floats:
    """Return squared nan-Euclidean distances (a, b), infinite where no measurement is shared.

    scikit-learn's own multiplies integer matrices without BLAS, some hundred times slower.
    """
    has_a, has_b = np.isfinite(A).astype(float), np.isfinite(B).astype(float)
    a, b = np.where(has_a, A, 0.0), np.where(has_b, B, 0.0)
    squared = a**2 @ has_b.T + has_a @ (b**2).T - 2 * a @ b.T
    shared = has_a @ has_b.T
    scaled = np.maximum(squared, 0) * A.shape[1] / np.maximum(shared, 1)
    distances: Floats = np.where(shared > 0, scaled, np.inf)
    return distances


def _nearest_mean(distance: Floats, donors: Floats, centre: Floats, k: int) -> Floats:
    order = np.argsort(distance, kind="stable")
    near = donors[order[: min(k, int(np.isfinite(distance).sum()))]]
    measured = np.isfinite(near)
    total = np.where(measured, near, 0).sum(axis=0)
    count = measured.sum(axis=0)
    nearest: Floats = np.where(count > 0, total / np.maximum(count, 1), centre)
    return nearest


def _best_k(donors: Floats, values: Floats, centre: Floats, seed: int) -> int:
    """Return the number of neighbours with the least squared error on left-out donors."""
    asked = np.random.default_rng(seed).permutation(len(donors))[:_ASKED]
    distances = nan_distances(donors[asked], donors)
    distances[np.arange(len(asked)), asked] = np.inf
    away = np.where(np.isfinite(values), values - centre, 0.0)
    scale = np.where(away.any(axis=0), (away**2).sum(axis=0), 1.0)  # features count alike
    errors = [
        sum(
            np.nansum((values[i] - _nearest_mean(distance, values, centre, k)) ** 2 / scale)
            for i, distance in zip(asked, distances, strict=True)
        )
        for k in _NEIGHBOURS
    ]
    return _NEIGHBOURS[int(np.argmin(errors))]


def ridge(train: Matrices, target: str, seed: int = 0) -> ImputationBaseline:
    """Impute by ridge regression on principal components of the other modalities.

    Up to 50 components of each other modality (mean-filled, standardised, fitted on those who
    have it; 0 for those who do not) beside a flag for having it. One penalty per target
    feature, by leave-one-out error.
    """
    from sklearn.linear_model import RidgeCV

    y, centre, notes = _target(train, target)
    fitted = {
        name: Components.fit(table, _COMPONENTS, seed)
        for name, table in train.items()
        if name != target
    }
    components = {name: c for name, c in fitted.items() if c is not None}
    if not components or len(y) < 3:
        return _mean_instead(train, target)

    def features(matrices: Matrices, patients: pd.Index) -> Floats:
        parts = []
        for name, c in components.items():
            rows = _rows(matrices, name, patients)
            parts += [c.scores(rows), rows.notna().any(axis=1).to_numpy(float)[:, None]]
        return np.hstack(parts)

    values = numeric(y)
    spread = np.where(np.isfinite(values), values - centre, 0.0)
    model = RidgeCV(alphas=np.logspace(-1, 5, 13), alpha_per_target=spread.shape[1] > 1)
    model.fit(features(train, y.index), spread)

    def predict(matrices: Matrices, patients: pd.Index) -> Floats:
        moved = np.asarray(model.predict(features(matrices, patients)))
        imputed: Floats = centre + moved.reshape(len(patients), -1)
        return imputed

    return ImputationBaseline(y.columns, predict, notes)


def _target(train: Matrices, target: str) -> tuple[pd.DataFrame, Floats, list[str]]:
    """Return the target's training rows that hold anything, feature means, and notes."""
    if target not in train:
        raise DataError(f"no training matrix of modality '{target}'.{did_you_mean(target, train)}")
    y = train[target].dropna(how="all")
    if not len(y):
        raise DataError(f"no training patient has modality '{target}': nothing to learn it from")
    values = numeric(y)
    measured = np.isfinite(values)
    counts = measured.sum(axis=0)
    centre = np.where(measured, values, 0.0).sum(axis=0) / np.maximum(counts, 1)
    never = counts == 0
    if not never.any():
        return y, centre, []
    centre[never] = centre[~never].mean()
    return y, centre, [f"{never.sum()} features never measured in training: the overall mean"]


@dataclass(frozen=True)
class _Others:
    """The modalities that the target is imputed from, as scaled in training."""

    scalings: dict[str, Scaling]

    @classmethod
    def fit(cls, train: Matrices, target: str) -> "_Others":
        have = {name: table.dropna(how="all") for name, table in train.items() if name != target}
        fitted = {name: Scaling.fit(t, fill_mean=True) for name, t in have.items() if len(t) > 1}
        return cls({name: scaling for name, scaling in fitted.items() if len(scaling.columns)})

    def standardised(self, matrices: Matrices, patients: pd.Index) -> Floats:
        """Return the modalities side by side, (patients, features), NaN where not measured."""
        blocks = []
        for name, scaling in self.scalings.items():
            rows = _rows(matrices, name, patients).reindex(columns=scaling.columns)
            blocks.append(np.where(np.isfinite(numeric(rows)), scaling.apply(rows), np.nan))
        return np.hstack(blocks)


def _rows(matrices: Matrices, name: str, patients: pd.Index) -> pd.DataFrame:
    return matrices[name].reindex(patients) if name in matrices else pd.DataFrame(index=patients)


IMPUTATION_BASELINES: dict[str, Entry] = {
    "mean": Entry(mean, "each feature's training mean"),
    "knn": Entry(knn, "mean of the patients nearest in the other modalities"),
    "ridge": Entry(ridge, "ridge regression on principal components of the other modalities"),
}
