import os

os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")

import numpy as np
import pandas as pd
import pytest

from omnisurv.baselines import IMPUTATION_BASELINES, SURVIVAL_BASELINES
from omnisurv.errors import DataError
from omnisurv.metrics import concordance_harrell, r2, survival_scores

FITTED_ON_X = [
    "cox_clinical",
    "cox_blend",
    "cox_components",
    "coxnet",
    "random_survival_forest",
    "logistic_hazard_mlp",
]


def simulate(n=240, features=6, seed=0):
    draw = np.random.default_rng(seed)
    X = pd.DataFrame(
        draw.normal(size=(n, features)),
        index=[f"P{k:03d}" for k in range(n)],
        columns=[f"x{k}" for k in range(features)],
    )
    X["sex"] = draw.integers(0, 2, n).astype(float)
    death = draw.exponential(900 * np.exp(-X["x0"] - 0.5 * X["x1"]))
    censored = draw.uniform(100, 3000, n)
    time, event = np.minimum(death, censored) + 1, death <= censored
    holes = draw.random(X.shape) < 0.1
    return X.mask(holes), time, event


def shaped(name, X):
    """Return the table as the baseline wants it: two blocks, or with the class of each patient."""
    if name == "cox_components":
        blocks = ["clinical" if c in ("x0", "x1", "sex", "constant") else "rna" for c in X]
        return X.set_axis(pd.MultiIndex.from_arrays([blocks, X.columns]), axis=1)
    if name == "cox_blend":
        X = X.set_axis(pd.MultiIndex.from_product([["clinical"], X.columns]), axis=1)
        classes = [("odd", "even", None)[int(p[1:]) % 7 % 3] for p in X.index]
        return stratified(X, classes)
    return X


def stratified(X, classes):
    return X.assign(**{"stratum": pd.Series(classes, X.index, dtype=object)})


@pytest.fixture(scope="module")
def data():
    X, time, event = simulate(n=560)
    half = slice(0, 160)
    rest = slice(160, None)
    return (X[half], time[half], event[half]), (X[rest], time[rest], event[rest])


def check_predictions(fitted, X):
    curves, risk = fitted.predict_curves(X), fitted.predict_risk(X)
    assert list(curves.columns) == list(X.index) == list(risk.index)
    assert curves.index[0] == 0
    assert curves.index.is_monotonic_increasing
    assert np.isfinite(curves.to_numpy()).all()
    assert ((curves >= 0) & (curves <= 1)).all(axis=None)
    assert (np.diff(curves, axis=0) <= 1e-9).all()
    assert np.isfinite(risk).all()
    return curves, risk


@pytest.mark.parametrize("name", FITTED_ON_X)
def test_survival_baselines_learn_and_repeat(name, data):
    (X, time, event), (X_test, time_test, event_test) = data
    X, X_test = shaped(name, X), shaped(name, X_test)
    entry = SURVIVAL_BASELINES[name]
    fitted = entry.fit(X, time, event, seed=1)
    curves, risk = check_predictions(fitted, X_test)
    assert concordance_harrell(time_test, event_test, risk) > 0.67
    scores = survival_scores(time, event, time_test, event_test, curves.index, curves, risk)
    null = SURVIVAL_BASELINES["null"].fit(X, time, event).predict_curves(X_test)
    floor = survival_scores(time, event, time_test, event_test, null.index, null)
    assert scores["ibs"].value < floor["ibs"].value
    assert scores["c_antolini"].value == pytest.approx(scores["c_harrell"].value, abs=0.03)
    again = entry.fit(X, time, event, seed=1).predict_curves(X_test)
    pd.testing.assert_frame_equal(curves, again)


@pytest.mark.parametrize("name", ["null", "kaplan_meier"])
def test_constant_baselines_score_one_half(name, data):
    (X, time, event), (X_test, time_test, event_test) = data
    fitted = SURVIVAL_BASELINES[name].fit(X, time, event)
    curves, risk = check_predictions(fitted, X_test)
    scores = survival_scores(time, event, time_test, event_test, curves.index, curves, risk)
    for metric in ("c_antolini", "c_harrell", "c_uno", "auc"):
        assert scores[metric].value == 0.5
    assert 0.1 < scores["ibs"].value < 0.27


@pytest.mark.parametrize("name", FITTED_ON_X)
def test_a_patient_is_predicted_alike_in_any_company(name, data):
    (X, time, event), (X_test, _, _) = data
    X, X_test = shaped(name, X), shaped(name, X_test)
    fitted = SURVIVAL_BASELINES[name].fit(X, time, event)
    alone = fitted.predict_curves(X_test.iloc[[3]]).to_numpy()
    assert alone == pytest.approx(fitted.predict_curves(X_test).iloc[:, [3]].to_numpy(), abs=1e-6)


@pytest.mark.parametrize("name", FITTED_ON_X)
def test_awkward_tables_do_not_crash(name, data):
    (X, time, event), (X_test, _, _) = data
    X = X.assign(empty=np.nan, constant=3.0, infinite=np.inf)
    X_test = X_test.drop(columns="x5").assign(empty=1.0, constant=np.inf, x0=1e300)
    fitted = SURVIVAL_BASELINES[name].fit(shaped(name, X), time, event)
    check_predictions(fitted, shaped(name, X_test))


@pytest.mark.parametrize("name", FITTED_ON_X)
@pytest.mark.parametrize("events", [0, 1, 2, 5])
def test_few_events_do_not_crash(name, events, data):
    (X, time, event), (X_test, _, _) = data
    few = event & (np.cumsum(event) <= events)
    fitted = SURVIVAL_BASELINES[name].fit(shaped(name, X), time, few)
    check_predictions(fitted, shaped(name, X_test))
    if events == 0:
        assert any("Kaplan–Meier instead" in note for note in fitted.notes)


def test_cox_agrees_with_lifelines_at_no_penalty_to_speak_of():
    from lifelines import CoxPHFitter

    X, time, event = simulate(n=400)
    X = X.fillna(0.0)
    ours = SURVIVAL_BASELINES["cox_clinical"].fit(X, time, event).predict_risk(X)
    theirs = CoxPHFitter().fit(X.assign(t=time, e=event), "t", "e")
    assert np.corrcoef(ours, theirs.predict_log_partial_hazard(X))[0, 1] > 0.999


def test_cox_survives_separation_and_says_what_it_dropped():
    draw = np.random.default_rng(0)
    time = np.sort(draw.uniform(1, 100, 80))
    event = np.arange(80) < 40
    X = pd.DataFrame({"tells_all": event.astype(float), "order": -np.arange(80.0), "one": 1.0})
    fitted = SURVIVAL_BASELINES["cox_clinical"].fit(X, time, event)
    check_predictions(fitted, X)
    assert "1 of 3 columns constant or empty in training: dropped" in fitted.notes


def test_cox_raises_its_penalty_where_the_fit_fails(data, monkeypatch):
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    fit = CoxPHSurvivalAnalysis.fit

    def stubborn(self, Z, y):
        if self.alpha < 50:
            raise ValueError("search direction contains NaN or infinite values")
        return fit(self, Z, y)

    monkeypatch.setattr(CoxPHSurvivalAnalysis, "fit", stubborn)
    (X, time, event), (X_test, _, _) = data
    fitted = SURVIVAL_BASELINES["cox_clinical"].fit(X, time, event)
    check_predictions(fitted, X_test)
    assert fitted.notes == [
        "Cox did not converge at ridge penalty 1",
        "Cox did not converge at ridge penalty 10",
    ]


def test_texts_are_refused(data):
    (X, time, event), _ = data
    with pytest.raises(DataError, match="column 'grade' holds other values; encode categories"):
        SURVIVAL_BASELINES["cox_clinical"].fit(X.assign(grade="G2"), time, event)
    twice = pd.concat([X, X[["x0"]]], axis=1)
    with pytest.raises(DataError, match="two columns are called 'x0'"):
        SURVIVAL_BASELINES["cox_clinical"].fit(twice, time, event)


# -- Cox on components


def with_omics(n=500, signal=1.0, seed=3):
    """Age tells a little; a factor that 40 genes show tells the rest; a third lack the genes."""
    draw = np.random.default_rng(seed)
    age, factor = draw.normal(size=n), draw.normal(size=n)
    rna = np.outer(factor, draw.normal(size=40)) + draw.normal(size=(n, 40)) + 7
    rna[draw.random(n) < 0.33] = np.nan
    noise = draw.normal(size=(n, 30))
    columns = [("clinical", "age"), *(("rna", f"g{k}") for k in range(40))]
    columns += [("noise", f"g{k}") for k in range(30)]
    names = [f"P{k:03d}" for k in range(n)]
    X = pd.DataFrame(np.column_stack([age, rna, noise]), names, pd.MultiIndex.from_tuples(columns))
    death = draw.exponential(900 * np.exp(-0.5 * age - signal * factor))
    censored = draw.uniform(100, 4000, n)
    return X, np.minimum(death, censored) + 1, death <= censored


@pytest.mark.parametrize(("signal", "gain"), [(1.0, (0.1, 0.3)), (0.0, (-0.02, 0.02))])
def test_components_help_where_the_signal_lies_in_the_omics(signal, gain):
    X, time, event = with_omics(signal=signal)
    train, test = slice(0, 300), slice(300, None)
    c = {}
    for name in ("cox_components", "cox_clinical"):
        columns = X if name == "cox_components" else X["clinical"]
        fitted = SURVIVAL_BASELINES[name].fit(columns[train], time[train], event[train])
        risk = fitted.predict_risk(columns[test])
        c[name] = concordance_harrell(time[test], event[test], risk)
    assert gain[0] < c["cox_components"] - c["cox_clinical"] < gain[1], c


def test_without_a_modality_its_components_are_at_the_training_mean():
    X, time, event = with_omics()
    fitted = SURVIVAL_BASELINES["cox_components"].fit(X[:300], time[:300], event[:300])
    asked = X[300:302].copy()
    asked.loc[:, "clinical"] = 0.3
    asked.loc[:, "noise"] = X[300:301]["noise"].to_numpy()
    asked.loc["P300", "rna"] = np.nan
    asked.loc["P301", "rna"] = X[:300]["rna"].mean().to_numpy()
    risk = fitted.predict_risk(asked)
    assert risk["P300"] == pytest.approx(risk["P301"], abs=1e-9)
    gone = fitted.predict_risk(asked.drop(columns="rna", level=0))
    assert gone["P301"] == pytest.approx(risk["P301"], abs=1e-9)
    assert fitted.predict_risk(X[300:302]).nunique() == 2


def test_components_are_fitted_and_standardised_on_those_who_have_the_modality():
    from omnisurv.baselines.components import Components

    rna = with_omics()[0]["rna"]
    fitted = Components.fit(rna, 10, seed=0)
    scores = fitted.standardised(rna)
    has = rna.notna().any(axis=1).to_numpy()
    assert scores.shape == (500, 10)
    assert (scores[~has] == 0).all()
    assert scores[has].mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert scores[has].std(axis=0, ddof=1) == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(scores[has].T) == pytest.approx(np.eye(10), abs=1e-6)
    twins = pd.concat([rna["g0"], rna["g0"]], axis=1, keys=["a", "b"])
    assert Components.fit(twins, 10, seed=0).standardised(twins)[has, 1] == pytest.approx(0)
    assert Components.fit(rna * np.nan, 10, seed=0) is None
    assert Components.fit(rna * 0 + 1, 10, seed=0) is None


def test_the_clinical_table_alone_is_plain_cox():
    X, time, event = with_omics()
    alone = SURVIVAL_BASELINES["cox_components"].fit(X[["clinical"]], time, event)
    plain = SURVIVAL_BASELINES["cox_clinical"].fit(X["clinical"], time, event)
    assert alone.notes == ["no modality beside the clinical table"]
    pd.testing.assert_series_equal(
        alone.predict_risk(X), plain.predict_risk(X["clinical"]), rtol=1e-9
    )


def test_partial_likelihood_is_the_formula():
    from omnisurv.baselines.components import log_partial_likelihood

    draw = np.random.default_rng(0)
    time, event = draw.integers(1, 9, 30).astype(float), draw.random(30) < 0.6
    risk = draw.normal(size=30)
    expected = sum(
        risk[i] - np.log(np.exp(risk[time >= time[i]]).sum()) for i in np.flatnonzero(event)
    )
    assert log_partial_likelihood(risk, time, event) == pytest.approx(expected)


# -- Cox blended with fits of single classes


@pytest.fixture(scope="module")
def classes():
    """Two classes in which x1 works in opposite directions, and one of few patients."""
    draw = np.random.default_rng(5)
    n = 900
    names = [f"P{k:03d}" for k in range(n)]
    X = pd.DataFrame(draw.normal(size=(n, 3)), names, ["x0", "x1", "x2"])
    stratum = np.where(np.arange(n) % 60 == 0, "C", np.where(draw.random(n) < 0.5, "A", "B"))
    X["is_b"] = (stratum == "B").astype(float)
    turn = np.where(stratum == "A", 1.0, -0.6)
    death = draw.exponential(900 * np.exp(-X["x0"] - turn * X["x1"] - X["is_b"]))
    censored = draw.uniform(100, 3000, n)
    X.columns = pd.MultiIndex.from_product([["clinical"], X.columns])
    return stratified(X, stratum), np.minimum(death, censored) + 1, death <= censored


def test_blend_helps_where_classes_differ(classes):
    X, time, event = classes
    train, test = slice(0, 500), slice(500, None)
    blend = SURVIVAL_BASELINES["cox_blend"].fit(X[train], time[train], event[train])
    pooled = SURVIVAL_BASELINES["cox_clinical"].fit(X[train]["clinical"], time[train], event[train])
    check_predictions(blend, X[test])
    ours, theirs = blend.predict_risk(X[test]), pooled.predict_risk(X[test]["clinical"])
    for name in ("A", "B"):
        who = (X["stratum"][test] == name).to_numpy()
        c = [concordance_harrell(time[test][who], event[test][who], r[who]) for r in (ours, theirs)]
        assert c[0] > c[1] + 0.02, (name, c)
    c = [concordance_harrell(time[test], event[test], r) for r in (ours, theirs)]
    assert c[0] > c[1] + 0.01, c
    assert "C: fewer than 20 events, the pooled fit alone" in blend.notes


def test_blend_is_half_of_each_standardised_within_the_class(classes):
    X, time, event = classes
    fit = SURVIVAL_BASELINES["cox_clinical"].fit
    clinical = X["clinical"]
    pooled = fit(clinical, time, event).predict_risk(clinical)
    expected = pooled.copy()
    for name in ("A", "B"):
        who = (X["stratum"] == name).to_numpy()
        own = fit(clinical[who], time[who], event[who]).predict_risk(clinical[who])
        z = (own - own.mean()) / own.std()
        expected[who] = 0.5 * pooled[who] + 0.5 * (pooled[who].mean() + z * pooled[who].std())
    risk = SURVIVAL_BASELINES["cox_blend"].fit(X, time, event).predict_risk(X)
    line = np.polyfit(expected, risk, 1)
    assert line[0] > 0
    assert risk.to_numpy() == pytest.approx(np.polyval(line, expected), abs=1e-6)


@pytest.mark.parametrize("name", ["A", None])
def test_blend_of_one_class_is_the_pooled_fit(classes, name):
    X, time, event = classes
    one = stratified(X, [name] * len(X))
    blend = SURVIVAL_BASELINES["cox_blend"].fit(one, time, event)
    pooled = SURVIVAL_BASELINES["cox_clinical"].fit(X["clinical"], time, event)
    curves, risk = blend.predict_curves(X), blend.predict_risk(X)
    pd.testing.assert_frame_equal(curves, pooled.predict_curves(X["clinical"]))
    pd.testing.assert_series_equal(risk, pooled.predict_risk(X["clinical"]))
    assert blend.notes == ["no class to fit apart: the pooled fit"]


def test_patients_of_no_known_class_get_the_pooled_predictor(classes):
    X, time, event = classes
    blend = SURVIVAL_BASELINES["cox_blend"].fit(X, time, event)
    pooled = SURVIVAL_BASELINES["cox_clinical"].fit(X["clinical"], time, event)
    asked = {c: stratified(X, [c] * len(X)) for c in ("A", "C", "never seen", None)}
    risks = {c: blend.predict_risk(table) for c, table in asked.items()}
    theirs = pooled.predict_risk(X["clinical"])
    for name in ("C", "never seen", None):
        assert np.corrcoef(risks[name], theirs)[0, 1] == pytest.approx(1, abs=1e-9)
    assert np.corrcoef(risks["A"], theirs)[0, 1] < 0.97


# -- others


def test_coxnet_keeps_the_most_variable_of_each_modality():
    from omnisurv.baselines.coxnet import _most_variable

    columns = pd.MultiIndex.from_product([["rna", "dnam"], ["a", "b", "c"]])
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 6)), columns=columns)
    X *= [100, 200, 300, 0.1, 0.3, 0.2]
    kept = _most_variable(X, keep=2)
    assert list(kept.columns) == [("rna", "b"), ("rna", "c"), ("dnam", "b"), ("dnam", "c")]


def test_coxnet_finds_two_features_among_hundreds():
    X, time, event = simulate(n=300, features=200, seed=2)
    fitted = SURVIVAL_BASELINES["coxnet"].fit(X[:200], time[:200], event[:200])
    assert concordance_harrell(time[200:], event[200:], fitted.predict_risk(X[200:])) > 0.68
    assert "chosen by 5-fold inner cross-validation" in fitted.notes[-1]


def test_mask_only_reads_gaps_and_ties_equal_masks():
    draw = np.random.default_rng(0)
    mask = pd.DataFrame(draw.random((300, 3)) < 0.6, columns=["rna", "dnam", "wsi"])
    time = draw.exponential(np.where(mask["rna"], 1500, 400)) + 1
    event = draw.random(300) < 0.7
    fitted = SURVIVAL_BASELINES["mask_only"].fit(mask, time, event)
    _, risk = check_predictions(fitted, mask)
    assert concordance_harrell(time, event, risk) > 0.6
    assert risk.nunique() == len(mask.drop_duplicates()) == 8
    everybody = pd.DataFrame(True, index=mask.index, columns=mask.columns)
    blind = SURVIVAL_BASELINES["mask_only"].fit(everybody, time, event)
    assert concordance_harrell(time, event, blind.predict_risk(mask)) == 0.5


def test_networks_take_tied_times_in_silence(data):
    (X, time, event), (X_test, _, _) = data
    tied = np.maximum(np.ceil(time / 50) * 50, 800)
    fitted = SURVIVAL_BASELINES["logistic_hazard_mlp"].fit(X, tied, event)
    check_predictions(fitted, X_test)
    assert len(fitted.times) < 10


def test_forest_bounds_its_curves():
    from omnisurv.baselines.survival import _coarse

    coarse, notes = _coarse(np.arange(1.0, 1001.0))
    assert len(np.unique(coarse)) == 200
    assert (coarse >= np.arange(1.0, 1001.0)).all()
    assert coarse.max() == 1000
    assert notes == ["times rounded up to 200 quantiles"]


def test_every_entry_says_what_it_is():
    for table in (SURVIVAL_BASELINES, IMPUTATION_BASELINES):
        assert all(entry.description for entry in table.values())
    assert {"null", "mask_only", "kaplan_meier", "cox_clinical"} <= set(SURVIVAL_BASELINES)


# -- imputation


@pytest.fixture(scope="module")
def matrices():
    draw = np.random.default_rng(0)
    latent = draw.normal(size=(260, 3))
    names = [f"P{k:03d}" for k in range(260)]

    def table(features, shift, holes):
        values = latent @ draw.normal(size=(3, features)) + shift
        values += 0.5 * draw.normal(size=values.shape)
        values[draw.random(values.shape) < 0.05] = np.nan
        frame = pd.DataFrame(values, names, [f"f{k}" for k in range(features)])
        return frame.drop(index=[names[k] for k in holes])

    every = {
        "rna": table(30, 5, []),
        "dnam": table(20, 0, range(0, 260, 7)),
        "cnv": table(8, 1, []),
    }
    train = {name: frame.loc[frame.index < "P180"] for name, frame in every.items()}
    return train, every, pd.Index([n for n in names if n >= "P180"])


@pytest.mark.parametrize("name", IMPUTATION_BASELINES)
def test_imputation_baselines_learn_and_repeat(name, matrices):
    train, every, held = matrices
    fit = IMPUTATION_BASELINES[name].fit
    imputed = fit(train, "cnv", seed=1).predict(every, held)
    truth = every["cnv"].loc[held]
    assert list(imputed.index) == list(held)
    assert list(imputed.columns) == list(truth.columns)
    score = r2(truth, imputed)
    assert score == pytest.approx(0, abs=0.1) if name == "mean" else score > 0.6
    pd.testing.assert_frame_equal(imputed, fit(train, "cnv", seed=1).predict(every, held))


@pytest.mark.parametrize("name", IMPUTATION_BASELINES)
def test_the_target_is_not_looked_at(name, matrices):
    train, every, held = matrices
    fitted = IMPUTATION_BASELINES[name].fit(train, "dnam")
    blind = {key: frame for key, frame in every.items() if key != "dnam"}
    pd.testing.assert_frame_equal(fitted.predict(every, held), fitted.predict(blind, held))


@pytest.mark.parametrize("name", IMPUTATION_BASELINES)
def test_a_patient_with_nothing_else_gets_finite_values(name, matrices):
    train, every, _ = matrices
    fitted = IMPUTATION_BASELINES[name].fit(train, "cnv")
    imputed = fitted.predict({"rna": every["rna"]}, pd.Index(["P999", "P200"]))
    assert np.isfinite(imputed.to_numpy()).all()
    means = train["cnv"].mean().to_numpy()
    if name in ("mean", "knn"):
        assert imputed.loc["P999"].to_numpy() == pytest.approx(means)


@pytest.mark.parametrize("name", IMPUTATION_BASELINES)
def test_a_lonely_or_half_empty_modality(name, matrices):
    train, _, held = matrices
    cnv = train["cnv"].assign(never=np.nan)
    fitted = IMPUTATION_BASELINES[name].fit({"cnv": cnv}, "cnv")
    imputed = fitted.predict({}, held)
    assert imputed["never"].to_numpy() == pytest.approx(cnv.mean().mean())
    assert fitted.notes[0] == "1 features never measured in training: the overall mean"
    single = IMPUTATION_BASELINES[name].fit({**train, "cnv": train["cnv"][["f0"]]}, "cnv")
    assert single.predict(train, held).shape == (len(held), 1)


def test_distances_are_scikit_learns():
    from sklearn.metrics.pairwise import nan_euclidean_distances

    from omnisurv.baselines.imputation import nan_distances

    draw = np.random.default_rng(0)
    A, B = draw.normal(size=(9, 30)), draw.normal(size=(7, 30))
    A[draw.random(A.shape) < 0.5] = np.nan
    A[0] = np.nan
    expected = nan_euclidean_distances(A, B, squared=True)
    assert nan_distances(A, B)[1:] == pytest.approx(expected[1:])
    assert np.isinf(nan_distances(A, B)[0]).all()


def test_unknown_and_empty_targets_are_refused(matrices):
    train, _, _ = matrices
    with pytest.raises(DataError, match="no training matrix of modality 'rnaa'"):
        IMPUTATION_BASELINES["mean"].fit(train, "rnaa")
    empty = {**train, "cnv": train["cnv"] * np.nan}
    with pytest.raises(DataError, match="no training patient has modality 'cnv'"):
        IMPUTATION_BASELINES["knn"].fit(empty, "cnv")
