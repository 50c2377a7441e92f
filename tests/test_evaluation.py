"""Tidy results: n and events in every row, controls beside, folds done once."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import tiny

import omnisurv as om
from omnisurv.baselines import SURVIVAL_BASELINES
from omnisurv.data.cohort import Cohort
from omnisurv.errors import CheckpointError, DataError, InputError
from omnisurv.evaluation import crossvalidation
from omnisurv.evaluation.inputs import subsets_of
from omnisurv.evaluation.scoring import Fold, Predictions, score_survival
from omnisurv.evaluation.survival import baseline_predictions, model_predictions

BASELINES = {
    "null",
    "kaplan_meier",
    "mask_only",
    "cox_clinical",
    "cox_blend",
    "cox_components",
    "random_survival_forest",
    "logistic_hazard_mlp",
    "coxnet",
}
TITLE = "imputmae:small"


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """A thousand bootstrap draws are for papers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(score_survival.__kwdefaults__, "draws", 100)
        yield


@pytest.fixture(scope="module")
def result():
    dev, test = tiny.parts()
    return om.evaluate(tiny.survival(), test, subsets="each", train=dev)


def test_rows_are_tidy(result):
    table = result.table
    assert list(table.columns) == [
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
    ]
    assert not table.duplicated(["model", "subset", "group", "metric"]).any()
    assert {"c_harrell", "c_antolini", "c_uno", "ibs", "cs"} <= set(table["metric"])
    c = table[table["metric"] == "c_harrell"]
    assert c["value"].between(0, 1).all()
    assert (c["ci_low"] <= c["value"]).all()
    assert (c["value"] <= c["ci_high"]).all()


def test_every_row_says_how_many_patients_and_events(result):
    _, test = tiny.parts()
    known = test.with_endpoint()
    table = result.table
    assert (table["n"] >= table["events"]).all()
    whole = table[(table["subset"] == "all") & table["group"].isin(["all", "GBM", "LGG"])]
    for group, rows in whole.groupby("group"):
        inside = known.obs if group == "all" else known.obs[known.obs["project"] == group]
        assert (rows["n"] == len(inside)).all()
        assert (rows["events"] == inside["event"].sum()).all()


def test_groups_are_the_strata(result):
    assert set(result.table["group"]) == {"all", "LGG", "GBM"}


def test_all_baselines_and_both_controls_are_there(result):
    assert set(result.table["model"]) == {TITLE} | BASELINES


def test_the_null_is_exactly_one_half(result):
    table = result.table
    null = table[(table["model"] == "null") & table["metric"].isin(["c_harrell", "c_antolini"])]
    assert len(null) == 6
    assert (null["value"] == 0.5).all()
    assert (null[["ci_low", "ci_high"]] == 0.5).all(axis=None)


def test_a_figure_is_the_metric_of_the_predictions(result):
    from lifelines.utils import concordance_index

    _, test = tiny.parts()
    obs = test.with_endpoint().obs
    wide = result.metric("c_harrell")
    for model in (TITLE, "cox_clinical", "mask_only"):
        for group in ("all", "LGG"):
            part = obs if group == "all" else obs[obs["project"] == group]
            risk = result.predictions.loc[part.index, model]
            expected = concordance_index(part["time"], -risk, part["event"])
            assert wide.loc[model, group] == pytest.approx(expected)


def test_subsets_are_each_alone_and_each_left_out(result):
    rows = result.table[result.table["metric"] == "c_harrell"]
    found = set(rows[rows["model"] == TITLE]["subset"])
    names = list(tiny.survival().modalities)
    alone, without = set(names), {"+".join(m for m in names if m != n) for n in names}
    assert found == {"all"} | alone | without
    assert set(rows[rows["model"] != TITLE]["subset"]) == {"all"}


def test_a_subset_is_judged_on_those_who_have_any_of_it(result):
    _, test = tiny.parts()
    known = test.with_endpoint()
    rows = result.table[(result.table["group"] == "all") & (result.table["model"] == TITLE)]
    for subset, part in rows.groupby("subset"):
        if subset != "all":
            has = known.availability[subset.split("+")].any(axis=1)
            assert (part["n"] == has.sum()).all()
            risk = result.predictions[f"{TITLE}[{subset}]"]
            assert risk.notna().sum() == has.sum()


def test_subsets_of():
    names = ["a", "b", "c"]
    assert subsets_of(names, "none") == []
    assert len(subsets_of(names, "all")) == 6
    assert subsets_of(["a"], "each") == []
    assert subsets_of(["a", "b"], "each") == [("a",), ("b",)]
    assert subsets_of(names, [["c", "a"]]) == [("c", "a")]
    with pytest.raises(DataError, match=r"no modality 'd'\. Known: a, b, c"):
        subsets_of(names, [["d"]])


def test_paired_differences_are_of_the_model_against_each_other(result):
    d = result.differences
    assert list(d.columns) == [
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
    ]
    assert set(d["model"]) == {TITLE}
    assert set(d["against"]) == BASELINES
    wide = {metric: result.metric(metric) for metric in ("c_harrell", "ibs")}
    for _, row in d[d["metric"].isin(wide)].iterrows():
        values = wide[row["metric"]][row["group"]]
        expected = values[TITLE] - values[row["against"]]
        assert row["value"] == pytest.approx(expected)
        assert row["ci_low"] <= row["ci_high"]
        assert 0 <= row["p"] <= 1


def test_results_are_written_and_read_back(result, tmp_path):
    folder = result.save(tmp_path / "out")
    told = json.loads((folder / "metrics.json").read_text())
    assert len(told["rows"]) == len(result.table)
    assert set(told["rows"][0]) == set(result.table.columns)
    assert told["notes"] == result.notes
    table = pd.read_csv(folder / "metrics.csv", keep_default_na=False)
    assert list(table["model"]) == list(result.table["model"])
    risks = pd.read_csv(folder / "predictions.csv", index_col=0)
    pd.testing.assert_frame_equal(risks, result.predictions, check_names=False)


def test_evaluating_twice_gives_the_same_figures(result):
    dev, test = tiny.parts()
    again = om.evaluate(tiny.survival(), test, subsets="none", train=dev)
    first = result.table[result.table["subset"] == "all"].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, again.table)
    pd.testing.assert_frame_equal(result.differences, again.differences)


def external(drop=("protein",)):
    """Patients of another study, one modality and a third of the genes fewer."""
    other = tiny.simulated(90, 77).to_cohort().drop_modalities(list(drop))
    fewer = {n: other[n][:, ::2].copy() if n == "rna" else other[n] for n in other.modalities}
    obs = other.obs.set_axis([f"EXT-{k:03d}" for k in range(len(other))])
    renamed = dict(zip(other.patients, obs.index, strict=True))
    for data in fewer.values():
        data.obs_names = [renamed[p] for p in data.obs_names]
    return Cohort(obs, fewer, other.spec)


def test_an_external_cohort():
    dev, _ = tiny.parts()
    other = external()
    result = om.evaluate(tiny.survival(), other, subsets=[["rna"], ["clinical"]], train=dev)
    table = result.table
    assert (table[table["subset"] == "all"]["n"] <= len(other)).all()
    assert set(table["subset"]) == {"all", "rna", "clinical"}
    assert set(table["model"]) == {TITLE} | BASELINES
    c = table[(table["metric"] == "c_harrell") & (table["group"] == "all")]
    assert c["value"].notna().all()


def test_baselines_are_fitted_on_the_training_patients_alone(result):
    """With other endpoints of the test patients they give the same predictions."""
    dev, test = tiny.parts()
    rng = np.random.default_rng(0)
    obs = test.obs.copy()
    known = test.has_endpoint
    obs.loc[known, "time"] = rng.permutation(obs.loc[known, "time"])
    shuffled = Cohort(obs, {n: test[n] for n in test.modalities}, test.spec)
    again = om.evaluate(tiny.survival(), shuffled, subsets="none", train=dev)
    pd.testing.assert_frame_equal(result.predictions[again.predictions.columns], again.predictions)
    assert not again.table["value"].equals(result.table["value"][: len(again.table)])


@pytest.fixture(scope="module")
def fitted_on_dev():
    """All baselines of the development part, and what they say of the test part."""
    dev, test = tiny.parts()
    notes = []
    return baseline_predictions(tiny.survival(), dev, test.with_endpoint(), notes), notes


def test_baselines_are_not_touched_by_the_values_of_other_test_patients(fitted_on_dev):
    """Filling, scaling, components and strata are the training patients'."""
    dev, test = tiny.parts()
    known = test.with_endpoint()
    some = known.patients[::3]
    obs = known.obs.assign(project=known.obs["project"].where(known.patients.isin(some), "GBM"))
    modalities = {}
    for name in known.modalities:
        data = known[name].copy()
        data.X[~data.obs_names.isin(some)] += 5
        modalities[name] = data
    turned = Cohort(obs, modalities, known.spec)
    again = baseline_predictions(tiny.survival(), dev, turned, [])
    assert [p.model for p in again] == [p.model for p in fitted_on_dev[0]]
    for before, after in zip(fitted_on_dev[0], again, strict=True):
        pd.testing.assert_series_equal(before.risk[some], after.risk[some])
        pd.testing.assert_frame_equal(before.curves[some], after.curves[some])
        whole = (before.risk == after.risk).all()
        assert whole == (before.model in ("null", "kaplan_meier", "mask_only")), before.model


def test_every_baseline_says_what_it_is(result, imputation):
    for name, entry in SURVIVAL_BASELINES.items():
        assert f"{name}: {entry.description}" in result.notes
    assert "mean: each feature's training mean" in imputation.notes
    assert not any(note.startswith("mean: each") for note in result.notes)


def test_the_blend_is_told_the_strata(monkeypatch):
    """A patient of an unknown project gets the pooled score, any other does not."""
    for name in BASELINES - {"cox_blend", "cox_clinical"}:
        monkeypatch.delitem(SURVIVAL_BASELINES, name)
    dev, test = tiny.parts()
    known = test.with_endpoint()
    obs = known.obs.assign(project=np.where(np.arange(len(known)) % 2, known.obs["project"], None))
    turned = Cohort(obs, {n: known[n] for n in known.modalities}, known.spec)
    again = baseline_predictions(tiny.survival(), dev, turned, [])
    risk = {p.model: p.risk for p in again}
    for project in (None, "LGG", "GBM"):
        who = obs["project"].isna() if project is None else obs["project"] == project
        r = np.corrcoef(risk["cox_blend"][who], risk["cox_clinical"][who])[0, 1]
        assert (r > 1 - 1e-9) == (project is None), (project, r)


def test_pictures_are_no_columns_of_the_baselines(fitted_on_dev):
    from omnisurv.data.images import Images
    from omnisurv.data.store import Entry

    parts = []
    for part in tiny.parts():
        known = part.with_endpoint()
        entries = [Entry(p, np.zeros((4, 4, 4), np.float32), {}) for p in known.patients[::2]]
        data = {name: known[name] for name in known.modalities}
        parts.append(Cohort(known.obs, {**data, "t1ce": Images(entries, "z-score")}, known.spec))
    model = tiny.survival()
    seeing = dataclasses.replace(model, modalities={**model.modalities, "t1ce": None})
    notes = []
    predicted = {p.model: p.risk for p in baseline_predictions(seeing, *parts, notes)}
    assert "t1ce: pictures, which no baseline reads" in notes
    assert set(predicted) == BASELINES
    for plain in fitted_on_dev[0]:
        same = predicted[plain.model].equals(plain.risk)
        assert same == (plain.model != "mask_only"), plain.model  # having a picture is a mask


def test_a_cohort_without_a_clinical_table_does_without_its_baselines():
    dev, test = (part.drop_modalities(["clinical"]) for part in tiny.parts())
    notes = []
    predicted = baseline_predictions(tiny.survival(), dev, test.with_endpoint(), notes)
    clinical = {"cox_clinical", "cox_blend", "random_survival_forest", "logistic_hazard_mlp"}
    assert {p.model for p in predicted} == BASELINES - clinical
    left_out = "cox_blend: left out, the cohort has nothing that it reads (stratified)"
    assert left_out in notes


def test_the_models_predictions_are_its_own_and_encoded_once(monkeypatch):
    _, test = tiny.parts()
    model = tiny.survival()
    expected = model.predict(test, ["rna"]), model.predict_survival_function(test, ["rna"])
    encoded = []
    curves = type(model)._curves

    def counted(self, cohort, modalities):
        encoded.append(modalities)
        return curves(self, cohort, modalities)

    monkeypatch.setattr(type(model), "_curves", counted)
    _, alone = model_predictions(model, test, [["rna"]])
    assert encoded == [None, ("rna",)]
    pd.testing.assert_series_equal(alone.risk, expected[0][alone.risk.index])
    pd.testing.assert_frame_equal(alone.curves, expected[1][alone.risk.index])


def test_nothing_to_score_is_said():
    _, test = tiny.parts()
    obs = test.obs.assign(event=0.0)
    calm = Cohort(obs, {n: test[n] for n in test.modalities}, test.spec)
    with pytest.raises(DataError, match="none of them an event"):
        om.evaluate(tiny.survival(), calm)


@pytest.fixture(scope="module")
def imputation():
    dev, test = tiny.parts()
    return om.evaluate(tiny.pretrained(), test, train=dev, task="imputation")


def test_imputation_is_scored_by_modality_beside_its_baselines(imputation):
    table = imputation.table
    assert set(table["subset"]) == set(tiny.pretrained().modalities)
    assert {TITLE, "mean", "knn", "ridge"} == set(table["model"])
    assert {"mse", "r2", "pearson"} <= set(table["metric"])
    assert set(table["group"]) == {"all", "LGG", "GBM"}
    assert (table["n"] >= 2).all()
    assert set(imputation.differences["against"]) == {"mean", "knn", "ridge"}


def test_imputation_figures_are_those_of_hidden_modalities(imputation):
    """The model's error, computed by hand: hide protein, predict it, compare what was measured."""
    import torch

    _, test = tiny.parts()
    model = tiny.pretrained()
    others = [n for n in model.modalities if n != "protein"]
    has = test.availability["protein"] & test.availability[others].any(axis=1)
    part = test.subset(test.patients[has])
    batch = model.batch(part, others)
    wanted = torch.ones_like(batch.observed)
    with torch.no_grad():
        predicted = model.mae(0).reconstruct(batch, batch.observed, wanted)["protein"].numpy()
    truth = model.batch(part).patches["protein"].numpy()
    error = (predicted - truth)[np.isfinite(truth)]
    table = imputation.table.set_index(["model", "subset", "group", "metric"])
    row = table.loc[(TITLE, "protein", "all", "mse")]
    assert row["n"] == int(has.sum())
    assert row["value"] == pytest.approx(float((error**2).mean()), rel=0.05)


@pytest.fixture(scope="module")
def recipe():
    return tiny.recipe(pretrain={"epochs": 1})


def test_repeats_of_the_folds_count_each_patient_once():
    """Two repeats of two folds, predictions given: figures are means over four parts."""
    from lifelines.utils import concordance_index

    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "time": rng.exponential(500, 40) + 1,
            "event": (rng.random(40) < 0.7).astype(float),
        },
        index=[f"P{k:02d}" for k in range(40)],
    )
    predictions, folds, expected = [], {}, []
    for fold in range(4):
        who = obs.index[rng.permutation(40)[:20]] if fold % 2 == 0 else obs.index.difference(who)
        part = obs.loc[who]
        risk = pd.Series(rng.normal(size=20) - part["time"] / 500, index=who, name="risk")
        days = np.linspace(0, 2000, 50)
        curves = pd.DataFrame(np.exp(-np.outer(days, np.exp(risk)) / 800), days, who)
        predictions.append(Predictions("ours", curves, risk, fold=fold))
        folds[fold] = Fold(part, obs.drop(who))
        expected.append(concordance_index(part["time"], -risk, part["event"]))
    table, _ = score_survival(predictions, folds, (), draws=50)
    row = table[table["metric"] == "c_harrell"].iloc[0]
    assert (row["n"], row["events"]) == (40, obs["event"].sum())
    assert row["value"] == pytest.approx(np.mean(expected))


@pytest.fixture(scope="module")
def validated(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds")
    cohort = tiny.simulated().to_cohort()
    return cohort, out, om.cross_validate(recipe, cohort, folds=2, repeats=1, out=out)


def test_cross_validation_scores_every_patient_once(validated):
    cohort, _, result = validated
    known = cohort.with_endpoint()
    rows = result.table[result.table["group"] == "all"]
    assert (rows["n"] == len(known)).all()
    assert (rows["events"] == known.obs["event"].sum()).all()
    assert list(result.predictions.index.names) == ["fold", "patient"]
    assert sorted(result.predictions.index.get_level_values("patient")) == sorted(known.patients)
    assert result.predictions.notna().all(axis=None)
    assert set(result.table["model"]) == {TITLE} | BASELINES
    null = result.metric("c_harrell").loc["null"]
    assert (null == 0.5).all()


def test_cross_validation_is_the_mean_over_folds(validated):
    from lifelines.utils import concordance_index

    cohort, _, result = validated
    values = []
    for fold, (_, test) in enumerate(cohort.folds(n=2, repeats=1)):
        obs = test.with_endpoint().obs
        risk = result.predictions.loc[fold].loc[obs.index, TITLE]
        values.append(concordance_index(obs["time"], -risk, obs["event"]))
    assert result.metric("c_harrell").loc[TITLE, "all"] == pytest.approx(np.mean(values))


def test_finished_folds_are_not_done_again(validated, recipe, monkeypatch):
    cohort, out, result = validated

    def refuse(*_, **__):
        raise AssertionError("a finished fold was trained again")

    monkeypatch.setattr(crossvalidation, "pretrain", refuse)
    monkeypatch.setattr(crossvalidation, "finetune", refuse)
    again = om.cross_validate(recipe, cohort, folds=2, repeats=1, out=out)
    pd.testing.assert_frame_equal(result.table, again.table)
    pd.testing.assert_frame_equal(result.differences, again.differences)


def test_a_fold_that_was_cut_short_is_done_again(validated, recipe, monkeypatch, tmp_path):
    import shutil

    cohort, out, result = validated
    copy = shutil.copytree(out, tmp_path / "copy")
    (copy / "fold_01" / "fold.json").unlink()
    done = []
    monkeypatch.setattr(
        crossvalidation,
        "finetune",
        lambda *a, **k: done.append(1) or om.finetune(*a, **k),
    )
    again = om.cross_validate(recipe, cohort, folds=2, repeats=1, out=copy)
    assert len(done) == 1
    pd.testing.assert_frame_equal(result.table, again.table)


def test_folds_with_other_baselines_are_refused(validated, recipe, tmp_path):
    """A mean over folds is of the same models in each."""
    import shutil

    cohort, out, _ = validated
    copy = shutil.copytree(out, tmp_path / "copy")
    told = json.loads((copy / "fold_00" / "fold.json").read_text())
    assert set(told["baselines"]) == BASELINES
    told["baselines"].remove("cox_blend")
    (copy / "fold_00" / "fold.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"another recipe, cohort, split or version"):
        om.cross_validate(recipe, cohort, folds=2, repeats=1, out=copy)


def test_folds_of_another_recipe_cohort_or_split_are_refused(validated, recipe):
    cohort, out, _ = validated
    other = tiny.recipe(pretrain={"epochs": 2})
    fewer = cohort.subset(cohort.patients[:-5])
    for call in (
        lambda: om.cross_validate(other, cohort, folds=2, repeats=1, out=out),
        lambda: om.cross_validate(recipe, fewer, folds=2, repeats=1, out=out),
        lambda: om.cross_validate(recipe, cohort, folds=3, repeats=1, out=out),
        lambda: om.cross_validate(recipe, cohort, folds=2, repeats=1, subsets="each", out=out),
        lambda: om.cross_validate(recipe, cohort, folds=2, repeats=1, pretrained=False, out=out),
    ):
        with pytest.raises(
            CheckpointError, match="another recipe, cohort, split or version"
        ) as error:
            call()
        assert "choose another --out" in str(error.value)
        assert "\n" not in str(error.value)


def test_an_unwritable_folder_is_told(recipe, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        om.cross_validate(
            recipe, tiny.simulated().to_cohort(), folds=2, repeats=1, out=tmp_path / "out"
        )
