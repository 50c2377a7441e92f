"""The study of BM-MAE: who is trained and judged, and what its tables hold."""

import json
import shlex
import shutil
from concurrent.futures import BrokenExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import blocks, runner

import omnisurv as om
from omnisurv import plots
from omnisurv.data.workers import processes
from omnisurv.errors import CheckpointError, DataError, InputError
from omnisurv.simulation.brats import simulate_brats, write_brats
from omnisurv.study import ARMS, baseline, study_bm_mae

pytestmark = pytest.mark.slow(seconds=40)
ONE = {"epochs": 1, "batch": 8, "warmup": 0}
TINY = {
    "dim": 12, "heads": 2, "mlp": 12, "trunk": 2, "decoder_dim": 12, "decoder_mlp": 12,
    "decoder_depth": 1, "features": 2,
    **dict.fromkeys(("pretrain", "finetune", "classification", "segmentation"), ONE),
}  # fmt: skip


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brats")
    spec = write_brats(simulate_brats(30, seed=3, missing=0.05), folder)
    spec.write_text(spec.read_text().replace("test: 0.2", "test: 0.5"))
    return spec


@pytest.fixture(scope="module")
def cohort(spec):
    """Return patients with two sequences, of which there are three subsets."""
    return om.Cohort.from_spec(spec).drop_modalities(["t1", "t2"])


@pytest.fixture(scope="module")
def recipe():
    return om.get_recipe("bm_mae:tiny", **TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def found(cohort, recipe, folder):
    return study_bm_mae(recipe, cohort, out=folder)


def complete(cohort):
    return cohort.patients[cohort.availability.all(axis=1)]


def test_every_row_is_of_the_held_out_patients_who_have_all_sequences(found, cohort):
    _, test = cohort.split()
    judged = complete(test)
    assert list(found.results) == ["segmentation", "subtype", "survival"]
    assert found.judged == len(judged)
    assert set(found.results["segmentation"].cases["patient"]) == set(judged)
    for task in ("segmentation", "subtype"):
        rows = found.results[task].table
        assert set(rows.loc[rows["group"] == "all", "n"]) == {len(judged)}
    usable = test.with_endpoint()
    assert set(found.results["survival"].table["n"]) == {len(complete(usable))}


def test_tables_have_all_subsets_and_their_mean(found):
    for task, result in found.results.items():
        table = found.table(task)
        assert list(table.index) == ["t1ce", "flair", "t1ce+flair", "mean"]
        metric, model = table.columns[0]
        assert table.loc["mean", (metric, model)] == pytest.approx(
            table.drop(index="mean")[metric, model].mean()
        )
        assert set(result.table["model"]) == {"bm_mae", "scratch"}
    wins, count = found.wins("segmentation")
    scores = found.table("segmentation")["dice_mean"].drop(index="mean")
    assert count == 3
    assert wins == sum(a > b for a, b in zip(scores["bm_mae"], scores["scratch"], strict=True))


def test_the_figure_has_one_dot_for_each_arm_and_subset(found):
    axes = plots.arms(found.results["segmentation"].table, "dice_mean").axes[0]
    dots = {line.get_label(): line.get_xdata() for line in axes.lines if line.get_marker() == "o"}
    scores = found.table("segmentation")["dice_mean"]
    for label, arm in (("bm mae", "bm_mae"), ("scratch", "scratch")):
        np.testing.assert_allclose(dots[label], scores[arm])
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == list(scores.index)


def test_arms_are_compared_on_the_same_patients(found):
    cases = found.results["segmentation"].cases
    ours, theirs = (
        cases[(cases["model"] == arm) & (cases["subset"] == "t1ce") & (cases["region"] == "WT")]
        for arm in ("bm_mae", "scratch")
    )
    pairs = found.results["segmentation"].differences
    told = pairs[(pairs["subset"] == "t1ce") & (pairs["metric"] == "dice_WT")].iloc[0]
    apart = ours.set_index("patient")["dice"] - theirs.set_index("patient")["dice"]
    assert (told["model"], told["against"], told["n"]) == ("bm_mae", "scratch", len(apart))
    assert told["value"] == pytest.approx(apart.mean())


def test_processes_judge_as_one_does(found, cohort, recipe, folder):
    with processes(2) as pool:
        again = study_bm_mae(recipe, cohort, out=folder, tasks=["segmentation"], pool=pool)
    pd.testing.assert_frame_equal(
        again.results["segmentation"].cases, found.results["segmentation"].cases
    )


def test_a_killed_process_is_one_line_and_loses_nothing(cohort, recipe, folder, found):
    class Killed:
        def map(self, *_):
            raise BrokenExecutor("terminated abruptly")

    with pytest.raises(InputError, match="was killed, most likely for want of memory; what is tr"):
        study_bm_mae(recipe, cohort, out=folder, tasks=["segmentation"], pool=Killed())
    assert (folder / "scratch" / "segmentation" / "config.yaml").exists()


def test_a_finished_part_is_not_trained_again(cohort, recipe, found, tmp_path):
    said = []

    def note(label, *_):
        said.append(label)

    study_bm_mae(recipe, cohort, out=tmp_path, tasks=["survival"], progress=note)
    assert {"bm_mae/pretrain: pretrain", "scratch/survival: finetune"} <= set(said)
    said.clear()
    again = study_bm_mae(recipe, cohort, out=tmp_path, tasks=["survival"], progress=note)
    assert not said
    pd.testing.assert_frame_equal(again.table("survival"), found.table("survival"))
    # Other settings of fine-tuning leave the pre-training as it is.
    later = recipe.model_copy(update={"head_dropout": 0.3})
    with pytest.raises(CheckpointError, match="bm_mae/survival holds a run of other patients or"):
        study_bm_mae(later, cohort, out=tmp_path, tasks=["survival"])
    for arm in ("bm_mae", "scratch"):
        shutil.rmtree(tmp_path / arm / "survival")
    study_bm_mae(later, cohort, out=tmp_path, tasks=["survival"], progress=note)
    assert {label.split(":")[0] for label in said} == {"bm_mae/survival", "scratch/survival"}
    assert om.load(tmp_path / "bm_mae" / "survival").recipe == later
    with pytest.raises(CheckpointError, match="bm_mae/pretrain holds a run of other patients or"):
        study_bm_mae(recipe.model_copy(update={"seed": 1}), cohort, out=tmp_path)


def test_fixed_inputs_are_trained_on_those_who_have_them(cohort, recipe, tmp_path):
    study = study_bm_mae(
        recipe, cohort, out=tmp_path, tasks=["subtype"], arms=["stacked_mae", "simclr"]
    )
    train, _ = cohort.split()
    assert set(study.results["subtype"].table["model"]) == {"bm_mae", "stacked_mae", "simclr"}
    for arm in ("stacked_mae", "simclr"):
        model = om.load(tmp_path / arm / "t1ce+flair" / "subtype")
        assert list(model.modalities) == ["t1ce", "flair"]
        both = train.availability[["t1ce", "flair"]].all(axis=1)
        assert sorted(model.seen["pretrain"]) == sorted(train.subset(both[both].index).hashed_ids())


def test_label_maps_of_few_patients_can_be_learned_from(cohort, recipe, tmp_path):
    study = study_bm_mae(recipe, cohort, out=tmp_path, tasks=["segmentation"], labelled=10)
    train, _ = cohort.split()
    for arm in ("bm_mae", "scratch"):
        seen = om.load(tmp_path / arm / "segmentation").seen
        assert len(seen["finetune"]) == 10
        assert set(seen["finetune"]) < set(train.hashed_ids())
    assert len(om.load(tmp_path / "bm_mae" / "pretrain").seen["pretrain"]) == len(train)
    assert study.trained == len(train)
    with pytest.raises(DataError, match=f"{len(train)} patients of the development part have a l"):
        study_bm_mae(recipe, cohort, out=tmp_path, labelled=100)


@pytest.mark.parametrize("arm", ARMS[2:])
def test_other_arms_are_fine_tuned_alike(recipe, arm):
    other = baseline(arm, recipe)
    assert other.segmentation == recipe.segmentation
    assert other.title == f"{arm}:tiny"
    assert (other.dim, other.trunk, other.features) == (12, 2, 2)
    assert other.drop_rate == 0


def test_what_cannot_be_studied_is_named(cohort, recipe, tmp_path):
    with pytest.raises(DataError, match=r"cannot tell task 'subtyp'\. Did you mean 'subtype'"):
        study_bm_mae(recipe, cohort, out=tmp_path, tasks=["subtyp"])
    with pytest.raises(DataError, match=r"no arm 'scratsh'\. Did you mean 'scratch'"):
        study_bm_mae(recipe, cohort, out=tmp_path, arms=["scratsh"])
    with pytest.raises(DataError, match="the cohort has 1"):
        study_bm_mae(recipe, cohort.drop_modalities(["flair"]), out=tmp_path)
    few = cohort.subset(cohort.patients[:12])
    with pytest.raises(DataError, match="of the test part have all of t1ce, flair, 10 are"):
        study_bm_mae(recipe, few, out=tmp_path)


def documented():
    """Return what docs/bm_mae.md says to type for the study on simulated patients."""
    _, block = blocks(Path(__file__).parents[1] / "docs" / "bm_mae.md", "sh")
    _, line = block.replace("\\\n", " ").splitlines()
    return shlex.split(line)[1:]


def test_the_command_writes_tables_and_a_page(spec, tmp_path, capsys):
    here = {"brats/cohort.yaml": spec, "study": tmp_path / "study", "40": "10"}
    words = [here.get(word, word) for word in documented()]
    settings = [
        f"--set={key}={value}" for key, value in TINY.items() if not isinstance(value, dict)
    ]
    settings += [f"--set={stage}.epochs=1" for stage in ("pretrain", "finetune", "classification")]
    done = runner(capsys)(
        *words, "--task", "subtype", "--json", tmp_path / "told.json", *settings,
        "--root", spec.parent,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Subtype, AUC in the mean of all subsets: bm_mae 0." in done.out
    table = pd.read_csv(tmp_path / "study" / "subtype.csv", header=[0, 1], index_col=0)
    assert len(table) == 16
    page = (tmp_path / "study" / "report.html").read_text()
    assert "Subtype from any subset" in page
    assert "Consistency of embeddings" in page
    assert "--set pretrain.epochs=1" in page
    assert f"--root {spec.parent}" in page
    told = json.loads((tmp_path / "told.json").read_text())
    assert {row["model"] for row in told["subtype"]["rows"]} == {"bm_mae", "scratch"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--study", "bm-mae"], "a study takes one SPEC and a folder"),
        (["--study", "bm-mae", "--out", "OUT", "--recipe", "imputmae:small"], "compares recipe bm"),
        (["--recipe", "bm_mae:tiny"], "--recipe and --set are for a --study"),
    ],
)
def test_a_wrong_command_is_one_line(spec, tmp_path, capsys, words, sentence):
    given = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    assert sentence in runner(capsys)("evaluate", spec, *given).sentence
