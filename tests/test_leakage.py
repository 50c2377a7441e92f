"""Nothing that is learned knows anything of patients it was not given."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

import omnisurv as om
from omnisurv.data.cohort import Cohort
from omnisurv.errors import DataError, SeenPatientsError
from omnisurv.evaluation.scoring import score_survival


def spoil(cohort, patients, seed=0):
    """Return the cohort with other values, gaps and endpoints for these patients."""
    rng = np.random.default_rng(seed)
    obs = cohort.obs.copy()
    for column in obs:
        if column not in ("group",):
            obs.loc[patients, column] = rng.permutation(obs.loc[patients, column].to_numpy())
    obs.loc[patients, "time"] *= 3.0
    modalities = {}
    for name in cohort.modalities:
        data = cohort[name].copy()
        rows = data.obs_names.isin(patients)
        data.X[rows] = rng.permutation(data.X[rows].ravel()).reshape(data.X[rows].shape)
        kept = ~(rows & (rng.random(data.n_obs) < 0.3))
        modalities[name] = data[kept].copy()
    return Cohort(obs, modalities, cohort.spec)


@pytest.fixture(scope="module")
def cohort():
    return tiny.simulated().to_cohort()


@pytest.fixture(scope="module")
def spoilt(cohort):
    _, test = tiny.parts()
    return spoil(cohort, test.patients)


def state(model):
    arrays = {
        f"{i}.{k}": v.numpy()
        for i, n in enumerate(model.networks)
        for k, v in n.state_dict().items()
    }
    for name, tokeniser in model.tokenisers.items():
        settings, fitted = tokeniser.state()
        arrays |= {f"{name}.{k}": v for k, v in fitted.items()}
        arrays[f"{name}.settings"] = np.array(repr(settings))
    arrays |= {f"residuals.{k}": v for k, v in model.residuals.items()}
    return arrays


def test_spoiling_the_test_patients_changes_no_bit_of_the_model(spoilt):
    dev, _ = tiny.parts()
    again = om.pretrain(tiny.recipe(), spoilt.subset(dev.patients))
    survival = om.finetune(again, spoilt.subset(dev.patients))
    for model, other in ((tiny.pretrained(), again), (tiny.survival(), survival)):
        a, b = state(model), state(other)
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    np.testing.assert_array_equal(tiny.survival().grid.cuts, survival.grid.cuts)
    assert tiny.survival().gains == survival.gains


def test_spoiling_training_patients_does_change_it(cohort):
    """The comparison above can fail."""
    dev, _ = tiny.parts()
    other = om.pretrain(tiny.recipe(), spoil(cohort, dev.patients[:5]).subset(dev.patients))
    a, b = state(tiny.pretrained()), state(other)
    assert not all(np.array_equal(a[k], b[k], equal_nan=True) for k in a if "settings" not in k)


def test_tokenisers_are_those_of_the_training_patients():
    dev, _ = tiny.parts()
    model = tiny.pretrained()
    for name, modality in model.modalities.items():
        fitted = modality.fit(dev[name]).state()
        mine = model.tokenisers[name].state()
        assert fitted[0] == mine[0]
        for key, value in fitted[1].items():
            np.testing.assert_array_equal(value, mine[1][key])


def test_the_time_grid_is_that_of_the_training_patients():
    from omnisurv.heads.survival import TimeGrid

    dev, _ = tiny.parts()
    known = dev.with_endpoint()
    model = tiny.survival()
    cuts = TimeGrid.fit(
        known.obs["time"].to_numpy(),
        known.obs["event"].to_numpy() == 1,
        model.recipe.intervals,
        model.recipe.grid,
    ).cuts
    np.testing.assert_array_equal(model.grid.cuts, cuts)
    assert sorted(model.follow_up["time"]) == sorted(known.obs["time"])


def test_other_test_patients_change_no_prediction_of_model_or_baseline(monkeypatch):
    """Half of the test patients are spoilt; the other half must not notice, in any row."""
    dev, test = tiny.parts()
    half = test.patients[::2]
    other = spoil(test, half)
    calm = test.with_endpoint().patients.difference(half)
    monkeypatch.setitem(score_survival.__kwdefaults__, "draws", 20)
    a, b = (
        om.evaluate(tiny.survival(), part, subsets="none", train=dev).predictions
        for part in (test, other)
    )
    assert len(a.columns) >= 7
    pd.testing.assert_frame_equal(a.loc[calm], b.loc[calm], rtol=1e-9)
    both = a.index.intersection(b.index).intersection(half)
    assert not np.allclose(a.loc[both], b.loc[both])


def test_patients_seen_in_any_stage_are_refused_and_the_stage_is_named():
    dev, test = tiny.parts()
    first, second = dev.patients[: len(dev) // 2], dev.patients[len(dev) // 2 :]
    model = om.pretrain(tiny.recipe(pretrain={"epochs": 1}), dev.subset(first))
    survival = om.finetune(model, dev.subset(second))
    model.require_unseen(test)
    survival.require_unseen(test)
    model.require_unseen(dev.subset(second))
    with pytest.raises(SeenPatientsError) as error:
        survival.require_unseen(dev.subset(first[:3]))
    assert "3 of 3 patients were seen in pretrain (for example " in str(error.value)
    assert "evaluate on other patients, or say --allow-seen" in str(error.value)
    known = dev.subset(second).with_endpoint().patients[:1]
    mixed = tiny.simulated().to_cohort().subset(test.patients.union(known))
    with pytest.raises(SeenPatientsError, match=r"1 of .* patients were seen in finetune"):
        om.evaluate(survival, mixed)
    result = om.evaluate(survival, dev.subset(first), subsets="none", allow_seen=True)
    assert "patients seen in training were allowed (--allow-seen)" in result.notes
    assert "--allow-seen" in result.to_json()


def test_held_out_inner_patients_count_as_seen():
    """They choose the epoch and calibrate the intervals."""
    dev, _ = tiny.parts()
    model = tiny.pretrained()
    kept = dev.patients[dev.availability.any(axis=1)]
    assert len(model.seen["pretrain"]) == len(kept)


def test_seen_patients_are_still_refused_after_loading(tmp_path):
    dev, _ = tiny.parts()
    model = om.load(om.save(tiny.survival(), tmp_path / "run"))
    with pytest.raises(SeenPatientsError):
        om.evaluate(model, dev)


def test_baselines_refuse_patients_on_both_sides():
    _, test = tiny.parts()
    whole = tiny.simulated().to_cohort()
    with pytest.raises(DataError, match="patients are in both cohorts"):
        om.evaluate(tiny.survival(), test, train=whole)
    with pytest.raises(DataError, match="patients are in both cohorts"):
        om.evaluate(tiny.pretrained(), test, train=whole)


def test_corrections_are_chosen_on_training_patients_alone(spoilt):
    dev, _ = tiny.parts()
    model = tiny.survival()
    mine = {k: v for k, v in model.networks[0].state_dict().items() if "corrections" in k}
    assert mine
    other = om.finetune(tiny.pretrained(), spoilt.subset(dev.patients)).networks[0].state_dict()
    assert all(torch.equal(v, other[k]) for k, v in mine.items())
