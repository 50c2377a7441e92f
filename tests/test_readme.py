"""The snippets of the README, run as they stand on a small cohort."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from omnisurv.cli import app
from omnisurv.simulation.brats import simulate_brats, write_brats
from tests.commands import QUICK, blocks, edit, runner, write_cohort

README = Path(__file__).parents[1] / "README.md"
SMALLER = {
    '"/where/the/files/are"': '"."',
    '("imputmae:small")': '("imputmae:small", members=1, pretrain={"epochs": 2})',
    "trials=50": "trials=1",
}
"""What the README tells its readers to put there, so that the test takes seconds."""

SMALL_DATA = {
    "--repeats 2": "--repeats 1",
    "data_specs/brats2021.yaml --root BraTS2021": "brats/cohort.yaml",
    "data_specs/tcga_glioma_matrices.yaml --root tcga_glioma": "glioma/cohort.yaml",
}
QUICK_BRATS = ("--set", "pretrain.epochs=1", "--set", "segmentation.epochs=1", "--set", "dim=12")


def smaller(snippets):
    """Return the snippets with the substitutions, each of which has to occur."""
    text = "\0".join(snippets)
    for old, new in SMALLER.items():
        assert old in text, f"README no longer says {old}"
        text = text.replace(old, new)
    return text.split("\0")


def folder_for_snippets(folder):
    """Write the cohort where the snippets look for it."""
    spec = write_cohort(folder, patients=70)
    spec.rename(folder / "my_cohort.yaml")
    edit(folder / "my_cohort.yaml", lambda values: values["splits"].update(folds=2))


@pytest.mark.slow
def test_the_snippets_run_in_order_and_do_what_they_say(tmp_path, monkeypatch):
    folder_for_snippets(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, snippet in enumerate(smaller(blocks(README, "python"))):
        exec(compile(snippet, f"README.md, snippet {number + 1}", "exec"), names)
    test = names["test"]
    assert names["curves"].index.name == "days"
    assert list(names["curves"].columns) == list(test.patients) == list(names["risk"].index)
    figures = names["result"].metric("c_harrell")
    assert {"imputmae:small", "null", "mask_only", "cox_clinical"} <= set(figures.index)
    assert {"all", "LGG", "GBM"} == set(figures.columns)
    assert len(names["result"].table["subset"].unique()) > 2
    assert {"imputed", "low", "high"} <= set(names["dnam"].layers)
    for left in ("runs/pretrained/config.yaml", "runs/survival/config.yaml", "imputed/dnam.h5ad"):
        assert (tmp_path / left).exists(), left


def test_the_specs_and_commands_it_names_are_there():
    text = README.read_text()
    for name in re.findall(r"data_specs/\w+\.yaml", text):
        assert yaml.safe_load((README.parent / name).read_text())["modalities"], name
    known = set(get_command(app).commands)
    named = set(re.findall(r"^\| `(\w+)", text, re.MULTILINE)) | {
        command
        for block in blocks(README, "sh")
        for command in re.findall(r"omnisurv (\w+)", block)
    }
    assert named == known


@pytest.mark.slow(seconds=60)
def test_its_commands_run_in_order(tmp_path, monkeypatch, capsys):
    """The blocks on brain MRI and on glioma, on small cohorts and with quick settings."""
    brats = write_brats(simulate_brats(20, seed=3, missing=0.2), tmp_path / "brats")
    edit(brats, lambda v: v["splits"].update(test=0.1))
    edit(write_cohort(tmp_path / "glioma", patients=60), lambda v: v["splits"].update(folds=2))
    monkeypatch.chdir(tmp_path)
    command = runner(capsys)
    for block in blocks(README, "sh")[2:]:
        text = block
        for said, here in SMALL_DATA.items():
            text = text.replace(said, here)
        quick = QUICK_BRATS if "brats" in text else QUICK
        for line in text.splitlines():
            words = shlex.split(line)[1:]
            learns = words[0] in ("pretrain", "crossvalidate")
            answer = command(*words, *(quick if learns else ()))
            assert answer.code == 0, (line, answer.err)
    for left in (
        "runs/segmentation/report.html",
        "runs/glioma-survival/report.html",
        "imputed/rna.h5ad",
        "cv/report.html",
    ):
        assert (tmp_path / left).exists(), left
    cases = {folder.name for folder in (tmp_path / "brats" / "mri").iterdir()}
    assert {file.name[: -len("_seg.nii.gz")] for file in Path("labels").glob("*.gz")} == cases
