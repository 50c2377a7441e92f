"""Whether a patient is placed alike by any subset of sequences, and figures of it."""

import itertools

import numpy as np
import pandas as pd
import picture_cohort
import pytest
import torch

import omnisurv as om
from omnisurv import plots
from omnisurv.errors import DataError
from omnisurv.evaluation.consistency import consistency_by_size
from omnisurv.plots import reconstruction_figure

SEQUENCES = ["t1", "t2"]
SMALL = {"dim": 24, "heads": 2, "mlp": 32, "trunk": 2, "decoder_dim": 12, "decoder_mlp": 32,
         "decoder_depth": 1}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    stage = {"epochs": 2, "every": 1, "warmup": 0}
    recipe = om.get_recipe("bm_mae:tiny", **SMALL, pretrain=stage)
    return om.pretrain(recipe, mri())


def mri():
    return picture_cohort.cohort(60).drop_modalities(["rna", "wsi", "clinical"])


def complete():
    cohort = mri()
    return cohort.subset(cohort.patients[cohort.availability[SEQUENCES].all(axis=1)])


def embeddings(model, cohort, subset):
    batch = model.batch(cohort, subset)
    with torch.no_grad():
        return model.mae(0).eval().encode(batch, batch.observed).summary.double().numpy()


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_cosines_are_those_of_centred_embeddings(model):
    found = om.consistency(model, mri())
    assert list(found.index) == list(found.columns) == ["t1", "t2", "t1+t2"]
    placed = {s: embeddings(model, complete(), s.split("+")) for s in found.index}
    centred = {s: z - z.mean(0) for s, z in placed.items()}
    for a, b in itertools.product(found.index, repeat=2):
        expected = cosine(centred[a], centred[b]).mean()
        assert found.loc[a, b] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(np.diag(found), 1.0)
    assert (found == found.T).all(axis=None)


def test_uncentred_cosines_would_say_little(model):
    """Two strangers look alike until what all patients share is taken away."""
    z = embeddings(model, complete(), SEQUENCES)
    strangers = np.roll(z, 1, axis=0)
    assert cosine(z, strangers).mean() > 0.5
    centred = z - z.mean(0)
    assert abs(cosine(centred, np.roll(centred, 1, axis=0)).mean()) < 0.35


def test_an_encoder_that_ignores_what_it_is_given_gets_no_credit(model, monkeypatch):
    """Embeddings of noise, another for each subset, are as strangers are."""
    encode = type(model.mae(0)).encode
    generator = torch.Generator().manual_seed(0)

    def noise(self, batch, visible):
        latent = encode(self, batch, visible)
        drawn = torch.randn(latent.summary.shape, generator=generator)
        return latent._replace(summary=10.0 + drawn)

    monkeypatch.setattr(type(model.mae(0)), "encode", noise)
    found = om.consistency(model, mri()).to_numpy()
    off = found[~np.eye(3, dtype=bool)]
    assert np.abs(off).max() < 0.25


def test_patients_who_lack_a_sequence_are_left_out(model):
    pd.testing.assert_frame_equal(om.consistency(model, mri()), om.consistency(model, complete()))


def test_means_by_number_of_sequences():
    names = ["a", "b", "a+b"]
    table = pd.DataFrame([[1, 0.2, 0.5], [0.2, 1, 0.7], [0.5, 0.7, 1]], names, names)
    found = consistency_by_size(table)
    assert found.loc[1, 1] == pytest.approx(0.2)  # the diagonal, which is 1, is left out
    assert found.loc[1, 2] == found.loc[2, 1] == pytest.approx(0.6)
    assert np.isnan(found.loc[2, 2])


def test_four_sequences_have_fifteen_subsets():
    names = ["t1", "t1ce", "t2", "flair"]
    subsets = ["+".join(s) for n in (1, 2, 3, 4) for s in itertools.combinations(names, n)]
    table = pd.DataFrame(np.eye(15), subsets, subsets)
    figure = plots.consistency(table, consistency_by_size(table), title="Consistency")
    assert figure.axes[0].images[0].get_array().shape == (15, 15)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == subsets
    assert figure.axes[1].images[0].get_array().shape == (4, 4)


def test_what_cannot_be_compared_is_told(model):
    few = complete()
    with pytest.raises(DataError, match=r"4 patients have all of t1, t2, 5 are needed"):
        om.consistency(model, few.subset(few.patients[:4]))
    with pytest.raises(DataError, match="compares 2 to 6 modalities, here are 1"):
        om.consistency(model, mri(), ["t1"])
    with pytest.raises(DataError, match=r"no modality 't3'\. Did you mean"):
        om.consistency(model, mri(), ["t1", "t3"])
    with pytest.raises(DataError, match="the cohort has no modality 't2'"):
        om.consistency(model, mri().drop_modalities(["t2"]), ["t1", "t2"])


def test_a_reconstruction_shows_what_was_given_and_the_error(model):
    who = complete().patients[0]
    figure = reconstruction_figure(model, mri(), who, given=["t1"])
    panels = np.reshape(figure.axes[:8], (2, 4))
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["t1\ngiven", "t2\nhidden"]
    said = [[text.get_text() for text in axes.texts] for axes in panels[1]]
    assert "hidden" in said[1]
    assert said[3][0].startswith("rmse ")
    assert panels[0, 1].images  # what is given is shown
    assert not panels[0, 2].images  # and not reconstructed
    error = panels[1, 3].images[0].get_array()
    filled = om.impute(model, mri().subset([who]).drop_modalities(["t2"]), ["t2"])
    truth = om.impute(model, mri().subset([who]), ["t2"])
    expected = filled.values["t2"].values - truth.values["t2"].values
    rmse = np.sqrt(np.nanmean(np.square(expected)))
    assert said[3][0] == f"rmse {rmse:.2f}"
    assert np.nanmax(np.abs(error)) <= np.nanmax(np.abs(expected)) + 1e-5


def test_a_sequence_that_was_not_measured_has_no_error(model):
    cohort = mri()
    who = cohort.patients[cohort.availability["t1"] & ~cohort.availability["t2"]][0]
    figure = reconstruction_figure(model, cohort, who, given=["t1"])
    last = figure.axes[4:8]
    assert [text.get_text() for text in last[0].texts] == ["not measured"]
    assert last[2].images
    assert not last[3].images


def test_what_cannot_be_given_is_told(model):
    cohort = mri()
    lacks = cohort.patients[~cohort.availability["t2"] & cohort.availability["t1"]][0]
    with pytest.raises(DataError, match=f"{lacks} does not have t2; there is t1"):
        reconstruction_figure(model, cohort, lacks, given=["t2"])
    with pytest.raises(DataError, match="all sequences are given, so none is reconstructed"):
        reconstruction_figure(model, cohort, complete().patients[0], given=SEQUENCES)
    with pytest.raises(DataError, match="no modality 't9'"):
        reconstruction_figure(model, cohort, complete().patients[0], given=["t9"])
