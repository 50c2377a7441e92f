"""Labels of BraTS editions to common ones and back."""

import numpy as np
import pytest

from omnisurv.data.regions import LABELS, REGIONS, from_common, to_common
from omnisurv.errors import DataError

# By hand from the editions' own descriptions: background, then each label in the file.
TABLES = {
    "brats15": {0: 0, 1: 1, 2: 2, 3: 1, 4: 3},
    "brats21": {0: 0, 1: 1, 2: 2, 4: 3},
    "brats23": {0: 0, 1: 1, 2: 2, 3: 3},
    "brats24": {0: 0, 1: 1, 2: 2, 3: 3, 4: 0},
    "msd": {0: 0, 1: 2, 2: 1, 3: 3},
}


@pytest.mark.parametrize("edition", TABLES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_each_label_has_its_common_one(edition, dtype):
    table = TABLES[edition]
    assert LABELS[edition] == set(table) - {0}
    found = to_common(np.array([[*table]], dtype), edition, "seg.nii.gz")
    assert found.dtype == np.uint8
    assert found.tolist() == [[*table.values()]]


@pytest.mark.parametrize(
    ("edition", "written"),
    [
        ("brats15", [0, 1, 2, 4]),
        ("brats21", [0, 1, 2, 4]),
        ("brats23", [0, 1, 2, 3]),
        ("brats24", [0, 1, 2, 3]),
        ("msd", [0, 2, 1, 3]),
    ],
)
def test_and_back(edition, written):
    common = np.array([0, 1, 2, 3, 255], np.uint8)
    found = from_common(common, edition)
    assert found.dtype == np.uint8
    assert found.tolist() == [*written, 0]  # what lies outside is background
    assert to_common(found, edition, "x").tolist() == [0, 1, 2, 3, 0]


def test_regions_are_nested():
    assert set(REGIONS["ET"]) < set(REGIONS["TC"]) < set(REGIONS["WT"])
    assert REGIONS == {"ET": (3,), "TC": (1, 3), "WT": (1, 2, 3)}


@pytest.mark.parametrize(
    ("labels", "common"),
    [([0, 1, 2, 4], [0, 1, 2, 3]), ([0, 1, 2, 3], [0, 1, 2, 3]), ([1, 2], [1, 2]), ([0], [0])],
)
def test_labels_tell_their_edition(labels, common):
    assert to_common(np.array(labels), "auto", "x").tolist() == common


@pytest.mark.parametrize(
    ("labels", "edition", "sentence"),
    [
        ([1, 3], "brats21", "a/seg.nii holds the label 3, which brats21 does not have; "
         "say `labels: brats15` (or brats23, brats24, msd)"),
        ([2, 4], "brats23", "a/seg.nii holds the label 4, which brats23 does not have; "
         "say `labels: brats15` (or brats21, brats24)"),
        ([1, 3, 4], "auto", "a/seg.nii holds the labels 3 and 4, which BraTS 2015 and 2024 do, "
         "with other meanings; say `labels: brats15` or `labels: brats24`"),
        ([1, 7], "auto", "a/seg.nii holds the label 7, which no BraTS edition has; "
         "is it a label map?"),
        ([1.5], "brats21", "a/seg.nii holds the label 1.5, which brats21 does not have; "
         "is it a label map?"),
        ([-1], "brats23", "a/seg.nii holds the label -1, which brats23 does not have; "
         "is it a label map?"),
    ],
)  # fmt: skip
def test_labels_of_another_edition_are_refused(labels, edition, sentence):
    with pytest.raises(DataError) as error:
        to_common(np.array(labels), edition, "a/seg.nii")
    assert str(error.value) == sentence


def test_what_is_no_edition_or_no_common_label_is_not_written():
    with pytest.raises(DataError, match=r"^'auto' is no edition of labels; say brats15, brats21, "):
        from_common(np.zeros(2, np.uint8), "auto")
    with pytest.raises(DataError, match=r"^4 is no common label; they are 0 to 3, and 255 outside"):
        from_common(np.array([0, 4], np.uint8), "brats21")
