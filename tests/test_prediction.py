"""Survival predictions from any subset of modalities: no noise gets in, no order matters."""

import numpy as np
import pandas as pd
import pytest
import tiny

import omnisurv as om
from omnisurv.data.cohort import Cohort
from omnisurv.errors import DataError
from omnisurv.task import strata_of, stratum_of
from omnisurv.tasks.survival import SurvivalModel

KINDS = ["survival", "fusion"]
SEEN = ["clinical", "cnv_arm"]


@pytest.fixture(params=KINDS)
def model(request):
    return getattr(tiny, request.param)()


@pytest.fixture
def test_part():
    return tiny.parts()[1]


def rebuild(cohort, change):
    """Return the cohort with ``change(name, data)`` in place of each modality."""
    modalities = {name: change(name, cohort[name].copy()) for name in cohort.modalities}
    return Cohort(cohort.obs, {n: d for n, d in modalities.items() if d is not None}, cohort.spec)


def same(model, a, b, **modalities):
    for predict in (model.predict_survival_function, model.predict):
        x, y = predict(a, **modalities), predict(b)
        assert x.equals(y)
    assert (x != x.iloc[0]).any()  # and patients differ


@pytest.mark.parametrize("noise", [1e4, np.nan])
def test_hidden_noise_changes_no_bit(model, test_part, noise):
    def spoil(name, data):
        if name not in SEEN:
            data.X[:] = noise * np.random.default_rng(0).normal(size=data.X.shape)
        return data

    noisy = rebuild(test_part, spoil)
    for predict in (model.predict_survival_function, model.predict):
        assert predict(noisy, SEEN).equals(predict(test_part, SEEN))


def test_modalities_is_a_cohort_without_the_others(model, test_part):
    fewer = test_part.drop_modalities([n for n in test_part.modalities if n not in SEEN])
    same(model, test_part, fewer, modalities=SEEN)


def test_the_others_do_matter_where_they_are(test_part):
    """The comparisons above can fail."""
    model = tiny.fusion()
    assert not model.predict(test_part).equals(model.predict(test_part, SEEN))


def test_absent_as_nan_rows_is_absent_as_no_rows(model, test_part):
    def as_nan(name, data):
        whole = data.to_df().reindex(test_part.patients)
        grown = type(data)(
            whole.to_numpy(np.float32),
            obs=pd.DataFrame(index=whole.index),
            var=data.var,
            uns=data.uns,
        )
        return grown

    same(model, test_part, rebuild(test_part, as_nan))


def test_a_patient_with_cnv_arm_alone_gets_a_sensible_curve(model, test_part):
    has = test_part.patients[test_part.availability["cnv_arm"]]
    S = model.predict_survival_function(test_part.subset(has), ["cnv_arm"])
    assert S.index.name == "days"
    assert S.index[0] == 0
    assert list(S.columns) == list(has)
    values = S.to_numpy()
    assert (values[0] == 1).all()
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(values, axis=0) <= 0).all()
    assert (values[-1] < 0.9).all()
    assert np.isfinite(model.predict(test_part.subset(has), ["cnv_arm"])).all()


def test_a_patient_with_nothing_gets_a_curve_too(model, test_part):
    nobody = Cohort(
        test_part.obs.reindex([*test_part.patients, "NOBODY"]),
        {name: test_part[name] for name in test_part.modalities},
        test_part.spec,
    )
    S = model.predict_survival_function(nobody)
    assert S["NOBODY"].between(0, 1).all()
    pd.testing.assert_frame_equal(
        S.drop(columns="NOBODY"), model.predict_survival_function(test_part), rtol=1e-5
    )


def test_the_order_of_patients_and_modalities_changes_nothing(model, test_part):
    names = test_part.modalities[::-1]
    turned = Cohort(
        test_part.obs.iloc[::-1],
        {name: test_part[name][::-1].copy() for name in names},
        test_part.spec,
    )
    a, b = model.predict(test_part), model.predict(turned)
    pd.testing.assert_series_equal(a, b.reindex(a.index), rtol=1e-5)
    assert model.predict(test_part, SEEN).equals(model.predict(test_part, SEEN[::-1]))


def test_the_order_of_features_changes_nothing(model, test_part):
    turned = rebuild(test_part, lambda _, data: data[:, ::-1].copy())
    same(model, test_part, turned)


def test_companions_change_nothing(model, test_part):
    whole = model.predict(test_part)
    alone = pd.concat([model.predict(test_part.subset([p])) for p in test_part.patients[:5]])
    pd.testing.assert_series_equal(alone, whole.iloc[:5], rtol=1e-4, atol=1e-5)


def test_risk_ranks_as_the_curves(model, test_part):
    from scipy.stats import spearmanr

    S = model.predict_survival_function(test_part)
    risk = model.predict(test_part)
    assert risk.nunique() == len(risk)
    middle = S.iloc[len(S) // 2]
    assert spearmanr(risk, -middle).statistic > 0.97
    if model is tiny.survival():  # proportional hazards: every row ranks alike
        order = risk.sort_values().index
        for days in S.index[1::7]:
            assert (np.diff(S.loc[days, order]) <= 1e-12).all()


def test_the_risk_of_proportional_hazards_is_the_linear_predictor(test_part):
    """The differences between two patients' risks are those of their scores."""
    import torch

    model = tiny.survival()
    batch = model.batch(test_part)
    network = model.networks[0]
    stratum = torch.from_numpy(stratum_of(test_part, model.strata))
    with torch.no_grad():
        logits = network(batch, batch.observed, stratum).double()
        score = (logits[:, 1:] - network.head.baseline[1:]).mean(1).numpy()
    risk = model.predict(test_part).to_numpy()
    slope = np.polyfit(score, risk, 1)[0]
    assert slope == pytest.approx(1.0, abs=0.12)  # log-log against logit
    assert np.corrcoef(score, risk)[0, 1] > 0.995


def test_curves_at_own_times(model, test_part):
    times = np.array([0.0, 100.0, 365.25, 1000.0])
    S = model.predict_survival_function(test_part, times=times)
    np.testing.assert_array_equal(S.index, times)
    np.testing.assert_allclose(
        model.grid.interpolate(
            model.predict_survival_function(test_part, times=model.grid.cuts).T.to_numpy(), times
        ).T,
        S.to_numpy(),
        rtol=1e-6,
        atol=1e-12,
    )


def test_members_are_averaged():
    dev, test = tiny.parts()
    recipe = tiny.recipe(members=2, pretrain={"epochs": 1})
    model = om.finetune(om.pretrain(recipe, dev), dev)
    assert len(model.networks) == 2
    whole = model.predict_survival_function(test)
    single = []
    for network in model.networks:
        alone = SurvivalModel(**{**vars(model), "networks": [network]})
        single.append(alone._curves(test, None))
    assert not np.allclose(*single)
    expected = model.grid.interpolate(np.mean(single, axis=0), whole.index.to_numpy())
    np.testing.assert_allclose(whole.to_numpy(), expected.T, rtol=1e-6)


def test_unknown_modalities_are_named(model, test_part):
    with pytest.raises(DataError, match=r"knows no modality 'rnaa'\. Did you mean 'rna'"):
        model.predict(test_part, ["rnaa"])


def test_a_cohort_of_other_modalities_is_refused(model, test_part):
    other = Cohort(test_part.obs, {"mri": test_part["rna"]}, None)
    with pytest.raises(DataError, match="no modality in common"):
        model.predict(other)


def test_strata_are_sorted_and_an_unknown_class_is_minus_one(test_part):
    strata = strata_of(test_part)
    assert strata == ["GBM", "LGG"]
    obs = test_part.obs.copy()
    expected = obs["project"].map({"GBM": 0, "LGG": 1}).astype(int).to_numpy()
    np.testing.assert_array_equal(stratum_of(test_part, strata), expected)
    obs["project"] = obs["project"].cat.add_categories(["PAN"])
    obs.iloc[0, obs.columns.get_loc("project")] = "PAN"
    obs.iloc[1, obs.columns.get_loc("project")] = None
    modalities = {n: test_part[n] for n in test_part.modalities}
    other = Cohort(obs, modalities, test_part.spec)
    assert stratum_of(other, strata)[:2].tolist() == [-1, -1]
    assert np.isfinite(tiny.survival().predict(other)).all()
    assert stratum_of(Cohort(obs, modalities, None), strata).tolist() == [-1] * len(obs)
    assert stratum_of(other, [""]).tolist() == [0] * len(obs)


def test_score_is_harrells_c(model, test_part):
    from lifelines.utils import concordance_index

    known = test_part.with_endpoint()
    expected = concordance_index(known.obs["time"], -model.predict(known), known.obs["event"])
    assert model.score(test_part) == pytest.approx(expected, abs=1e-9)


def test_another_task_and_an_endpoint_without_events_are_refused():
    dev, _ = tiny.parts()
    with pytest.raises(DataError, match="task 'subtpye' is not one of"):
        om.finetune(tiny.pretrained(), dev, task="subtpye")
    obs = dev.obs.assign(event=dev.obs["event"].where(dev.obs["event"].isna(), 0.0))
    calm = Cohort(obs, {n: dev[n] for n in dev.modalities}, dev.spec)
    with pytest.raises(DataError, match="no patient of the training cohort has an event"):
        om.finetune(tiny.pretrained(), calm)
