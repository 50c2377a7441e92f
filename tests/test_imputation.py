"""What is missing is filled in; what is there is never touched; the error bar is honest."""

import json

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

import omnisurv as om
from omnisurv.baselines import IMPUTATION_BASELINES
from omnisurv.calibration import _slope, calibrate, margin
from omnisurv.core import Batch, Decoder, Layout
from omnisurv.data.cohort import Cohort
from omnisurv.errors import DataError
from omnisurv.evaluation.imputation import evaluate_imputation
from omnisurv.simulation import simulate

RUN = {"pretrain": {"epochs": 20, "every": 5}}


@pytest.fixture(scope="module")
def model():
    return om.pretrain(tiny.recipe(**RUN), tiny.parts()[0])


@pytest.fixture(scope="module")
def filled(model):
    return om.impute(model, tiny.parts()[1])


def raw(cohort, name, patients, features):
    """Return the cohort's own values, NaN where it has none."""
    own = cohort[name].to_df()
    return own.reindex(index=patients, columns=features).to_numpy()


def test_what_was_measured_is_never_changed(filled):
    _, test = tiny.parts()
    for name, data in filled.values.items():
        own = raw(test, name, data.obs_names, data.var_names)
        measured = np.isfinite(own)
        assert measured.any()
        for values in (data.X, data.layers["low"], data.layers["high"]):
            np.testing.assert_array_equal(np.asarray(values)[measured], own[measured])
        np.testing.assert_array_equal(data.layers["imputed"], ~measured)


def test_everything_else_is_filled_with_its_interval_around_it(filled):
    for data in filled.values.values():
        assert np.isfinite(data.X).all()
        imputed = data.layers["imputed"]
        assert imputed.any()
        assert (data.layers["low"] < data.X)[imputed].all()
        assert (data.layers["high"] > data.X)[imputed].all()


def test_all_patients_are_there_with_what_they_were_imputed_from(filled):
    _, test = tiny.parts()
    for name, data in filled.values.items():
        assert list(data.obs_names) == list(test.patients)
        lacks = ~test.availability[name].to_numpy()
        np.testing.assert_array_equal(data.obs["imputed"], lacks)
        for patient, evidence in data.obs["evidence"].items():
            has = test.availability.loc[patient]
            assert set(evidence.split("+")) == set(has.index[has]) or (
                evidence == "none" and not has.any()
            )
        assert data.uns["omnisurv"]["recipe"] == "imputmae:small"
        assert data.uns["omnisurv"]["level"] == 0.9


def test_values_are_in_the_modalitys_own_unit(filled):
    beta = np.asarray(filled.values["dnam"].X)
    assert beta.min() >= 0
    assert beta.max() <= 1
    assert np.asarray(filled.values["rna"].X).min() >= 0
    assert filled.values["dnam"].uns["scale"] == "beta"


def test_imputing_is_deterministic_and_other_patients_do_not_matter(model, filled):
    _, test = tiny.parts()
    again = om.impute(model, test)
    few = om.impute(model, test.subset(test.patients[3:7]))
    for name, data in filled.values.items():
        np.testing.assert_array_equal(data.X, again.values[name].X)
        np.testing.assert_allclose(few.values[name].X, data[3:7].X, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(
            few.values[name].layers["imputed"], data[3:7].layers["imputed"]
        )


def test_a_wider_level_gives_wider_intervals(model, filled):
    _, test = tiny.parts()
    half = om.impute(model, test, level=0.5)
    for name, data in filled.values.items():
        where = data.layers["imputed"]
        narrow = (half.values[name].layers["high"] - half.values[name].layers["low"])[where]
        wide = (data.layers["high"] - data.layers["low"])[where]
        assert (narrow <= wide).all()
        assert narrow.mean() < wide.mean()


def test_draws_are_seeded_and_leave_what_was_measured(model):
    _, test = tiny.parts()
    first, same, other = (om.impute(model, test, draws=2, seed=seed).draws for seed in (1, 1, 2))
    for name, draws in first.items():
        own = raw(test, name, test.patients, om.impute(model, test, [name]).values[name].var_names)
        measured = np.isfinite(own)
        assert draws.shape == (2, *own.shape)
        np.testing.assert_array_equal(draws, same[name])
        assert not np.array_equal(draws, other[name])
        for draw in draws:
            np.testing.assert_array_equal(draw[measured], own[measured])
            assert np.isfinite(draw).all()
        assert not np.array_equal(draws[0], draws[1])


def test_draws_of_a_modality_do_not_depend_on_which_others_are_asked_for(model):
    _, test = tiny.parts()
    together = om.impute(model, test, ["rna", "protein"], draws=1, seed=3).draws["protein"]
    alone = om.impute(model, test, ["protein"], draws=1, seed=3).draws["protein"]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", ["protein", "dnam", "rna"])
def test_the_spread_of_draws_matches_the_intervals(model, name):
    """Half of the draws lie within the 50 % interval; conformal ranks of few errors round up."""
    _, test = tiny.parts()
    filled = om.impute(model, test, [name], level=0.5, draws=60, seed=0)
    data, draws = filled.values[name], filled.draws[name]
    where = data.layers["imputed"]
    inside = (draws >= data.layers["low"] - 1e-5) & (draws <= data.layers["high"] + 1e-5)
    count = np.isfinite(model.residuals[name]).sum(0)
    expected = (np.ceil((count + 1) * 0.5) / count)[count > 0].mean()
    assert inside[:, where].mean() == pytest.approx(expected, abs=0.06)
    for feature in range(data.n_vars):
        column = where[:, feature]
        if column.any():
            assert draws[:, column, feature].std(0).max() > 0
    # A draw is never simply the mean.
    share = (np.abs(draws - data.X) < 1e-7)[:, where].mean()
    assert share < 0.05


def conformal(errors, level):
    """Return the ⌈(n + 1) · level⌉-th smallest absolute error of one feature."""
    known = sorted(abs(e) for e in errors if np.isfinite(e))
    rank = int(np.ceil((len(known) + 1) * level))
    return known[rank - 1] if 0 < rank <= len(known) else np.inf


@pytest.mark.parametrize("n", [1, 5, 9, 10, 19, 40])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_margin_is_the_conformal_rank_in_loops(n, level):
    rng = np.random.default_rng(n)
    errors = rng.normal(size=(n, 3, 4)).astype(np.float32)
    errors[rng.random(errors.shape) < 0.3] = np.nan
    ours = margin(errors, (3, 4), level)
    for i in range(3):
        for j in range(4):
            assert ours[i, j] == np.float32(conformal(errors[:, i, j].tolist(), level))


def test_margin_without_errors_is_infinite():
    assert np.isinf(margin(None, (2, 3), 0.9)).all()
    assert np.isinf(margin(np.full((9, 2, 3), np.nan, np.float32), (2, 3), 0.9)).all()


def test_few_held_out_errors_say_so_by_an_infinite_interval(model):
    few = om.pretrain(tiny.recipe(), tiny.parts(40, 5)[0])
    _, test = tiny.parts()
    data = om.impute(few, test, ["dnam"]).values["dnam"]
    where = data.layers["imputed"]
    assert np.isfinite(data.X).all()
    beta = (data.layers["low"][where], data.layers["high"][where])
    assert all(np.isfinite(bound).all() or np.isinf(bound).any() for bound in beta)
    assert (beta[0] <= np.asarray(data.X)[where]).all()
    assert (beta[1] >= np.asarray(data.X)[where]).all()
    for name in ("rna", "protein", "cnv_arm", "clinical"):
        om.impute(few, test, [name])  # no overflow, no warning


def with_patient(cohort, patient):
    """Return the cohort with one more patient, who has nothing."""
    obs = cohort.obs.reindex([*cohort.patients, patient])
    return Cohort(obs, {name: cohort[name] for name in cohort.modalities}, cohort.spec)


def test_a_patient_with_nothing_gets_the_prior_mean_and_is_flagged(model, filled):
    _, test = tiny.parts()
    found = om.impute(model, with_patient(test, "NOBODY"))
    others = om.impute(model, with_patient(test, "NOWHERE"))
    for name, data in found.values.items():
        nobody = data["NOBODY"]
        assert nobody.obs["imputed"].all()
        assert nobody.obs["evidence"].item() == "none"
        np.testing.assert_array_equal(nobody.X, others.values[name]["NOWHERE"].X)
        tokeniser = model.tokenisers[name]
        z = tokeniser.tokenise(nobody)
        assert np.nanmean(np.abs(z)) < 0.35  # near the training mean, in standard units
        rest = data[data.obs_names != "NOBODY"]
        np.testing.assert_allclose(rest.X, filled.values[name].X, rtol=1e-5, atol=1e-6)


def test_an_unknown_modality_is_named():
    with pytest.raises(DataError) as error:
        om.impute(tiny.pretrained(), tiny.parts()[1], modalities=["protien"])
    assert str(error.value).startswith("the model knows no modality 'protien'. Did you mean 'prot")


def test_a_cohort_without_a_common_modality_is_refused():
    _, test = tiny.parts()
    other = Cohort(test.obs, {"mri": test["rna"]}, None)
    with pytest.raises(DataError, match="no modality in common"):
        om.impute(tiny.pretrained(), other)


def test_a_modality_the_cohort_lacks_wholly_is_imputed(model):
    _, test = tiny.parts()
    data = om.impute(model, test.drop_modalities(["protein"]), ["protein"]).values["protein"]
    assert data.layers["imputed"].all()
    assert np.isfinite(data.X).all()


def test_h5ad_tsv_and_manifest(filled, tmp_path):
    _, test = tiny.parts()
    folder = filled.save(tmp_path / "out", tsv=True)
    manifest = json.loads((folder / "imputation.json").read_text())
    assert sorted(manifest) == sorted(filled.values)
    for name, data in filled.values.items():
        again = anndata.read_h5ad(folder / f"{name}.h5ad")
        np.testing.assert_array_equal(again.X, data.X)
        for layer in ("imputed", "low", "high"):
            np.testing.assert_array_equal(again.layers[layer], data.layers[layer])
        assert list(again.obs["imputed"]) == list(data.obs["imputed"])
        assert again.uns["omnisurv"]["recipe"] == "imputmae:small"
        told = manifest[name]
        assert told["patients"] == len(test)
        assert told["level"] == 0.9
        assert told["patients_with_imputed_values"] == int(data.layers["imputed"].any(1).sum())
        table = pd.read_csv(folder / f"{name}.tsv", sep="\t", index_col=0)
        np.testing.assert_allclose(table.to_numpy(), data.X, rtol=1e-5)
        flags = pd.read_csv(folder / f"{name}_imputed.tsv", sep="\t", index_col=0)
        np.testing.assert_array_equal(flags.to_numpy() == 1, data.layers["imputed"])
        low = pd.read_csv(folder / f"{name}_low.tsv", sep="\t", index_col=0)
        np.testing.assert_allclose(low.to_numpy(), data.layers["low"], rtol=1e-5)


def test_mudata(filled, tmp_path):
    _, test = tiny.parts()
    whole = filled.to_mudata()
    assert set(whole.mod) == set(filled.values)
    assert whole.n_obs == len(test)
    path = tmp_path / "filled.h5mu"
    with mudata.set_options(pull_on_update=False):
        whole.write(path)
        again = mudata.read_h5mu(path)
    np.testing.assert_array_equal(again["rna"].X, filled.values["rna"].X)
    np.testing.assert_array_equal(
        again["rna"].layers["imputed"], filled.values["rna"].layers["imputed"]
    )


def test_the_slope_shrinks_what_does_not_generalise():
    rng = torch.Generator().manual_seed(0)
    predicted = torch.randn(400, 1, 3, generator=rng)
    noise = torch.randn(400, 1, 3, generator=rng)
    truth = predicted * torch.tensor([0.8, 0.8, 0.8]) + 0.1 * noise
    torch.testing.assert_close(_slope(predicted, truth), torch.full((1, 3), 0.8), atol=0.02, rtol=0)
    assert (_slope(predicted, -truth) == 0).all()
    assert (_slope(predicted, 5 * truth) == 1).all()
    assert _slope(predicted, truth.masked_fill(truth > -9, torch.nan)).isfinite().all()


def test_calibration_never_sees_the_modality_it_predicts(model):
    """The held-out errors are of patients whose whole modality was hidden."""
    from omnisurv.calibration import calibrate

    _, test = tiny.parts()
    batch = model.batch(test)
    layout = Layout(batch.layout.lengths, batch.layout.widths)
    before = {k: v.clone() for k, v in model.networks[0].state_dict().items()}
    first = calibrate(model.networks[0], batch)
    shifted = Batch({**batch.patches, "rna": batch.patches["rna"] + 1.0}, layout)
    model.networks[0].load_state_dict(before)
    moved = calibrate(model.networks[0], shifted)
    model.networks[0].load_state_dict(before)
    # Had rna been visible, its prediction would follow the shift.
    assert set(first) == set(batch.layout.lengths)
    assert np.nanmean(np.abs(moved["rna"])) > np.nanmean(np.abs(first["rna"]))


@pytest.mark.slow(seconds=30)
def test_simulated_truth_is_imputed_better_than_by_mean_and_neighbours_and_covered(monkeypatch):
    """On 300 held-out patients: below mean and kNN in every modality, 90 % cover 88-92 %."""
    cohort = simulate(patients=800, seed=11, genes=200, cpgs=150, proteins=60).to_cohort()
    train, test = cohort.subset(cohort.patients[:500]), cohort.subset(cohort.patients[500:])
    model = om.pretrain(om.get_recipe("imputmae:small", members=1), train)
    monkeypatch.setitem(evaluate_imputation.__kwdefaults__, "draws", 10)
    table = om.evaluate(model, test, train=train, task="imputation").table
    pooled = table[table["group"] == "all"]
    mse = pooled[pooled["metric"] == "mse"].pivot_table("value", "subset", "model")
    assert set(IMPUTATION_BASELINES) <= set(mse.columns)
    cover = pooled[pooled["metric"] == "coverage_90"].set_index("subset")
    n = table[(table["metric"] == "mse") & (table["group"] == "all")].groupby("subset")["n"].first()
    weights = n[cover.index] * pd.Series(
        {name: len(model.tokenisers[name].features) for name in cover.index}
    )
    pooled_cover = float((cover["value"] * weights).sum() / weights.sum())
    told = f"{mse.round(3)}\n{cover['value'].round(3)}\n{pooled_cover:.3f}"
    ours = mse["imputmae:small"]
    for name in mse.index:
        assert ours[name] < mse.loc[name, "mean"], told
        assert ours[name] < mse.loc[name, "knn"], told
    assert 0.88 <= pooled_cover <= 0.92, told


class KnowsTheRest(torch.nn.Module):
    """Predicts a token perfectly if any other token of its modality is visible, else the mean."""

    def __init__(self, layout):
        super().__init__()
        self.decoder = Decoder(
            layout, {}, encoder_dim=4, dim=4, heads=1, mlp=4, depth=0
        )  # holds the trust, predicts nothing

    def reconstruct(self, batch, visible, wanted):
        predicted = {}
        for name, where in batch.layout.slices.items():
            helped = visible[:, where].any(1)[:, None, None]
            predicted[name] = torch.nan_to_num(batch.patches[name]) * helped
        return predicted


@pytest.mark.parametrize("missing", ["singly", "whole"])
def test_trust_is_judged_as_the_modality_is_missing(missing):
    layout = Layout({"clinical": 4, "rna": 2}, {"clinical": 1, "rna": 3})
    generator = torch.Generator().manual_seed(0)
    patches = {
        name: torch.randn(400, layout.lengths[name], layout.widths[name], generator=generator)
        for name in layout.lengths
    }
    if missing == "singly":
        hole = torch.rand(400, 4, 1, generator=generator) < 0.2
        patches["clinical"] = patches["clinical"].masked_fill(hole, torch.nan)
    else:
        patches["clinical"][:100] = torch.nan
    network = KnowsTheRest(layout)
    errors = calibrate(network, Batch(patches, layout))
    trust = network.decoder.trust("clinical")
    expected = 1.0 if missing == "singly" else 0.0
    torch.testing.assert_close(trust, torch.full_like(trust, expected), atol=0.02, rtol=0)
    # The errors are those of a modality hidden whole, whatever the trust was judged on.
    measured = patches["clinical"].isfinite().flatten(1).any(1)
    assert errors["clinical"].shape[0] == int(measured.sum())
