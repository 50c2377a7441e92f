"""The estimator among scikit-learn's and scikit-survival's tools."""

import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sksurv.functions import StepFunction
from sksurv.metrics import (
    as_concordance_index_ipcw_scorer,
    as_integrated_brier_score_scorer,
    concordance_index_censored,
)
from sksurv.util import Surv

import omnisurv as om
from omnisurv.data.cohort import Cohort
from omnisurv.errors import DataError, SpecError

TINY = {
    "dim": 8, "heads": 2, "mlp": 16, "decoder_dim": 8, "decoder_mlp": 16, "trunk": 1, "members": 1,
    "pretrain.epochs": 2, "pretrain.every": 1, "pretrain.patience": None,
}  # fmt: skip
KINDS = {"rna": {"kind": "rna", "scale": "linear", "patch": 4}, "clinical": "table"}


@cache
def patients(n=120):
    """Return X with names in front and y: age rules, genes of every third are missing."""
    draw = np.random.default_rng(0)
    age = draw.normal(60, 10, n)
    genes = np.exp(draw.normal(1, 1, (n, 8)))
    X = pd.DataFrame(genes, columns=[f"rna:G{i}" for i in range(8)])
    X.insert(0, "clinical:age", age)
    X.insert(1, "clinical:grade", draw.integers(2, 5, n).astype(float))
    X.iloc[::3, 2:] = np.nan
    X.iloc[::7, 1] = np.nan
    X.index = pd.Index([f"P{i:03d}" for i in draw.permutation(n)])
    time = np.ceil(draw.exponential(500 * np.exp(-(age - 60) / 8)))
    return X, Surv.from_arrays(draw.random(n) < 0.7, time)


def estimator(**params):
    said = {"modalities": KINDS, "settings": TINY, "random_state": 0, **params}
    return om.SurvivalEstimator(**said)


@cache
def fitted():
    return estimator().fit(*patients())


class Plain(om.SurvivalEstimator):
    """Takes a row of numbers for y, as scikit-learn's own checks give it."""

    def fit(self, X, y):
        return super().fit(X, y if y is None else _survival(y))

    def score(self, X, y):
        return super().score(X, _survival(y))


def _survival(y):
    if np.iscomplexobj(y):
        raise ValueError("Complex data not supported")
    y = np.asarray(y, dtype=float)
    return Surv.from_arrays(np.arange(len(y)) % 3 < 2, 1 + y - y.min())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks():
    results = check_estimator(Plain(settings=TINY, pretrain=False), on_fail=None, on_skip=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert failed == []
    assert len([r for r in results if r["status"] == "passed"]) > 35


def test_it_is_the_same_model_as_by_hand():
    """The table is a cohort, its names say which column is of which modality."""
    X, y = patients()
    recipe = om.get_recipe(
        "imputmae:small",
        **{k: v for k, v in TINY.items() if "." not in k},
        pretrain={"epochs": 2, "every": 1, "patience": None},
    )
    cohort = fitted().division_.to_cohort(X.to_numpy(), list(X.index), y["time"], y["event"])
    assert isinstance(cohort, Cohort)
    assert cohort.availability["rna"].sum() == 80
    assert list(cohort["rna"].var_names) == [f"G{i}" for i in range(8)]
    model = om.finetune(om.pretrain(recipe, cohort), cohort)
    np.testing.assert_array_equal(fitted().predict(X), model.predict(cohort).loc[X.index])
    assert fitted().score(X, y) == pytest.approx(model.score(cohort), abs=1e-9)
    assert fitted().score(X, y) > 0.65


def test_survival_functions_are_scikit_survivals():
    X, y = patients()
    est = fitted()
    np.testing.assert_array_equal(est.unique_times_, np.unique(y["time"]))
    np.testing.assert_array_equal(est.event_times_, np.unique(y["time"][y["event"]]))
    S = est.predict_survival_function(X, return_array=True)
    assert S.shape == (len(X), len(est.unique_times_))
    functions = est.predict_survival_function(X)
    assert isinstance(functions[3], StepFunction)
    np.testing.assert_array_equal(functions[3](est.unique_times_), S[3])
    assert (np.diff(S, axis=1) <= 0).all()
    hazard = est.predict_cumulative_hazard_function(X, return_array=True)
    np.testing.assert_allclose(np.exp(-hazard), S)
    assert est.predict_cumulative_hazard_function(X)[3](500.0) == pytest.approx(
        -np.log(functions[3](500.0))
    )
    riskiest, safest = np.argmax(est.predict(X)), np.argmin(est.predict(X))
    assert functions[riskiest](500.0) < functions[safest](500.0)


def test_score_is_harrells_c():
    X, y = patients()
    expected = concordance_index_censored(y["event"], y["time"], fitted().predict(X))[0]
    assert fitted().score(X, y) == expected


def test_cross_validation_and_search_by_any_score():
    X, y = patients()
    est = estimator(pretrain=False)
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(est, X, y, cv=folds, error_score="raise")
    assert scores.mean() > 0.6
    uno = as_concordance_index_ipcw_scorer(est, tau=800.0)
    search = GridSearchCV(
        uno, {"estimator__settings__intervals": [2, 20]}, cv=folds, error_score="raise"
    ).fit(X, y)
    tried = search.cv_results_["mean_test_score"]
    assert tried[0] != tried[1]
    chosen = [2, 20][int(np.argmax(tried))]
    assert search.best_params_ == {"estimator__settings__intervals": chosen}
    assert search.best_estimator_.estimator_.model_.recipe.intervals == chosen
    assert search.best_score_ > 0.6
    brier = as_integrated_brier_score_scorer(est, times=[100.0, 300.0, 500.0]).fit(X, y)
    assert -0.25 < brier.score(X, y) < 0


def test_in_a_pipeline_names_are_kept_or_columns_are_numbered():
    X, y = patients()
    logged = FunctionTransformer(np.log1p, feature_names_out="one-to-one")
    named = make_pipeline(
        logged.set_output(transform="pandas"),
        estimator(modalities={**KINDS, "rna": {"kind": "rna", "scale": "ln"}}, pretrain=False),
    ).fit(X, y)
    assert list(named[-1].feature_names_in_) == list(X.columns)
    numbered = make_pipeline(
        StandardScaler(),
        estimator(modalities={"clinical": [0, 1], "rna": range(2, 10)}, pretrain=False),
    ).fit(X, y)
    assert numbered[-1].model_.tokenisers["rna"].unit == "z-score"
    assert named.score(X, y) > 0.65
    assert numbered.score(X, y) > 0.65


def test_columns_of_two_levels_names_and_lists_say_the_same():
    X, y = patients()
    levels = X.set_axis(pd.MultiIndex.from_tuples([c.split(":") for c in X.columns]), axis=1)
    two = estimator(pretrain=False).fit(levels, y)
    assert list(two.feature_names_in_) == list(X.columns)
    bare = X.rename(columns=lambda name: name.split(":")[1])
    told = {
        "rna": {**KINDS["rna"], "columns": [f"G{i}" for i in range(8)]},
        "clinical": ["age", "grade"],
    }
    listed = estimator(modalities=told, pretrain=False).fit(bare, y)
    expected = estimator(pretrain=False).fit(X, y).predict(X)
    np.testing.assert_array_equal(two.predict(levels), expected)
    np.testing.assert_array_equal(listed.predict(bare), expected)


def test_a_table_that_says_nothing_is_clinical():
    X, y = patients()
    bare = X[["clinical:age"]].rename(columns={"clinical:age": "age"})
    est = om.SurvivalEstimator(settings=TINY, pretrain=False, random_state=0).fit(bare, y)
    assert list(est.model_.modalities) == ["clinical"]
    assert est.score(bare, y) > 0.65
    assert est.fit(bare.to_numpy(), y).score(bare.to_numpy(), y) > 0.65


def test_a_row_without_a_modality_and_a_row_without_anything():
    X, _ = patients()
    est = fitted()
    batch, _ = est._cohort(X)
    assert batch.availability["rna"].sum() == 80
    empty = pd.DataFrame(np.nan, index=["nobody"], columns=X.columns)
    both = est.predict(pd.concat([X.iloc[:3], empty]))
    assert np.isfinite(both).all()
    np.testing.assert_allclose(both[:3], est.predict(X.iloc[:3]), rtol=1e-5)


def test_order_and_repeats_of_patients():
    X, y = patients()
    expected = pd.Series(fitted().predict(X), X.index)
    turned = X.iloc[::-1]
    np.testing.assert_allclose(fitted().predict(turned), expected.iloc[::-1], rtol=1e-5)
    drawn = np.random.default_rng(1).integers(len(X), size=len(X))
    bootstrap = estimator(pretrain=False).fit(X.iloc[drawn], y[drawn])
    assert bootstrap.score(X, y) > 0.6
    assert np.isfinite(bootstrap.predict(X.iloc[drawn])).all()


def test_seeds_parameters_and_copies():
    X, y = patients()
    again = clone(fitted())
    assert not hasattr(again, "model_")
    assert again.get_params(deep=False) == fitted().get_params(deep=False)
    assert again.get_params()["settings__pretrain__epochs"] == 2
    again.set_params(settings__pretrain__epochs=1, random_state=3)
    assert again.settings["pretrain.epochs"] == 1
    assert TINY["pretrain.epochs"] == 2
    assert again.fit(X, y).model_.recipe.seed == 3
    assert len(again.model_.history) == 1
    drawn = estimator(random_state=np.random.RandomState(0), pretrain=False).fit(X, y)
    assert drawn.model_.recipe.seed == np.random.RandomState(0).randint(2**31 - 1)
    copy = pickle.loads(pickle.dumps(fitted()))
    np.testing.assert_array_equal(copy.predict(X), fitted().predict(X))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"modalities": {"rna": "rnaa"}}, SpecError, "Did you mean 'rna'"),
        ({"modalities": {"rna": "mri"}}, DataError, "no table of numbers holds; known are dnam"),
        ({"modalities": {"rma": "rna"}}, DataError, "begins with 'rma:'. Did you mean 'rna'"),
        ({"modalities": {"rna": ["rna:G1", "rna:G9x"]}}, DataError, "no column 'rna:G9x' of 'rna'"),
        ({"modalities": {"clinical": "table"}}, DataError, "8 columns of X are of no modality"),
        ({"modalities": {**KINDS, "more": ["rna:G1"]}}, DataError, "'rna:G1' is of 'rna' and of"),
        ({"modalities": {**KINDS, "clinical": {"pach": 3}}}, SpecError, "Did you mean 'patch'"),
        ({"settings": {"rigde": 3}}, SpecError, "Did you mean 'ridge'"),
        ({"recipe": "imputmea"}, SpecError, "Did you mean 'imputmae'"),
    ],
)
def test_what_is_wrong_is_named(change, error, says):
    with pytest.raises(error, match=says.replace(".", r"\.")):
        estimator(**change).fit(*patients())


def test_text_mixed_names_and_plain_y_are_refused():
    X, y = patients()
    text = X.assign(**{"clinical:grade": "G2"})
    with pytest.raises(DataError, match="column 'clinical:grade' of X holds text \\('G2'\\)"):
        estimator().fit(text, y)
    with pytest.raises(DataError, match="1 columns of X name no modality \\(age\\)"):
        estimator(modalities=None).fit(X.rename(columns={"clinical:age": "age"}), y)
    with pytest.raises(ValueError, match="y must be a structured array"):
        estimator().fit(X, y["time"])
