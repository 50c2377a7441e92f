"""What every registered modality kind must do; a newcomer's kind is tested by being there."""

import json

import anndata
import numpy as np
import pytest
import torch

from omnisurv.data.images import Images
from omnisurv.pictures import PictureTokeniser, StoredPatches
from omnisurv.registry import modalities


def made(name):
    modality, data = modalities.get(name).example(np.random.default_rng(0))
    return modality, data, modality.fit(data)


KINDS = modalities.names()
PICTURES = [name for name in KINDS if isinstance(made(name)[2], PictureTokeniser)]
TABLES = [name for name in KINDS if not isinstance(made(name)[1], Images)]
VALUED = [name for name in KINDS if name not in PICTURES]
"""Kinds whose values are a table: measured as such, or summaries of what was."""


@pytest.fixture(params=KINDS)
def example(request):
    return made(request.param)


@pytest.fixture(params=TABLES)
def table(request):
    return made(request.param)


@pytest.fixture(params=VALUED)
def valued(request):
    """A kind with its values, and what they were taken from."""
    _, data, tokeniser = made(request.param)
    return data, tokeniser, data if request.param in TABLES else tokeniser.values(data)


@pytest.fixture(params=PICTURES)
def pictures(request):
    return made(request.param)


def raw(data, names):
    return np.asarray(data[:, names].X, dtype=float)


def test_pictures_are_put_back_exactly(pictures):
    _, data, tokeniser = pictures
    back = tokeniser.untokenise(tokeniser.tokenise(data), list(data.obs_names))
    for row in range(len(data)):
        array = np.asarray(data.array(row), dtype=float)
        if array.ndim == 3:
            array = array[None, ..., None]
        np.testing.assert_allclose(back[row][: len(array)], array, atol=1e-4)
        assert np.isnan(back[row][len(array) :]).all()


def test_pictures_are_read_block_by_block(pictures):
    """What a step does not keep is never there; what is known as observed is what is read."""
    _, data, tokeniser = pictures
    places = np.array([3, -1, 5])
    stored = StoredPatches(tokeniser, data, places)
    whole = stored.load()
    assert torch.equal(stored.observed, whole.isfinite().any(-1))
    kept = stored.observed & (torch.arange(tokeniser.length) % 2 == 0)
    part = stored.load(kept)
    assert torch.equal(part.isfinite().any(-1), kept)
    torch.testing.assert_close(part[kept], whole[kept], equal_nan=True)
    assert torch.equal(stored[torch.tensor([2])].load().nan_to_num(), whole[[2]].nan_to_num())


def test_untokenise_inverts_tokenise(valued):
    data, tokeniser, values = valued
    back = tokeniser.untokenise(tokeniser.tokenise(data), list(data.obs_names))
    before = raw(values, back.var_names)
    np.testing.assert_allclose(raw(back, back.var_names), before, rtol=2e-5, atol=1e-5)
    assert list(back.obs_names) == list(data.obs_names)
    assert back.uns["scale"] == values.uns["scale"]


def test_patches_are_standard_units_with_holes_where_nothing_was_measured(valued):
    data, tokeniser, values = valued
    patches = tokeniser.tokenise(data)
    assert patches.shape == (data.n_obs, tokeniser.length, tokeniser.width)
    assert patches.dtype == np.float32
    back = tokeniser.untokenise(patches, list(data.obs_names))
    holes = np.isnan(raw(values, back.var_names)).sum()
    padding = tokeniser.length * tokeniser.width - back.n_vars
    assert np.isnan(patches).sum() == holes + padding * data.n_obs
    assert np.nanstd(patches) == pytest.approx(1.0, abs=0.3)


def test_one_patient_is_tokenised_as_among_others(example):
    _, data, tokeniser = example
    together = tokeniser.tokenise(data)
    alone = tokeniser.tokenise(data[[3]].copy())
    np.testing.assert_array_equal(alone[0], together[3])


def test_features_the_cohort_lacks_are_holes(table):
    _, data, tokeniser = table
    name = tokeniser.untokenise(tokeniser.tokenise(data), list(data.obs_names)).var_names[0]
    fewer = data[:, data.var_names != name].copy()
    patches = tokeniser.tokenise(fewer)
    back = tokeniser.untokenise(patches, list(data.obs_names))
    assert np.isnan(raw(back, [name])).all()


def test_order_of_columns_in_the_file_changes_nothing(table):
    _, data, tokeniser = table
    shuffled = data[:, np.random.default_rng(1).permutation(data.n_vars)].copy()
    np.testing.assert_array_equal(tokeniser.tokenise(shuffled), tokeniser.tokenise(data))


def test_fitting_learns_nothing_from_other_patients(table):
    modality, data, _ = table
    train = data[:16].copy()
    spoilt = anndata.concat([train, data[16:]], merge="same", uns_merge="same")
    spoilt.X[16:] = 1e6
    first, second = modality.fit(train), modality.fit(spoilt[:16].copy())
    np.testing.assert_array_equal(first.tokenise(data), second.tokenise(data))


def test_state_restores_without_pickle(example):
    modality, data, tokeniser = example
    settings, arrays = tokeniser.state()
    restored = modality.restore((json.loads(json.dumps(settings)), arrays))
    np.testing.assert_array_equal(restored.tokenise(data), tokeniser.tokenise(data))


@pytest.mark.parametrize("shared", [True, False])
def test_embed_and_predict_have_the_right_shapes(example, shared):
    modality, data, tokeniser = example
    patches = torch.from_numpy(tokeniser.tokenise(data)).flatten(0, 1)
    inside = torch.arange(tokeniser.length).repeat(data.n_obs)
    tokens = modality.embed(tokeniser, 8, shared=shared)(patches, inside)
    assert tokens.shape == (len(patches), 8)
    assert tokens.isfinite().all()
    predicted = modality.predict(tokeniser, 8, shared=shared)(tokens, inside)
    assert predicted.shape == patches.shape


def test_embed_is_token_wise(example):
    """No token sees another before packing, else hidden values would leak."""
    modality, data, tokeniser = example
    embed = modality.embed(tokeniser, 8, shared=False)
    patches = torch.from_numpy(tokeniser.tokenise(data)).flatten(0, 1)
    inside = torch.arange(tokeniser.length).repeat(data.n_obs)
    tokens = embed(patches, inside)
    for row in (0, len(patches) - 1):
        torch.testing.assert_close(embed(patches[[row]], inside[[row]])[0], tokens[row])


def test_written_values_are_read_back(table, tmp_path):
    modality, data, _ = table
    (path,) = modality.write(data, tmp_path)
    back = anndata.read_h5ad(path)
    np.testing.assert_array_equal(np.asarray(back.X), np.asarray(data.X))
