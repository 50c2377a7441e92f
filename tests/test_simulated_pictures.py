"""Pictures of simulated cohorts: what they show, who has them, and the files they become."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from omnisurv.data.cohort import Cohort
from omnisurv.data.spec import DataSpec
from omnisurv.errors import InputError
from omnisurv.simulation import brains, remove_cells, simulate, slides, write
from omnisurv.simulation.look import PICTURES, SEQUENCES, TRAITS

OMICS = ["clinical", "rna", "dnam", "cnv_arm", "protein"]
SIZES = {"genes": 5, "cpgs": 5, "proteins": 3}
SHORT = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
LOOK = {name: (trait.low + trait.high) / 2 for name, trait in TRAITS.items()}


def pictured(patients, seed, **options):
    return simulate(patients, seed=seed, pictures=True, **SIZES, **options)


@pytest.fixture(scope="module")
def drawn():
    return pictured(60, 4)


@pytest.fixture(scope="module")
def statistics(drawn):
    """Simple numbers of each patient's pictures, {modality: patients × numbers}."""
    rows = {name: [] for name in PICTURES}
    for patient in drawn.patients.index:
        brain = drawn.brain(patient)
        for sequence in SEQUENCES:
            rows[sequence].append(of_volume(brain.volumes[sequence], brain.labels))
        rows["wsi"].append(of_slide(drawn.slide(patient)))
    return {name: pd.DataFrame(values, drawn.patients.index) for name, values in rows.items()}


def of_volume(volume, labels):
    """Numbers of the tumour after z-scoring the brain, as a reader does."""
    brain = volume[volume > 0].astype(float)
    z = (volume - brain.mean()) / brain.std()
    core, ring, middle = np.isin(labels, (1, 3)), labels == 3, z[17:31, 12:36, 14:26]
    return {
        "mean": z[labels > 0].mean(),
        "sd": z[labels > 0].std(),
        "high": np.quantile(z[labels > 0], 0.9),
        "grain": np.abs(np.diff(z, axis=0))[(labels[1:] > 0) & (labels[:-1] > 0)].mean(),
        "core": z[core].mean(),
        "core_size": np.cbrt(core.sum()),
        "ring_size": np.cbrt(ring.sum()),
        "ring": z[ring].sum() / (1 + ring.sum()),
        "oedema": np.cbrt((labels == 2).sum()),
        "dark_middle": (middle < -1.5).mean(),
    }


def of_slide(slide):
    red, green, blue = slide[::4, ::4].reshape(-1, 3).T.astype(float)
    tissue = green < 225
    return {
        "nuclei": ((green < 110) & (red < blue - 20))[tissue].mean(),
        "red": red[tissue].mean(),
        "green": green[tissue].mean(),
        "pink": (red - blue > 8)[tissue].mean(),
    }


def explained(numbers, target):
    """R² of a linear regression on patients it was not fitted on."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    numbers = ((numbers - numbers.mean()) / numbers.std()).to_numpy()
    guess = cross_val_predict(RidgeCV(np.logspace(-2, 3, 11)), numbers, target, cv=10)
    return 1.0 - ((target - guess) ** 2).sum() / ((target - target.mean()) ** 2).sum()


# ---------------------------------------------------------------- the story


def test_pictures_leave_all_else_as_it_was():
    with_pictures, without = pictured(50, 5), simulate(50, seed=5, **SIZES)
    assert list(with_pictures.availability) == [*OMICS, *PICTURES]
    pd.testing.assert_frame_equal(with_pictures.availability[OMICS], without.availability)
    pd.testing.assert_frame_equal(with_pictures.clinical, without.clinical)
    for name in without.truth:
        pd.testing.assert_frame_equal(with_pictures.observed(name), without.observed(name))
    pd.testing.assert_frame_equal(with_pictures.look, pictured(50, 5, missing=0.0).look)


def test_traits_fill_their_range_and_follow_the_factors():
    drawn = pictured(3000, 0)
    drivers = drawn.latent.assign(age=drawn.patients["age"])
    assert list(drawn.look) == list(TRAITS)
    for name, trait in TRAITS.items():
        values, mean = drawn.look[name], drawn.look_mean[name]
        assert trait.low <= values.min() < values.max() <= trait.high
        assert abs(values.mean() - (trait.low + trait.high) / 2) < 0.05 * (trait.high - trait.low)
        # The mean given the factors is a mean: what remains is unrelated to it.
        assert abs(np.corrcoef(values - mean, mean)[0, 1]) < 0.05
        assert 0.7 < np.corrcoef(values, mean)[0, 1] ** 2 < 0.85
        main = max(trait.loads, key=lambda driver: abs(trait.loads[driver]))
        shown = np.corrcoef(values, drivers[main])[0, 1]
        assert abs(shown) > 0.6
        assert (shown > 0) == (trait.loads[main] > 0)


def test_shares_of_pictures():
    drawn = pictured(400, 1)
    sequences = drawn.availability[list(SEQUENCES)].sum(axis=1)
    assert (sequences > 0).mean() == pytest.approx(0.45, abs=0.005)
    assert set(sequences) == {0, 2, 3, 4}
    assert 0.4 < (sequences == 4).sum() / (sequences > 0).sum() < 0.75
    assert drawn.availability["wsi"].mean() == pytest.approx(0.55, abs=0.005)
    assert pictured(50, 1, missing=0.0).availability.to_numpy().all()
    assert pictured(200, 1, missing=0.7).availability["wsi"].mean() < 0.3


def test_gaps_in_pictures_are_informative_unless_told_otherwise():
    def gaps(drawn):
        has, people = drawn.availability[list(PICTURES)], drawn.patients
        gbm, late = people["project"] == "GBM", people["era"] == "late"
        scanned = has[list(SEQUENCES)].any(axis=1)
        return (
            scanned[gbm].mean() - scanned[~gbm].mean(),
            has["wsi"][gbm].mean() - has["wsi"][~gbm].mean(),
            has["t1ce"][scanned & late].mean() - has["t1ce"][scanned & ~late].mean(),
        )

    scanned, sectioned, contrast = gaps(pictured(3000, 0))
    assert scanned > 0.08
    assert sectioned < -0.08
    assert contrast > 0.1
    assert np.abs(gaps(pictured(3000, 0, informative=False))).max() < 0.06


def test_pictures_are_removed_like_any_other_cell():
    whole = pictured(40, 2, missing=0.0)
    half = remove_cells(whole, 0.5, seed=1)
    assert half.availability.to_numpy().sum() == 200
    assert half.availability.any(axis=1).all()
    assert not half.availability["wsi"].all()
    assert half.look.equals(whole.look)


def test_the_cohort_in_memory_is_without_pictures(drawn):
    cohort = drawn.to_cohort()
    assert list(cohort.modalities) == OMICS
    assert len(cohort.patients) == len(drawn)


# ---------------------------------------------------------------- what pictures show


@pytest.mark.parametrize(
    ("modality", "numbers", "driver", "least"),
    [
        ("t1", ["dark_middle"], "age", 0.45),
        ("t1ce", ["ring", "ring_size"], "factor_1", 0.4),
        ("t1", ["core_size"], "factor_2", 0.45),
        ("flair", ["oedema", "mean"], "factor_3", 0.5),
        ("t2", ["grain", "sd", "mean"], "factor_5", 0.4),
        ("flair", ["core", "ring"], "factor_6", 0.25),
        ("wsi", ["nuclei", "red"], "factor_2", 0.4),
        ("wsi", ["red", "green", "pink"], "factor_3", 0.45),
    ],
)
def test_factors_are_readable_from_pictures(drawn, statistics, modality, numbers, driver, least):
    drivers = drawn.latent.assign(age=drawn.patients["age"])
    assert explained(statistics[modality][numbers], drivers[driver]) > least


def test_pictures_tell_of_the_outcome(drawn, statistics):
    for modality in ("t1", "t1ce", "flair"):
        assert explained(statistics[modality], drawn.oracle_risk) > 0.3


INTENSITIES = ["mean", "sd", "high", "grain", "core", "dark_middle"]


@pytest.mark.parametrize(
    ("told", "teller", "number", "least"),
    [
        ("t1", "t1ce", "dark_middle", 0.8),
        ("t1", "t2", "sd", 0.5),
        ("t1ce", "flair", "dark_middle", 0.6),
        ("t2", "t1", "sd", 0.5),
        ("t2", "flair", "high", 0.4),
        ("flair", "t1", "dark_middle", 0.6),
    ],
)
def test_sequences_tell_of_each_other(statistics, told, teller, number, least):
    assert explained(statistics[teller][INTENSITIES], statistics[told][number]) > least


def test_slides_and_mri_tell_of_each_other(statistics):
    assert explained(statistics["flair"], statistics["wsi"]["green"]) > 0.2
    assert explained(statistics["wsi"], statistics["flair"]["oedema"]) > 0.2


def test_a_brain_has_a_background_a_scale_of_its_own_and_three_labels(drawn):
    brain = drawn.brain(drawn.patients.index[0])
    assert list(brain.volumes) == list(SEQUENCES)
    inside = brain.volumes["t1"] > 0
    assert 0.2 < inside.mean() < 0.35
    for volume in brain.volumes.values():
        assert volume.dtype == np.int16
        assert volume.shape == brains.SHAPE
        assert ((volume > 0) == inside).all()
        assert volume.min() == 0
    assert brain.labels.dtype == np.uint8
    assert set(np.unique(brain.labels)) <= {0, 1, 2, 3}
    assert not (brain.labels > 0)[~inside].any()
    scales = [
        np.median(volume[inside])
        for patient in drawn.patients.index[:5]
        for volume in drawn.brain(patient).volumes.values()
    ]
    assert max(scales) > 5 * min(scales)


def brain(**traits):
    return brains.render({**LOOK, **traits}, np.random.default_rng(0))


def test_traits_change_what_they_name():
    large, small = (brain(tumour_radius=radius).labels for radius in (26.0, 12.0))
    assert np.isin(large, (1, 3)).sum() > 4 * np.isin(small, (1, 3)).sum()
    bright, dull = (brain(enhancement=share) for share in (0.95, 0.02))
    assert (bright.labels == 3).sum() > 100
    assert (dull.labels == 3).sum() < 10
    ring = bright.labels == 3
    t1ce, healthy = bright.volumes["t1ce"], (bright.labels == 0) & (bright.volumes["t1ce"] > 0)
    assert np.median(t1ce[ring]) > 1.3 * np.median(t1ce[healthy])
    wet, dry = (brain(oedema=width).labels for width in (19.0, 3.5))
    assert (wet == 2).sum() > 3 * (dry == 2).sum()
    flair, fluid = (
        of_volume(brain(fluid=share).volumes["flair"], brain(fluid=share).labels == 1)["mean"]
        for share in (0.0, 1.0)
    )
    assert flair > fluid + 0.5


def slide(trouble=None, **traits):
    return slides.render({**LOOK, **traits}, np.random.default_rng(1), trouble)


def test_slides_show_cells_stain_and_death_on_white():
    plain = slide()
    assert plain.shape == (slides.HEIGHT, slides.WIDTH, 3)
    assert 0.2 < (plain.min(axis=2) > 235).mean() < 0.6
    crowded, sparse = (of_slide(slide(cellularity=per_mm2)) for per_mm2 in (4800.0, 1100.0))
    assert crowded["nuclei"] > 2.5 * sparse["nuclei"]
    blue, pink = (of_slide(slide(basophilia=share)) for share in (1.0, 0.0))
    assert blue["red"] < pink["red"] - 10
    dead, alive = (of_slide(slide(dead_tissue=share)) for share in (0.35, 0.0))
    assert dead["pink"] > alive["pink"] + 0.2


def test_slides_have_the_troubles_they_are_given():
    def saturated(picture):
        return (picture.min(axis=2) < 0.2 * picture.max(axis=2)).mean()

    def sharp(picture):
        return np.abs(np.diff(picture[..., 0].astype(int), axis=1)).mean()

    plain = slide()
    assert saturated(slide(slides.Trouble(pen=True))) > saturated(plain) + 0.015
    assert sharp(slide(slides.Trouble(blurred=True))) < 0.95 * sharp(plain)
    assert (slide(slides.Trouble(frozen=True)) > 235).mean() > (plain > 235).mean() + 0.02


def test_the_same_patient_is_drawn_the_same(drawn):
    patient, other = drawn.patients.index[:2]
    again = pictured(60, 4, missing=0.0)
    np.testing.assert_array_equal(
        drawn.brain(patient).volumes["t2"], again.brain(patient).volumes["t2"]
    )
    np.testing.assert_array_equal(drawn.slide(patient), again.slide(patient))
    assert (drawn.slide(patient) != drawn.slide(patient, number=2)).any()
    assert (drawn.slide(patient) != drawn.slide(other)).any()
    with pytest.raises(InputError, match="there is no simulated patient TCGA-XX-0000"):
        drawn.brain("TCGA-XX-0000")


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def few():
    # Nine with MRI, of two, three and four sequences, eleven with slides; all traps are there.
    return pictured(20, 279)


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    pytest.importorskip("nibabel")
    pytest.importorskip("openslide")
    pytest.importorskip("imagecodecs")
    return write(few, tmp_path_factory.mktemp("pictured")).parent


@pytest.fixture(scope="module")
def mapping(folder):
    return pd.read_csv(folder / "mri" / "mapping.tsv", sep="\t").set_index("patient")["case"]


def test_mri_lies_as_brats_does(few, folder, mapping):
    has = few.availability[list(SEQUENCES)]
    assert set(mapping.index) == set(has.index[has.any(axis=1)])
    assert mapping.is_unique
    assert mapping.str.fullmatch(r"BraTS-GLI-\d{5}-000").all()
    assert {path.name for path in (folder / "mri").iterdir()} == {*mapping, "mapping.tsv"}
    for patient, case in mapping.items():
        files = {path.name for path in (folder / "mri" / case).iterdir()}
        taken = {f"{case}-{SHORT[name]}.nii.gz" for name in has.columns[has.loc[patient]]}
        assert files - {f"{case}-seg.nii.gz"} == taken


def test_volumes_open_with_nibabel(few, folder, mapping):
    import nibabel

    for patient, case in mapping.head(3).items():
        drawn = few.brain(patient)
        for sequence, volume in drawn.volumes.items():
            path = folder / "mri" / case / f"{case}-{SHORT[sequence]}.nii.gz"
            if not few.availability.loc[patient, sequence]:
                continue
            image = nibabel.load(path)
            np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
            assert image.get_data_dtype() == np.int16
            assert image.header.get_xyzt_units()[0] == "mm"
            assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
            np.testing.assert_allclose(image.affine, brains.affine())
            np.testing.assert_allclose(image.header.get_zooms(), [4.0, 4.0, 4.0])


def test_some_segmentations_are_empty_and_some_are_not_there(few, folder, mapping):
    import nibabel

    told = pd.read_csv(folder / "truth" / "scans.tsv", sep="\t", keep_default_na=False)
    assert set(told["segmentation"]) == {"whole", "empty", "none"}
    assert (told.set_index("patient")["case"] == mapping).all()
    for patient, case, segmentation in told.itertuples(index=False):
        path = folder / "mri" / case / f"{case}-seg.nii.gz"
        assert path.exists() == (segmentation != "none")
        if path.exists():
            labels = np.asarray(nibabel.load(path).dataobj)
            assert labels.dtype == np.uint8
            expected = few.brain(patient).labels * (segmentation == "whole")
            np.testing.assert_array_equal(labels, expected)


def test_slides_lie_as_those_of_gdc_do(few, folder):
    sheet = pd.read_csv(folder / "gdc_sample_sheet.tsv", sep="\t")
    sheet = sheet[sheet["Data Type"] == "Slide Image"]
    on_disk = {(path.parent.name, path.name) for path in folder.glob("wsi/*/*.svs")}
    assert on_disk == set(zip(sheet["File ID"], sheet["File Name"], strict=True))
    name = r"(TCGA-\w\w-\w{4})-(01Z-00-DX[12]|01A-01-TS1)\.[0-9A-F-]{36}\.svs"
    parts = sheet["File Name"].str.extract(f"^{name}$")
    assert (parts[0] == sheet["Case ID"]).all()
    assert (sheet["Sample ID"] == parts[0] + "-" + parts[1].str.slice(0, 3)).all()
    assert set(parts[1]) == {"01Z-00-DX1", "01Z-00-DX2", "01A-01-TS1"}
    first = sheet["Case ID"][parts[1] == "01Z-00-DX1"]
    assert set(first) == set(few.availability.index[few.availability["wsi"]])
    assert first.is_unique
    frozen = parts[1] == "01A-01-TS1"
    assert set(sheet["Preservation Method"][~frozen]) == {"FFPE"}
    assert "FFPE" not in set(sheet["Preservation Method"][frozen])
    told = pd.read_csv(folder / "truth" / "slides.tsv", sep="\t")
    assert list(told["file"]) == list(sheet["File Name"])
    assert (told["frozen"].to_numpy() == frozen.to_numpy()).all()
    assert told["pen"].any()


def test_slides_open_with_openslide(few, folder):
    import openslide

    told = pd.read_csv(folder / "truth" / "slides.tsv", sep="\t")
    told = told[told["file"].str.contains("DX1") & ~told["pen"] & ~told["blurred"]]
    patient, name = told.iloc[0][["patient", "file"]]
    with openslide.OpenSlide(next(folder.glob(f"wsi/*/{name}"))) as file:
        assert file.properties["openslide.vendor"] == "aperio"
        assert float(file.properties["openslide.mpp-x"]) == 0.499
        assert file.properties["openslide.objective-power"] == "20"
        assert file.level_dimensions == ((1280, 1024), (320, 256))
        read = np.asarray(file.read_region((0, 0), 0, (1280, 1024)))[..., :3].astype(int)
        overview = np.asarray(file.read_region((0, 0), 1, (320, 256)))[..., :3].astype(int)
    drawn = few.slide(patient)
    assert np.abs(read - drawn).mean() < 5  # JPEG, and the colours of the file are right
    means = drawn.reshape(256, 4, 320, 4, 3).mean(axis=(1, 3))
    assert np.abs(overview - means).mean() < 5


def test_a_slide_may_not_tell_its_resolution(tmp_path):
    openslide = pytest.importorskip("openslide")
    pytest.importorskip("imagecodecs")
    slides.write_svs(np.full((256, 256, 3), 200, np.uint8), tmp_path / "old.svs", mpp=None)
    with openslide.OpenSlide(tmp_path / "old.svs") as file:
        assert file.properties["openslide.vendor"] == "aperio"
        assert "openslide.mpp-x" not in file.properties
        assert "openslide.objective-power" not in file.properties


def test_writing_pictures_is_deterministic(few, folder, tmp_path):
    write(few, tmp_path)
    files = [path for path in folder.rglob("*") if path.suffix in (".gz", ".svs", ".tsv")]
    assert len(files) > 50
    for path in files:
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_truth_holds_the_traits(few, folder):
    for name, values in (("look", few.look), ("mean_look", few.look_mean)):
        stored = pd.read_parquet(folder / "truth" / f"{name}.parquet")
        pd.testing.assert_frame_equal(stored, values)


def test_spec_names_the_pictures(folder):
    spec = yaml.safe_load((folder / "cohort.yaml").read_text())
    assert list(spec["modalities"]) == [*OMICS, *PICTURES]
    for sequence in SEQUENCES:
        source = spec["modalities"][sequence]["source"]
        assert source["sequence"] == sequence
        assert (folder / source["path"]).is_dir()
        assert (folder / source["mapping"]).is_file()
    assert spec["modalities"]["wsi"]["source"]["format"] == "slides"
    assert list(DataSpec.load(folder / "cohort.yaml").modalities) == [*OMICS, *PICTURES]


def test_readers_find_the_pictures_that_were_written(few, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OMNISURV_CACHE", str(tmp_path))
    cohort = Cohort.from_spec(folder / "cohort.yaml")
    pd.testing.assert_frame_equal(
        cohort.availability, few.availability.sort_index(), check_names=False
    )
    assert cohort["flair"].array(0).shape == (16, 16, 16)
    assert {cohort["t1"].meta(row)["box"] for row in range(cohort["t1"].n_obs)} >= {"tumour"}
    slides_of = cohort["wsi"]
    assert slides_of.array(0).shape[1:] == (64, 64, 3)
    # What is chosen are tiles with nuclei.
    assert all(slides_of.meta(row)["scores"][0] > 0.005 for row in range(slides_of.n_obs))


@pytest.mark.parametrize("package", ["nibabel", "tifffile", "imagecodecs"])
def test_a_missing_package_is_named_before_anything_is_written(few, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    said = f"pictures need `pip install 'omnisurv[imaging,wsi]'`: there is no {package}"
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        write(few, tmp_path / "out")
    assert not (tmp_path / "out").exists()
