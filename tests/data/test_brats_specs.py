"""The shipped specs of BraTS editions: they parse, and read a case of each edition's layout."""

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

import omnisurv as om
from omnisurv.data.regions import from_common, to_common
from omnisurv.data.spec import DataSpec
from omnisurv.data.store import Store

SPECS = Path(__file__).parents[2] / "data_specs"
SEQUENCES = ("t1", "t1ce", "t2", "flair")
NEW = ("t1n", "t1c", "t2w", "t2f")
LAYOUTS = {
    "brats2018": ("HGG/Brats18_TCIA08_167_1", "_", SEQUENCES, "brats21"),
    "brats2020": ("BraTS20_Training_001", "_", SEQUENCES, "brats21"),
    "brats2021": ("BraTS2021_00000", "_", SEQUENCES, "brats21"),
    "brats2023": ("BraTS-GLI-00000-000", "-", NEW, "brats23"),
}


def test_each_edition_has_a_spec():
    shipped = {path.stem for path in SPECS.glob("brats2*.yaml")}
    assert shipped == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_a_spec_says(name):
    spec = DataSpec.load(SPECS / f"{name}.yaml")
    assert (spec.name, spec.recipe, spec.patients.id) == (name, "bm_mae", "brats")
    assert spec.segmentation.labels == LAYOUTS[name][3]
    assert {m.source.sequence for m in spec.modalities.values()} == set(SEQUENCES)
    for modality in spec.modalities.values():
        assert modality.options == {"crop": "centre", "size": 128, "patch": 16}
    patient = spec.patients.patient(Path(LAYOUTS[name][0]).name)
    assert patient == {"brats2023": "BraTS-GLI-00000"}.get(name, Path(LAYOUTS[name][0]).name)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_stands_in_comments_parses_too(name):
    text = (SPECS / f"{name}.yaml").read_text(encoding="utf-8")
    said = re.sub(r"^# (endpoint|labels|strata): ", r"\1: ", text, flags=re.MULTILINE)
    spec = DataSpec.parse(yaml.safe_load(said))
    assert spec.endpoint is not None


@pytest.fixture(scope="module")
def real_case(real_data):
    """Return the folder of the real case, and its label map as common labels.

    The map holds core and oedema; what is brightest of the core after contrast is called enhancing
    here, so that editions differ.
    """
    folder = real_data / "mri" / "TCGA-DU-7294"
    image = nib.load(folder / "seg_fusion_mav.nii.gz")
    common = to_common(np.asanyarray(image.dataobj), "brats21", "seg")
    contrast = np.asanyarray(nib.load(folder / "TCGA-DU-7294_t1c_bet.nii.gz").dataobj)
    core = common == 1
    common[core & (contrast > np.quantile(contrast[core], 0.8))] = 3
    return folder, image, common


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_real_case_in_the_layout_of_an_edition(name, real_case, tmp_path):
    folder, image, common = real_case
    case, separator, names, edition = LAYOUTS[name]
    target = tmp_path / "mri" / case
    target.mkdir(parents=True)
    for file, sequence in zip(("t1", "t1c", "t2", "fla"), names, strict=True):
        os.symlink(
            folder / f"TCGA-DU-7294_{file}_bet.nii.gz",
            target / f"{target.name}{separator}{sequence}.nii.gz",
        )
    written = nib.Nifti1Image(from_common(common, edition), image.affine)
    nib.save(written, target / f"{target.name}{separator}seg.nii.gz")
    if name == "brats2020":
        rows = "Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID\nLGG,NA,BraTS20_Training_001\n"
        (tmp_path / "mri" / "name_mapping.csv").write_text(rows)
    cohort = om.Cohort.from_spec(SPECS / f"{name}.yaml", tmp_path, Store(tmp_path / "store"))
    assert cohort.availability.to_numpy().tolist() == [[True] * 4]
    maps = cohort.label_maps
    canonical = nib.as_closest_canonical(nib.Nifti1Image(common, image.affine))
    wanted = np.asanyarray(canonical.dataobj)[56:184, 56:184, 13:141]
    np.testing.assert_array_equal(maps.array(0), wanted)
    assert set(np.unique(wanted)) == {0, 1, 2, 3}
    assert maps.meta(0)["edition"] == edition
    for sequence in SEQUENCES:
        assert cohort[sequence].meta(0)["start"] == maps.meta(0)["start"] == [56, 56, 13]
    contrast, found = cohort["t1ce"].array(0), maps.array(0)
    assert contrast[found == 3].min() > contrast[found == 1].max()  # voxel for voxel
