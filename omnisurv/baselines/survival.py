"""Survival baselines: ``fit(X, time, event, seed)`` on training patients, curves and risk out.

``X`` is patients × features, numeric, NaN where missing; ``time`` in days, ``event`` 0/1.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from omnisurv.baselines.blend import cox_blend
from omnisurv.baselines.components import cox_components
from omnisurv.baselines.cox import cox
from omnisurv.baselines.coxnet import coxnet
from omnisurv.baselines.fitted import (
    SurvivalBaseline,
    dropped,
    inner_folds,
    marginal,
    same_for_all,
    surv,
)
from omnisurv.baselines.network import fit_logistic_hazard
from omnisurv.baselines.preparation import Floats, Scaling, numeric
from omnisurv.metrics.curves import endpoint_arrays

Inputs = Literal["none", "clinical", "stratified", "omics", "all", "availability"]
"""The columns of ``X``: none; the clinical table, alone or with the class (``stratum``) of each
patient; the other tables; all tables; or which modalities there are. Columns have two levels,
block and feature; see ``preparation.block``."""


class Fit(Protocol):
    """Fits a survival baseline."""

    def __call__(
        self, X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
    ) -> SurvivalBaseline:
        """Fit on training patients; rows of ``X`` are in the order of ``time`` and ``event``."""


class Entry(NamedTuple):
    """One row of ``SURVIVAL_BASELINES``: how to fit it, on which columns, and what it is."""

    fit: Fit
    inputs: Inputs
    description: str


def kaplan_meier(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Give every patient the training patients' Kaplan–Meier curve; ``X`` is not looked at."""
    return marginal(*endpoint_arrays(time, event))


def null(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Give everybody one constant hazard, events per patient-day of training; C is 0.5."""
    times, events = endpoint_arrays(time, event)
    grid = np.linspace(0.0, times.max(), 201)
    return same_for_all(grid, np.exp(-grid * events.sum() / times.sum()))


def random_survival_forest(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Random survival forest (Ishwaran et al. 2008) of 100 trees; missing values as they are."""
    from sksurv.ensemble import RandomSurvivalForest

    times, events = endpoint_arrays(time, event)
    columns = X.columns[np.flatnonzero(np.isfinite(numeric(X)).any(axis=0))]
    if not events.any() or not len(columns):
        return marginal(times, events, ["no event or no column: Kaplan–Meier instead"])
    coarse, notes = _coarse(times)
    model = RandomSurvivalForest(
        n_estimators=100,
        min_samples_leaf=max(1, min(10, len(times) // 4), len(times) // 100),
        max_features="sqrt",
        random_state=seed,
    ).fit(_forest_input(X, columns), surv(coarse, events))
    return SurvivalBaseline(
        np.asarray(model.unique_times_, dtype=float),
        lambda X: np.asarray(
            model.predict_survival_function(_forest_input(X, columns), return_array=True)
        ),
        lambda X: np.asarray(model.predict(_forest_input(X, columns)), dtype=float),
        notes,
    )


def _forest_input(X: pd.DataFrame, columns: pd.Index) -> Floats:
    return np.clip(numeric(X.reindex(columns=columns)), -1e30, 1e30)  # trees hold float32


def _coarse(times: Floats, most: int = 200) -> tuple[Floats, list[str]]:
    """Round times up to at most ``most`` quantiles: a forest keeps a curve in every leaf."""
    if len(np.unique(times)) <= most:
        return times, []
    cuts = np.unique(np.quantile(times, np.linspace(0, 1, most + 1)[1:], method="higher"))
    return cuts[np.searchsorted(cuts, times)], [f"times rounded up to {len(cuts)} quantiles"]


def logistic_hazard_mlp(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Small networks with a discrete-time hazard (Gensheimer & Narasimhan 2019; pycox's loss).

    Missing values are filled as for ``cox``. Up to five networks, each stopped early on another
    fold of the training patients; their curves are averaged.
    """
    times, events = endpoint_arrays(time, event)
    scaling = Scaling.fit(X)
    notes = dropped(X, scaling)
    folds = inner_folds(events)
    if folds < 2 or not len(scaling.columns):
        return marginal(times, events, [*notes, "too few events or columns: Kaplan–Meier instead"])
    cuts, survival = fit_logistic_hazard(scaling.apply(X), times, events, seed, folds)
    width = np.diff(cuts, append=cuts[-1])

    def curves(X: pd.DataFrame) -> Floats:
        return survival(scaling.apply(X))

    return SurvivalBaseline(cuts, curves, lambda X: -(curves(X) * width).sum(axis=1), notes)


def mask_only(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Cox on nothing but which modalities a patient has: ``X`` is patients × modalities, bool.

    A model that cannot beat this one has learned the gaps, not the biology.
    """
    fitted = cox(X.astype(float), time, event, seed)

    def each_mask(predict: Callable[[pd.DataFrame], Any], X: pd.DataFrame) -> Floats:
        # one prediction per distinct mask, so that equal masks tie to the last bit
        masks, place = np.unique(X.to_numpy(dtype=float), axis=0, return_inverse=True)
        each: Floats = predict(pd.DataFrame(masks, columns=X.columns))[np.ravel(place)]
        return each

    times = fitted.predict_curves(X.iloc[:1].astype(float)).index.to_numpy(dtype=float)
    return SurvivalBaseline(
        times,
        lambda X: each_mask(lambda masks: fitted.predict_curves(masks).to_numpy(dtype=float).T, X),
        lambda X: each_mask(lambda masks: fitted.predict_risk(masks).to_numpy(dtype=float), X),
        list(fitted.notes),
    )


SURVIVAL_BASELINES: dict[str, Entry] = {
    "null": Entry(null, "none", "one constant hazard for everybody"),
    "kaplan_meier": Entry(kaplan_meier, "none", "the training patients' curve for everybody"),
    "mask_only": Entry(mask_only, "availability", "Cox on which modalities a patient has"),
    "cox_clinical": Entry(cox, "clinical", "ridge Cox on the clinical table"),
    "cox_blend": Entry(
        cox_blend,
        "stratified",
        "ridge Cox on the clinical table, half fitted to everybody and half within each class",
    ),
    "cox_components": Entry(
        cox_components,
        "all",
        "ridge Cox on the clinical table and ten principal components of each other modality",
    ),
    "random_survival_forest": Entry(
        random_survival_forest, "clinical", "random survival forest on the clinical table"
    ),
    "logistic_hazard_mlp": Entry(
        logistic_hazard_mlp, "clinical", "small discrete-hazard network on the clinical table"
    ),
    "coxnet": Entry(coxnet, "omics", "elastic-net Cox on all omics features"),
}
