"""Tile features as TRIDENT writes them: reading, prototypes, and a model that uses them."""

import h5py
import numpy as np
import pandas as pd
import pytest
import tiny

import omnisurv as om
from omnisurv.data.cohort import Cohort
from omnisurv.data.images import Images
from omnisurv.data.readers import ReadContext, read_trident
from omnisurv.data.readers.trident import TridentSource, decode_features
from omnisurv.data.spec import DataSpec, PatientRule
from omnisurv.data.store import Entry, Store, Unit
from omnisurv.errors import DataError
from omnisurv.modalities.wsi_features import (
    PrototypeTokeniser,
    WsiFeatures,
    WsiFeaturesOptions,
    summarise,
)
from omnisurv.pages.patient import modality_states
from omnisurv.preprocessing import preprocess

FOLDER = "trident/20x_256px_0px_overlap/features_uni_v1"


def slide(root, name, features, folder=FOLDER, **more):
    path = root / folder / f"{name}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["coords"] = np.zeros((len(features), 2), np.int64)
        file["coords"].attrs["patch_size_level0"] = 512
        for key, value in more.items():
            file[key] = value
    return path


def tiles(seed, n=5, width=4):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def read(root, path=FOLDER, kind="diagnostic", rule="tcga"):
    context = ReadContext(root, PatientRule(id=rule), store=Store(root / "store"))
    return read_trident(TridentSource(format="trident", path=path), context, kind), context


def test_slides_of_a_patient_are_put_together_and_frozen_ones_left_out(tmp_path):
    slide(tmp_path, "TCGA-02-0001-01Z-00-DX1.8A0F", tiles(1))
    slide(tmp_path, "TCGA-02-0001-01Z-00-DX2.77B1", tiles(2, 3))
    slide(tmp_path, "TCGA-02-0001-01A-01-TS1.99C2", tiles(3))
    slide(tmp_path, "TCGA-02-0002-01Z-00-DX1.1234", tiles(4, 7)[None])
    images, context = read(tmp_path)
    assert list(images.obs_names) == ["TCGA-02-0001", "TCGA-02-0002"]
    np.testing.assert_allclose(images.array(0), np.concatenate([tiles(1), tiles(2, 3)]), atol=2e-3)
    assert images.meta(0)["tiles"] == [5, 3]
    assert images.array(1).shape == (7, 4)
    assert images.uns["scale"] == "tile features"
    dropped = {row[1]: row[-1] for row in context.audit.rows if row[5] == "dropped"}
    assert any("a frozen slide" in reason for reason in dropped.values())


def test_large_features_keep_their_precision_and_a_slide_encoders_row_is_one_tile(tmp_path):
    big = slide(tmp_path, "P1", np.array([[1e5, 1.0], [2.0, 3.0]], np.float32))
    array, _ = decode_features(Unit("P1", (big,)), {})
    assert array.dtype == np.float32
    assert array[0, 0] == 1e5
    one = slide(tmp_path, "P2", np.array([1.0, 2.0, 3.0]))
    assert decode_features(Unit("P2", (one,)), {}).array.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (np.full((2, 3), np.nan), "features are not finite; extract them again"),
        (np.empty((0, 3)), r"features are of shape \(0, 3\), not \(tiles, width\)"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, features, says):
    with pytest.raises(DataError, match=says):
        decode_features(Unit("P", (slide(tmp_path, "P", features),)), {})


def test_a_damaged_slide_is_left_out_of_a_patient_who_has_others(tmp_path):
    slide(tmp_path, "TCGA-02-0001-01Z-00-DX1.8A0F", tiles(1))
    slide(tmp_path, "TCGA-02-0001-01Z-00-DX2.77B1", tiles(2)).write_bytes(b"no HDF5")
    images, context = read(tmp_path)
    assert images.array(0).shape == (5, 4)
    assert any("left out: " in row[-1] for row in context.audit.rows if row[5] == "dropped")


def test_other_files_and_encoders_are_named(tmp_path):
    slide(tmp_path, "TCGA-02-0001-01Z-00-DX1.8A0F", tiles(1))
    slide(tmp_path, "TCGA-02-0001-01Z-00-DX1.8A0F", tiles(1), "trident/20x/features_conch_v15")
    with pytest.raises(DataError, match=r"several encoders \(features_conch_v15, features_uni_v1"):
        read(tmp_path, "trident")
    slide(tmp_path, "TCGA-02-0002-01Z-00-DX1.8A0F", tiles(1, width=6))
    with pytest.raises(DataError, match=r"has 4 features a tile and .* has 6; give files of one"):
        read(tmp_path)
    path = tmp_path / "patches" / "TCGA-02-0003-01Z-00-DX1_patches.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["coords"] = np.zeros((4, 2))
    with pytest.raises(DataError, match=r"has no `features` \(coords\); give the folder that"):
        read(tmp_path, "patches")


def test_a_summary_is_the_mean_of_the_nearest_tiles_and_the_root_of_their_share():
    prototypes = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    own = np.array([[1, 0], [0, 1], [9, 0], [0, -1]], np.float32)
    found = summarise(own, prototypes)
    np.testing.assert_allclose(found[0], [1 / 3, 0, 0.75**0.5], atol=1e-6)
    np.testing.assert_allclose(found[1], [9, 0, 0.5])
    assert np.isnan(found[2, :2]).all()
    assert found[2, 2] == 0


def test_prototypes_are_the_sorts_of_tissue_there_are():
    modality, data = WsiFeatures.example(np.random.default_rng(0))
    tokeniser = modality.fit(data)
    away = np.abs(tokeniser.prototypes[:, None] - 4 * np.eye(3, 6)).max(-1).min(0)
    assert (away < 0.6).all()
    values = tokeniser.values(data)
    shares = values[:, values.var_names.str.endswith("share")].X
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    lacks = shares.min(1) == 0
    assert lacks[::4].all()
    patches = tokeniser.tokenise(data)
    np.testing.assert_array_equal(np.isnan(patches[..., 0]), shares == 0)
    assert np.isfinite(patches[..., -1]).all()


def test_nothing_is_learnt_from_other_patients():
    modality, data = WsiFeatures.example(np.random.default_rng(0))
    spoilt = [
        Entry(e.patient, np.full_like(e.open(), 1e3), e.meta) if row >= 16 else e
        for row, e in enumerate(data.entries)
    ]
    first = modality.fit(data[:16])
    second = modality.fit(Images(spoilt, data.uns["scale"])[:16])
    np.testing.assert_array_equal(first.tokenise(data), second.tokenise(data))
    both = modality.fit(Images(spoilt, data.uns["scale"]))
    assert not np.array_equal(first.prototypes, both.prototypes)


def test_features_of_another_encoder_are_refused():
    modality, data = WsiFeatures.example(np.random.default_rng(0))
    other = Images([Entry("P", tiles(0, width=7), {})], data.uns["scale"])
    with pytest.raises(DataError, match="tiles of P have 7 features, the model was fitted on 6"):
        modality.fit(data).tokenise(other)


def test_fewer_tiles_than_prototypes():
    data = Images([Entry(f"P{i}", tiles(i, 1), {}) for i in range(2)], "tile features")
    tokeniser = WsiFeatures("wsi", WsiFeaturesOptions(prototypes=16)).fit(data)
    assert isinstance(tokeniser, PrototypeTokeniser)
    assert tokeniser.length == 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """60 patients of whom 45 have slides; the share of the first sort of tissue is in a table."""
    root = tmp_path_factory.mktemp("features")
    draw = np.random.default_rng(0)
    sorts = 5.0 * np.eye(3, 8)
    rows = []
    for number in range(60):
        patient = f"TCGA-02-{number:04d}"
        share = draw.uniform(0.1, 0.9)
        if number % 4:
            which = draw.choice(3, size=60, p=[share, (1 - share) / 2, (1 - share) / 2])
            features = sorts[which] + draw.normal(size=(60, 8))
            slide(root, f"{patient}-01Z-00-DX1.AB{number:02d}", features.astype("f4"))
        time = int(np.ceil(draw.exponential(900 * np.exp(-3 * (share - 0.5)))))
        rows.append([patient, time, int(draw.random() < 0.8), share + 0.05 * draw.normal()])
    columns = ["patient", "time", "event", "purity"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "clinical.tsv", sep="\t", index=False)
    told = {
        "name": "slides",
        "endpoint": {"table": "clinical.tsv", "time": "time", "event": "event"},
        "modalities": {
            "clinical": {
                "kind": "table",
                "source": {"format": "table", "path": "clinical.tsv"},
                "columns": {"purity": "continuous"},
            },
            "wsi": {
                "kind": "wsi_features",
                "source": {"format": "trident", "path": FOLDER},
                "prototypes": 3,
            },
        },
        "splits": {"test": 0.3},
    }
    return Cohort.from_spec(DataSpec.parse(told), root, Store(root / "store")), root


def test_from_files_to_survival_and_back(cohort, tmp_path):
    cohort, _ = cohort
    assert cohort.availability["wsi"].sum() == 45
    dev, test = cohort.split()
    model = om.pretrain(tiny.recipe(pretrain={"epochs": 20}), dev)
    survival = om.finetune(model, dev)
    assert survival.predict(test, ["wsi"]).nunique() > 5
    again = om.load(om.save(survival, tmp_path / "run"))
    assert again.predict(test).equals(survival.predict(test))
    filled = om.impute(model, test).values["wsi"]
    own = model.tokenisers["wsi"].values(test["wsi"])
    kept = filled[own.obs_names]
    there = np.isfinite(own.X)
    np.testing.assert_allclose(np.asarray(kept.X)[there], own.X[there], rtol=1e-4, atol=1e-4)
    assert not kept.layers["imputed"][there].any()
    lacks = filled.obs["imputed"].to_numpy()
    assert lacks.sum() == (~test.availability["wsi"]).sum()
    share = filled[:, filled.var_names.str.endswith("share")]
    assert ((share.X >= 0) & (share.X <= 1)).all()
    assert (share.layers["low"] <= share.layers["high"]).all()


def test_judged_and_shown_like_any_other(cohort):
    cohort, _ = cohort
    dev, test = cohort.split()
    model = om.finetune(om.pretrain(tiny.recipe(), dev), dev)
    table = om.evaluate(model, test, train=dev, subsets="each").table
    assert {"wsi", "clinical"} <= set(table["subset"])
    imputed = om.evaluate(model, test, train=dev, task="imputation").table
    assert {"ridge", "knn"} <= set(imputed["model"][imputed["modality"] == "wsi"])
    patient = test.patients[~test.availability["wsi"]][0]
    states = modality_states(
        model, test.subset([patient]), om.impute(model, test.subset([patient]))
    )
    assert states["state"].to_dict() == {"clinical": "available", "wsi": "imputed"}


def test_decoded_once_and_read_again(cohort, tmp_path):
    cohort, root = cohort
    spec = preprocess(cohort, root, tmp_path / "out")
    again = Cohort.from_spec(spec)
    assert again.fingerprint() == cohort.fingerprint()
    np.testing.assert_array_equal(again["wsi"].array(0), cohort["wsi"].array(0))
