"""Volumes as people have them: BraTS of every year, TCGA, tables; and what is wrong with some."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from omnisurv.data.readers import ReadContext, read_brats, read_nifti
from omnisurv.data.readers.brats import BratsSource
from omnisurv.data.readers.nifti import load_volume
from omnisurv.data.readers.scans import NiftiSource
from omnisurv.data.readers.volumes import decode_volume, measured
from omnisurv.data.spec import PatientRule
from omnisurv.data.store import Store, Unit
from omnisurv.errors import DataError

OPTIONS = {"crop": "brain", "size": 8, "spacing": None, "resample": False, "labels": "auto"}
TUMOUR = {**OPTIONS, "crop": "tumour", "size": 4}


def brain(seed=0, shape=(8, 8, 8), dtype=np.int16):
    """Values from 1 to 200 with a shell of background."""
    data = np.zeros(shape, dtype)
    inner = data[1:-1, 1:-1, 1:-1]
    inner[:] = np.random.default_rng(seed).integers(1, 200, inner.shape)
    return data


def save(path: Path, data, affine=None, header=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine, header), path)
    return path


@pytest.fixture
def patients(tmp_path):
    """Make a context for files in ``tmp_path`` with a patient rule."""

    def make(rule="column", pattern=None) -> ReadContext:
        told = PatientRule(id=rule, pattern=pattern)
        return ReadContext(tmp_path, told, store=Store(tmp_path / "store"))

    return make


def brats(sequence="t1ce", **keys) -> BratsSource:
    return BratsSource(format="brats", path="mri", sequence=sequence, **keys)


def listed(sequence="t1ce", **keys) -> NiftiSource:
    return NiftiSource(format="nifti", table="scans.csv", sequence=sequence, **keys)


def decode(path: Path, *labels: Path, told=None, **options):
    unit = Unit("P1", (path, *labels), {"sequence": "t1", **(told or {})})
    return decode_volume(unit, {**OPTIONS, **options})


def audited(context, status):
    return [" | ".join(row) for row in context.audit.rows if row[5] == status]


# What a cube holds.


def test_brain_voxels_are_z_scores_and_the_background_stays_zero(tmp_path):
    data = np.zeros((4, 4, 4), np.float32)
    data[1, 1, 1], data[2, 1, 1], data[2, 2, 2] = 2.0, 4.0, 9.0
    array, meta = decode(save(tmp_path / "t1.nii.gz", data), size=4)
    mean, sd = 5.0, (((2 - 5) ** 2 + (4 - 5) ** 2 + (9 - 5) ** 2) / 3) ** 0.5
    assert (meta["mean"], meta["sd"]) == pytest.approx((mean, sd))
    assert array.dtype == np.float32
    found = [array[1, 1, 1], array[2, 1, 1], array[2, 2, 2]]
    assert found == pytest.approx([(2 - 5) / sd, (4 - 5) / sd, (9 - 5) / sd])
    assert np.count_nonzero(array) == 3


def test_a_voxel_at_the_mean_is_not_taken_for_background(tmp_path):
    data = np.zeros((4, 4, 4), np.int16)
    data[1, 1, 1:4] = 10, 20, 30
    array, meta = decode(save(tmp_path / "t1.nii.gz", data), size=4)
    assert array[1, 1, 2] != 0
    assert abs(array[1, 1, 2]) < 1e-5
    np.testing.assert_array_equal(measured(array, meta), data)


def test_orientation_of_the_file_makes_no_difference(tmp_path):
    data = brain(shape=(8, 9, 10))
    ras = decode(save(tmp_path / "ras.nii.gz", data, np.diag([2.0, 1, 1, 1])))
    lps = np.diag([-2.0, -1, 1, 1])
    lps[:2, 3] = 2 * 7, 8
    flipped = decode(save(tmp_path / "lps.nii.gz", data[::-1, ::-1], lps))
    psr = np.array([[0, 0, 2, 0], [-1, 0, 0, 8], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    turned = np.ascontiguousarray(data[:, ::-1].transpose(1, 2, 0))
    swapped = decode(save(tmp_path / "psr.nii.gz", turned, psr))
    for other in (flipped, swapped):
        np.testing.assert_array_equal(other.array, ras.array)
        assert other.meta["start"] == ras.meta["start"]
    np.testing.assert_array_equal(measured(*swapped)[:, 1:-1], turned[:, 1:-1])


def test_only_the_sequence_itself_tells_its_z_scores(tmp_path, patients):
    save(tmp_path / "mri/P1/P1_t1ce.nii.gz", brain(1))
    alone = read_brats(brats(), patients(), OPTIONS)
    save(tmp_path / "mri/P1/P1_flair.nii.gz", 50 * brain(2))
    save(tmp_path / "mri/P1/P1_t1.nii.gz", brain(3))
    among = read_brats(brats(), patients(), OPTIONS)
    np.testing.assert_array_equal(among.array(0), alone.array(0))
    assert among.entries[0].key == alone.entries[0].key


def test_what_lies_outside_the_volume_is_nan(tmp_path):
    data = brain(shape=(8, 8, 5))
    array, meta = decode(save(tmp_path / "t1.nii.gz", data))
    assert meta["start"] == [0, 0, -2]
    assert np.isnan(array[:, :, :2]).all()
    assert np.isnan(array[:, :, 7]).all()
    assert np.isfinite(array[:, :, 2:7]).all()
    np.testing.assert_array_equal(measured(array, meta), data)


def test_brain_box_is_cut_around_its_middle(tmp_path):
    data = np.zeros((12, 12, 12), np.int16)
    data[2:8, 4:6, 9:12] = np.arange(36).reshape(6, 2, 3) + 1
    array, meta = decode(save(tmp_path / "t1.nii.gz", data), size=4)
    assert meta["start"] == [3, 3, 8]  # the last is shifted inside
    assert meta["box"] == "brain"
    values = measured(array, meta)
    np.testing.assert_array_equal(values[3:7, 3:7, 8:], data[3:7, 3:7, 8:])
    assert not values[:3].any()


@pytest.mark.parametrize(
    ("voxels", "start"),
    [
        ([(6, 6, 6)], [4, 4, 4]),  # as impuTMAE: centroid - half up to centroid + half
        ([(5, 6, 7), (6, 6, 7), (7, 6, 7)], [4, 4, 5]),
        ([(0, 6, 11)], [0, 4, 8]),  # shifted inside
    ],
)
def test_tumour_box_is_cut_around_the_centroid(tmp_path, voxels, start):
    labels = np.zeros((12, 12, 12), np.uint8)
    for value, voxel in zip((1, 2, 4), voxels, strict=False):
        labels[voxel] = value
    lps = np.diag([-1.0, -1, 1, 1])
    lps[:2, 3] = 11
    scan = save(tmp_path / "t1.nii.gz", brain(shape=(12, 12, 12)))
    seg = save(tmp_path / "seg.nii.gz", labels[::-1, ::-1], lps)  # the same grid, other axes
    array, meta = decode(scan, seg, **TUMOUR)
    assert meta["start"] == start
    assert (meta["box"], meta["note"]) == ("tumour", "")
    assert array.shape == (4, 4, 4)


def test_without_a_tumour_the_box_is_the_brains_and_the_audit_says_so(tmp_path, patients):
    for patient in ("P1", "P2", "P3"):
        save(tmp_path / f"mri/{patient}/{patient}_t1ce.nii.gz", brain())
    save(tmp_path / "mri/P2/P2_seg.nii.gz", np.zeros((8, 8, 8), np.uint8))
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[1, 1, 1] = 4
    save(tmp_path / "mri/P3/P3_seg.nii.gz", labels)
    context = patients()
    images = read_brats(brats(), context, TUMOUR)
    assert [images.meta(row)["box"] for row in range(3)] == ["brain", "brain", "tumour"]
    assert [images.meta(row)["note"] for row in range(3)] == [
        "no label map: box around the brain",
        "empty label map: box around the brain",
        "",
    ]
    warned = " ".join(audited(context, "warning"))
    assert "1 of 3 patients (P1): no label map: box around the brain" in warned
    assert "1 of 3 patients (P2): empty label map" in warned


def test_a_scan_with_its_skull_is_doubted(tmp_path):
    data = np.arange(1, 513, dtype=np.int16).reshape(8, 8, 8)
    meta = decode(save(tmp_path / "t1.nii.gz", data)).meta
    assert meta["note"] == "no background of zeros: is the skull removed?"


def test_spacing_resamples_and_says_where_the_voxels_are(tmp_path):
    data = np.zeros((8, 8, 8), np.float32)
    data[2:7, 2:7, 2:7] = np.arange(2, 7)[:, None, None]  # linear in x, so it stays linear
    affine = np.diag([-2.0, 2, 2, 1])
    affine[0, 3] = 14
    path = save(tmp_path / "t1.nii.gz", data[::-1], affine)
    array, meta = decode(path, size=16, spacing=1.0)
    sides = np.linalg.norm(np.array(meta["affine"])[:3, :3], axis=0)
    np.testing.assert_allclose(sides, 1.0)
    volume = measured(array, meta)
    row = np.linalg.inv(meta["affine"]) @ [8.0, 8.0, 8.0, 1.0]  # mm; voxel 4 of the file
    assert volume[tuple(row[:3].round().astype(int))] == pytest.approx(4.0, abs=1e-3)
    assert decode(path, spacing=2.0).meta["header"]  # as it is: nothing is resampled


# Sequences of a patient on several grids.


def test_sequences_on_other_grids_are_refused_naming_both(tmp_path, patients):
    save(tmp_path / "mri/P1/P1_t1.nii.gz", brain())
    save(tmp_path / "mri/P1/P1_flair.nii.gz", brain(shape=(8, 8, 4)), np.diag([1.0, 1, 2, 1]))
    with pytest.raises(DataError) as error:
        read_brats(brats("flair"), patients(), OPTIONS)
    said = str(error.value)
    assert "P1_flair.nii.gz is on another grid (8×8×4 voxels of 1×1×2 mm from (0, 0, 0))" in said
    assert "than P1_t1.nii.gz of the same patient (8×8×8 voxels of 1×1×1 mm" in said
    assert "say `resample: true`" in said
    assert read_brats(brats("t1"), patients(), OPTIONS).n_obs == 1


def test_other_grids_are_brought_onto_the_first_if_asked_for(tmp_path, patients):
    data = brain(dtype=np.float32)
    lps = np.diag([-1.0, -1, 1, 1])
    lps[:2, 3] = 7
    save(tmp_path / "mri/P1/P1_t1.nii.gz", data[::-1, ::-1], lps)
    wide = np.zeros((10, 8, 8), np.float32)
    wide[1:9] = data
    shifted = np.eye(4)
    shifted[0, 3] = -1
    save(tmp_path / "mri/P1/P1_t2.nii.gz", wide, shifted)
    images = read_brats(brats("t2"), patients(), {**OPTIONS, "resample": True})
    assert images.meta(0)["shape"] == [8, 8, 8]
    np.testing.assert_allclose(images.meta(0)["affine"], lps)
    back = measured(images.array(0), images.meta(0))
    np.testing.assert_allclose(back[::-1, ::-1], data, rtol=1e-3, atol=1e-2)


def test_grids_that_do_not_overlap_are_refused(tmp_path, patients):
    save(tmp_path / "mri/P1/P1_t1.nii.gz", brain())
    far = np.eye(4)
    far[0, 3] = 500
    save(tmp_path / "mri/P1/P1_t2.nii.gz", brain(), far)
    with pytest.raises(DataError, match=r"P1_t2.nii.gz .* and P1_t1.nii.gz .* do not overlap"):
        read_brats(brats("t2"), patients(), {**OPTIONS, "resample": True})


# Bad files: one line each.


def zero_bytes(path):
    path.write_bytes(b"")


def cut_short(path):
    whole = save(path, brain(shape=(32, 32, 32))).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def corrupt(path):
    whole = bytearray(save(path, brain(shape=(32, 32, 32))).read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 200] = bytes(200)
    path.write_bytes(bytes(whole))


def not_gzip(path):
    path.write_bytes(b"<html>please log in</html>" * 20)


def no_nifti(path):
    path.write_bytes(gzip.compress(b"<html>please log in</html>" * 20))


def four_axes(path):
    save(path, np.ones((4, 4, 4, 3), np.float32))


def two_axes(path):
    save(path, np.ones((4, 4), np.float32))


def not_finite(path):
    data = brain(dtype=np.float32)
    data[1, 1, 1:3] = np.nan, np.inf
    save(path, data)


def colours(path):
    save(path, np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def singular(path):
    header = nib.Nifti1Header()
    header["sform_code"] = 1
    header["srow_x"] = header["srow_y"] = (1, 0, 0, 0)
    save(path, brain(), header.get_sform(), header)
    assert np.linalg.det(nib.load(path).affine[:3, :3]) == 0


def all_zero(path):
    save(path, np.zeros((4, 4, 4), np.int16))


def mask(path):
    save(path, (brain() > 0).astype(np.uint8))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (zero_bytes, r"t1.nii.gz is empty \(0 bytes\); download it again$"),
        (cut_short, r"t1.nii.gz is damaged or cut short \(.+\); download it again$"),
        (corrupt, r"t1.nii.gz is damaged or cut short \(.+\); download it again$"),
        (not_gzip, r"t1.nii.gz is (no NIfTI file|damaged)"),
        (no_nifti, r"t1.nii.gz is no NIfTI file: "),
        (four_axes, r"t1.nii.gz is 4×4×4×3, not a volume of three axes; write each sequence to"),
        (two_axes, r"t1.nii.gz is 4×4, not a volume of three axes"),
        (not_finite, r"t1.nii.gz has 2 voxels that are not finite; set the background to 0$"),
        (colours, r"t1.nii.gz holds .* and no plain numbers; convert it to float32$"),
        (singular, r"t1.nii.gz: the affine in its header is singular, so nobody knows which"),
        (all_zero, r"t1.nii.gz is 0 in all voxels; leave out a sequence that was not taken$"),
        (mask, r"t1.nii.gz has one value in all voxels that are not 0; is it a mask\?$"),
    ],
)
def test_bad_files_are_refused_with_one_line(tmp_path, how, sentence):
    path = tmp_path / "t1.nii.gz"
    how(path)
    with pytest.raises(DataError, match=sentence) as error:
        decode(path)
    assert "\n" not in str(error.value)
    assert str(error.value).count(str(tmp_path)) == 1


def test_files_without_compression_can_be_cut_short_too(tmp_path):
    path = save(tmp_path / "t1.nii", brain())
    np.testing.assert_array_equal(load_volume(path).data, brain())
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"t1.nii is damaged or cut short \(.+\); download it ag"):
        decode(path)


def test_a_fourth_axis_of_one_is_none(tmp_path):
    data = brain()
    path = save(tmp_path / "t1.nii.gz", data[..., None])
    np.testing.assert_array_equal(load_volume(path).data, data)
    np.testing.assert_array_equal(measured(*decode(path)), data)


def test_one_bad_file_is_left_out_and_named(tmp_path, patients):
    save(tmp_path / "mri/P1/P1_t1ce.nii.gz", brain())
    (tmp_path / "mri/P2").mkdir()
    (tmp_path / "mri/P2/P2_t1ce.nii.gz").write_bytes(b"")
    context = patients()
    assert list(read_brats(brats(), context, OPTIONS).obs_names) == ["P1"]
    assert "P2_t1ce.nii.gz is empty" in audited(context, "dropped")[0]


@pytest.mark.parametrize(
    ("values", "edition", "sentence"),
    [
        ([1, 7], "auto", r"holds the label 7, which no BraTS edition has; say `labels: any`"),
        ([1, 3, 4], "auto", r"holds the labels 3 and 4, .*say `labels: brats15` or `labels: bra"),
        ([1, 4], "brats23", r"holds the label 4, which brats23 does not have"),
        ([1, 3], "brats21", r"holds the label 3, which brats21 does not have"),
        ([1.5], "auto", r"holds the label 1.5, which no BraTS edition has"),
        ([1, 2, 3], "auto", None),
        ([1, 2, 4], "auto", None),
        ([1, 3, 4], "brats24", None),
        ([9, 30], "any", None),
    ],
)
def test_labels_must_be_those_of_the_edition(tmp_path, values, edition, sentence):
    labels = np.zeros((8, 8, 8), np.float32)
    labels[4, 4, : len(values)] = values
    scan = save(tmp_path / "t1.nii.gz", brain())
    seg = save(tmp_path / "seg.nii.gz", labels)
    options = {**TUMOUR, "labels": edition}
    if sentence is None:
        assert decode(scan, seg, **options).meta["box"] == "tumour"
    else:
        with pytest.raises(DataError, match=rf"seg.nii.gz {sentence}"):
            decode(scan, seg, **options)


def test_labels_that_may_mean_two_things_stop_the_reading(tmp_path, patients):
    """Without one patient alone, those of the others would still be anybody's guess."""
    for number, values in enumerate(([1, 2], [3, 4])):
        labels = np.zeros((8, 8, 8), np.uint8)
        labels[4, 4, 4:6] = values
        save(tmp_path / f"mri/P{number}/P{number}_t1ce.nii.gz", brain())
        save(tmp_path / f"mri/P{number}/P{number}_seg.nii.gz", labels)
    with pytest.raises(DataError, match=r"P1_seg.nii.gz holds the labels 3 and 4, .*say `labels:"):
        read_brats(brats(), patients(), TUMOUR)
    assert read_brats(brats(), patients(), {**TUMOUR, "labels": "brats24"}).n_obs == 2


def test_a_label_map_on_another_grid_is_refused(tmp_path):
    scan = save(tmp_path / "t1.nii.gz", brain())
    seg = save(tmp_path / "seg.nii.gz", brain(dtype=np.uint8) * 0 + 1, np.diag([1.0, 1, 3, 1]))
    with pytest.raises(DataError, match=r"seg.nii.gz is on another grid \(8×8×8 voxels of 1×1×3"):
        decode(scan, seg, **TUMOUR)


# Names.

EDITIONS = {
    "2018": ("HGG/Brats18_TCIA08_167_1", "_", ("t1", "t1ce", "t2", "flair"), ".nii.gz"),
    "2019": ("LGG/BraTS19_2013_16_1", "_", ("t1", "t1ce", "t2", "flair"), ".nii.gz"),
    "2020": ("BraTS20_Training_001", "_", ("t1", "t1ce", "t2", "flair"), ".nii"),
    "2021": ("BraTS2021_00000", "_", ("t1", "t1ce", "t2", "flair"), ".nii.gz"),
    "2023": ("BraTS-GLI-00000-000", "-", ("t1n", "t1c", "t2w", "t2f"), ".nii.gz"),
}


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("place", range(4))
def test_editions_of_brats(tmp_path, patients, edition, place):
    folder, separator, names, ending = EDITIONS[edition]
    case = Path(folder).name
    for number, name in enumerate(names):
        save(tmp_path / "mri" / folder / f"{case}{separator}{name}{ending}", brain(number))
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2, 2, 2] = 1
    save(tmp_path / "mri" / folder / f"{case}{separator}seg{ending}", labels)
    sequence = ("t1", "t1ce", "t2", "flair")[place]
    images = read_brats(brats(sequence), patients(), {**TUMOUR, "size": 8})
    assert list(images.obs_names) == [case]
    assert images.meta(0)["box"] == "tumour"
    assert images.meta(0)["sequence"] == sequence
    np.testing.assert_array_equal(measured(images.array(0), images.meta(0)), brain(place))
    again = read_brats(brats(names[place].upper()), patients(), {**TUMOUR, "size": 8})
    assert again.meta(0) == images.meta(0)


def test_files_named_after_the_sequence_alone_and_labels_named_otherwise(tmp_path, patients):
    """Folders say whose they are; BraTS 2020 has a case whose label map is W39_…_Segm.nii."""
    save(tmp_path / "mri/TCGA-02-0006/t1Gd.nii.gz", brain())
    save(tmp_path / "mri/TCGA-02-0006/W39_1998.09.19_Segm.nii", (brain() > 150).astype(np.uint8))
    save(tmp_path / "mri/TCGA-02-0006/._t1Gd.nii.gz", brain())
    images = read_brats(brats(), patients("tcga"), TUMOUR)
    assert list(images.obs_names) == ["TCGA-02-0006"]
    assert images.meta(0)["box"] == "tumour"


def test_the_corrected_label_map_goes_before_the_automatic_one(tmp_path, patients):
    case = "mri/TCGA-02-0006_1996.08.23"
    first, second = np.zeros((2, 8, 8, 8), np.uint8)
    first[0, 0, 0], second[7, 7, 7] = 1, 1
    save(tmp_path / f"{case}_t1Gd.nii.gz", brain())
    save(tmp_path / f"{case}_GlistrBoost.nii.gz", first)
    save(tmp_path / f"{case}_GlistrBoost_ManuallyCorrected.nii.gz", second)
    save(tmp_path / "mri/TCGA-02-0007_t1Gd.nii.gz", brain())
    images = read_brats(brats(), patients("tcga"), TUMOUR)
    assert list(images.obs_names) == ["TCGA-02-0006", "TCGA-02-0007"]
    assert images.meta(0)["start"] == [4, 4, 4]
    assert images.meta(1)["box"] == "brain"


def test_of_several_visits_the_earliest_counts(tmp_path, patients):
    for visit, seed in (("001", 1), ("000", 0), ("002", 2)):
        case = f"BraTS-GLI-00007-{visit}"
        save(tmp_path / f"mri/{case}/{case}-t1c.nii.gz", brain(seed))
    context = patients("brats")
    images = read_brats(brats(), context, OPTIONS)
    assert list(images.obs_names) == ["BraTS-GLI-00007"]
    assert images.meta(0)["file"] == "BraTS-GLI-00007-000-t1c.nii.gz"
    dropped = audited(context, "dropped")
    assert len(dropped) == 2
    assert "BraTS-GLI-00007-001 is a later visit than BraTS-GLI-00007-000" in dropped[0]


def test_mapping_names_the_patients(tmp_path, patients):
    for number in range(3):
        case = f"BraTS-GLI-0000{number}-000"
        save(tmp_path / f"mri/{case}/{case}-t1c.nii.gz", brain(number))
    rows = {
        "BraTS2023": [f"BraTS-GLI-0000{n}-000" for n in (0, 1, 2, 9)],
        "Site No": ["1", "2", "2", "3"],
        "Local ID ": ["TCGA-02-0006", "UPENN-33", "TCGA-02-0011", "TCGA-02-0099"],
    }
    pd.DataFrame(rows).to_csv(tmp_path / "map.csv", index=False)
    context = patients("tcga")
    images = read_brats(brats(mapping="map.csv"), context, OPTIONS)
    assert list(images.obs_names) == ["TCGA-02-0006", "TCGA-02-0011"]
    assert images.meta(1)["file"] == "BraTS-GLI-00002-000-t1c.nii.gz"
    assert "BraTS-GLI-00001-000" in audited(context, "dropped")[0]
    assert "map.csv says of no patient of it" in audited(context, "dropped")[0]


def test_mapping_with_two_columns_needs_no_pattern(tmp_path, patients):
    save(tmp_path / "mri/a/BraTS2021_00001_t1ce.nii.gz", brain())
    (tmp_path / "map.csv").write_text("case,who\nBraTS2021_00001,Ada\n")
    assert list(read_brats(brats(mapping="map.csv"), patients(), OPTIONS).obs_names) == ["Ada"]
    (tmp_path / "map.csv").write_text("case,who\nBraTS2021_00009,Ada\n")
    with pytest.raises(DataError, match=r"map.csv has no column of cases such as BraTS2021_00001"):
        read_brats(brats(mapping="map.csv"), patients(), OPTIONS)
    (tmp_path / "map.csv").write_text("case,who,age\nBraTS2021_00001,Ada,36\n")
    with pytest.raises(DataError, match=r"no column of patients \(columns: who, age\); call one"):
        read_brats(brats(mapping="map.csv"), patients(), OPTIONS)
    (tmp_path / "map.csv").write_text("case,who\nBraTS2021_00001,Ada\n")
    with pytest.raises(DataError, match=r"map.csv: no column holds ids of the kind .*id: tcga"):
        read_brats(brats(mapping="map.csv"), patients("tcga"), OPTIONS)


def test_two_files_of_one_sequence_are_refused_naming_both(tmp_path, patients):
    save(tmp_path / "mri/P1/P1_t1ce.nii.gz", brain())
    save(tmp_path / "mri/old/P1_t1c.nii", brain())
    with pytest.raises(DataError, match=r"two files .* sequence t1ce of P1: .*P1/P1_t1ce.nii.gz "
                                        r"and .*old/P1_t1c.nii; move one away"):  # fmt: skip
        read_brats(brats(), patients(), OPTIONS)


def test_two_label_maps_are_refused_where_they_are_needed(tmp_path, patients):
    save(tmp_path / "mri/P1/P1_t1ce.nii.gz", brain())
    for name in ("seg_a", "seg_b"):
        save(tmp_path / f"mri/P1/{name}.nii.gz", (brain() > 150).astype(np.uint8))
    assert read_brats(brats(), patients(), OPTIONS).n_obs == 1
    with pytest.raises(DataError, match=r"label map of P1: .*seg_a.nii.gz and .*seg_b.nii.gz"):
        read_brats(brats(), patients(), TUMOUR)


def test_folders_without_what_is_wanted(tmp_path, patients):
    save(tmp_path / "mri/scan.nii.gz", brain())
    with pytest.raises(DataError, match=r"mri holds no volume named after a sequence .*`format: n"):
        read_brats(brats(), patients(), OPTIONS)
    save(tmp_path / "mri/P1_t2.nii.gz", brain())
    with pytest.raises(DataError, match=r"no volume of the sequence 't1ce' \(1 of t2\)$"):
        read_brats(brats(), patients(), OPTIONS)
    with pytest.raises(
        DataError, match=r"mri: no case names a patient by .*id: tcga.* \(P1\); say"
    ):
        read_brats(brats(), patients("tcga"), OPTIONS)


def test_cases_that_name_nobody_are_left_out(tmp_path, patients):
    save(tmp_path / "mri/TCGA-02-0006_t1c.nii.gz", brain())
    save(tmp_path / "mri/phantom_t1c.nii.gz", brain())
    context = patients("tcga")
    assert list(read_brats(brats(), context, OPTIONS).obs_names) == ["TCGA-02-0006"]
    assert "left out 1 cases (phantom): its name is no id of the kind 'tcga'" in " ".join(
        audited(context, "warning")
    )


# Tables.


@pytest.fixture
def table(tmp_path):
    """Write ``scans.csv``; each argument is a row."""

    def put(*rows: str) -> None:
        (tmp_path / "scans.csv").write_text("\n".join(rows) + "\n")

    return put


def test_a_table_names_files_sequences_and_labels(tmp_path, patients, table):
    save(tmp_path / "a/one.nii.gz", brain(1))
    save(tmp_path / "a/two.nii", brain(2))
    save(tmp_path / "a/mask.nii.gz", (brain() > 150).astype(np.uint8))
    table("patient,T1Gd,adc,seg", "P1,a/one.nii.gz,a/two.nii,a/mask.nii.gz", "P2,,a/one.nii.gz,")
    images = read_nifti(listed(), patients(), {**TUMOUR, "size": 8})
    assert list(images.obs_names) == ["P1"]
    assert images.meta(0)["box"] == "tumour"
    np.testing.assert_array_equal(measured(images.array(0), images.meta(0)), brain(1))
    other = read_nifti(listed("adc"), patients(), OPTIONS)
    assert list(other.obs_names) == ["P1", "P2"]
    np.testing.assert_array_equal(measured(other.array(0), other.meta(0)), brain(2))
    with pytest.raises(DataError, match=r"scans.csv has no column 'flair'"):
        read_nifti(listed("flair"), patients(), OPTIONS)


def test_paths_of_a_table_start_at_its_folder(tmp_path, patients, table):
    save(tmp_path / "scans/one.nii.gz", brain())
    table("patient,t1ce", "P1,one.nii.gz")
    assert read_nifti(listed(path="scans"), patients(), OPTIONS).n_obs == 1


@pytest.mark.parametrize("value", ["/etc/passwd.nii", "../out.nii.gz", "a/../../out.nii.gz"])
def test_paths_out_of_the_folder_are_refused(tmp_path, patients, table, value):
    table("patient,t1ce", f"P1,{value}")
    with pytest.raises(DataError, match=r"scans.csv: t1ce of P1 is '.*'; paths must be relative"):
        read_nifti(listed(), patients(), OPTIONS)


def test_links_out_of_the_folder_are_refused(tmp_path, patients, table):
    save(tmp_path / "elsewhere/one.nii.gz", brain())
    (tmp_path / "scans").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "scans/a")
    table("patient,t1ce", "P1,a/one.nii.gz")
    with pytest.raises(DataError, match=r"t1ce of P1 is 'a/one.nii.gz', a link out of .*copy the"):
        read_nifti(listed(path="scans"), patients(), OPTIONS)


def test_files_that_are_not_there_and_files_of_other_sorts(tmp_path, patients, table):
    save(tmp_path / "one.nii.gz", brain())
    table("patient,t1ce", "P1,one.nii.gz", "P2,two.nii.gz")
    context = patients()
    assert list(read_nifti(listed(), context, OPTIONS).obs_names) == ["P1"]
    assert "two.nii.gz" in audited(context, "dropped")[0]
    assert "t1ce: 1 files are not there" in audited(context, "warning")[0]
    table("patient,t1ce", "P1,one.mha")
    with pytest.raises(DataError, match=r"t1ce of P1 is 'one.mha', not a .nii or .nii.gz file"):
        read_nifti(listed(), patients(), OPTIONS)


def test_a_table_that_contradicts_itself_is_refused(tmp_path, patients, table):
    table("patient,t1ce", "P1,one.nii.gz", "P1,two.nii.gz")
    with pytest.raises(DataError, match=r"'t1ce' has several values for P1: one.nii.gz, two.nii"):
        read_nifti(listed(), patients(), OPTIONS)
