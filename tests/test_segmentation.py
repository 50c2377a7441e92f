"""Segmentation from any subset of sequences: training, whole volumes, scores, files, messages."""

import itertools
import json
from functools import cache

import brain_cohort
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import omnisurv as om
from omnisurv.cli import run_command
from omnisurv.core import Batch
from omnisurv.core.volumes import cut, join
from omnisurv.data.images import Images
from omnisurv.data.regions import REGIONS
from omnisurv.data.store import Entry
from omnisurv.errors import CheckpointError, DataError, InputError
from omnisurv.evaluation import compare_cases, evaluate, evaluate_segmentation, read_cases
from omnisurv.evaluation.scoring import Evaluation
from omnisurv.segmentation import write_label_maps
from omnisurv.task import Labelled
from omnisurv.tasks.labelmaps import StoredLabels
from omnisurv.tasks.segmentation import SegmentationModel
from omnisurv.windows import slide

SEQUENCES = brain_cohort.SEQUENCES
STAGE = {"epochs": 1, "batch": 4, "lr": 5e-3, "warmup": 0}
SMALL = {"dim": 24, "heads": 2, "mlp": 32, "trunk": 2, "decoder_dim": 12, "decoder_mlp": 32,
         "decoder_depth": 1, "features": 4}  # fmt: skip


def recipe(**settings):
    stage = {**STAGE, **settings.pop("segmentation", {})}
    return om.get_recipe("bm_mae:tiny", **{**SMALL, **settings}, segmentation=stage)


@cache
def parts():
    return brain_cohort.cohort(20, 8, 4).split()


@cache
def model():
    return om.finetune(recipe(), parts()[0], task="segmentation")


def without(cohort, maps=None, **images):
    """Return the cohort with other pictures or label maps."""
    data = {name: images.get(name, cohort[name]) for name in cohort.modalities}
    return om.Cohort(cohort.obs, data, cohort.spec, label_maps=maps or cohort.label_maps)


# Training


def test_who_is_learned_from_and_what_stays_unread():
    cohort = brain_cohort.cohort(20, 8, 4)
    bare = without(cohort, maps=cohort.label_maps[:15])
    usable = SegmentationModel.usable(bare, "segmentation")
    assert list(usable.patients) == list(cohort.patients[:15])
    target = model().target(parts()[0])
    assert isinstance(target.rows(torch.tensor([2, 0])), StoredLabels)
    read = target.rows(torch.tensor([2, 0])).to(torch.device("cpu")).values
    assert read.dtype == torch.uint8
    maps = parts()[0].label_maps
    np.testing.assert_array_equal(read.numpy(), [maps.array(2), maps.array(0)])


def test_the_run_goes_there_and_back(tmp_path):
    om.save(model(), tmp_path / "run")
    again = om.load(tmp_path / "run")
    assert isinstance(again, SegmentationModel)
    test = parts()[1]
    for ours, theirs in zip(
        model().predict(test).entries, again.predict(test).entries, strict=True
    ):
        np.testing.assert_array_equal(ours.array, theirs.array)
    assert again.recipe.stage("segmentation").epochs == 1
    assert set(again.seen) == {"finetune"}


def test_fine_tuning_a_pre_trained_run_starts_from_its_encoder():
    start = om.pretrain(recipe(pretrain={"epochs": 1}), parts()[0])
    tuned = om.finetune(start, parts()[0], task="segmentation")
    assert set(tuned.seen) == {"pretrain", "finetune"}
    history = tuned.history[tuned.history["stage"] == "finetune"]
    assert history["train"].notna().all()
    before, after = (model.mae(0).state_dict() for model in (start, tuned))
    assert not torch.equal(before["encoder.class_token"], after["encoder.class_token"])
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("decoder"))


def test_from_scratch_the_encoder_learns_as_fast_as_the_head():
    slow, fast = (
        om.finetune(recipe(segmentation={"epochs": 1, "encoder_rate": rate}), parts()[0],
                    task="segmentation").mae(0).state_dict()
        for rate in (0.1, 1.0)
    )  # fmt: skip
    assert all(torch.equal(slow[key], fast[key]) for key in slow)


def test_cubes_move_with_their_label_maps():
    cohort = brain_cohort.cohort(20, 8, 4)
    part = model().labelled(cohort).to(torch.device("cpu"))
    layout = part.batch.layout
    there = {name: cohort.availability[name].to_numpy() for name in SEQUENCES}
    labels = part.target.values
    drawn = cut(labels.float(), (2, 2, 2))  # every sequence shows the labels themselves
    patches = {
        name: drawn.where(torch.tensor(there[name])[:, None, None], torch.nan) for name in SEQUENCES
    }
    part = Labelled(Batch(patches, layout), part.stratum, part.target)
    found = model().augment(part, torch.Generator().manual_seed(1))
    told = found.target.values
    for name in SEQUENCES:
        volumes = join(found.batch.patches[name], (2, 2, 2))
        for row in range(len(cohort)):
            seen = volumes[row].isfinite()
            assert bool(seen.any()) == there[name][row]
            assert torch.equal(volumes[row][seen], told[row][seen].float())
            if there[name][row]:
                assert (told[row][~seen] == 255).all()
    # Nothing but moves of up to a quarter and turns: every row of voxels comes from the same cube.
    moves = set()
    for row in range(len(cohort)):
        ways = [
            (turn, by)
            for turn in (False, True)
            for by in itertools.product(range(-2, 3), repeat=3)
            if np.array_equal(told[row], _moved(labels[row].numpy(), turn, by))
        ]
        assert ways
        moves.add(ways[0])
    assert len(moves) > 10
    assert {turn for turn, _ in moves} == {False, True}


def _moved(labels, turn, by):
    """Return a label map turned over and moved, cut from a larger one."""
    wide = np.pad(np.flip(labels, 0) if turn else labels, 2, constant_values=255)
    x, y, z = (slice(2 - step, 2 - step + len(labels)) for step in by)
    return wide[x, y, z]


def test_without_label_maps_there_is_nothing_to_learn():
    cohort = parts()[0]
    bare = om.Cohort(cohort.obs, {n: cohort[n] for n in cohort.modalities}, cohort.spec)
    with pytest.raises(DataError) as error:
        om.finetune(recipe(), bare, task="segmentation")
    assert str(error.value) == (
        "the cohort has no label maps to learn from; add `segmentation:` with their `source:` to "
        "the spec"
    )


def test_label_maps_without_a_sequence_teach_nothing():
    cohort = parts()[0]
    bare = om.Cohort(cohort.obs, {n: cohort[n][:0] for n in SEQUENCES}, cohort.spec,
                     label_maps=cohort.label_maps)  # fmt: skip
    with pytest.raises(DataError, match="15 patients have a label map, and none of them an MRI"):
        om.finetune(recipe(), bare, task="segmentation")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda labels: np.where(labels == 3, 4, labels),
         "holds 4, which is no common label (0 to 3): is it of another edition?"),
        (lambda labels: labels[:6, :6, :6],
         "is (6, 6, 6), its sequences are cubes of 8; cut both alike"),
    ],
)  # fmt: skip
def test_a_label_map_of_another_edition_or_size_is_named(change, said):
    cohort = parts()[0]
    maps = [Entry(e.patient, change(e.open()).astype(np.uint8), e.meta)
            for e in cohort.label_maps.entries]  # fmt: skip
    with pytest.raises(DataError) as error:
        om.finetune(recipe(), without(cohort, Images(maps, "labels")), task="segmentation")
    assert said in str(error.value)


def test_a_fifth_sequence_is_named_with_how_to_add_it():
    names = (*SEQUENCES, "dwi")
    cohort = brain_cohort.cohort(20, 8, 4, names=names)
    with pytest.raises(DataError) as error:
        om.finetune(model(), cohort, task="segmentation")
    assert str(error.value) == (
        "the pre-trained model has not seen the sequence 'dwi'. Known: flair, t1, t1ce, t2. Name "
        "it so in the spec, or add it: `omnisurv pretrain SPEC --start RUN`"
    )
    # What was learned without it still serves, and says that it looks at the four alone.
    assert model().unread(cohort) == (
        "not read, for the model has not seen them: dwi; to add them, "
        "`omnisurv pretrain SPEC --start RUN`"
    )
    judged = om.evaluate(model(), cohort, subsets="none", allow_seen=True)
    assert judged.notes[0] == model().unread(cohort)
    found = model().predict(cohort.subset(cohort.patients[:1]))
    four = model().predict(cohort.drop_modalities(["dwi"]).subset(cohort.patients[:1]))
    np.testing.assert_array_equal(found.array(0), four.array(0))
    with pytest.raises(DataError, match="the model knows no modality 'dwi'"):
        model().predict(cohort, ["dwi"])


def test_a_sequence_under_another_name_is_told_the_nearest():
    cohort = brain_cohort.cohort(20, 8, 4, names=("t1", "t1c", "t2"))
    with pytest.raises(DataError, match=r"sequence 't1c'\. Did you mean 't1ce'"):
        om.finetune(model(), cohort, task="segmentation")


def test_another_patch_than_the_models_is_refused():
    cohort = brain_cohort.cohort(20, 8, 2)
    with pytest.raises(DataError) as error:
        om.finetune(model(), cohort, task="segmentation")
    assert str(error.value) == (
        "modality 't1': the spec says `patch: 2`, the model was pre-trained with patches of 4; "
        "say `patch: 4`, or pre-train again"
    )


def test_a_checkpoint_of_other_patches_does_not_load(tmp_path):
    run = om.save(model(), tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    settings = json.loads((run / "preprocessing" / "t1.json").read_text())
    for name in SEQUENCES:
        config["modalities"][name]["patch"] = 2
        (run / "preprocessing" / f"{name}.json").write_text(json.dumps({**settings, "patch": 2}))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match="weights do not fit the recipe"):
        om.load(run)


def test_a_mean_volume_is_refused():
    cohort = parts()[0]
    spec = brain_cohort.spec(8, 4, center=True)
    other = om.Cohort(cohort.obs, {n: cohort[n] for n in SEQUENCES}, spec,
                      label_maps=cohort.label_maps)  # fmt: skip
    with pytest.raises(DataError, match="say `center: false` in the spec"):
        om.finetune(recipe(), other, task="segmentation")


def test_other_recipes_refuse_in_one_line():
    with pytest.raises(DataError, match="recipe 'imputmae' has no head for segmentation; use one"):
        om.finetune(om.get_recipe("imputmae:small"), parts()[0], task="segmentation")


# Any subset


def test_every_subset_of_every_patient_is_finite():
    complete = parts()[1]
    names = [None, *(list(s) for n in (1, 2, 3) for s in _combinations(n))]
    for found in model().segment(complete, names):
        planes = 0 if found.entry.patient == "B000" else 2  # of the cube, outside the volume
        assert found.outside.sum() == planes * 8 * 8
        for probability in found.probability.values():
            assert probability.shape == (3, 8, 8, 8)
            assert ((probability >= 0) & (probability <= 1)).all()
    has = complete.availability.sum(axis=1)
    assert len(found.probability) == 2 ** has.iloc[-1] - 1  # of what the patient has


def _combinations(size):
    from itertools import combinations

    return combinations(SEQUENCES, size)


def test_hidden_sequences_change_nothing():
    cohort = parts()[1]
    who = cohort.subset(cohort.patients[cohort.availability["flair"]])
    noisy = [Entry(e.patient, e.open() * 9 + 5, e.meta) for e in who["t1"].entries]
    other = without(who, t1=Images(noisy, "z-score"))
    a, b = (model().predict_probability(c, ["flair", "t2"]) for c in (who, other))
    c = model().predict_probability(other)
    for row in range(len(who)):
        np.testing.assert_array_equal(a.array(row), b.array(row))
    assert not np.array_equal(b.array(0), c.array(0))


def test_the_order_of_sequences_and_batch_mates_change_nothing():
    cohort = parts()[1]
    backwards = om.Cohort(cohort.obs, {n: cohort[n] for n in reversed(SEQUENCES)}, cohort.spec)
    ours, theirs = model().predict_probability(cohort), model().predict_probability(backwards)
    alone = model().predict_probability(cohort.subset(cohort.patients[2:3]))
    for row in range(len(cohort)):
        np.testing.assert_array_equal(ours.array(row), theirs.array(row))
    np.testing.assert_array_equal(ours.array(2), alone.array(0))


def test_a_patient_without_sequences_is_named():
    cohort = parts()[1]
    t1 = cohort["t1"]
    alone = om.Cohort(cohort.obs, {"t1": t1[1:]}, label_maps=cohort.label_maps)
    lost = cohort.patients[~alone.availability["t1"]]
    with pytest.raises(DataError) as error:
        model().predict(alone)
    assert f"{len(lost)} patients have no MRI sequence to look at: {lost[0]}" in str(error.value)


# Whole volumes


def test_a_window_over_a_volume_of_its_size_is_the_network_itself():
    cohort = parts()[1]
    found = model().predict_probability(cohort)
    batch = model().batch(cohort).load()
    stratum = torch.zeros(len(cohort), dtype=torch.long)
    with torch.no_grad():
        direct = model().networks[0](batch, batch.observed, stratum).sigmoid()
    for row in range(len(cohort)):
        np.testing.assert_allclose(found.array(row), direct[row], atol=1e-5)


def test_windows_cover_all_of_a_volume_and_are_cut_as_cubes():
    volumes = torch.randn(2, 13, 8, 9)
    seen = []

    def predict(window):
        seen.append(window)
        return window[:, :1] * 2.0

    found = slide(volumes, 8, predict)
    torch.testing.assert_close(found, volumes[:1] * 2.0)
    assert [window.shape for window in seen] == [(6, 2, 8, 8, 8)]  # 0, 4, 5 and 0 and 0, 1
    torch.testing.assert_close(seen[0][1], volumes[:, :8, :8, 1:9])


def test_a_volume_smaller_than_the_window_is_padded_with_what_is_not_there():
    volumes = torch.randn(1, 6, 8, 3)
    seen = []

    def predict(window):
        seen.append(window)
        return window.nan_to_num(nan=-1.0)

    torch.testing.assert_close(slide(volumes, 8, predict), volumes)
    assert len(seen) == 1
    assert seen[0].isnan().sum() == 8**3 - 6 * 8 * 3


def test_labels_are_the_innermost_region():
    found = next(model().segment(parts()[1]))
    seen = next(iter(found.probability))
    inside = np.array([[0.9, 0.2, 0.2, 0.9], [0.9, 0.8, 0.1, 0.1], [0.9, 0.9, 0.6, 0.1]])
    probability = torch.zeros(3, 8, 8, 8)
    probability[:, 0, 0, :4] = torch.from_numpy(inside).float()
    found.probability[seen] = probability
    found.outside[:] = False
    found.outside[7] = True
    labels = found.labels(seen)
    assert labels[0, 0, :5].tolist() == [3, 1, 2, 3, 0]
    assert (labels[7] == 255).all()
    assert labels.dtype == np.uint8


# Files: three patients whose volumes are larger than the cube, and one who is smaller


SHAPES = {"P1": (12, 10, 9), "P2": (9, 11, 12), "P3": (6, 8, 5)}
AFFINE = np.array([[-1.0, 0, 0, 9], [0, -1.5, 0, 8], [0, 0, 2.0, -3], [0, 0, 0, 1]])


@pytest.fixture
def files(tmp_path):
    """A folder as BraTS 2021 has it; the spec's cube is the model's."""
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        labels = np.zeros(shape, np.uint8)
        labels[2:5, 2:6, 1:4] = rng.choice([1, 2, 4], (3, 4, 3))
        for sequence in SEQUENCES[: 2 if name == "P2" else 4]:
            data = rng.integers(50, 90, shape) + 20 * labels.astype(int)
            data[0] = 0
            _write(tmp_path / f"mri/{name}/{name}_{sequence}.nii.gz", data.astype(np.int16))
        _write(tmp_path / f"mri/{name}/{name}_seg.nii.gz", labels)
    spec = brain_cohort.spec(8, 4).model_dump(mode="json", exclude_none=True)
    parts = {
        name: {"kind": "mri", "source": {"format": "brats", "path": "mri", "sequence": name},
               "crop": "centre", "size": 8, "patch": 4}
        for name in SEQUENCES
    }  # fmt: skip
    told = {
        "name": spec["name"],
        "patients": {"id": "column"},
        "modalities": parts,
        "segmentation": {"source": {"format": "brats", "path": "mri"}, "labels": "brats21"},
    }
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(told))
    return tmp_path


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, AFFINE), path)


def test_label_maps_are_written_on_the_patients_own_grid(files):
    cohort = om.Cohort.from_spec(files / "cohort.yaml")
    manifest = write_label_maps(model(), cohort, files / "out")
    assert manifest["labels"] == "brats21"
    assert json.loads((files / "out/segmentation.json").read_text()) == manifest
    found = model().predict(cohort)
    for row, (name, shape) in enumerate(SHAPES.items()):
        image = nib.load(files / f"out/{name}_seg.nii.gz")
        assert image.shape == shape
        np.testing.assert_allclose(image.affine, AFFINE)
        assert image.get_data_dtype() == np.uint8
        assert set(np.unique(np.asarray(image.dataobj))) <= {0, 1, 2, 4}
        canonical = np.asarray(nib.as_closest_canonical(image).dataobj)
        np.testing.assert_array_equal(np.where(canonical == 4, 3, canonical), found.array(row))
        told = manifest["patients"][name]
        assert told["whole"]
        assert told["voxels"]["WT"] == int((canonical > 0).sum())
    assert manifest["patients"]["P2"]["modalities"] == ["t1", "t1ce"]


def test_the_edition_asked_for_is_written(files):
    cohort = om.Cohort.from_spec(files / "cohort.yaml").subset(["P1"])
    probability = model().predict_probability(cohort)
    assert probability.array(0).shape == (3, *SHAPES["P1"])
    a = write_label_maps(model(), cohort, files / "a", edition="brats21")
    b = write_label_maps(model(), cohort, files / "b", edition="brats23")
    assert a["patients"]["P1"]["voxels"] == b["patients"]["P1"]["voxels"]
    old, new = (
        np.asarray(nib.load(files / f"{folder}/P1_seg.nii.gz").dataobj) for folder in ("a", "b")
    )
    np.testing.assert_array_equal(np.where(old == 4, 3, old), new)
    with pytest.raises(DataError, match="'brats99' is no edition of labels; say brats15"):
        write_label_maps(model(), cohort, files / "c", edition="brats99")
    assert not (files / "c").exists()


def test_without_the_raw_file_the_cube_is_segmented(files):
    cohort = om.Cohort.from_spec(files / "cohort.yaml").subset(["P1"])
    (files / "mri/P1/P1_t2.nii.gz").unlink()
    manifest = write_label_maps(model(), cohort, files / "out")
    assert not manifest["patients"]["P1"]["whole"]
    image = nib.load(files / "out/P1_seg.nii.gz")
    assert image.shape == SHAPES["P1"]
    canonical = np.asarray(nib.as_closest_canonical(image).dataobj)
    inside = np.zeros(SHAPES["P1"], bool)
    inside[2:10, 1:9, 0:8] = True
    assert not canonical[~inside].any()
    notes = evaluate_segmentation(model(), cohort, subsets="none", draws=10).notes
    assert notes == ["1 patients were judged on the cube alone, for raw files are gone: P1"]


def test_scores_are_of_the_whole_volume(files):
    cohort = om.Cohort.from_spec(files / "cohort.yaml")
    result = evaluate_segmentation(model(), cohort, subsets="none", draws=10)
    found = model().predict(cohort)
    for row, name in enumerate(SHAPES):
        image = nib.as_closest_canonical(nib.load(files / f"mri/{name}/{name}_seg.nii.gz"))
        truth = np.asarray(image.dataobj) > 0
        labels = found.array(row) > 0
        wanted = 2 * (truth & labels).sum() / (truth.sum() + labels.sum())
        told = result.cases.set_index(["patient", "subset", "region"]).loc[name, "all", "WT"]
        assert told["dice"] == pytest.approx(wanted)


# Evaluation


@cache
def evaluation():
    return evaluate(model(), parts()[1], subsets="all")


def test_the_table_has_fifteen_subsets_and_their_mean():
    result = evaluation()
    ours = result.table[result.table["model"] == "bm_mae:tiny"]
    assert ours["subset"].nunique() == 16
    assert ours["subset"].iloc[0] == "all"
    assert {f"{m}_{r}" for m in ("dice", "hd95") for r in (*REGIONS, "mean")} == set(ours["metric"])
    assert list(result.cases.columns) == ["patient", "subset", "region", "dice", "hd95"]
    alone = result.cases[(result.cases["subset"] == "t1") & (result.cases["region"] == "ET")]
    has = parts()[1].availability["t1"]
    assert list(alone["patient"]) == list(has.index[has])
    assert (ours[ours["subset"] == "t1"]["n"] == has.sum()).all()


def test_rows_are_means_of_cases():
    result = evaluation()
    rows = result.table.set_index(["model", "subset", "metric"])["value"]["bm_mae:tiny"]
    cases = result.cases
    for subset in ("all", "t1ce+t2"):
        for region in REGIONS:
            chosen = cases[(cases["subset"] == subset) & (cases["region"] == region)]
            assert rows[subset, f"dice_{region}"] == pytest.approx(chosen["dice"].mean())
            assert rows[subset, f"hd95_{region}"] == pytest.approx(chosen["hd95"].mean())
        whole = cases[cases["subset"] == subset].groupby("patient")["dice"].mean()
        assert rows[subset, "dice_mean"] == pytest.approx(whole.mean())
    by_patient = cases[cases["region"] == "WT"].groupby("patient")["dice"].mean()
    assert rows["mean", "dice_WT"] == pytest.approx(by_patient.mean())
    first = result.table.iloc[0]
    assert first["ci_low"] <= first["value"] <= first["ci_high"]


def test_the_null_finds_nothing():
    """Of the patients in whom nothing enhances it is right, by BraTS's rule."""
    result = evaluation()
    rows = result.table[result.table["model"] == "null"].set_index("metric")["value"]
    dull = [not (parts()[1].label_maps.array(row) == 3).any() for row in range(len(parts()[1]))]
    assert 0 < np.mean(dull) < 1
    assert rows["dice_ET"] == np.mean(dull)
    assert rows["dice_WT"] == 0
    assert rows["hd95_WT"] == 373.13


def test_the_rule_of_empty_regions_is_an_option():
    result = evaluate_segmentation(model(), parts()[1], subsets="none", empty="nan", draws=10)
    et = result.cases[result.cases["region"] == "ET"]
    dull = [not (parts()[1].label_maps.array(row) == 3).any() for row in range(len(parts()[1]))]
    assert list(et["dice"].isna()) == dull


def test_each_volume_is_read_once_for_all_subsets(monkeypatch):
    from omnisurv import windows

    calls = []
    cut = windows.cut
    monkeypatch.setattr(windows, "cut", lambda *a: calls.append(a) or cut(*a))
    test = parts()[1]
    evaluate_segmentation(model(), test, subsets="all", draws=10)
    assert len(calls) == len(test) * len(SEQUENCES)  # one window each, cut once


def test_results_are_written_and_read(tmp_path):
    evaluation().save(tmp_path)
    again = Evaluation.load(tmp_path)
    pd.testing.assert_frame_equal(again.cases, evaluation().cases)
    pd.testing.assert_frame_equal(read_cases(tmp_path), evaluation().cases)
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert rows[0]["metric"] == "dice_ET"
    (tmp_path / "cases.csv").unlink()
    with pytest.raises(InputError, match=r"holds no cases\.csv; first `omnisurv evaluate` it"):
        read_cases(tmp_path)


def test_two_runs_are_compared_case_by_case():
    from scipy.stats import wilcoxon

    theirs = evaluation().cases
    rng = np.random.default_rng(0)
    ours = theirs.assign(dice=theirs["dice"] + rng.uniform(0.01, 0.2, len(theirs)))
    told = compare_cases(ours, theirs, ("a", "b"), draws=100)
    row = told[(told["subset"] == "all") & (told["metric"] == "dice_WT")].iloc[0]
    apart = (ours["dice"] - theirs["dice"])[(ours["subset"] == "all") & (ours["region"] == "WT")]
    assert row["value"] == pytest.approx(apart.mean())
    assert row["p"] == pytest.approx(wilcoxon(apart).pvalue)
    assert 0 < row["ci_low"] < row["value"] < row["ci_high"]
    same = told[told["metric"] == "hd95_TC"]
    assert (same["p"] == 1).all()
    assert (same["value"] == 0).all()
    with pytest.raises(DataError, match="a and b have no patient and subset in common"):
        compare_cases(ours, theirs.assign(patient="X"), ("a", "b"))


def test_strangers_to_the_model_are_left_out_and_told():
    cohort = parts()[1]
    bare = without(cohort, maps=cohort.label_maps[:3])
    result = evaluate_segmentation(model(), bare, subsets="none", draws=10)
    assert result.cases["patient"].nunique() == 3
    assert "2 patients left out: no label map, or no sequence the model knows" in result.notes
    named = om.Cohort(cohort.obs, {"dwi": cohort["t1"]}, label_maps=cohort.label_maps)
    with pytest.raises(DataError, match="nobody with a label map has a sequence that the model"):
        evaluate_segmentation(model(), named)


# Commands


def test_segment_by_command(files, capsys):
    om.save(model(), files / "run")
    spec, out = str(files / "cohort.yaml"), files / "out"
    words = ["segment", str(files / "run"), spec, "--patients", "P1,P3", "--modalities", "t1ce",
             "--labels", "brats23", "--out", str(out)]  # fmt: skip
    assert run_command(words) == 0
    assert "2 label maps of brats23" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {"P1_seg.nii.gz", "P3_seg.nii.gz", "segmentation.json"}


def test_patients_who_cannot_be_segmented_are_named_and_the_others_done(files, capsys):
    om.save(model(), files / "run")
    words = ["segment", str(files / "run"), str(files / "cohort.yaml"), "--modalities", "flair"]
    assert run_command([*words, "--out", str(files / "a")]) == 0
    said = "1 patients have no MRI sequence to look at, the others are done: P2"
    assert said in capsys.readouterr().err
    assert run_command([*words, "--patients", "P1,P2", "--out", str(files / "b")]) == 2
    assert said in capsys.readouterr().err
    assert (files / "b/P1_seg.nii.gz").exists()
    assert run_command([*words, "--patients", "P2", "--out", str(files / "c")]) == 2
    assert "P2: no MRI sequence to look at; the model knows t1, t1ce" in capsys.readouterr().err


def test_a_run_of_another_task_cannot_segment(files, capsys):
    start = om.pretrain(recipe(pretrain={"epochs": 1}), parts()[0])
    om.save(start, files / "pre")
    words = ["segment", str(files / "pre"), str(files / "cohort.yaml"), "--out", str(files / "x")]
    assert run_command(words) == 2
    assert "cannot segment, it was trained for pretrain; first run" in capsys.readouterr().err


def test_evaluate_by_command(files, capsys):
    om.save(model(), files / "run")
    words = ["evaluate", str(files / "run"), str(files / "cohort.yaml"), "--subsets", "t1ce,t1+t2"]
    assert run_command([*words, "--out", str(files / "a")]) == 0
    told = capsys.readouterr().out
    assert "mean Dice of ET, TC and WT" in told
    page = (files / "a/report.html").read_text()
    assert "Overlap and distance" in page
    again = [*words, "--out", str(files / "b"), "--against", str(files / "a")]
    assert run_command(again) == 0
    differences = json.loads((files / "b/metrics.json").read_text())["differences"]
    assert differences[0]["against"] == str(files / "a")
    assert all(row["value"] == 0 and row["p"] == 1 for row in differences)
    assert run_command([*words, "--out", str(files / "c"), "--against", str(files / "mri")]) == 2
    assert "holds no cases.csv" in capsys.readouterr().err


@pytest.mark.slow(seconds=25)
def test_it_learns_what_each_sequence_shows():
    """Scores of regions that a patient has: where nothing enhances, one voxel decides all."""
    train, test = brain_cohort.cohort(40, 16, 4).split()
    stage = {"epochs": 30, "batch": 2}
    found = om.finetune(recipe(dim=48, features=6, segmentation=stage), train, task="segmentation")
    table = evaluate_segmentation(found, test, subsets="all", empty="nan", draws=10).table
    rows = table[table["group"] == "all"].set_index(["model", "subset", "metric"])["value"]
    ours = rows["bm_mae:tiny"]
    assert ours["all", "dice_WT"] > 0.8
    assert ours["all", "dice_TC"] > 0.75
    assert ours["mean", "dice_WT"] > 0.75
    assert ours["t1ce", "dice_ET"] > 0.6
    assert ours["all", "hd95_WT"] < 7.0
    assert rows["null", "all", "dice_ET"] == 0.0
