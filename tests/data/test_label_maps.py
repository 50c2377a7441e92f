"""Label maps of a cohort: read on the cubes of the MRI, kept beside them, and written back."""

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from monai.transforms import CenterSpatialCrop

import omnisurv as om
from omnisurv.data.readers.labels import whole_labels
from omnisurv.data.readers.volumes import save_labels, whole
from omnisurv.data.regions import from_common
from omnisurv.data.spec import DataSpec
from omnisurv.data.store import Store
from omnisurv.errors import DataError, SpecError
from omnisurv.preprocessing import preprocess

SEQUENCES = ("t1", "t1ce", "t2", "flair")
LPS = np.diag([-1.0, -1, 1, 1])
LPS[:2, 3] = 11, 10
SHAPE = (12, 11, 9)


def volume(seed, shape=SHAPE):
    """Whole numbers with a shell of background."""
    data = np.zeros(shape, np.int16)
    inner = data[1:-1, 1:-1, 1:-1]
    inner[:] = np.random.default_rng(seed).integers(1, 200, inner.shape)
    return data


def labels(seed=0, shape=SHAPE, present=(1, 2, 3)):
    """Common labels, on canonical axes, all of ``present`` among them."""
    data = np.zeros(shape, np.uint8)
    data[3:9, 3:8, 2:7] = np.random.default_rng(seed).choice([0, *present], (6, 5, 5))
    return data


def save(path, data, affine=LPS):
    """Write canonical data in LPS, as BraTS has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(data[::-1, ::-1]), affine), path)
    return path


def case(root, name, seed=0, seg=None, sequences=SEQUENCES, shape=SHAPE, affine=LPS):
    for number, sequence in enumerate(sequences):
        save(
            root / f"mri/{name}/{name}_{sequence}.nii.gz", volume(seed * 9 + number, shape), affine
        )
    if seg is not None:
        save(root / f"mri/{name}/{name}_seg.nii.gz", seg, affine)


def written(maps=None, sequences=SEQUENCES, **options):
    options = {"crop": "centre", "size": 8, "patch": 4, **options}
    spec = {
        "name": "tumours",
        "patients": {"id": "column"},
        "modalities": {
            name: {
                "kind": "mri",
                "source": {"format": "brats", "path": "mri", "sequence": name},
                **options,
            }
            for name in sequences
        },
    }
    maps = {"source": {"format": "brats", "path": "mri"}} if maps is None else maps
    return spec | {"segmentation": maps}


@pytest.fixture
def read(tmp_path):
    def go(maps=None, **options):
        spec = DataSpec.parse(written(maps, **options))
        return om.Cohort.from_spec(spec, root=tmp_path, store=Store(tmp_path / "store"))

    return go


# What is read.


def test_a_label_map_lies_on_the_cube_of_the_sequences(tmp_path, read):
    seg = labels()
    case(tmp_path, "P1", seg=from_common(seg, "brats21"))
    cohort = read()
    maps = cohort.label_maps
    assert list(maps.obs_names) == ["P1"]
    assert maps.uns["scale"] == "labels"
    found = maps.array(0)
    assert (found.shape, found.dtype) == ((8, 8, 8), np.uint8)
    np.testing.assert_array_equal(found, seg[2:10, 1:9, 0:8])
    like = cohort["t1ce"].meta(0)
    for key in ("affine", "shape", "canonical", "start", "size"):
        assert maps.meta(0)[key] == like[key]
    assert maps.meta(0)["edition"] == "brats21"
    assert maps.meta(0)["file"] == "P1_seg.nii.gz"
    assert set(like) - set(maps.meta(0)) == {"mean", "sd", "sequence", "spacing", "reference"}


@pytest.mark.parametrize("size", [4, 5, 8, 9])
def test_the_cube_is_monais_centre_crop_in_every_sequence(tmp_path, read, size):
    case(tmp_path, "P1", seg=labels(), sequences=("t1", "flair"))
    first = nib.load(tmp_path / "mri/P1/P1_t1.nii.gz")
    image = nib.as_closest_canonical(first).get_fdata()
    wanted = np.asarray(CenterSpatialCrop(size)(image[None]))[0]
    cohort = read(sequences=("t1", "flair"), size=size, patch=1)
    meta = cohort["t1"].meta(0)
    cube = cohort["t1"].array(0)
    np.testing.assert_allclose(cube * meta["sd"] + meta["mean"] * (cube != 0), wanted, atol=1e-3)
    assert cohort["flair"].meta(0)["start"] == meta["start"]
    assert meta["box"] == "centre"


def test_beyond_the_volume_is_255(tmp_path, read):
    seg = labels()
    case(tmp_path, "P1", seg=seg)
    cohort = read(size=12, patch=4)
    found = cohort.label_maps.array(0)
    outside = np.isnan(cohort["t2"].array(0))
    assert outside.sum() == 12**3 - 12 * 11 * 9
    np.testing.assert_array_equal(found == 255, outside)
    np.testing.assert_array_equal(found[~outside].reshape(SHAPE), seg)


def test_labels_are_never_mixed_where_volumes_are_resampled(tmp_path, read):
    seg = labels(shape=(12, 12, 12))
    case(tmp_path, "P1", seg=seg, shape=(12, 12, 12))
    cohort = read(spacing=1.3, size=8)
    found, meta = cohort.label_maps.array(0), cohort.label_maps.meta(0)
    grid = nib.as_closest_canonical(
        nib.Nifti1Image(np.zeros(meta["shape"], np.uint8), np.array(meta["affine"]))
    )
    voxels = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1) + meta["start"]
    canonical = LPS @ np.diag([-1.0, -1, 1, 1])
    canonical[:2, 3] -= 11
    there = voxels @ (np.linalg.inv(canonical) @ grid.affine)[:3, :3].T
    there += (np.linalg.inv(canonical) @ grid.affine)[:3, 3]
    inside = (there > -0.5) & (there < 11.5)
    assert inside.all()
    np.testing.assert_array_equal(found, seg[tuple(np.moveaxis(there.round().astype(int), -1, 0))])


def test_who_has_no_label_map_stays_in_the_cohort(tmp_path, read):
    case(tmp_path, "P1", 1, seg=labels(1))
    case(tmp_path, "P2", 2)
    case(tmp_path, "P3", 3, seg=labels(3), sequences=("t2",))
    cohort = read()
    assert list(cohort.patients) == ["P1", "P2", "P3"]
    assert list(cohort.label_maps.obs_names) == ["P1", "P3"]
    np.testing.assert_array_equal(cohort.label_maps.array(1), labels(3)[2:10, 1:9, 0:8])


def test_the_maps_follow_the_patients_and_are_no_modality(tmp_path, read):
    for number in range(8):
        case(tmp_path, f"P{number}", number, seg=labels(number), sequences=("t1", "t2"))
    cohort = read(sequences=("t1", "t2"))
    assert cohort.modalities == ["t1", "t2"]
    assert list(cohort.availability) == ["t1", "t2"]
    some = cohort.subset(["P5", "P2"])
    assert list(some.label_maps.obs_names) == ["P2", "P5"]
    np.testing.assert_array_equal(some.label_maps.array(1), labels(5)[2:10, 1:9, 0:8])
    for part in (*cohort.split(), *cohort.folds(2)[1]):
        assert list(part.label_maps.obs_names) == list(part.patients)
    less = cohort.drop_modalities(["t1"])
    assert list(less.label_maps.obs_names) == list(cohort.patients)
    assert len(cohort.subset([]).label_maps) == 0
    assert set(cohort.to_mudata().mod) == set()


def test_the_fingerprint_knows_the_label_maps(tmp_path, read):
    case(tmp_path, "P1", 1, seg=labels(1))
    one = read().fingerprint()
    assert read().fingerprint() == one
    save(tmp_path / "mri/P1/P1_seg.nii.gz", labels(2))
    assert read().fingerprint() != one
    spec = written()
    del spec["segmentation"]
    without = om.Cohort.from_spec(DataSpec.parse(spec), tmp_path, Store(tmp_path / "store"))
    assert without.label_maps is None
    assert without.fingerprint() != one


def test_one_edition_counts_for_all_maps(tmp_path, read):
    """Whoever has no enhancing tumour cannot tell it; the others of the cohort do."""
    case(tmp_path, "P1", 1, seg=from_common(labels(1), "brats21"))
    case(tmp_path, "P2", 2, seg=labels(2, present=(1, 2)))
    maps = read().label_maps
    assert [maps.meta(row)["edition"] for row in (0, 1)] == ["brats21", "brats21"]
    assert [set(np.unique(maps.array(row))) for row in (0, 1)] == [{0, 1, 2, 3}, {0, 1, 2}]


@pytest.mark.parametrize("edition", ["brats15", "brats21", "brats23", "brats24", "msd"])
def test_an_edition_that_is_said(tmp_path, read, edition):
    case(tmp_path, "P1", seg=from_common(labels(), edition))
    maps = read({"source": {"format": "brats", "path": "mri"}, "labels": edition}).label_maps
    np.testing.assert_array_equal(maps.array(0), labels()[2:10, 1:9, 0:8])
    assert maps.meta(0)["edition"] == edition


def test_a_table_may_name_them(tmp_path, read):
    case(tmp_path, "P1", 1, seg=labels(1))
    case(tmp_path, "P2", 2)
    save(tmp_path / "elsewhere/two.nii.gz", labels(2))
    rows = ["patient,mask", "P1,mri/P1/P1_seg.nii.gz", "P2,elsewhere/two.nii.gz", "P3,x.nii"]
    (tmp_path / "scans.csv").write_text("\n".join(rows))
    cohort = read({"source": {"format": "nifti", "table": "scans.csv"}})
    assert list(cohort.label_maps.obs_names) == ["P1", "P2"]
    np.testing.assert_array_equal(cohort.label_maps.array(1), labels(2)[2:10, 1:9, 0:8])
    cohort = read({"source": {"format": "nifti", "table": "scans.csv", "labels": "mask"}})
    assert len(cohort.label_maps) == 2


def test_preprocessing_keeps_them(tmp_path):
    case(tmp_path, "P1", 1, seg=from_common(labels(1), "brats21"))
    case(tmp_path, "P2", 2)
    out = tmp_path / "out"
    spec = DataSpec.parse(written())
    cohort = om.Cohort.from_spec(spec, tmp_path, Store(out / "store"))
    path = preprocess(cohort, tmp_path, out)
    told = yaml.safe_load(path.read_text())["segmentation"]
    source = {"format": "store", "path": "store/segmentation.labels.json"}
    assert told == {"source": source, "labels": "brats21"}
    moved = tmp_path / "moved"
    shutil.move(out, moved)
    shutil.rmtree(tmp_path / "mri")
    again = om.Cohort.from_spec(moved / "cohort.yaml")
    assert list(again.label_maps.obs_names) == ["P1"]
    np.testing.assert_array_equal(again.label_maps.array(0), labels(1)[2:10, 1:9, 0:8])
    assert again.label_maps.meta(0)["edition"] == "brats21"
    assert again.fingerprint() == cohort.fingerprint()
    assert str(tmp_path) not in "".join(file.read_text() for file in moved.rglob("*.json"))
    text = path.name and (moved / "cohort.yaml").read_text()
    (moved / "cohort.yaml").write_text(text.replace("size: 8", "size: 4"))
    with pytest.raises(DataError, match=r"was decoded with `size: 8`, the spec says `size: 4`"):
        om.Cohort.from_spec(moved / "cohort.yaml")


# Whole volumes, and back.


@pytest.mark.parametrize("spacing", [None, 2.0])
def test_the_cube_is_a_part_of_the_whole_volume(tmp_path, read, spacing):
    case(tmp_path, "P1", seg=labels())
    entry = read(spacing=spacing, size=8 if spacing is None else 4)["t1ce"].entries[0]
    volume = whole(entry)
    assert volume.dtype == np.float32
    if spacing is None:
        assert volume.shape == SHAPE
        raw = nib.as_closest_canonical(nib.load(tmp_path / "mri/P1/P1_t1ce.nii.gz")).get_fdata()
        brain = raw[raw != 0]
        np.testing.assert_allclose(
            volume, np.where(raw == 0, 0, (raw - brain.mean()) / brain.std()), atol=1e-5
        )
    x, y, z = entry.meta["start"]
    side = entry.meta["size"]
    np.testing.assert_array_equal(volume[x : x + side, y : y + side, z : z + side], entry.open())


def test_a_sequence_that_was_brought_onto_another_grid_is_whole_there(tmp_path, read):
    case(tmp_path, "P1", seg=labels(), sequences=("t1",))
    shifted = LPS.copy()
    shifted[0, 3] += 1.0
    save(tmp_path / "mri/P1/P1_flair.nii.gz", volume(5, (14, 11, 9)), shifted)
    entry = read(sequences=("t1", "flair"), resample=True)["flair"].entries[0]
    volume_ = whole(entry)
    assert volume_.shape == SHAPE
    np.testing.assert_array_equal(volume_[2:10, 1:9, 0:8], entry.open())


def test_without_the_file_there_is_no_whole_volume(tmp_path, read):
    case(tmp_path, "P1", 1, seg=labels())
    entry = read()["t1"].entries[0]
    file = tmp_path / "mri/P1/P1_t1.nii.gz"
    kept = file.read_bytes()
    save(file, volume(99))
    assert whole(entry) is None  # it is another one
    file.write_bytes(kept)
    assert whole(entry) is not None
    file.unlink()
    assert whole(entry) is None
    from omnisurv.modalities.mri import Mri

    assert whole(Mri.example(np.random.default_rng(0))[1].entries[0]) is None


def test_a_store_finds_the_files_beside_it(tmp_path, monkeypatch):
    case(tmp_path, "P1", 1, seg=labels(1))
    out = tmp_path / "out"
    spec = DataSpec.parse(written())
    preprocess(om.Cohort.from_spec(spec, tmp_path, Store(out / "store")), tmp_path, out)
    stored = om.Cohort.from_spec(out / "cohort.yaml")["t2"].entries[0]
    assert whole(stored) is None
    (out / "mri").symlink_to(tmp_path / "mri")
    stored = om.Cohort.from_spec(out / "cohort.yaml")["t2"].entries[0]
    np.testing.assert_array_equal(whole(stored)[2:10, 1:9, 0:8], stored.open())


@pytest.mark.parametrize("edition", ["brats15", "brats21", "brats23", "msd"])
def test_labels_are_written_on_the_patients_grid(tmp_path, read, edition):
    seg = labels()
    case(tmp_path, "P1", seg=seg)
    meta = read()["t1"].meta(0)
    path = save_labels(tmp_path / "out.nii.gz", seg, meta, edition)
    image, scan = nib.load(path), nib.load(tmp_path / "mri/P1/P1_t1.nii.gz")
    np.testing.assert_array_equal(image.affine, scan.affine)
    assert (image.shape, image.get_data_dtype()) == (scan.shape, np.uint8)
    wanted = from_common(seg, edition)[::-1, ::-1]
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), wanted)
    assert image.header["descrip"].item() == f"tumour labels of {edition}, by omnisurv".encode()


def test_labels_of_a_cube_are_background_elsewhere(tmp_path, read):
    seg = labels()
    case(tmp_path, "P1", seg=from_common(seg, "brats21"))
    maps = read(size=12, patch=4).label_maps
    path = save_labels(tmp_path / "a.nii.gz", maps.array(0), maps.meta(0), "brats21")
    original = nib.load(tmp_path / "mri/P1/P1_seg.nii.gz")
    np.testing.assert_array_equal(
        np.asanyarray(nib.load(path).dataobj), np.asanyarray(original.dataobj)
    )
    small = read(size=4).label_maps
    path = save_labels(tmp_path / "b.nii.gz", small.array(0), small.meta(0), "brats21")
    back = np.asanyarray(nib.load(path).dataobj)[::-1, ::-1]
    np.testing.assert_array_equal(back[4:8, 3:7, 2:6], from_common(seg, "brats21")[4:8, 3:7, 2:6])
    assert (back > 0).sum() == (seg[4:8, 3:7, 2:6] > 0).sum()
    with pytest.raises(DataError, match=r"shape \(5, 5, 5\) are neither the whole volume \(12, 11"):
        save_labels(path, np.zeros((5, 5, 5), np.uint8), small.meta(0), "brats21")


@pytest.mark.parametrize("form", ["whole", "cube"])
def test_labels_come_back_to_the_files_grid_where_it_was_resampled(tmp_path, read, form):
    seg = np.zeros((12, 12, 12), np.uint8)
    seg[2:6, 4:8, 4:10] = 2
    seg[3:5, 5:7, 5:8] = 3
    case(tmp_path, "P1", seg=seg, shape=(12, 12, 12))
    maps = read({"source": {"format": "brats", "path": "mri"}, "labels": "brats23"},
                spacing=0.5, size=32).label_maps  # fmt: skip
    fine = maps.array(0)
    if form == "whole":
        side = np.array(maps.meta(0)["shape"])
        start = -np.array(maps.meta(0)["start"])
        assert (start > 0).all()
        fine = fine[tuple(slice(a, a + n) for a, n in zip(start, side, strict=True))]
    path = save_labels(tmp_path / "out.nii.gz", fine, maps.meta(0), "brats23")
    original = nib.load(tmp_path / "mri/P1/P1_seg.nii.gz")
    image = nib.load(path)
    np.testing.assert_array_equal(image.affine, original.affine)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(original.dataobj))


@pytest.mark.parametrize("spacing", [None, 1.3])
def test_the_whole_label_map_lies_on_the_whole_volume(tmp_path, read, spacing):
    seg = labels()
    case(tmp_path, "P1", seg=from_common(seg, "brats21"))
    cohort = read(spacing=spacing)
    entry = cohort.label_maps.entries[0]
    found = whole_labels(entry)
    assert found.shape == whole(cohort["t1"].entries[0]).shape
    assert found.dtype == np.uint8
    start, side = entry.meta["start"], found.shape
    cube = np.full((8, 8, 8), 255)
    there = tuple(slice(max(a, 0), min(a + 8, n)) for a, n in zip(start, side, strict=True))
    here = tuple(slice(t.start - a, t.stop - a) for t, a in zip(there, start, strict=True))
    cube[here] = found[there]
    np.testing.assert_array_equal(entry.open(), cube)
    if spacing is None:
        np.testing.assert_array_equal(found, seg)
    file = tmp_path / "mri/P1/P1_seg.nii.gz"
    save(file, from_common(labels(7), "brats21"))
    assert whole_labels(entry) is None
    file.unlink()
    assert whole_labels(entry) is None


def test_specs_with_label_maps_survive_json():
    maps = {"source": {"format": "nifti", "table": "scans.csv", "labels": "seg"}, "labels": "msd"}
    for spec in (DataSpec.parse(written(maps)), DataSpec.parse(written())):
        assert DataSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.realdata
def test_a_real_label_map_is_read_whole_and_written_back(real_data, tmp_path):
    maps = {"source": {"format": "brats", "path": "mri"}, "labels": "brats21"}
    spec = written(maps, sequences=("t1ce",), size=128, patch=16) | {"patients": {"id": "tcga"}}
    cohort = om.Cohort.from_spec(DataSpec.parse(spec), real_data, Store(tmp_path))
    scan, entry = cohort["t1ce"].entries[0], cohort.label_maps.entries[0]
    scores = whole(scan)
    assert scores.shape == (240, 240, 155)
    np.testing.assert_array_equal(scores[56:184, 56:184, 13:141], scan.open())
    original = nib.load(real_data / "mri/TCGA-DU-7294/seg_fusion_mav.nii.gz")
    path = save_labels(tmp_path / "out.nii.gz", whole_labels(entry), scan.meta, "brats21")
    image = nib.load(path)
    np.testing.assert_array_equal(image.affine, original.affine)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(original.dataobj))
    assert (scores[whole_labels(entry) > 0] != 0).mean() > 0.99  # the tumour lies in the brain


# What is wrong with some.


def audited(cohort, status):
    rows = cohort.audit[cohort.audit["status"] == status]
    return (rows["modality"] + " | " + rows["patient"] + " | " + rows["reason"]).to_list()


def test_labels_of_another_edition(tmp_path, read):
    case(tmp_path, "P1", seg=labels())
    maps = {"source": {"format": "brats", "path": "mri"}, "labels": "brats21"}
    with pytest.raises(DataError) as error:
        read(maps)
    said = str(error.value)
    assert said.startswith("segmentation: none of the 1 pictures can be used; the first: ")
    assert said.endswith(
        "P1_seg.nii.gz holds the label 3, which brats21 does not have; say `labels: brats15` (or "
        "brats23, brats24, msd)"
    )


def test_three_and_four_in_one_map_stop_the_reading(tmp_path, read):
    """Whoever goes on without the map would take a resection cavity for tumour in the others."""
    case(tmp_path, "P1", 1, seg=from_common(labels(1), "brats21"))
    both = labels(2)
    both[4, 4, 4] = 4
    case(tmp_path, "P2", 2, seg=both)
    sentence = (
        r"^segmentation: .*P2_seg.nii.gz holds the labels 3 and 4, which BraTS 2015 and 2024 do, .*"
        r"; say `labels: brats15` or `labels: brats24`$"
    )
    with pytest.raises(DataError, match=sentence):
        read()
    cohort = read({"source": {"format": "brats", "path": "mri"}, "labels": "brats24"})
    assert cohort.label_maps.array(0).max() == 2  # there, 4 is the cavity
    assert cohort.label_maps.array(1)[2, 3, 4] == 0


def test_three_in_one_map_and_four_in_another_stop_it_too(tmp_path, read):
    case(tmp_path, "P1", 1, seg=from_common(labels(1), "brats21"))
    case(tmp_path, "P2", 2, seg=labels(2))
    sentence = (
        r"^segmentation: label maps of P2 hold 3 and those of P1 hold 4, .*; say `labels: brats15` "
        r"or `labels: brats24`, or give each edition a spec$"
    )
    with pytest.raises(DataError, match=sentence):
        read()


def spoil_grid(path):
    save(path, labels(), np.diag([-1.0, -1, 3, 1]))


def spoil_values(path):
    data = labels()
    data[5, 5, 5] = 7
    save(path, data)


def cut_short(path):
    noise = np.random.default_rng(0).integers(0, 4, (32, 32, 32)).astype(np.uint8)
    kept = save(path, noise).read_bytes()
    path.write_bytes(kept[: len(kept) // 2])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_grid, r"P2_seg.nii.gz is on another grid \(12×11×9 voxels of 1×1×3 mm .* than "
                     r"P2_t1.nii.gz \(12×11×9 voxels of 1×1×1 mm .*; resample the label map onto"),
        (spoil_values, r"P2_seg.nii.gz holds the label 7, which no BraTS edition has; is it a "
                       r"label map\?"),
        (cut_short, r"P2_seg.nii.gz is damaged or cut short \(.+\); download it again"),
    ],
)  # fmt: skip
def test_a_bad_label_map_is_named_and_left_out(tmp_path, read, spoil, sentence):
    for number in (1, 2):
        case(tmp_path, f"P{number}", number, seg=labels(number))
    spoil(tmp_path / "mri/P2/P2_seg.nii.gz")
    cohort = read()
    assert list(cohort.label_maps.obs_names) == ["P1"]
    assert cohort.availability.loc["P2"].all()
    (dropped,) = audited(cohort, "dropped")
    assert dropped.startswith("segmentation | P2 | damaged file: ")
    assert pd.Series([dropped]).str.contains(sentence).all(), dropped
    assert any(line.startswith("segmentation: left out: ") for line in cohort.warnings)


def test_two_label_maps_of_one_patient(tmp_path, read):
    case(tmp_path, "P1")
    for name in ("seg_a", "seg_b"):
        save(tmp_path / f"mri/P1/{name}.nii.gz", labels())
    sentence = r"^segmentation: two files .* label map of P1: .*seg_a.nii.gz and .*seg_b.nii.gz; mo"
    with pytest.raises(DataError, match=sentence):
        read()


def test_a_label_map_without_a_sequence_is_left_out(tmp_path, read):
    case(tmp_path, "P1", 1, seg=labels(1))
    save(tmp_path / "elsewhere/two.nii.gz", labels(2))
    (tmp_path / "scans.csv").write_text(
        "patient,seg\nP1,mri/P1/P1_seg.nii.gz\nP2,elsewhere/two.nii.gz\n"
    )
    cohort = read({"source": {"format": "nifti", "table": "scans.csv"}})
    assert list(cohort.label_maps.obs_names) == ["P1"]
    assert audited(cohort, "dropped") == ["segmentation | P2 | no MRI that it belongs to"]


def test_nobody_has_a_label_map(tmp_path, read):
    """As in the validation set of BraTS, whose label maps nobody is given."""
    case(tmp_path, "P1")
    cohort = read()
    assert len(cohort.label_maps) == 0
    assert "segmentation: mri: there are no label maps" in cohort.warnings
    (tmp_path / "scans.csv").write_text("patient,t1\nP1,x.nii\n")
    sentence = r"^segmentation: scans.csv has no column of label maps \(labels, .*; say `labels:`"
    with pytest.raises(DataError, match=sentence):
        read({"source": {"format": "nifti", "table": "scans.csv"}})


def test_sequences_in_several_folders_on_several_grids(tmp_path):
    case(tmp_path, "P1", seg=labels(), sequences=("t1",))
    save(tmp_path / "other/P1/P1_t2.nii.gz", volume(3, (12, 11, 11)))
    spec = written(sequences=("t1", "t2"))
    spec["modalities"]["t2"]["source"]["path"] = "other"
    sentence = r"^segmentation: P1_t2.nii.gz \(12×11×11 .*\) and P1_t1.nii.gz \(.*\) of P1 are on"
    with pytest.raises(DataError, match=sentence):
        om.Cohort.from_spec(DataSpec.parse(spec), tmp_path, Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"crop": "brain"}, "spec: modalities.t1: segmentation needs `crop: centre`, not `brain`: "
         "each sequence would have a box of its own"),
        ({"crop": "tumour"}, "spec: modalities.t1: segmentation needs `crop: centre`, not "
         "`tumour`: the box would tell where the tumour is"),
        ({"maps": {"source": {"format": "brats", "path": "mri"}, "labels": "brats22"}},
         "spec: key 'segmentation.labels': Input should be 'auto', 'brats15', 'brats21', "),
        ({"maps": {"source": {"format": "bratz", "path": "mri"}}},
         "spec: segmentation.source: unknown format 'bratz'. Did you mean 'brats'?"),
        ({"maps": {"source": {"path": "mri"}}},
         "spec: segmentation.source: key 'format' is missing."),
        ({"maps": {"source": {"format": "brats", "path": "mri", "sequence": "seg"}}},
         "spec: segmentation.source: unknown key 'sequence'."),
        ({"maps": {"source": {"format": "nifti"}}},
         "spec: segmentation.source: key 'table' is missing"),
        ({"maps": {"labels": "auto"}}, "spec: key 'segmentation.source' is missing"),
    ],
)  # fmt: skip
def test_wrong_specs_are_refused_with_one_line(change, sentence):
    change = dict(change)
    with pytest.raises(SpecError) as error:
        DataSpec.parse(written(change.pop("maps", None), **change))
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("size", 12, "8"), ("spacing", 2.0, "None"), ("resample", True, "False")],
)
def test_sequences_that_are_cut_otherwise(key, value, said):
    spec = written()
    spec["modalities"]["t2"][key] = value
    with pytest.raises(SpecError) as error:
        DataSpec.parse(spec)
    assert str(error.value) == (
        "spec: modalities.t2: segmentation needs sequences that are cut alike, but "
        f"`{key}: {value}` is not `{key}: {said}` of t1"
    )


def test_label_maps_need_mri():
    spec = written()
    table = {"kind": "table", "source": {"format": "table", "path": "a.tsv"}}
    spec["modalities"] = {"clinical": {**table, "columns": {"age": "continuous"}}}
    with pytest.raises(SpecError, match=r"^spec: segmentation needs MRI sequences, and the spec "):
        DataSpec.parse(spec)
