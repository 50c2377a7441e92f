"""The kind of slides: its options, its tokens, and what it writes of imputed tiles."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.color import rgb2hed

from omnisurv.data.images import FilledImages, Images
from omnisurv.data.readers.tissue import stained_share
from omnisurv.data.spec import DataSpec
from omnisurv.data.store import Entry
from omnisurv.errors import DataError, SpecError
from omnisurv.modalities.wsi import WARNING, Wsi, WsiOptions


@pytest.fixture
def example():
    wsi, data = Wsi.example(np.random.default_rng(0))
    return wsi, data, wsi.fit(data)


def fill(data: Images, imputed: list[bool], half: float = 20.0) -> FilledImages:
    """Return the first patients with measured or imputed tiles."""
    rng = np.random.default_rng(1)
    return FilledImages(
        patients=list(data.obs_names[: len(imputed)]),
        images=data[~np.r_[imputed, np.ones(len(data) - len(imputed), bool)]],
        values=rng.normal(150, 40, (len(imputed), 3, 8, 8, 3)).astype(np.float32),
        half=np.full((3, 8, 8, 3), half, np.float32),
        imputed=np.array(imputed),
        like=[None] * len(imputed),
        level=0.9,
        run="runs/a",
    )


def test_patch_must_divide_tile():
    values = {
        "name": "x",
        "modalities": {
            "wsi": {
                "kind": "wsi",
                "source": {"format": "slides", "path": "wsi", "assume_mpp": 0.5},
                "tile": 250,
            }
        },
    }
    with pytest.raises(
        SpecError, match=r"modalities\.wsi.*patch: 16 does not divide tile: 250; say tile: 240"
    ):
        DataSpec.parse(values)
    values["modalities"]["wsi"]["tile"] = 256
    assert DataSpec.parse(values).modalities["wsi"].source.assume_mpp == 0.5


@pytest.mark.parametrize("wrong", [{"mpp": 0}, {"slides": "ffpe"}, {"tiles": 0}, {"tyle": 1}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WsiOptions(**wrong)


def test_defaults_are_the_papers():
    o = WsiOptions()
    assert (o.tiles, o.tile, o.mpp, o.patch, o.candidates) == (10, 256, 0.5, 16, 1000)
    assert (o.slides, o.assume_mpp) == ("diagnostic", None)


def test_center_and_spread_are_those_of_all_training_pixels(example):
    _, data, tokeniser = example
    pixels = np.concatenate([data.array(row).reshape(-1, 3) for row in range(len(data))])
    np.testing.assert_allclose(tokeniser.center, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(tokeniser.spread, pixels.std(axis=0), rtol=1e-6)


def test_a_flat_channel_does_not_divide_by_zero():
    flat = Images([Entry("a", np.full((1, 8, 8, 3), 7, np.uint8), {})], "rgb")
    tokeniser = Wsi("wsi", WsiOptions(tiles=3, tile=8, patch=4)).fit(flat)
    assert tokeniser.spread.tolist() == [1, 1, 1]
    assert np.nanmax(np.abs(tokeniser.tokenise(flat))) == 0


def test_tiles_that_are_not_there_are_holes(example):
    _, data, tokeniser = example
    patches = tokeniser.tokenise(data)
    assert patches.shape == (24, 3 * 4, 4 * 4 * 3)
    for row in range(len(data)):
        tiles = len(data.array(row))
        assert tiles == 1 + row % 3
        there = np.isfinite(patches[row]).all(axis=1)
        assert there.tolist() == [True] * 4 * tiles + [False] * 4 * (3 - tiles)
        np.testing.assert_array_equal(tokeniser.observed(data, row), there)
    back = tokeniser.untokenise(patches, list(data.obs_names))
    np.testing.assert_allclose(back[2], data.array(2), atol=1e-3)
    assert np.isnan(back[0, 1:]).all()


def test_a_token_is_a_square_of_its_tile(example):
    _, data, tokeniser = example
    patches = tokeniser.tokenise(data)[2] * np.tile(tokeniser.spread, 16)
    square = (patches[4 + 1] + np.tile(tokeniser.center, 16)).reshape(4, 4, 3)
    np.testing.assert_allclose(square, data.array(2)[1, :4, 4:], atol=1e-3)


def test_tiles_of_another_size_are_refused(example):
    _, _, tokeniser = example
    other = Images([Entry("a", np.zeros((1, 16, 16, 3), np.uint8), {})], "rgb")
    with pytest.raises(DataError, match=r"picture of a is \(16, 16\), the model was fitted on"):
        tokeniser.tokenise(other)


@pytest.mark.parametrize("shared", [True, False])
def test_one_map_serves_all_patches(example, shared):
    wsi, data, tokeniser = example
    embed = wsi.embed(tokeniser, 8, shared=shared)
    patch = torch.from_numpy(tokeniser.tokenise(data))[0, :1]
    first, last = (embed(patch, torch.tensor([place])) for place in (0, 11))
    torch.testing.assert_close(first, last)
    predict = wsi.predict(tokeniser, 8, shared=shared)
    assert predict(first, torch.tensor([5])).shape == (1, 48)
    assert sum(part.numel() for part in predict.parameters()) == 8 * 48 + 48


def test_example_is_the_same_for_the_same_generator():
    one, other = (Wsi.example(np.random.default_rng(3))[1] for _ in range(2))
    np.testing.assert_array_equal(one.array(5), other.array(5))
    assert one.array(5).dtype == np.uint8
    assert one.meta(5)["scores"] == [stained_share(tile) for tile in one.array(5)]


def test_only_imputed_patients_get_files_and_these_say_so(example, tmp_path):
    wsi, data, _ = example
    filled = fill(data, [False, True, True])
    written = wsi.write(filled, tmp_path)
    assert [path.name for path in written] == [
        "wsi_manifest.tsv",
        "TCGA-00-0001_wsi_imputed_features.tsv",
        "TCGA-00-0001_wsi_imputed_synthetic.png",
        "TCGA-00-0002_wsi_imputed_features.tsv",
        "TCGA-00-0002_wsi_imputed_synthetic.png",
    ]
    assert sorted(written) == sorted(tmp_path.iterdir())
    manifest = pd.read_csv(written[0], sep="\t")
    assert manifest["patient"].tolist() == filled.patients
    assert manifest["tiles"].tolist() == [
        "measured, not written again",
        *["imputed by omnisurv runs/a"] * 2,
    ]
    assert manifest["files"][0] == "example.svs"


def test_features_of_imputed_tiles_have_their_values_and_intervals(example, tmp_path):
    wsi, data, _ = example
    filled = fill(data, [True], half=200.0)
    filled.half[..., 0] = 5.0
    table = pd.read_csv(wsi.write(filled, tmp_path)[1], sep="\t")
    tile = filled.values[0, 1]
    row = table.iloc[1]
    assert table["tile"].tolist() == [0, 1, 2]
    assert row["red_mean"] == pytest.approx(tile[..., 0].mean(), rel=1e-5)
    assert row["green_sd"] == pytest.approx(tile[..., 1].std(), rel=1e-5)
    assert row["red_mean_low"] == pytest.approx(row["red_mean"] - 5, abs=1e-3)
    assert row["red_mean_high"] == pytest.approx(row["red_mean"] + 5, abs=1e-3)
    assert (row["green_mean_low"], row["green_mean_high"]) == (0, 255)  # colours end there
    pixels = np.clip(np.rint(tile), 0, 255).astype(np.uint8)
    assert row["haematoxylin_od"] == pytest.approx(rgb2hed(pixels)[..., 0].mean())
    assert row["eosin_od"] == pytest.approx(rgb2hed(pixels)[..., 1].mean())
    assert row["stained_share"] == stained_share(pixels)
    assert (row["level"], row["imputed_by"]) == (0.9, "omnisurv runs/a")


def test_unknown_intervals_stay_empty(example, tmp_path):
    wsi, data, _ = example
    table = pd.read_csv(wsi.write(fill(data, [True], half=np.inf), tmp_path)[1], sep="\t")
    assert table["blue_mean"].notna().all()
    assert table[["blue_mean_low", "blue_mean_high"]].isna().all(axis=None)


def test_synthetic_picture_cannot_be_taken_for_tissue(example, tmp_path):
    wsi, data, _ = example
    filled = fill(data, [True])
    path = wsi.write(filled, tmp_path)[2]
    with Image.open(path) as picture:
        assert picture.info["Title"] == WARNING
        assert picture.info["Description"] == (
            "TCGA-00-0000: imputed by omnisurv runs/a: a synthetic mean picture, not tissue"
        )
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    signal = (pixels == [255, 0, 0]).all(-1) | (pixels == [255, 255, 0]).all(-1)
    assert signal.mean() > 0.2
    # No window of the size of a shown tile's third is free of marks.
    for y in range(0, pixels.shape[0] - 32, 16):
        for x in range(0, pixels.shape[1] - 32, 16):
            assert signal[y : y + 32, x : x + 32].any()
