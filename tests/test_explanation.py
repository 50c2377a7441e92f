"""What drives a prediction: values that sum up, and truth where the truth is known."""

import sys
from functools import cache

import anndata
import numpy as np
import pandas as pd
import picture_cohort
import pytest
import tiny

import omnisurv as om
from omnisurv.data.spec import DataSpec
from omnisurv.errors import DataError, InputError
from omnisurv.explanation import modalities
from omnisurv.metrics import concordance_harrell

PATIENTS = 260


@cache
def planted():
    """Patients whose outcome is told by ``signal``, a little by ``clinical``, not by ``noise``.

    All have a complete clinical table; each of the others is missing in a third.
    """
    rng = np.random.default_rng(4)
    names = [f"TCGA-00-{i:04d}" for i in range(PATIENTS)]
    factor, age = rng.standard_normal((2, PATIENTS))
    time = rng.exponential(900.0, PATIENTS) * np.exp(-1.3 * factor - 0.5 * age) + 1.0
    obs = pd.DataFrame({"time": time, "event": (rng.random(PATIENTS) < 0.85) * 1.0}, index=names)
    loud = factor[:, None] * rng.uniform(0.6, 1.0, 8) + 0.5 * rng.standard_normal((PATIENTS, 8))
    values = {"clinical": age[:, None], "signal": loud, "noise": rng.standard_normal(loud.shape)}
    tables, spec = {}, {}
    for name, table in values.items():
        columns = [f"{name}{i}" for i in range(table.shape[1])]
        var = pd.DataFrame({"type": "continuous", "feature": columns}, index=columns)
        data = anndata.AnnData(
            table.astype(np.float32), pd.DataFrame(index=names), var, uns={"scale": "table"}
        )
        has = rng.random(PATIENTS) < (1.1 if name == "clinical" else 0.67)
        tables[name] = data[has].copy()
        source = {"format": "table", "path": f"{name}.tsv"}
        spec[name] = {"kind": "table", "source": source}
    endpoint = {"table": "clinical.tsv", "time": "time", "event": "event"}
    told = {"name": "planted", "endpoint": endpoint, "modalities": spec, "splits": {"test": 0.3}}
    return om.Cohort(obs, tables, DataSpec.parse(told)).split()


@cache
def corrected():
    """A model whose head reads ``noise`` nowhere: it did not earn a correction."""
    model = om.finetune(om.pretrain(tiny.recipe(), planted()[0]), planted()[0])
    assert {place.split(" ")[0] for place in model.gains} == {"signal"}
    return model


@cache
def linear():
    """A model whose linear path reads everything, imputed where it is missing."""
    recipe = tiny.recipe(linear=("clinical", "signal", "noise"))
    return om.finetune(om.pretrain(recipe, planted()[0]), planted()[0])


@cache
def fused():
    """A model whose head reads every token; little trained, so that all of them matter."""
    recipe = tiny.recipe(omics="fusion", finetune={"epochs": 8, "lr": 1e-2})
    return om.finetune(om.pretrain(recipe, planted()[0]), planted()[0])


@pytest.fixture(scope="module")
def values():
    return om.modality_value(fused(), planted()[1])


def test_values_sum_to_the_risk_from_all_less_the_risk_from_nothing(values):
    model, test = fused(), planted()[1]
    expected = model.predict(test) - model.predict(test, modalities=[])
    found = values.groupby("patient")["value"].sum().reindex(test.patients, fill_value=0.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.abs().max() > 0.01


def test_what_a_patient_lacks_has_no_value(values):
    there = planted()[1].availability
    found = pd.crosstab(values["patient"], values["modality"]).astype(bool)
    found = found.reindex(index=there.index, columns=there.columns, fill_value=False)
    np.testing.assert_array_equal(found, there)


def test_shapley_values_are_means_over_orders():
    """By hand, through the public predictions: every order in which a patient's three may join."""
    from itertools import permutations

    model, test = fused(), planted()[1]
    who = test.availability.all(axis=1).idxmax()
    alone = test.subset([who])
    expected = dict.fromkeys(alone.modalities, 0.0)
    for order in permutations(expected):
        before = model.predict(alone, modalities=[]).iloc[0]
        for at, name in enumerate(order):
            after = model.predict(alone, modalities=order[: at + 1]).iloc[0]
            expected[name] += (after - before) / 6
            before = after
    found = om.modality_value(model, alone).set_index("modality")["value"]
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6)


def test_many_modalities_are_sampled_and_still_sum_up(monkeypatch):
    model, test = fused(), planted()[1]
    exact = om.modality_value(model, test)
    monkeypatch.setattr(modalities, "EXACT", 1)
    monkeypatch.setattr(modalities, "ORDERS", 16)
    sampled = om.modality_value(model, test, seed=3)
    same = [frame.groupby("patient")["value"].sum() for frame in (exact, sampled)]
    pd.testing.assert_series_equal(*same, atol=1e-6)
    assert np.corrcoef(exact["value"], sampled["value"])[0, 1] > 0.98
    assert not np.allclose(exact["value"], sampled["value"])


def test_the_modality_that_tells_the_outcome_is_worth_most():
    frame = om.modality_value(linear(), planted()[1])
    mean = frame["value"].abs().groupby(frame["modality"]).mean()
    assert mean["signal"] > 2 * mean["noise"]


def test_a_modality_that_no_head_reads_is_worth_nothing():
    frame = om.modality_value(corrected(), planted()[1])
    noise = frame[frame["modality"] == "noise"]
    # It may still impute a hidden clinical table: only beside it is it worth nothing.
    assert noise["value"].abs().max() < 0.05
    signal = frame[frame["modality"] == "signal"]
    assert signal["value"].abs().mean() > 10 * noise["value"].abs().mean()


@pytest.fixture(scope="module")
def permuted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modalities, "REPEATS", 3)
        patch.setattr(modalities, "DRAWS", 100)
        yield om.modality_value(corrected(), planted()[1], "permutation")


def test_permuting_what_tells_the_outcome_costs_concordance(permuted):
    known = planted()[1].with_endpoint()
    rows = permuted.set_index("modality")
    assert list(rows.columns) == ["n", "having", "value", "ci_low", "ci_high", "p"]
    assert (rows["n"] == len(known)).all()
    assert rows.loc["signal", "having"] == known.availability["signal"].sum()
    assert rows.loc["signal", "value"] > 0.03
    assert rows.loc["signal", "ci_low"] > 0
    assert rows.loc["noise", "value"] == 0.0


def test_permutation_is_the_drop_of_harrells_c(monkeypatch):
    """One permutation, done by hand on the cohort's own table."""
    model, known = fused(), planted()[1].with_endpoint()
    monkeypatch.setattr(modalities, "REPEATS", 1)
    monkeypatch.setattr(modalities, "DRAWS", 20)
    own = {name: known[name] for name in known.modalities}
    has = known.patients[known.availability["signal"]]
    own["clinical"] = known["clinical"].copy()
    generator = np.random.default_rng(0)
    rows = known.patients.get_indexer(known["clinical"].obs_names)
    dealt = generator.permutation(np.sort(rows))
    table = pd.DataFrame(known["clinical"].X, known["clinical"].obs_names)
    own["clinical"].X = table.loc[known.patients[dealt]].to_numpy()
    own["clinical"].obs_names = known.patients[np.sort(rows)]
    mixed = om.Cohort(known.obs, own, known.spec)
    given = known.obs["time"], known.obs["event"] == 1
    c = [concordance_harrell(*given, model.predict(cohort)) for cohort in (known, mixed)]
    found = om.modality_value(model, known, "permutation").set_index("modality")
    assert len(has) < len(known)
    assert found.loc["clinical", "value"] == pytest.approx(c[0] - c[1], abs=1e-9)


def test_measuring_what_informs_moves_the_risk_more_than_measuring_noise():
    test = planted()[1]
    found = {name: om.value_of_measuring(linear(), test, name) for name in ("signal", "noise")}
    for name, frame in found.items():
        assert set(frame.index) == set(test.patients[~test.availability[name]])
        assert list(frame.columns) == ["risk", "expected", "change", "sd", "low", "high"]
        assert (frame["low"] <= frame["high"]).all()
        np.testing.assert_allclose(frame["change"], frame["expected"] - frame["risk"])
    own = linear().predict(test)
    np.testing.assert_allclose(found["signal"]["risk"], own[found["signal"].index], atol=1e-5)
    assert found["signal"]["sd"].median() > 2 * found["noise"]["sd"].median()


def test_measuring_what_no_head_reads_moves_nothing():
    found = om.value_of_measuring(corrected(), planted()[1], "noise", draws=5)
    assert len(found) > 10
    assert (found["sd"] < 1e-9).all()
    assert (found["change"].abs() < 1e-6).all()
    moved = om.value_of_measuring(corrected(), planted()[1], "signal", draws=20)
    assert (moved["sd"] > 0.1).all()


def test_draws_are_imputations_fed_as_if_measured():
    """One patient's draws by hand: imputed mean minus an error vector, put into the table."""
    from omnisurv.imputation import held_out_errors, reconstruct

    model, test = fused(), planted()[1]
    who = test.patients[~test.availability["signal"]][0]
    alone = test.subset([who])
    batch = model.batch(alone)
    mean = reconstruct(model, batch, "signal", batch.observed, 0.5).mean
    errors = held_out_errors(model, "signal", np.random.default_rng(0))
    chosen = np.random.default_rng([0, 1]).integers(len(errors), size=(4, 1))
    table = model.tokenisers["signal"].untokenise(mean - errors[chosen[:, 0]], list("abcd"))
    risks = []
    for row in range(4):
        data = table[[row]].copy()
        data.obs_names = [who]
        own = {n: alone[n] for n in alone.modalities}
        risks.append(model.predict(om.Cohort(alone.obs, {**own, "signal": data}, test.spec)))
    found = om.value_of_measuring(model, alone, "signal", draws=4).iloc[0]
    assert found["expected"] == pytest.approx(np.mean(risks), abs=1e-4)
    assert found["sd"] == pytest.approx(np.std(risks, ddof=1), abs=1e-4)


def test_nobody_lacking_is_an_empty_table():
    found = om.value_of_measuring(corrected(), planted()[1], "clinical")
    assert not len(found)
    assert "change" in found


@pytest.mark.parametrize("name", ["signal", "noise", "clinical"])
def test_attributions_sum_to_the_difference_of_risks(name):
    model, test = fused(), planted()[1]
    found = om.attributions(model, test, name, steps=64)
    having = test.patients[test.availability[name]]
    assert list(found.values.index) == list(having)
    assert list(found.values.columns) == [f"{name}{i}" for i in range(found.values.shape[1])]
    np.testing.assert_allclose(found.risk, model.predict(test)[having], atol=1e-5)
    total = found.values.sum(axis=1)
    np.testing.assert_allclose(total, found.risk - found.baseline, atol=0.01)
    if name == "signal":
        assert total.abs().max() > 0.1


def test_attributions_of_a_linear_path_are_its_weights():
    """Corrections are linear within their bounds: weight · component, feature by feature."""
    model, test = corrected(), planted()[1]
    found = om.attributions(model, test, "signal", steps=16)
    head = model.networks[0].head
    inside = model.batch(test.subset(found.values.index)).patches["signal"].flatten(1)
    axes = head.corrections.components["signal"].axes @ head.corrections.weights["signal"][0]
    feature = model.tokenisers["signal"].by_feature((inside * axes).numpy())
    flat = np.isfinite(feature).all(axis=1)
    r = np.corrcoef(found.values.to_numpy()[flat].ravel(), feature[flat].ravel())[0, 1]
    assert r > 0.98


def test_holes_have_no_attribution_and_spoil_no_other():
    model, test = fused(), planted()[1]
    own = {n: test[n].copy() for n in test.modalities}
    own["signal"].X[0, 3] = np.nan
    who = own["signal"].obs_names[0]
    found = om.attributions(model, om.Cohort(test.obs, own, test.spec), "signal", steps=64)
    row = found.values.loc[who]
    assert list(row.index[row.isna()]) == ["signal3"]
    assert row.sum() == pytest.approx(found.risk[who] - found.baseline[who], abs=0.01)


@cache
def seeing():
    """A model that reads pictures."""
    recipe = tiny.recipe(
        omics="fusion",
        depth={"mri": 1, "wsi": 1},
        pretrain={"epochs": 2},
        finetune={"epochs": 6, "lr": 1e-2},
    )
    return om.finetune(om.pretrain(recipe, picture_cohort.cohort()), picture_cohort.cohort())


def test_attributions_of_volumes_lie_on_the_cube():
    model, cohort = seeing(), picture_cohort.cohort().subset(picture_cohort.cohort().patients[:12])
    found = om.attributions(model, cohort, "t1", steps=64)
    assert found.values.shape == (cohort.availability["t1"].sum(), 8, 8, 8)
    assert np.isnan(found.values[..., :2]).all()  # outside the volume
    assert np.isfinite(found.values[..., 2:]).all()
    total = np.nansum(found.values, axis=(1, 2, 3))
    np.testing.assert_allclose(total, found.risk - found.baseline, atol=0.01)
    assert np.abs(total).max() > 1e-3


def test_attributions_of_slides_are_one_for_each_tile():
    model, cohort = seeing(), picture_cohort.cohort().subset(picture_cohort.cohort().patients[:20])
    found = om.attributions(model, cohort, "wsi", steps=64)
    assert list(found.values.columns) == [1, 2, 3]
    tiles = [len(cohort["wsi"].array(row)) for row in range(len(cohort["wsi"]))]
    assert list(found.values.notna().sum(axis=1)) == tiles
    total = found.values.sum(axis=1)
    np.testing.assert_allclose(total, found.risk - found.baseline, atol=0.01)


def test_attributions_of_summarised_tiles_have_their_names():
    from omnisurv.explanation.attribution import placed
    from omnisurv.modalities.wsi_features import PrototypeTokeniser

    tokeniser = PrototypeTokeniser(np.zeros((2, 3)), np.zeros((2, 4)), np.ones((2, 4)))
    values = np.arange(24.0).reshape(3, 2, 4)
    found = placed(tokeniser, values, pd.Index(["a", "b", "c"]))
    assert found.loc["b", "prototype_00:feature_0002"] == values[1, 0, 2]
    assert found.loc["c", "prototype_01:share"] == values[2, 1, 3]


def test_pictures_have_values_as_well():
    model, cohort = seeing(), picture_cohort.cohort().subset(picture_cohort.cohort().patients[:6])
    values = om.modality_value(model, cohort)
    expected = model.predict(cohort) - model.predict(cohort, modalities=[])
    np.testing.assert_allclose(values.groupby("patient")["value"].sum(), expected, atol=1e-5)
    measured = om.value_of_measuring(model, cohort, "t2", draws=3)
    assert list(measured.index) == list(cohort.patients[~cohort.availability["t2"]])
    assert (measured["sd"] > 0).all()


def test_what_cannot_be_explained_is_said(monkeypatch):
    test = planted()[1]
    with pytest.raises(InputError, match="a survival model can be explained, this one is for pre"):
        om.modality_value(om.pretrain(tiny.recipe(pretrain={"epochs": 1}), planted()[0]), test)
    with pytest.raises(DataError, match=r"no modality 'signals'\. Did you mean 'signal'"):
        om.value_of_measuring(fused(), test, "signals")
    with pytest.raises(InputError, match="draws: 1 tells no spread; ask for at least 2"):
        om.value_of_measuring(fused(), test, "signal", draws=1)
    lacking = test.subset(test.patients[~test.availability["signal"]])
    with pytest.raises(DataError, match=r"none of the \d+ patients has the modality 'signal'"):
        om.attributions(fused(), lacking, "signal")
    with pytest.raises(DataError, match="no patient to explain"):
        om.modality_value(fused(), test.subset([]))
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(InputError, match=r"captum: pip install 'omnisurv\[explain\]'"):
        om.attributions(fused(), test, "signal")
