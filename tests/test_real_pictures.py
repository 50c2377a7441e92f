"""A real patient with four MRI sequences, RNA and the rest, in one cohort with all others."""

import brain_cohort
import nibabel
import numpy as np
import pytest

import omnisurv as om
from omnisurv.data.spec import DataSpec
from omnisurv.data.store import Store
from omnisurv.pages.patient import patient_page
from omnisurv.segmentation import write_label_maps
from tests import tiny

pytestmark = [pytest.mark.realdata, pytest.mark.slow(seconds=80)]
PATIENT = "TCGA-DU-7294"
FILES = {"t1": "t1_bet", "t1ce": "t1c_bet", "t2": "t2_bet", "flair": "fla_bet"}
TABLE = "tcga_glioma/clinical.tsv"
SPEC = {
    "name": "glioma_with_mri",
    "endpoint": {"table": TABLE, "time": "OS.time", "event": "OS", "unit": "days"},
    "labels": {"subtype": {"table": TABLE, "column": "project_id", "classes": ["LGG", "GBM"]}},
    "strata": ["subtype"],
    "modalities": {
        "clinical": {
            "kind": "table",
            "source": {"format": "table", "path": TABLE},
            "columns": {"age_at_diagnosis_years": "continuous", "karnofsky": "continuous"},
        },
        "rna": {"kind": "rna", "source": {"format": "matrix", "path": "tcga_glioma/rna.parquet"}},
        "dnam": {
            "kind": "dnam",
            "source": {"format": "matrix", "path": "tcga_glioma/dnam.parquet"},
            "top_variance": 256,
        },
        **{
            name: {
                "kind": "mri",
                "source": {"format": "brats", "path": "mri", "sequence": name},
                "crop": "tumour",
                "size": 32,
                "patch": 8,
            }
            for name in FILES
        },
    },
}


@pytest.fixture(scope="module")
def cohort(real_data, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    whole = om.Cohort.from_spec(DataSpec.parse(SPEC), root=real_data, store=store)
    some = [*whole.patients[whole.availability["rna"]][:100], PATIENT]
    return whole.subset(dict.fromkeys(some))


@pytest.fixture(scope="module")
def survival(cohort):
    # Its one patient with MRI is trained on: this is about the way through, not about quality.
    model = om.pretrain(tiny.recipe(seed=1, validation=0.2), cohort)
    return om.finetune(model, cohort)


def test_the_patient_has_all_of_it(cohort):
    row = cohort.availability.loc[PATIENT]
    assert row[["clinical", "rna", *FILES]].all()
    assert cohort.availability[list(FILES)].sum().tolist() == [1, 1, 1, 1]
    meta = cohort["t1ce"].meta(0)
    assert meta["box"] == "tumour"
    assert meta["file"].endswith(f"{PATIENT}_t1c_bet.nii.gz")


def test_measured_sequences_are_written_as_they_are(cohort, survival, real_data, tmp_path):
    filled = om.impute(survival, cohort.subset([PATIENT]), list(FILES))
    filled.save(tmp_path)
    for name, ending in FILES.items():
        original = nibabel.load(real_data / "mri" / PATIENT / f"{PATIENT}_{ending}.nii.gz")
        written = nibabel.load(tmp_path / name / f"{PATIENT}_{name}.nii.gz")
        np.testing.assert_array_equal(written.affine, original.affine)
        assert written.shape == original.shape
        before, after = np.asarray(original.dataobj), np.asarray(written.dataobj)
        inside = after != 0
        assert inside.sum() > 0.85 * 32**3  # the tumour lies in the brain
        np.testing.assert_allclose(after[inside], before[inside], rtol=1e-5, atol=1e-4)


def test_a_hidden_sequence_is_imputed_on_the_patients_own_grid(cohort, survival, tmp_path):
    without = cohort.subset([PATIENT]).drop_modalities(["t1ce"])
    om.impute(survival, without, ["t1ce"]).save(tmp_path)
    names = sorted(path.name for path in (tmp_path / "t1ce").iterdir())
    assert names == [f"{PATIENT}_t1ce_imputed.nii.gz", f"{PATIENT}_t1ce_imputed_halfwidth.nii.gz"]
    written = nibabel.load(tmp_path / "t1ce" / names[0])
    assert written.shape == (240, 240, 155)
    assert "imputed by omnisurv" in str(written.header["descrip"])


def test_the_patient_is_an_ordinary_one(cohort, survival, tmp_path):
    patient = cohort.subset([PATIENT])
    curve = survival.predict_survival_function(patient)[PATIENT]
    alone = survival.predict_survival_function(patient, modalities=list(FILES))[PATIENT]
    for found in (curve, alone):
        assert found.iloc[0] == pytest.approx(1.0)
        assert (found.diff().dropna() <= 1e-9).all()
    page = patient_page(tmp_path / "page.html", survival, cohort, PATIENT, "omnisurv patient")
    text = page.read_text()
    assert PATIENT in text
    assert "imputed" in text


def test_a_real_case_is_segmented_and_reconstructed_on_its_own_grid(real_data, tmp_path):
    """The network is hardly trained: this is about grids and labels, not about quality."""
    stage = {"epochs": 1, "batch": 4}
    small = {"dim": 12, "heads": 2, "mlp": 12, "trunk": 4, "decoder_dim": 12, "decoder_mlp": 12}
    recipe = om.get_recipe("bm_mae:tiny", **small, features=2, pretrain=stage, segmentation=stage)
    brains = brain_cohort.cohort(12, 64, 16)
    model = om.finetune(om.pretrain(recipe, brains), brains, task="segmentation")
    spec = brain_cohort.spec(64, 16).model_dump(mode="json", exclude_none=True)
    spec["patients"] = {"id": "tcga"}
    for name, modality in spec["modalities"].items():
        modality["source"] = {"format": "brats", "path": "mri", "sequence": name}
    case = om.Cohort.from_spec(DataSpec.parse(spec), real_data, Store(tmp_path / "store"))
    original = nibabel.load(real_data / "mri" / PATIENT / f"{PATIENT}_t1c_bet.nii.gz")

    told = write_label_maps(model, case, tmp_path / "labels", edition="brats21")
    assert told["patients"][PATIENT]["whole"]
    found = nibabel.load(tmp_path / "labels" / f"{PATIENT}_seg.nii.gz")
    assert found.shape == original.shape == (240, 240, 155)
    np.testing.assert_array_equal(found.affine, original.affine)
    assert set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2, 4}

    om.impute(model, case.drop_modalities(["t1ce"]), ["t1ce"]).save(tmp_path)
    imputed = nibabel.load(tmp_path / "t1ce" / f"{PATIENT}_t1ce_imputed.nii.gz")
    assert imputed.shape == original.shape
    np.testing.assert_array_equal(imputed.affine, original.affine)
    values = np.asarray(imputed.dataobj)
    assert np.isfinite(values).all()
    assert np.count_nonzero(values) > 0.5 * 64**3
