"""nnU-Net's folders: channels by dataset.json, label maps, and what is wrong with some."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from omnisurv.data.cohort import Cohort
from omnisurv.data.readers import ReadContext, read_nnunet
from omnisurv.data.readers.nnunet import NnunetFolder, NnunetSource, find_nnunet, told_edition
from omnisurv.data.spec import DataSpec, PatientRule
from omnisurv.data.store import Store
from omnisurv.errors import DataError
from omnisurv.preprocessing import preprocess

OPTIONS = {"crop": "brain", "size": 8, "spacing": None, "resample": False}
VERSION_2 = {
    "channel_names": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def brain(seed):
    data = np.zeros((8, 8, 8), np.int16)
    data[1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).integers(1, 200, (6, 6, 6))
    return data


def save(path: Path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


@pytest.fixture
def folder(tmp_path):
    """Return a dataset: A has all channels, B no T1 with contrast, C is a test case of two."""
    root = tmp_path / "Dataset001_GBM"
    for case, part, channels in (
        ("A", "Tr", range(4)),
        ("B", "Tr", (0, 1, 3)),
        ("C", "Ts", (0, 2)),
    ):
        for channel in channels:
            data = brain(10 * ord(case) + channel)
            save(root / f"images{part}" / f"{case}_{channel:04d}.nii.gz", data)
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2, 2, 2], labels[3, 3, 3], labels[4, 4, 4] = 1, 2, 3
    save(root / "labelsTr" / "A.nii.gz", labels)
    describe(root, VERSION_2)
    return root


def describe(root, told):
    (root / "dataset.json").write_text(json.dumps(told))


def context(folder, rule="column", **rest):
    told = PatientRule(id=rule, **rest)
    return ReadContext(folder.parent, told, store=Store(folder.parent / "store"))


def source(sequence="flair", **keys):
    return NnunetSource(format="nnunet", path="Dataset001_GBM", sequence=sequence, **keys)


def test_channels_are_sequences_and_any_may_be_missing(folder):
    flair = read_nnunet(source("FLAIR"), context(folder), OPTIONS)
    assert list(flair.obs_names) == ["A", "B", "C"]
    contrast = read_nnunet(source("t1ce"), context(folder), OPTIONS)
    assert list(contrast.obs_names) == ["A", "C"]
    assert contrast.meta(0)["file"] == "A_0002.nii.gz"
    raw = brain(10 * ord("C") + 2).astype(float)
    inside = raw[raw != 0]
    expected = np.where(raw == 0, 0, (raw - inside.mean()) / inside.std())
    np.testing.assert_allclose(contrast.array(1), expected, atol=1e-4)


def test_version_1_says_modality(folder):
    told = {"modality": VERSION_2["channel_names"], "labels": {"0": "background", "2": "edema"}}
    describe(folder, told)
    assert list(read_nnunet(source("t2"), context(folder), OPTIONS).obs_names) == ["A", "B"]
    assert told_edition(source(), context(folder)) == "brats23"


def test_other_channels_keep_their_names(folder):
    channels = {**VERSION_2["channel_names"], "0": "ADC"}
    describe(folder, {**VERSION_2, "channel_names": channels})
    assert len(read_nnunet(source("adc"), context(folder), OPTIONS)) == 3


def test_label_maps_lie_beside(folder):
    scans = {one.patient: one for one in find_nnunet(source(), context(folder))}
    assert scans["A"].label().name == "A.nii.gz"
    assert scans["B"].label() is None
    assert sorted(scans["B"].files) == ["flair", "t1", "t2"]


@pytest.mark.parametrize(
    ("labels", "edition"),
    [
        (VERSION_2["labels"], "msd"),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3]}, "msd"),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3]}, "brats23"),
        ({"NCR": 1, "Oedema": 2, "ET": 3}, "brats23"),
        ({"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, "brats24"),
    ],
)
def test_names_of_labels_tell_what_no_value_does(folder, labels, edition):
    describe(folder, {**VERSION_2, "labels": labels})
    assert told_edition(source(), context(folder)) == edition


def test_a_cohort_with_label_maps_in_common_labels(folder):
    """Oedema is 1 in the file and 2 among the common labels."""
    cube = {"crop": "centre", "size": 8, "patch": 4}
    place = {"format": "nnunet", "path": "Dataset001_GBM"}
    modalities = {
        name: {"kind": "mri", "source": {**place, "sequence": name}, **cube}
        for name in ("t1ce", "flair")
    }
    told = {"name": "gbm", "patients": {"id": "column"}, "modalities": modalities}
    spec = DataSpec.parse({**told, "segmentation": {"source": place}})
    cohort = Cohort.from_spec(spec, folder.parent, Store(folder.parent / "store"))
    assert cohort.availability.to_numpy().tolist() == [[True, True], [False, True], [True, True]]
    assert list(cohort.label_maps.obs_names) == ["A"]
    cut = cohort.label_maps.array(0)
    assert [cut[2, 2, 2], cut[3, 3, 3], cut[4, 4, 4]] == [2, 1, 3]
    assert cohort.label_maps.meta(0)["edition"] == "msd"
    again = Cohort.from_spec(preprocess(cohort, folder.parent, folder.parent / "out"))
    assert again.label_maps.meta(0)["edition"] == "msd"
    np.testing.assert_array_equal(again.label_maps.array(0), cut)


def test_whose_a_case_is_says_a_rule_or_a_table(folder):
    (folder.parent / "names.csv").write_text("case,patient\nA,TCGA-02-0001\nB,TCGA-02-0002\n")
    mapped = source(mapping="names.csv")
    found = read_nnunet(mapped, context(folder, "tcga"), OPTIONS)
    assert list(found.obs_names) == ["TCGA-02-0001", "TCGA-02-0002"]
    with pytest.raises(DataError, match="no case names a patient by"):
        read_nnunet(source(), context(folder, "tcga"), OPTIONS)


def test_strange_files_stand_in_the_audit(folder):
    save(folder / "imagesTr" / "notes.nii.gz", brain(1))
    save(folder / "imagesTr" / "A_0009.nii.gz", brain(1))
    told = context(folder)
    assert len(find_nnunet(source(), told)) == 3
    reasons = {row[1]: row[-1] for row in told.audit.rows}
    assert reasons["Dataset001_GBM/imagesTr/notes.nii.gz"] == "not named CASE_0000"
    assert "no such channel" in reasons["Dataset001_GBM/imagesTr/A_0009.nii.gz"]


def test_a_channel_of_zeros_is_missing(folder):
    """nnU-Net wants every channel, so people fill in zeros."""
    save(folder / "imagesTr" / "B_0002.nii.gz", np.zeros((8, 8, 8), np.int16))
    told = context(folder)
    assert list(read_nnunet(source("t1ce"), told, OPTIONS).obs_names) == ["A", "C"]
    assert any("is 0 in all voxels" in row[-1] for row in told.audit.rows)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (None, "has no dataset.json; give the folder of one dataset"),
        ({"labels": {}}, 'has no `channel_names` such as {"0": "T1"'),
        ({**VERSION_2, "file_ending": ".mha"}, r"files end with .mha, and only .nii and .nii.gz"),
        ({**VERSION_2, "channel_names": {"0": "T1w"}}, "has no channel 'flair'. Known: t1"),
    ],
)
def test_what_is_wrong_with_the_description(folder, told, says):
    if told is None:
        (folder / "dataset.json").unlink()
    else:
        describe(folder, told)
    with pytest.raises(DataError) as error:
        read_nnunet(source(), context(folder), OPTIONS)
    assert says in str(error.value)


def test_labels_that_tell_nothing_are_refused(folder):
    describe(folder, {**VERSION_2, "labels": {"background": 0, "tumour": 1}})
    with pytest.raises(DataError, match=r"does not say which label is oedema .*`labels: msd`"):
        told_edition(NnunetFolder(format="nnunet", path="Dataset001_GBM"), context(folder))
