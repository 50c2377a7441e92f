"""Baselines of a label: ``fit(X, code, classes, seed)`` on training patients, probabilities out.

``X`` is patients × features, numeric, NaN where missing; ``code`` is the class, counted from 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from omnisurv.baselines.preparation import Floats, Scaling, numeric

Inputs = Literal["none", "clinical", "all", "availability"]
"""The columns of ``X``: none; the clinical table; all tables; or which modalities there are."""
Codes = npt.NDArray[np.int64]

CS = (0.001, 0.01, 0.1, 1.0)
"""Inverse ridge penalties that are tried on standardised columns."""
MOST = 2000
"""Weights up to which Newton's method is the fastest."""


@dataclass(frozen=True)
class ClassBaseline:
    """A fitted baseline.

    Attributes:
        probability: table (patients × features) -> (n, classes).
        notes: what the fit had to give way on.
    """

    probability: Callable[[pd.DataFrame], Floats]
    notes: list[str] = field(default_factory=list)


class Fit(Protocol):
    """Fits a classification baseline."""

    def __call__(self, X: pd.DataFrame, code: Codes, classes: int, seed: int = 0) -> ClassBaseline:
        """Fit on training patients; rows of ``X`` are in the order of ``code``."""


class Entry(NamedTuple):
    """One row of ``CLASSIFICATION_BASELINES``: how to fit it, on what, and what it is."""

    fit: Fit
    inputs: Inputs
    description: str


def prevalence(X: pd.DataFrame, code: Codes, classes: int, seed: int = 0) -> ClassBaseline:
    """Give everybody the training patients' shares; ``X`` is not looked at."""
    share = np.bincount(code, minlength=classes) / len(code)
    return ClassBaseline(lambda X: np.tile(share, (len(X), 1)))


def logistic(X: pd.DataFrame, code: Codes, classes: int, seed: int = 0) -> ClassBaseline:
    """Ridge logistic regression, multinomial for more than two classes.

    Missing values take the training mean. The penalty is the one under which the patients left
    out of up to five inner folds are likeliest. More columns than patients are first rotated
    into the space that the training patients span, which changes nothing but the time it takes.
    """
    scaling = Scaling.fit(X, fill_mean=True)
    folds = min(5, int(np.bincount(code)[np.unique(code)].min()))
    if not len(scaling.columns) or len(np.unique(code)) < 2 or folds < 2:
        why = "no usable column, or too few patients of a class: the training shares instead"
        return ClassBaseline(prevalence(X, code, classes).probability, [why])
    Z = scaling.apply(X)
    axes = np.linalg.svd(Z, full_matrices=False)[2].T if Z.shape[1] > len(Z) else None
    model = _fit_ridge(Z if axes is None else Z @ axes, code, folds, seed)

    def probability(X: pd.DataFrame) -> Floats:
        Z = scaling.apply(X)
        return _spread(model.predict_proba(Z if axes is None else Z @ axes), model, classes)

    penalty = 1.0 / model.best_params_["C"]
    chosen = f"penalty {penalty:g} chosen by {folds}-fold inner cross-validation"
    return ClassBaseline(probability, [chosen])


def mask_only(X: pd.DataFrame, code: Codes, classes: int, seed: int = 0) -> ClassBaseline:
    """Ridge logistic regression on nothing but which modalities a patient has.

    A model that cannot beat this one has learned the gaps, not the biology.
    """
    fitted = logistic(X.astype(float), code, classes, seed)

    def probability(X: pd.DataFrame) -> Floats:
        # one prediction per distinct mask, so that equal masks tie to the last bit
        masks, place = np.unique(X.to_numpy(dtype=float), axis=0, return_inverse=True)
        each = fitted.probability(pd.DataFrame(masks, columns=X.columns))
        return each[np.ravel(place)]

    return ClassBaseline(probability, fitted.notes)


def random_forest(X: pd.DataFrame, code: Codes, classes: int, seed: int = 0) -> ClassBaseline:
    """Random forest (Breiman 2001) of 100 trees; missing values as they are."""
    from sklearn.ensemble import RandomForestClassifier

    columns = X.columns[np.flatnonzero(np.isfinite(numeric(X)).any(axis=0))]
    if not len(columns):
        why = "no usable column: the training shares instead"
        return ClassBaseline(prevalence(X, code, classes).probability, [why])
    model = RandomForestClassifier(100, min_samples_leaf=3, random_state=seed)
    model.fit(_trees(X, columns), code)
    return ClassBaseline(lambda X: _spread(model.predict_proba(_trees(X, columns)), model, classes))


def _fit_ridge(Z: Floats, code: Codes, folds: int, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    few = Z.shape[1] * len(np.unique(code)) < MOST
    solver = "newton-cholesky" if few else "lbfgs"
    return GridSearchCV(
        LogisticRegression(solver=solver, tol=1e-6, max_iter=2000),
        {"C": CS},
        scoring="neg_log_loss",
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
    ).fit(Z, code)


def _trees(X: pd.DataFrame, columns: pd.Index) -> Floats:
    return np.clip(numeric(X.reindex(columns=columns)), -1e30, 1e30)  # trees hold float32


def _spread(found: Any, model: Any, classes: int) -> Floats:
    """Return the probabilities of all classes; 0 of those that nobody in training has."""
    p = np.zeros((len(found), classes))
    p[:, model.classes_] = found
    return p


CLASSIFICATION_BASELINES: dict[str, Entry] = {
    "null": Entry(prevalence, "none", "the training patients' shares for everybody"),
    "mask_only": Entry(
        mask_only, "availability", "ridge logistic on which modalities a patient has"
    ),
    "logistic_clinical": Entry(logistic, "clinical", "ridge logistic on the clinical table"),
    "logistic_all": Entry(logistic, "all", "ridge logistic on all tables, each value a column"),
    "random_forest": Entry(
        random_forest, "all", "random forest on all tables, which sees their gaps too"
    ),
}
