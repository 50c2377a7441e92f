"""The snippets of the README, run as they stand on a small cohort."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from omnisurv.cli import app
from tests.commands import edit, write_cohort

README = Path(__file__).parents[1] / "README.md"
SMALLER = {
    '"/where/the/files/are"': '"."',
    '("imputmae:small")': '("imputmae:small", members=1, pretrain={"epochs": 2})',
    "trials=50": "trials=1",
}
"""What the README tells its readers to put there, so that the test takes seconds."""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


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
    for number, snippet in enumerate(smaller(blocks("python"))):
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
        command for block in blocks("sh") for command in re.findall(r"omnisurv (\w+)", block)
    }
    assert named == known
