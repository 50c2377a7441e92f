"""Volumes and slides in training, prediction and imputation, on a small cohort in memory."""

import dataclasses
import json
from functools import cache

import numpy as np
import pandas as pd
import picture_cohort
import pytest
import tiny
import torch

import omnisurv as om
from omnisurv.core import Batch, MultimodalMAE
from omnisurv.data.cohort import Cohort
from omnisurv.data.images import FilledImages, Images
from omnisurv.data.readers.nifti import Grid
from omnisurv.data.readers.volumes import place_of
from omnisurv.data.store import Entry
from omnisurv.task import stratum_of

KINDS = ["corrections", "fusion"]
PICTURES = ["t1", "t2", "wsi"]
TILE = 4
"""Tokens of a tile, which is all of a slide that a pre-training step gets here."""


def recipe(omics="corrections", **settings):
    stages = {
        "pretrain": {"epochs": 24, "every": 8},
        "finetune": {"epochs": 6, "lr": 2e-3},
    }
    return tiny.recipe(omics=omics, budget=TILE, **{**stages, **settings})


@cache
def parts():
    return picture_cohort.cohort().split()


@cache
def pretrained():
    return om.pretrain(recipe(), parts()[0])


@cache
def survival(omics):
    """One pre-training serves both: how omics enter the hazard is no matter of it."""
    return om.finetune(dataclasses.replace(pretrained(), recipe=recipe(omics)), parts()[0])


@pytest.fixture(params=KINDS)
def model(request):
    return survival(request.param)


def having(cohort, name, there=True):
    return cohort.subset(cohort.patients[cohort.availability[name] == there])


def changed(cohort, name, change, patients=None):
    """Return the cohort with ``change(array)`` in place of some patients' pictures."""
    entries = [
        Entry(e.patient, change(np.array(e.open())), e.meta)
        if patients is None or e.patient in patients
        else e
        for e in cohort[name].entries
    ]
    modalities = {n: cohort[n] for n in cohort.modalities}
    modalities[name] = Images(entries, cohort[name].uns["scale"])
    return Cohort(cohort.obs, modalities, cohort.spec)


def negative(tiles):
    return np.uint8(255) - tiles


def weights(model):
    states = [network.state_dict() for network in model.networks]
    return {f"{i}.{k}": v.clone() for i, state in enumerate(states) for k, v in state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_ragged_slides_are_learned_from(model):
    dev, test = parts()
    tiles = [len(dev["wsi"].array(row)) for row in range(len(dev["wsi"]))]
    assert set(tiles) == {1, 2, 3}
    history = model.history[model.history["stage"] == "pretrain"]
    scored = history["validation"].dropna()
    assert set(PICTURES) <= set(history.columns)
    assert np.isfinite(history[["train", *PICTURES]]).all(axis=None)
    for name in PICTURES:  # single epochs vary, as few patients keep anything but the picture
        assert history[name].tail(8).median() < 0.8 * history[name].head(8).median(), name
    assert scored.iloc[-1] < scored.iloc[0]
    assert 0.5 < model.score(test) < 1.0
    fitted = model.history[model.history["stage"] == "finetune"]
    assert len(fitted) == (6 if model.recipe.omics == "fusion" else 0)


def test_pictures_of_other_patients_are_foretold():
    """What is learned is about patients: it beats even the mean of those it is judged on."""
    table = om.evaluate(pretrained(), parts()[1], task="imputation").table
    r2 = table[table["metric"] == "r2"].set_index("modality")["value"]
    assert (r2[PICTURES] > 0.1).all(), r2.round(2).to_dict()


def test_noise_in_absent_slots_changes_no_bit(model):
    _, test = parts()
    batch = model.batch(test).load()
    visible, generator = batch.observed, torch.Generator().manual_seed(0)
    noisy = {}
    for name, patch in batch.patches.items():
        hidden = ~visible[:, batch.layout.slices[name], None]
        noise = 100.0 * torch.randn(patch.shape, generator=generator)
        noisy[name] = torch.where(hidden, noise, patch)
        assert bool(hidden.any())
    stratum = torch.from_numpy(stratum_of(test, model.strata))
    network = model.networks[0].eval()
    with torch.no_grad():
        before = network(batch, visible, stratum)
        after = network(Batch(noisy, batch.layout), visible, stratum)
        seen = {name: patch + 1.0 for name, patch in batch.patches.items()}
        other = network(Batch(seen, batch.layout), visible, stratum)
    assert torch.equal(before, after)
    assert not torch.allclose(before, other)  # what is visible does matter


def test_predictions_do_not_depend_on_batch_mates(model):
    _, test = parts()
    together = model.predict(test)
    for patient in test.patients[:8]:
        alone = model.predict(test.subset([patient]))
        np.testing.assert_allclose(alone, together[[patient]], rtol=1e-4, atol=1e-5)
    mate, *rest = having(test, "wsi").patients
    strange = changed(test, "wsi", negative, {mate})
    after = model.predict(strange).drop(mate)
    np.testing.assert_allclose(after, together.drop(mate), rtol=1e-4, atol=1e-5)
    assert len(rest) > 10


def test_a_model_is_the_same_after_loading(model, tmp_path):
    _, test = parts()
    again = om.load(om.save(model, tmp_path / "run"))
    pd.testing.assert_series_equal(model.predict(test), again.predict(test), check_exact=True)
    a, b = om.impute(model, test).values, om.impute(again, test).values
    for name in PICTURES:
        np.testing.assert_array_equal(a[name].values, b[name].values)
        np.testing.assert_array_equal(a[name].half, b[name].half)


def test_a_patient_with_only_a_slide_gets_a_curve(model):
    _, test = parts()
    who = having(test, "wsi")
    S = model.predict_survival_function(who, ["wsi"])
    assert np.isfinite(S).all(axis=None)
    assert (S.iloc[0] == 1).all()
    assert (S.iloc[-1] < 0.9).all()
    assert (S.diff().iloc[1:] <= 0).all(axis=None)
    risk = model.predict(who, ["wsi"])
    assert risk.std() > 0.05  # slides differ, and so do the patients
    other = model.predict(changed(who, "wsi", negative), ["wsi"])
    assert ((risk - other).abs() > 1e-3).mean() > 0.9
    nothing_else = Cohort(who.obs, {"wsi": who["wsi"]}, who.spec)
    pd.testing.assert_series_equal(model.predict(nothing_else), risk, check_exact=True)


class Killed(Exception):
    pass


def train(folder, stop=None):
    """Pre-train and fine-tune the fusion; stop short after the line ``stop``."""

    def progress(label, epoch, total, text):
        if f"{label} {epoch}" == stop:
            raise Killed

    few = parts()[0].subset(parts()[0].patients[:48])
    stages = {"pretrain": {"epochs": 4, "every": 1}, "finetune": {"epochs": 4}}
    settings = recipe("fusion", dropout=0.1, **stages)
    start = om.pretrain(settings, few, run=folder / "a", progress=progress)
    om.finetune(start, few, run=folder / "b", progress=progress)


def test_an_interrupted_training_with_pictures_ends_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(whole)
    for stop in ("pretrain 2", "finetune 3"):
        with pytest.raises(Killed):
            train(killed, stop)
    train(killed)
    for run in ("a", "b"):
        assert tiny.names(killed / run) == tiny.names(whole / run)
        name = f"{run}/model.safetensors"
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
        a, b = (pd.read_csv(folder / run / "history.csv") for folder in (whole, killed))
        pd.testing.assert_frame_equal(
            a.drop(columns="seconds"), b.drop(columns="seconds"), check_exact=True
        )
        with (
            np.load(whole / run / "residuals.npz") as x,
            np.load(killed / run / "residuals.npz") as y,
        ):
            assert set(PICTURES) <= set(x.files)
            assert all(np.array_equal(x[key], y[key], equal_nan=True) for key in x.files)


def test_pictures_of_test_patients_change_no_bit_of_the_model():
    dev, test = parts()
    whole = picture_cohort.cohort()
    spoilt = changed(whole, "wsi", negative, set(test.patients))
    for name in ("t1", "t2"):
        spoilt = changed(spoilt, name, lambda volume: -7.0 * volume, set(test.patients))
    few = recipe(pretrain={"epochs": 2, "every": 1})
    mine, again = (om.pretrain(few, c.subset(dev.patients)) for c in (whole, spoilt))
    assert same(weights(mine), weights(again))
    for name in PICTURES:
        for key, value in mine.tokenisers[name].state()[1].items():
            np.testing.assert_array_equal(value, again.tokenisers[name].state()[1][key])
        np.testing.assert_array_equal(mine.residuals[name], again.residuals[name])
    one = set(dev["wsi"].obs_names[:3])
    other = om.pretrain(few, changed(whole, "wsi", negative, one).subset(dev.patients))
    center = mine.tokenisers["wsi"].center
    assert not np.allclose(other.tokenisers["wsi"].center, center)  # the comparison can fail
    assert not same(weights(mine), weights(other))


def test_center_and_spread_are_those_of_the_training_tiles():
    dev, _ = parts()
    pixels = np.concatenate([dev["wsi"].array(r).reshape(-1, 3) for r in range(len(dev["wsi"]))])
    tokeniser = pretrained().tokenisers["wsi"]
    np.testing.assert_allclose(tokeniser.center, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(tokeniser.spread, pixels.std(0), rtol=1e-4)


def test_a_cohort_without_pictures_is_predicted_and_its_pictures_are_imputed(model):
    _, test = parts()
    bare = test.drop_modalities(PICTURES)
    there = [name for name in test.modalities if name not in PICTURES]
    assert model.predict(bare).equals(model.predict(test, there))
    filled = om.impute(model, bare)
    for name in PICTURES:
        found = filled.values[name]
        assert isinstance(found, FilledImages)
        assert found.imputed.all()
        assert found.images is None
        assert found.patients == list(bare.patients)
        assert np.isfinite(found.values).all()
        assert found.like == [None] * len(bare)
    slides = filled.values["wsi"].values
    assert slides.shape == (len(bare), 3, 8, 8, 3)
    assert 100 < slides.mean() < 220  # as bright as the tiles that were seen
    assert slides.mean(axis=(1, 2, 3, 4)).std() > 2  # and not the same for everybody


def test_imputing_leaves_measured_pictures_as_they_are():
    _, test = parts()
    first, again = (om.impute(pretrained(), test, PICTURES) for _ in range(2))
    for name in PICTURES:
        found = first.values[name]
        np.testing.assert_array_equal(found.values, again.values[name].values)
        np.testing.assert_array_equal(found.half, again.values[name].half)
        np.testing.assert_array_equal(found.imputed, ~test.availability[name])
        assert found.imputed.any()
        assert np.isfinite(found.values[found.imputed]).all()
        for row, patient in enumerate(found.patients):
            entry = test[name].of(patient)
            if entry is None:
                continue
            array = entry.open()
            kept = found.values[row, ..., 0] if name != "wsi" else found.values[row, : len(array)]
            array = array[None] if name != "wsi" else array
            np.testing.assert_allclose(kept, array, atol=1e-4)
            np.testing.assert_array_equal(found.images.of(patient).open(), entry.open())


def test_draws_of_pictures_are_seeded():
    _, test = parts()
    model = pretrained()
    one, same_, other = (
        om.impute(model, test, ["t1", "wsi"], draws=2, seed=seed).draws for seed in (1, 1, 2)
    )
    for name, draws in one.items():
        lacks = ~test.availability[name].to_numpy()
        assert draws.shape[:2] == (2, len(test))
        np.testing.assert_array_equal(draws, same_[name])
        assert np.isfinite(draws[:, lacks]).all()
        assert not np.allclose(draws[:, lacks], other[name][:, lacks])
        assert not np.allclose(draws[0, lacks], draws[1, lacks])
        measured = om.impute(model, test, [name]).values[name].values[~lacks]
        np.testing.assert_array_equal(draws[:, ~lacks], np.stack([measured, measured]))
    alone = om.impute(model, test, ["wsi"], draws=2, seed=1).draws["wsi"]
    np.testing.assert_array_equal(alone, one["wsi"])


def with_geometry(cohort):
    """Return the cohort with what a reader knows of each volume and slide."""
    modalities = {name: cohort[name] for name in cohort.modalities}
    place = place_of(Grid((8, 8, 6), np.diag([2.0, 2.0, 2.0, 1.0])), (0, 0, -2), 8)
    told = {"mean": 300.0, "sd": 50.0, "dtype": "int16", "header": ""}
    for name in ("t1", "t2"):
        entries = [Entry(e.patient, e.array, {**place, **told}) for e in cohort[name].entries]
        modalities[name] = Images(entries, "z-score")
    return Cohort(cohort.obs, modalities, cohort.spec)


def test_imputed_pictures_are_saved_as_nifti_and_features(tmp_path):
    import nibabel

    _, test = parts()
    model, cohort = pretrained(), with_geometry(test)
    filled = om.impute(model, cohort)
    folder = filled.save(tmp_path / "out")
    manifest = json.loads((folder / "imputation.json").read_text())
    for name in ("t1", "t2"):
        lacks = set(test.patients[~test.availability[name]])
        expected = {f"{p}_{name}.nii.gz" for p in test.patients if p not in lacks}
        expected |= {f"{p}_{name}_imputed.nii.gz" for p in lacks}
        expected |= {f"{p}_{name}_imputed_halfwidth.nii.gz" for p in lacks}
        assert set(tiny.names(folder / name)) == expected
        assert manifest[name]["patients_without"] == len(lacks)
        assert sorted(manifest[name]["files"]) == sorted(f"{name}/{file}" for file in expected)
    has_t2 = test.patients[~test.availability["t1"] & test.availability["t2"]]
    image = nibabel.load(folder / "t1" / f"{has_t2[0]}_t1_imputed.nii.gz")
    np.testing.assert_array_equal(image.affine, np.diag([2.0, 2.0, 2.0, 1.0]))  # as its T2
    row = list(test.patients).index(has_t2[0])
    found = filled.values["t1"].values[row, 0, :, :, 2:, 0]
    np.testing.assert_allclose(np.asarray(image.dataobj), found, atol=1e-6)
    assert b"imputed by omnisurv" in image.header["descrip"].item()
    lacks = test.patients[~test.availability["wsi"]]
    expected = {f"{p}_wsi_imputed_features.tsv" for p in lacks} | {"wsi_manifest.tsv"}
    expected |= {f"{p}_wsi_imputed_synthetic.png" for p in lacks}
    assert set(tiny.names(folder / "wsi")) == expected
    table = pd.read_csv(folder / "wsi" / f"{lacks[0]}_wsi_imputed_features.tsv", sep="\t")
    row = list(test.patients).index(lacks[0])
    mean = filled.values["wsi"].values[row].mean(axis=(1, 2))
    np.testing.assert_allclose(table[["red_mean", "green_mean", "blue_mean"]], mean, rtol=1e-4)
    assert (folder / "rna.h5ad").exists()


@pytest.mark.parametrize(("budget", "most"), [(1, 4), (11, 8), (256, 12)])
def test_a_step_never_has_more_of_a_slide_than_the_budget(monkeypatch, budget, most):
    """Visible and scored tokens together; a tile is the least."""
    dev, _ = parts()
    steps = []
    original = MultimodalMAE.forward

    def record(self, batch, visible, given=None):
        where = batch.layout.slices["wsi"]
        read = (given or batch).observed[:, where]  # what the encoder could read
        assert not (visible & ~batch.observed).any()
        assert not (read & ~batch.observed[:, where]).any()
        if self.training:
            steps.append(batch.observed[:, where])
        return original(self, batch, visible, given)

    monkeypatch.setattr(MultimodalMAE, "forward", record)
    om.pretrain(tiny.recipe(budget=budget, pretrain={"epochs": 2, "batch": 16}), dev)
    tokens = torch.cat(steps)
    assert int(tokens.sum(1).max()) == most
    by_tile = tokens.unflatten(1, (3, TILE))
    assert torch.equal(by_tile.any(2), by_tile.all(2))  # whole tiles
    assert bool(by_tile.any(2).any(0).all())  # now this one, now that one
    assert not by_tile.any(2).sum(1).eq(0).all()


def test_without_imagination_the_head_is_smaller():
    dev, test = parts()
    few = {"pretrain": {"epochs": 1}, "finetune": {"epochs": 1}}
    with_, without = (
        om.finetune(recipe("fusion", imagine=imagine, **few), dev) for imagine in (True, False)
    )
    heads = [model.networks[0].head for model in (with_, without)]
    assert [head.imagines for head in heads] == [True, False]
    sizes = [sum(p.numel() for p in head.parameters()) for head in heads]
    assert sizes[0] - sizes[1] == 16 * 16 + 16  # the map from decoder to fusion
    assert heads[1].fusion.adopt is None
    assert np.isfinite(without.predict(test)).all()


def test_imagined_tokens_do_not_touch_a_complete_patient():
    _, test = parts()
    model = survival("fusion")
    complete = test.availability.all(axis=1)
    assert complete.sum() >= 5
    before = model.predict(test)
    adopt = model.networks[0].head.fusion.adopt
    kept = {k: v.clone() for k, v in adopt.state_dict().items()}
    try:
        torch.nn.init.normal_(adopt.weight, std=30.0, generator=torch.Generator().manual_seed(0))
        torch.nn.init.constant_(adopt.bias, 30.0)
        after = model.predict(test)
    finally:
        adopt.load_state_dict(kept)
    assert after[complete].equals(before[complete])
    assert ((after - before).abs()[~complete] > 1e-4).mean() > 0.9
    evidence = model.networks[0].evidence
    batch = model.batch(test.subset(test.patients[complete])).load()
    seen = evidence(batch, batch.observed, torch.zeros(len(batch), dtype=torch.long))
    assert not seen.imagined.usable.any()
    pd.testing.assert_series_equal(model.predict(test), before, check_exact=True)
