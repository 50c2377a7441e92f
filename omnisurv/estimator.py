"""Recipes as a scikit-learn estimator, in scikit-survival's manners."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from sksurv.base import SurvivalAnalysisMixin
from sksurv.functions import StepFunction
from sksurv.util import check_y_survival

from omnisurv.config import unfold
from omnisurv.data.frames import Given, divide, flatten
from omnisurv.errors import DataError
from omnisurv.recipe import Recipe, get_recipe
from omnisurv.training import finetune, pretrain

Array = NDArray[np.float64]


class SurvivalEstimator(SurvivalAnalysisMixin, BaseEstimator):  # type: ignore[misc]
    """A survival model of patients who lack some of their modalities.

    ``X`` has a row for each patient and the features of all modalities side by side; NaN is not
    measured, and a patient whose row is NaN in a whole modality lacks it. Which column is of which
    modality say two levels of columns (``("rna", "TP53")``), names (``rna:TP53``), or
    ``modalities``; a table that says nothing is one of clinical variables. ``y`` is a structured
    array (``sksurv.util.Surv``). Patients whose time is not positive are pre-trained on alone.

    Args:
        recipe: recipe or recipe:preset.
        modalities: for each modality its kind (``"rna"``), its columns (``["age", "grade"]``), or
            both and the kind's options (``{"kind": "rna", "columns": […], "patch": 64}``; ``scale``
            where values do not tell it).
        pretrain: whether to pre-train by masking first.
        settings: of the recipe, such as ``{"ridge": 5.0, "pretrain.epochs": 20}``. In a search
            they are ``settings__ridge`` and ``settings__pretrain__epochs``.
        random_state: seed of everything random.

    Attributes:
        model_: the fitted model, with all that it can do beyond this class.
        unique_times_: distinct times of the training patients.
        event_times_: those at which somebody had an event.
        n_features_in_: number of columns.
        feature_names_in_: their names, where they have some.
    """

    def __init__(
        self,
        recipe: str = "imputmae:small",
        *,
        modalities: Mapping[str, Given] | None = None,
        pretrain: bool = True,
        settings: Mapping[str, Any] | None = None,
        random_state: "int | np.random.RandomState | None" = None,
    ) -> None:
        self.recipe = recipe
        self.modalities = modalities
        self.pretrain = pretrain
        self.settings = settings
        self.random_state = random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with ``deep`` also each setting of the recipe that is given."""
        params: dict[str, Any] = super().get_params(deep=deep)
        if deep and isinstance(self.settings, Mapping):
            for key, value in self.settings.items():
                params[f"settings__{key.replace('.', '__')}"] = value
        return params

    def set_params(self, **params: Any) -> "SurvivalEstimator":
        """Set parameters; ``settings__ridge=5.0`` changes one setting of the recipe."""
        nested = {key for key in params if key.startswith("settings__")}
        super().set_params(**{k: v for k, v in params.items() if k not in nested})
        if nested:
            names = {key: key.removeprefix("settings__").replace("__", ".") for key in nested}
            changed = {name: params[key] for key, name in names.items()}
            self.settings = {**(self.settings or {}), **changed}
        return self

    def fit(self, X: Any, y: NDArray[Any] | None) -> "SurvivalEstimator":
        """Fit tokenisers, pre-train and fine-tune on these patients.

        Raises:
            DataError: columns of no modality, columns of text, or too few patients.
            SpecError: an unknown recipe, setting, kind or option, with the nearest name.
        """
        recipe = self._recipe()
        patients, values = self._read(X, reset=True)
        if y is None:
            name = type(self).__name__
            raise ValueError(f"{name} requires y to be passed, but the target y is None")
        event, time = check_y_survival(y)
        check_consistent_length(values, time)
        self.division_ = divide(self._names(), values, self.modalities)
        cohort = self.division_.to_cohort(values, patients, time, event)
        self.model_ = finetune(pretrain(recipe, cohort) if self.pretrain else recipe, cohort)
        self.unique_times_ = np.unique(time).astype(float)
        self.event_times_ = np.unique(time[event]).astype(float)
        return self

    def predict(self, X: Any) -> Array:
        """Return the risk of each patient, higher = worse."""
        cohort, patients = self._cohort(X)
        return np.asarray(self.model_.predict(cohort).loc[patients], dtype=float)

    def predict_survival_function(
        self, X: Any, return_array: bool = False
    ) -> "NDArray[Any]":  # of StepFunction or float
        """Return survival functions, or an array (patients, ``unique_times_``) of their values."""
        survival = self._survival(X)
        return survival if return_array else self._functions(survival)

    def predict_cumulative_hazard_function(
        self, X: Any, return_array: bool = False
    ) -> "NDArray[Any]":  # of StepFunction or float
        """Return cumulative hazards −log S(t), or an array of their values."""
        hazard = -np.log(np.maximum(self._survival(X), np.finfo(float).tiny))
        return hazard if return_array else self._functions(hazard)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _recipe(self) -> Recipe:
        from sklearn.utils import check_random_state

        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        return get_recipe(self.recipe, **{"seed": int(seed), **unfold(self.settings or {})})

    def _read(self, X: Any, *, reset: bool) -> tuple[list[str], Array]:
        """Return ids and values of the patients; the index tells ids where it is unique."""
        if isinstance(X, pd.DataFrame):
            X = X.set_axis(flatten(X.columns), axis=1)
            _refuse_text(X)
        values = validate_data(
            self,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
        )
        ids = [str(patient) for patient in X.index] if isinstance(X, pd.DataFrame) else []
        if len(set(ids)) < len(values):
            ids = [f"{row:09d}" for row in range(len(values))]
        return ids, values

    def _names(self) -> list[str]:
        """Return the names of the columns; numbers where they have none."""
        named = getattr(self, "feature_names_in_", range(self.n_features_in_))
        return [str(name) for name in named]

    def _cohort(self, X: Any) -> tuple[Any, list[str]]:
        check_is_fitted(self)
        patients, values = self._read(X, reset=False)
        return self.division_.to_cohort(values, patients), patients

    def _survival(self, X: Any) -> Array:
        """Return survival (patients, ``unique_times_``)."""
        cohort, patients = self._cohort(X)
        curves = self.model_.predict_survival_function(cohort, times=self.unique_times_)
        return np.asarray(curves[patients], dtype=float).T

    def _functions(self, values: Array) -> "NDArray[Any]":
        functions = np.empty(len(values), dtype=object)
        functions[:] = [StepFunction(self.unique_times_, row) for row in values]
        return functions


def _refuse_text(X: pd.DataFrame) -> None:
    """Raise DataError if a column holds text, which has no order to guess."""
    for name, column in X.items():
        if pd.api.types.is_numeric_dtype(column):
            continue
        example = next((value for value in column if isinstance(value, str)), None)
        if example is not None:
            raise DataError(
                f"column '{name}' of X holds text ('{example}'); make numbers of it, say with "
                "pandas.get_dummies or scikit-learn's OneHotEncoder"
            )
