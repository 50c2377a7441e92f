"""A simulated cohort in the layout of BraTS: regions that need their sequences, gaps, files."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_dilation

import omnisurv as om
from omnisurv.data.regions import REGIONS, to_common
from omnisurv.data.spec import DataSpec
from omnisurv.data.store import Store
from omnisurv.errors import InputError
from omnisurv.simulation import brains, simulate, simulate_brats, write_brats
from omnisurv.simulation.brats import nested_labels
from tests.commands import runner

SEQUENCES = ["t1", "t1ce", "t2", "flair"]


@pytest.fixture(scope="module")
def drawn():
    return simulate_brats(60, seed=0)


@pytest.fixture(scope="module")
def scans(drawn):
    """Return z-scores of the brain and its labels, for a dozen patients."""
    found = []
    for patient in drawn.patients.index[:12]:
        brain = drawn.brain(patient)
        mask = brain.volumes["t1"] > 0
        scores = {}
        for name, volume in brain.volumes.items():
            inside = volume[mask].astype(float)
            scores[name] = (inside - inside.mean()) / inside.std()
        found.append((scores, brain.labels[mask]))
    return found


def apart(scans, sequence, these, those):
    """Return how far apart two sets of labels are in a sequence, in their own spread."""
    gaps = []
    for scores, labels in scans:
        one, other = (scores[sequence][np.isin(labels, part)] for part in (these, those))
        if min(len(one), len(other)) > 20:
            gaps.append((one.mean() - other.mean()) / np.sqrt((one.var() + other.var()) / 2))
    assert len(gaps) > 6
    return float(np.median(gaps))


def test_enhancing_tumour_shows_in_t1ce_alone(scans):
    assert apart(scans, "t1ce", (3,), (0, 1, 2)) > 2.0
    assert apart(scans, "t1", (3,), (0, 1, 2)) < 0.0  # as dark as the rest of the tumour


def test_whole_tumour_shows_in_flair_less_in_t2_and_hardly_in_t1(scans):
    flair, t2, t1, t1ce = (
        apart(scans, name, (1, 2, 3), (0,)) for name in ("flair", "t2", "t1", "t1ce")
    )
    assert flair > 1.5
    assert 0.4 < t2 < flair - 0.5
    assert abs(t1) < 1.0
    assert abs(t1ce) < t2


def test_regions_are_nested_and_of_some_size(drawn):
    wet = []
    for patient in drawn.patients.index[:12]:
        brain = drawn.brain(patient)
        labels = nested_labels(brain)
        assert not labels[brain.volumes["flair"] == 0].any()
        sizes = [np.isin(labels, REGIONS[name]).sum() for name in ("ET", "TC", "WT")]
        assert 5 < sizes[0] < sizes[1] < sizes[2]
        core = np.isin(labels, REGIONS["TC"])
        shell = binary_dilation(core) & ~core
        wet.append((labels[shell] == 2).mean())
    assert np.median(wet) > 0.7  # what lies around the core is oedema
    assert min(wet) > 0.3


def test_gbm_enhances_more_and_the_look_tells_of_the_outcome(drawn):
    gbm = drawn.patients["project"] == "GBM"
    look = drawn.look
    assert look["enhancement"][gbm].mean() > look["enhancement"][~gbm].mean() + 0.2
    assert look["tumour_radius"].between(16.0, 30.0).all()
    assert look["enhancement"].between(0.25, 0.9).all()
    shown = np.corrcoef(look["enhancement"] + look["tumour_radius"] / 30, drawn.oracle_risk)[0, 1]
    assert shown > 0.5
    # The mean given the factors is moved with it.
    spare = look["tumour_radius"] - drawn.look_mean["tumour_radius"]
    assert abs(spare.mean()) < 1.0


def test_everybody_is_scanned_but_not_with_every_sequence():
    whole = simulate_brats(300, seed=1)
    has = whole.availability[SEQUENCES]
    assert set(has.sum(axis=1)) == {2, 3, 4}
    assert 0.4 < has.all(axis=1).mean() < 0.75
    late = whole.patients["era"] == "late"
    assert has["flair"][late].mean() > has["flair"][~late].mean() + 0.1
    blind = simulate_brats(300, seed=1, informative=False)
    has = blind.availability[SEQUENCES]
    assert abs(has["flair"][late].mean() - has["flair"][~late].mean()) < 0.1
    pd.testing.assert_frame_equal(blind.look, whole.look)
    assert simulate_brats(20, missing=0.0).availability[SEQUENCES].all(axis=None)
    pd.testing.assert_series_equal(whole.time, simulate(300, seed=1).time)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("brats")
    small = simulate_brats(20, seed=4)
    return small, out, write_brats(small, out)


def test_the_files_are_those_of_brats_2021(folder):
    drawn, out, _ = folder
    cases = pd.read_csv(out / "truth/cases.tsv", sep="\t", index_col="patient")["case"]
    assert len(cases) == 20
    assert cases.str.fullmatch(r"BraTS2021_\d{5}").all()
    for patient, case in cases.items():
        taken = drawn.availability.loc[patient, SEQUENCES]
        names = {f"{case}_{name}.nii.gz" for name in [*taken.index[taken], "seg"]}
        assert {path.name for path in (out / "mri" / case).iterdir()} == names
    patient, case = next(iter(cases.items()))
    image = nib.load(out / "mri" / case / f"{case}_seg.nii.gz")
    assert (image.shape, image.get_data_dtype()) == ((40, 48, 40), np.uint8)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    labels = np.asanyarray(image.dataobj)
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    whole = drawn.brain(patient)
    np.testing.assert_array_equal(to_common(labels, "brats21", "x"), nested_labels(whole)[4:-4])
    assert not (whole.volumes["t1"][:4] > 0).any()  # nothing of the brain is lost
    middle = image.affine @ [20 - 0.5, 23.5, 19.5, 1]
    full = brains.affine() @ [24 - 0.5, 23.5, 19.5, 1]
    np.testing.assert_array_equal(middle, full)


def test_the_cohort_is_read_with_label_maps_survival_and_subtype(folder, tmp_path):
    drawn, out, spec = folder
    assert DataSpec.load(spec).recipe == "bm_mae:tiny"
    cohort = om.Cohort.from_spec(spec, store=Store(tmp_path))
    cases = pd.read_csv(out / "truth/cases.tsv", sep="\t", index_col="patient")["case"]
    assert cohort.modalities == SEQUENCES
    told = drawn.availability[SEQUENCES].set_axis(cases[drawn.patients.index]).sort_index()
    np.testing.assert_array_equal(cohort.availability.to_numpy(), told.to_numpy())
    assert list(cohort.label_maps.obs_names) == list(cohort.patients)
    time = drawn.time.set_axis(cases[drawn.patients.index]).sort_index()
    np.testing.assert_array_equal(cohort.obs["time"], time)
    subtype = drawn.patients["project"].set_axis(cases[drawn.patients.index]).sort_index()
    assert cohort.obs["subtype"].to_list() == subtype.to_list()
    held = [np.isin(cohort.label_maps.array(row), (1, 2, 3)).sum() for row in range(20)]
    patients = pd.Series(cases.index, cases)
    whole = [(nested_labels(drawn.brain(patients[case])) > 0).sum() for case in cohort.patients]
    assert np.median(np.array(held) / np.array(whole)) > 0.95  # of the tumours, in the cube
    assert min(held) > 0
    assert not cohort.availability.all(axis=None)


def test_the_command_writes_the_same_files_for_the_same_seed(folder, tmp_path, capsys):
    _, out, _ = folder
    answer = runner(capsys)(
        "simulate", tmp_path, "--brats", "--patients", 20, "--seed", 4, "--quiet"
    )
    assert (answer.code, answer.err) == (0, "")
    assert f"20 patients: {tmp_path / 'cohort.yaml'}" in answer.out
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == written
    assert sum(path.suffix == ".gz" for path in files) > 60
    for path in files:
        assert (out / path).read_bytes() == (tmp_path / path).read_bytes()


def test_a_cohort_without_pictures_has_no_brains(tmp_path):
    with pytest.raises(InputError, match=r"no pictures; draw it by simulate_brats\(…\)"):
        write_brats(simulate(20), tmp_path)
