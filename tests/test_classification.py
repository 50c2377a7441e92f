"""Classes of any label: learnt, served from any subset, judged honestly, kept on disk."""

import dataclasses
import json
from functools import cache

import numpy as np
import pandas as pd
import picture_cohort
import pytest
import tiny
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

import omnisurv as om
from omnisurv.cli import run_command
from omnisurv.data.cohort import Cohort
from omnisurv.data.spec import Label
from omnisurv.errors import CheckpointError, DataError, SeenPatientsError
from omnisurv.evaluation import classfolds
from omnisurv.evaluation.classcurves import class_curves
from omnisurv.evaluation.classification import class_baselines, score_classes
from omnisurv.heads.classification import PENALTIES, RidgeClassifier, regress
from omnisurv.task import kind_of
from tests.commands import QUICK, runner, write_cohort

TITLE = "imputmae:small"
BASELINES = {"null", "mask_only", "logistic_clinical", "logistic_all", "random_forest"}
TABLE = {"column": "vital_grade", "table": "clinical.tsv"}


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """A thousand bootstrap draws are for papers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(score_classes.__kwdefaults__, "draws", 100)
        yield


def changed(cohort, obs=None, labels=None, **modalities):
    """Return the cohort with other labels or values."""
    obs = cohort.obs if obs is None else obs
    spec = cohort.spec.model_copy(update={"labels": {**cohort.spec.labels, **(labels or {})}})
    values = {name: modalities.get(name, cohort[name]) for name in cohort.modalities}
    return Cohort(obs, values, spec)


@cache
def cohort():
    """Patients without grade, of which G4 would be GBM itself; ``fate`` is a label of three."""
    drawn = tiny.simulated(220, 5, 0.3)
    whole = drawn.to_cohort()
    clinical = whole["clinical"]
    clinical = clinical[:, (clinical.var["feature"] != "grade").to_numpy()].copy()
    factor = drawn.latent["factor_2"].reindex(whole.patients)
    fate = pd.cut(factor, [-9, -0.5, 0.5, 9], labels=["low", "middle", "high"]).astype(object)
    fate[whole.patients[:12]] = None
    obs = whole.obs.assign(fate=fate)
    return changed(whole, obs, {"fate": Label(**TABLE)}, clinical=clinical)


@cache
def parts():
    order = np.random.default_rng(0).permutation(cohort().patients)
    return cohort().subset(order[:130]), cohort().subset(order[130:])


@cache
def pretrained():
    return om.pretrain(tiny.recipe(pretrain={"epochs": 6}), parts()[0])


@cache
def fitted(label="project"):
    return om.finetune(pretrained(), parts()[0], task=label)


def area(model, test, modalities=None):
    """Return the AUC by scikit-learn, of two classes."""
    who = test if modalities is None else having(test, modalities)
    p = model.predict_proba(who, modalities).iloc[:, 1]
    return roc_auc_score(who.obs[model.label] == model.classes[1], p)


def having(test, modalities):
    return test.subset(test.patients[test.availability[list(modalities)].any(axis=1)])


# What is learnt


def test_two_classes_are_told_apart_far_better_than_by_the_gaps(result):
    auc = result.metric("auc")["all"]
    told = auc.round(3).to_dict()
    assert auc[TITLE] > 0.85, told
    assert auc[TITLE] > auc["mask_only"] + 0.1, told
    assert auc["null"] == 0.5


@pytest.mark.parametrize("subset", [["dnam"], ["cnv_arm"], ["clinical"], ["rna", "dnam"]])
def test_any_subset_is_served(subset):
    assert area(fitted(), parts()[1], subset) > 0.7


def test_probabilities_are_of_the_classes_in_the_labels_order():
    model, test = fitted(), parts()[1]
    p = model.predict_proba(test)
    assert list(p.columns) == ["LGG", "GBM"]
    assert list(p.index) == list(test.patients)
    assert ((p > 0) & (p < 1)).all(axis=None)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert model.predict(test).equals(p.idxmax(axis=1).rename("project"))
    assert model.score(test) == pytest.approx(
        balanced_accuracy_score(test.obs["project"], model.predict(test))
    )


def test_probabilities_are_calibrated_to_the_training_shares():
    """Nobody's class is weighted: the mean probability in training is the share."""
    model, dev = fitted(), parts()[0]
    share = (dev.obs["project"] == "GBM").mean()
    assert model.predict_proba(dev)["GBM"].mean() == pytest.approx(share, abs=0.01)


def test_more_than_two_classes():
    model, test = fitted("fate"), parts()[1]
    assert model.classes == ["high", "low", "middle"]  # no order is declared, so sorted
    known = test.subset(test.patients[test.obs["fate"].notna()])
    p = model.predict_proba(known)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    auc = [roc_auc_score(known.obs["fate"] == c, p[c]) for c in model.classes]
    assert auc[0] > 0.75, auc
    assert auc[1] > 0.75, auc
    assert model.score(test) > 0.42  # a third by chance; who has no class is not scored


def test_an_ensemble_is_the_mean_of_its_members():
    dev, test = parts()
    model = om.finetune(tiny.recipe(members=2), dev, task="project")
    alone = [dataclasses.replace(model, networks=[n]).predict_proba(test) for n in model.networks]
    pd.testing.assert_frame_equal(model.predict_proba(test), (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("settings", [{"omics": "fusion"}, {"omics": "fusion", "imagine": False}])
def test_a_fusion_head_is_trained_by_gradient(settings):
    dev, test = parts()
    recipe = tiny.recipe(drop_rate=0.2, **settings, finetune={"epochs": 12, "lr": 5e-3})
    model = om.finetune(recipe, dev, task="project")
    history = model.history
    assert history["train"].iloc[-1] < history["train"].iloc[0] - 0.1
    assert area(model, test) > 0.7


def test_bm_mae_reads_the_class_token():
    """A label that the volumes carry is learnt from scratch and served from one sequence."""
    whole = picture_cohort.cohort(110).drop_modalities(["rna", "wsi"])
    grade = pd.Series(whole["clinical"].X[:, 0], whole["clinical"].obs_names)
    obs = whole.obs.assign(kind=np.where(grade.reindex(whole.patients) > 0, "high", "low"))
    obs.loc[grade.reindex(whole.patients).isna().to_numpy(), "kind"] = None
    seen = changed(whole, obs, {"kind": Label(**TABLE)}).drop_modalities(["clinical"])
    seen = seen.subset(seen.patients[seen.availability.any(axis=1)])
    dev, test = seen.subset(seen.patients[:65]), seen.subset(seen.patients[65:])
    small = {"dim": 24, "heads": 2, "mlp": 32, "trunk": 2, "decoder_dim": 12, "decoder_mlp": 32}
    stage = {"epochs": 25, "batch": 16, "lr": 5e-3, "patience": None}
    recipe = om.get_recipe("bm_mae:tiny", **small, decoder_depth=1, classification=stage)
    model = om.finetune(recipe, dev, task="kind")
    assert len(model.history) == 25
    head = model.networks[0].head
    assert (head.fusion, head.read.weight.shape) == (None, (2, 24))
    known = model.scored(test)
    assert area(model, known) > 0.75
    for name in ("t1", "t2"):
        assert area(model, known, [name]) > 0.6, name


def test_the_papers_stages_of_bm_mae():
    """Robinet et al. 2025, §4.3: ten epochs, five of them warm-up; §4.4: five."""
    recipe = om.get_recipe("bm_mae")
    stage = recipe.stage("classification")
    found = stage.epochs, stage.batch, stage.lr, stage.weight_decay, stage.warmup
    assert found == (10, 2, 1e-4, 0.05, 5)
    assert recipe.stage("survival").epochs == 5


# What is not looked at


def test_what_a_patient_lacks_or_may_not_show_changes_nothing():
    """Noise in modalities that are not asked for, whoever has them."""
    model, test = fitted(), parts()[1]
    rng = np.random.default_rng(0)
    noisy = {}
    for name in ("clinical", "dnam", "cnv_arm", "protein"):
        data = test[name].copy()
        data.X = rng.random(data.shape).astype(np.float32)
        noisy[name] = data
    who = having(test, ["rna"])
    expected = model.predict_proba(who, ["rna"])
    found = model.predict_proba(changed(test, **noisy).subset(who.patients), ["rna"])
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    other = model.predict_proba(changed(test, **noisy).subset(who.patients))
    assert not np.allclose(other, model.predict_proba(who))


def test_components_of_an_absent_modality_are_exactly_zero():
    head = fitted().networks[0].head
    assert isinstance(head, RidgeClassifier)
    values = {name: torch.randn(3, len(part.axes)) for name, part in head.components.items()}
    values["rna"][1] = torch.nan
    inputs = head.inputs(torch.zeros(3, len(head.center)), values)
    place = len(head.center) + 10 * list(head.components).index("rna")
    assert (inputs[1, place : place + 10] == 0).all()
    assert (inputs[0, place : place + 10] != 0).any()


def test_the_stratum_which_is_the_label_itself_is_not_read():
    model, test = fitted(), parts()[1]
    assert test.strata == ("project",)
    assert model.strata == [""]
    turned = test.obs["project"].map({"LGG": "GBM", "GBM": "LGG"})
    other = changed(test, test.obs.assign(project=turned))
    pd.testing.assert_frame_equal(
        model.predict_proba(test), model.predict_proba(other), check_exact=True
    )
    without = changed(test, test.obs.drop(columns="project"))
    pd.testing.assert_frame_equal(model.predict_proba(test), model.predict_proba(without))


def test_who_has_no_class_teaches_nothing_and_is_not_scored():
    dev, test = parts()
    model = fitted("fate")
    has = dict(zip(dev.patients, dev.hashed_ids(), strict=True))
    unknown = dev.patients[dev.obs["fate"].isna()]
    assert len(unknown)
    assert not {has[p] for p in unknown} & set(model.seen["finetune"])
    result = om.evaluate(model, test, subsets="none")
    pooled = result.table[result.table["group"] == "all"]
    assert (pooled["n"] == test.obs["fate"].notna().sum()).all()


@pytest.mark.parametrize(
    ("column", "feature"), [("IDH", "IDH"), ("demographic.IDH", "IDH"), ("age_at_index",) * 2]
)
def test_a_label_among_the_inputs_is_refused(column, feature):
    label = Label(table="clinical.tsv", column=column)
    obs = cohort().obs.assign(status=np.where(np.arange(len(cohort())) % 2, "a", "b"))
    leaking = changed(cohort(), obs, {"status": label})
    told = (
        rf"modality 'clinical': its column '{feature}' is the label 'status' itself; remove it "
        "from columns or drop the modality, and pre-train without it"
    )
    with pytest.raises(DataError, match=told):
        om.finetune(pretrained(), leaking, task="status")
    with pytest.raises(DataError, match=told):
        om.cross_validate(tiny.recipe(), leaking, task="status")
    # also if the cohort leaves it out, while the pre-trained network reads it
    less = leaking.drop_modalities(["clinical"])
    with pytest.raises(DataError, match=told):
        om.finetune(pretrained(), less.subset(parts()[0].patients), task="status")


def test_a_column_of_the_same_name_in_another_matrix_is_none():
    obs = cohort().obs.assign(status=np.where(np.arange(len(cohort())) % 2, "a", "b"))
    label = Label(table="clinical.tsv", column=str(cohort()["protein"].var_names[0]))
    assert len(om.finetune(tiny.recipe(), changed(cohort(), obs, {"status": label}), "status")
               .predict_proba(cohort())) == len(cohort())  # fmt: skip


# What is refused


def test_an_unknown_task_is_told_with_the_labels_there_are():
    told = r"task 'subtyp' is not one of: .*survival, or a label of the cohort \(project, fate\)"
    for call in (
        lambda: om.finetune(pretrained(), parts()[0], task="subtyp"),
        lambda: om.cross_validate(tiny.recipe(), cohort(), task="subtyp"),
    ):
        with pytest.raises(DataError, match=told):
            call()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["a"] + ["b"] * 129, "class 'a' has 1 training patient, 2 are needed; join it with"),
        (["b"] * 130, "training patients are of only 'b' of its classes, two are needed"),
        ([None] * 130, "training patients are of none of its classes, two are needed"),
    ],
)
def test_a_label_that_teaches_nothing_is_refused(values, told):
    dev = parts()[0]
    odd = changed(dev, dev.obs.assign(fate=values))
    with pytest.raises(DataError, match=f"label 'fate': {told}") as error:
        om.finetune(pretrained(), odd, task="fate")
    assert "\n" not in str(error.value)


def test_a_label_that_the_spec_has_and_the_patients_lack():
    dev = parts()[0]
    odd = changed(dev, dev.obs.drop(columns="fate"))
    with pytest.raises(DataError, match="the cohort has no label 'fate'"):
        om.finetune(pretrained(), odd, task="fate")


def test_a_recipe_without_a_head_says_so(monkeypatch):
    monkeypatch.setattr(type(tiny.recipe()), "tasks", frozenset({"survival"}))
    told = "recipe 'imputmae' has no head for classification; use one that has"
    with pytest.raises(DataError, match=told):
        om.finetune(pretrained(), parts()[0], task="project")
    with pytest.raises(DataError, match=told):
        om.cross_validate(tiny.recipe(), cohort(), task="project")


def test_nobody_to_score_and_another_task_are_told():
    test = parts()[1]
    nobody = changed(test, test.obs.assign(project=None))
    with pytest.raises(DataError, match="no patient is of one of the classes LGG, GBM"):
        om.evaluate(fitted(), nobody)
    with pytest.raises(DataError, match="was trained for project, not for survival"):
        om.evaluate(fitted(), test, task="survival")
    with pytest.raises(SeenPatientsError):
        om.evaluate(fitted(), parts()[0])


def test_kinds_of_tasks():
    assert kind_of("project", cohort()).task == "classification"
    assert kind_of("survival", cohort()).task == "survival"


# What is kept


def test_round_trip(tmp_path):
    model, test = fitted("fate"), parts()[1]
    again = om.load(model.save(tmp_path / "run"))
    assert (again.label, again.classes, again.penalties) == ("fate", model.classes, model.penalties)
    assert again.penalties[0] in PENALTIES
    pd.testing.assert_frame_equal(
        model.predict_proba(test), again.predict_proba(test), check_exact=True
    )
    assert json.loads((tmp_path / "run" / "classification.json").read_text())["label"] == "fate"


def test_training_twice_gives_the_same_bits():
    again = om.finetune(pretrained(), parts()[0], task="project").networks[0].state_dict()
    mine = fitted().networks[0].state_dict()
    assert all(torch.equal(mine[name], again[name]) for name in mine)


# The ridge regression


def test_the_regression_is_at_the_minimum_of_its_loss():
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    found = regress(x, code, 3, penalty=5.0)

    def loss(weight):
        z = found.bias + x @ weight
        own = z[np.arange(60), code] - np.log(np.exp(z).sum(1))
        return -own.sum() + 2.5 * np.square(weight).sum()

    best = loss(found.weight)
    for _ in range(20):
        assert loss(found.weight + 0.01 * rng.normal(size=found.weight.shape)) > best
    assert loss(np.zeros_like(found.weight)) > best


def test_a_class_that_nobody_has_is_all_but_impossible():
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=(30, 2)), rng.integers(0, 2, 30) * 2
    for found in (regress(x, code, 3, 1.0), regress(x, np.zeros(30, dtype=int), 3, 1.0)):
        assert found.log_likelihood(x, np.ones(30, dtype=int)) / 30 < -10
        assert np.isfinite(found.log_likelihood(x, np.ones(30, dtype=int)))


def test_noise_gets_the_largest_penalty():
    generator = torch.Generator().manual_seed(0)
    head = RidgeClassifier(2, 30, {})
    code = torch.arange(60) % 2
    inner = [(torch.arange(60) // 12) == fold for fold in range(5)]
    x = torch.randn(60, 30, generator=generator)
    assert head.fit(x, {}, code, inner) == PENALTIES[-1]
    told = x.clone()
    told[:, 0] += 3.0 * code
    assert head.fit(told, {}, code, inner) < PENALTIES[-1]


# How it is judged


@pytest.fixture(scope="module")
def result():
    dev, test = parts()
    return om.evaluate(fitted(), test, subsets="each", train=dev)


def test_rows_are_tidy(result):
    table, test = result.table, parts()[1]
    assert set(table["model"]) == {TITLE} | BASELINES
    assert set(table["metric"]) == {"auc", "average_precision", "balanced_accuracy", "brier"}
    assert set(table["group"]) == {"all"}  # within a class of the label nothing is told apart
    assert not table.duplicated(["model", "subset", "group", "metric"]).any()
    whole = table[table["subset"] == "all"]
    assert (whole["n"] == len(test)).all()
    assert (whole["events"] == (test.obs["project"] == "GBM").sum()).all()
    known = table[table["value"].notna() & table["ci_low"].notna()]
    assert (known["ci_low"] <= known["value"] + 1e-9).all()
    assert (known["value"] <= known["ci_high"] + 1e-9).all()
    assert set(result.differences["against"]) == BASELINES


def test_figures_are_those_of_the_predictions(result):
    test = parts()[1]
    truth = test.obs["project"] == "GBM"
    assert result.predictions["label"].tolist() == test.obs["project"].astype(str).tolist()
    for model in (TITLE, "logistic_all", "mask_only", "random_forest"):
        p = result.predictions[f"{model}: GBM"]
        assert result.metric("auc").loc[model, "all"] == pytest.approx(roc_auc_score(truth, p))
        found = result.metric("average_precision").loc[model, "all"]
        assert found == pytest.approx(average_precision_score(truth, p))
    alone = result.predictions[f"{TITLE}[dnam]: GBM"].dropna()
    found = result.metric("auc", "dnam").loc[TITLE, "all"]
    assert found == pytest.approx(roc_auc_score(truth[alone.index], alone))


def test_subsets_are_each_alone_and_each_left_out(result):
    names = list(fitted().modalities)
    found = set(result.table[result.table["model"] == TITLE]["subset"])
    assert found == {"all", *names, *("+".join(n for n in names if n != o) for o in names)}


def test_an_evaluation_is_written_and_read_back(result, tmp_path):
    folder = result.save(tmp_path)
    again = type(result).load(folder)
    pd.testing.assert_frame_equal(again.predictions, result.predictions, check_names=False)
    assert set(json.loads((folder / "metrics.json").read_text())["rows"][0]) == set(result.table)


def test_events_are_not_counted_of_three_classes():
    result = om.evaluate(fitted("fate"), parts()[1], subsets="none", train=parts()[0])
    assert result.table["events"].isna().all()
    assert set(result.table["group"]) == {"all", "LGG", "GBM"}
    auc = result.metric("auc")["all"]
    assert auc[TITLE] > auc["mask_only"] + 0.1
    assert "fate: not known of " in " ".join(result.notes)


def test_classes_that_training_patients_had_not_are_told():
    test = parts()[1]
    fate = test.obs["fate"].astype(object)
    fate.iloc[:20] = "strange"
    result = om.evaluate(fitted("fate"), changed(test, test.obs.assign(fate=fate)), subsets="none")
    told = "20 patients are of classes that no training patient had (strange), not scored"
    assert told in " ".join(result.notes)


def test_baselines_know_nothing_of_the_test_patients_classes(result):
    dev, test = parts()
    turned = test.obs["project"].map({"LGG": "GBM", "GBM": "LGG"})
    other = changed(test, test.obs.assign(project=turned))
    for part in class_baselines(fitted(), dev, other, []):
        before = result.predictions[f"{part.model}: GBM"]
        pd.testing.assert_series_equal(before, part.probability["GBM"], check_names=False)


def test_the_null_gives_the_training_shares(result):
    share = (parts()[0].obs["project"] == "GBM").mean()
    assert (result.predictions["null: GBM"] == share).all()


def test_curves_end_where_they_must_and_enclose_the_area(result):
    table = class_curves(result.predictions, [TITLE, "mask_only"])
    ours = table[(table["model"] == TITLE) & (table["curve"] == "roc")]
    assert ours["value"].iloc[-1] == 1.0
    area = np.trapezoid(ours["value"], ours["x"])
    assert area == pytest.approx(result.metric("auc").loc[TITLE, "all"], abs=0.02)
    assert (ours["ci_low"] <= ours["value"] + 0.05).all()
    assert table[table["model"] == "mask_only"]["ci_low"].isna().all()
    last = table[(table["model"] == TITLE) & (table["curve"] == "pr")].iloc[-1]
    assert last["value"] >= last["positives"] / last["n"]


def test_curves_are_means_over_the_folds_that_have_the_class():
    """Two folds, the second of one class alone: it has no curve."""
    p = [0.9, 0.8, 0.3, 0.2, 0.7, 0.6]
    table = pd.DataFrame(
        {"label": ["b", "a", "b", "a", "b", "b"], "m: a": 1 - np.array(p), "m: b": p},
        pd.MultiIndex.from_tuples([(i // 4, f"P{i}") for i in range(6)], names=["fold", "patient"]),
    )
    found = class_curves(table, ["m"], draws=20).set_index(["curve", "x"])["value"]
    assert found["roc", 0.0] == 0.5
    assert found["roc", 0.5] == 1.0
    assert found["pr", 1.0] == pytest.approx((2 / 3 + 1) / 2)


# Folds


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    out = tmp_path_factory.mktemp("folds")
    recipe = tiny.recipe(pretrain={"epochs": 1})
    return recipe, out, om.cross_validate(recipe, cohort(), task="fate", folds=2, out=out)


def test_folds_hold_the_classes_alike_hospitals_apart_and_need_no_events():
    obs = cohort().obs.assign(event=0.0)
    parts = changed(cohort(), obs).folds(n=3, repeats=1, label="fate")
    for train, test in parts:
        assert not set(train.obs["group"]) & set(test.obs["group"])
        share = test.obs["fate"].value_counts(normalize=True)
        assert (share - cohort().obs["fate"].value_counts(normalize=True)).abs().max() < 0.1
    bare = changed(cohort(), obs.drop(columns="group"))
    for train, test in bare.folds(n=5, repeats=1, label="fate"):
        assert test.obs["fate"].notna().all()  # who has no class is only ever trained on
        counts = test.obs["fate"].value_counts()
        expected = bare.obs["fate"].value_counts() / 5
        assert ((counts - expected).abs() <= 1).all()
        assert len(train) + len(test) == len(bare)


def test_a_fold_of_one_class_is_refused():
    fate = np.where(cohort().obs["group"] == cohort().obs["group"].iloc[0], "a", "b")
    odd = changed(cohort(), cohort().obs.assign(fate=fate))
    with pytest.raises(DataError, match=r"fold \d of 3 has 1 class of 'fate' among its \d+"):
        odd.folds(n=3, repeats=1, label="fate")


def test_cross_validation_is_the_mean_over_folds(validated):
    _, _, result = validated
    p = result.predictions
    assert list(p.index.names) == ["fold", "patient"]
    assert len(p) == cohort().obs["fate"].notna().sum()
    assert (result.table[result.table["group"] == "all"]["n"] == len(p)).all()
    values = []
    for _, part in p.groupby(level="fold"):
        each = [roc_auc_score(part["label"] == c, part[f"{TITLE}: {c}"]) for c in
                ("high", "low", "middle")]  # fmt: skip
        values.append(np.mean(each))
    assert result.metric("auc").loc[TITLE, "all"] == pytest.approx(np.mean(values))
    assert set(result.table["model"]) == {TITLE} | BASELINES


def test_finished_folds_are_not_done_again_and_others_are_refused(validated, monkeypatch):
    recipe, out, result = validated

    def refuse(*_, **__):
        raise AssertionError("a finished fold was trained again")

    monkeypatch.setattr(classfolds, "pretrain", refuse)
    again = om.cross_validate(recipe, cohort(), task="fate", folds=2, out=out)
    pd.testing.assert_frame_equal(result.table, again.table)
    for call in (
        lambda: om.cross_validate(recipe, cohort(), task="project", folds=2, out=out),
        lambda: om.cross_validate(recipe, cohort(), folds=2, out=out),
    ):
        with pytest.raises(CheckpointError, match="another recipe, cohort, split or version"):
            call()


# The commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort, a pre-trained run and one of its label, from files."""
    folder = tmp_path_factory.mktemp("cli")
    spec = write_cohort(folder / "cohort")
    words = ["pretrain", str(spec), "--out", str(folder / "pre"), "--set", "members=1", *QUICK]
    assert run_command(words) == 0
    words = ["finetune", str(folder / "pre"), "--task", "project", "--out", str(folder / "fine")]
    assert run_command(words) == 0
    return folder


@pytest.fixture
def command(capsys):
    return runner(capsys)


def test_evaluate_writes_metrics_probabilities_and_a_page_of_the_label(command, folder):
    spec, out = folder / "cohort" / "cohort.yaml", folder / "out"
    answer = command("evaluate", folder / "fine", spec, "--subsets", "none", "--out", out)
    assert answer.code == 0, answer.err
    assert "AUC (95 % interval)" in answer.out
    rows = pd.DataFrame(json.loads((out / "metrics.json").read_text())["rows"])
    assert set(rows["model"]) == {TITLE} | BASELINES
    p = pd.read_csv(out / "predictions.csv")
    np.testing.assert_allclose(p[f"{TITLE}: LGG"] + p[f"{TITLE}: GBM"], 1.0)
    page = (out / "report.html").read_text()
    assert "ROC and precision-recall" in page
    assert "AUC 0." in page or "AUC 1." in page
    assert "Kaplan" not in page
    assert "Harrell" not in page
    assert (out / "figures" / "roc_and_precision_recall.svg").exists()


def test_a_run_of_another_task_is_not_taken_for_done(command, folder):
    again = command("finetune", folder / "pre", "--task", "project", "--out", folder / "fine")
    assert "already holds this run" in again.out
    answer = command("finetune", folder / "pre", "--task", "survival", "--out", folder / "fine")
    assert "holds a finished run of other patients or settings" in answer.sentence


def test_what_a_run_was_not_trained_for_is_one_line(command, folder):
    spec = folder / "cohort" / "cohort.yaml"
    answer = command("evaluate", folder / "fine", spec, "--task", "survival")
    assert "the run was trained for project, not for survival" in answer.sentence
    answer = command("evaluate", folder / "fine", spec, "--task", "consistency")
    assert "consistency compares 2 to 6 modalities, here are 0 MRI sequences" in answer.sentence
    answer = command("finetune", folder / "pre", "--task", "projekt", "--out", folder / "x")
    assert "or a label of the cohort (project)" in answer.sentence


@pytest.mark.slow
def test_crossvalidate_a_label(command, folder):
    spec, out = folder / "cohort" / "cohort.yaml", folder / "cv"
    words = ("--task", "project", "--folds", 2, "--out", out, "--set", "members=1")
    answer = command("crossvalidate", spec, *words, *QUICK)
    assert answer.code == 0, answer.err
    assert set(pd.read_csv(out / "predictions.csv").columns) >= {"fold", "patient", "label"}
    assert "ROC and precision-recall" in (out / "report.html").read_text()
