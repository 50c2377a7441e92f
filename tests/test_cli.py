"""The commands as a user runs them, one after the other."""

import json
import re
import subprocess
import sys
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

from omnisurv.cli import app, run_command
from omnisurv.demo import run_demo
from omnisurv.evaluation.imputation import evaluate_imputation
from omnisurv.evaluation.scoring import score_survival
from omnisurv.recipe import get_recipe
from omnisurv.simulation import simulate, write
from tests.commands import QUICK, runner, write_cohort

COMMANDS = (
    "demo", "simulate", "inspect", "preprocess", "pretrain", "import", "finetune", "impute",
    "evaluate", "explain", "crossvalidate", "tune", "patient", "report", "segment", "list",
)  # fmt: skip


@pytest.fixture
def command(capsys):
    return runner(capsys)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A cohort, a pre-trained run and a survival run."""
    folder = tmp_path_factory.mktemp("cli")
    spec = write_cohort(folder / "cohort")
    assert run_command(["pretrain", str(spec), "--out", str(folder / "pre"), *QUICK]) == 0
    assert run_command(["finetune", str(folder / "pre"), "--out", str(folder / "fine")]) == 0
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(command, name):
    answer = command(name, "--help")
    assert answer.code == 0
    assert f"Example: omnisurv {name}" in " ".join(answer.out.split())


def test_every_command_is_listed_in_the_help(command):
    answer = command()
    assert answer.code == 0
    assert {c.name or c.callback.__name__ for c in app.registered_commands} == set(COMMANDS)
    assert all(name in answer.out for name in COMMANDS)


def test_help_is_light():
    heavy = ("torch", "scanpy", "sksurv", "matplotlib", "pycox", "lightning", "anndata", "pandas")
    code = (
        "import sys; from omnisurv.cli import run_command; assert run_command(['--help']) == 0; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip().endswith("[]")


def test_simulate_then_inspect(command, tmp_path):
    assert command("simulate", tmp_path / "c", "--patients", 24, "--seed", 1).code == 0
    file = tmp_path / "look.json"
    answer = command("inspect", tmp_path / "c" / "cohort.yaml", "--json", file, "--out", tmp_path)
    assert answer.code == 0
    assert re.search(r"sample type 02 \(recurrent tumour\)", answer.out)
    assert "median_follow_up_years" in answer.out
    found = json.loads(file.read_text())
    assert found["patients"] == 24
    assert {part["part"] for part in found["parts"]} >= {"development", "test", "fold 5"}
    assert set(pd.read_csv(tmp_path / "audit.csv")["status"]) == {"kept", "dropped", "warning"}


def test_inspect_lists_patients_without_endpoint_and_states_the_rule(command, tmp_path):
    spec = write_cohort(tmp_path)
    table = pd.read_csv(tmp_path / "clinical.tsv", sep="\t", dtype=str)
    table.loc[[0, 1], "OS.time"] = ["0", "-3"]
    table.to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    answer = command("inspect", spec)
    assert answer.code == 0
    for patient in table["case_submitter_id"][:2]:
        assert re.search(rf"{patient}: time is not positive", answer.out)
    assert "time must be > 0 and the event known" in answer.out


def test_run_folder_is_whole(folder):
    for run in ("pre", "fine"):
        names = {path.name for path in (folder / run).iterdir()}
        assert names >= {
            "config.yaml", "splits.json", "model.safetensors", "preprocessing", "history.csv",
            "provenance.json",
        }  # fmt: skip
        assert "resume" not in names
    told = json.loads((folder / "pre" / "provenance.json").read_text())
    assert told["spec"].endswith("cohort.yaml")
    split = json.loads((folder / "fine" / "splits.json").read_text())
    assert split["source"].endswith("pre")
    assert not set(split["train"]) & set(split["held_out"])
    assert set(told["seen"]["pretrain"]) <= set(split["train"])
    assert not any(id_.startswith("TCGA") for id_ in split["train"])


def test_settings_reach_the_recipe(folder):
    config = yaml.safe_load((folder / "pre" / "config.yaml").read_text())
    assert config["recipe"]["pretrain"]["epochs"] == 2
    assert config["recipe"]["dim"] == 16


def test_the_same_training_again_is_nothing_to_do(command, folder):
    before = (folder / "pre" / "model.safetensors").stat().st_mtime_ns
    answer = command("pretrain", folder / "cohort/cohort.yaml", "--out", folder / "pre", *QUICK)
    assert answer.code == 0
    assert "nothing to do" in answer.out
    assert (folder / "pre" / "model.safetensors").stat().st_mtime_ns == before


def test_another_training_does_not_overwrite_a_run(command, folder):
    spec = folder / "cohort/cohort.yaml"
    answer = command("pretrain", spec, "--out", folder / "pre", *QUICK, "--seed", 9)
    assert "holds a finished run of other patients or settings" in answer.sentence


def test_impute_writes_h5ad_with_bounds_and_draws(command, folder, tmp_path):
    spec = folder / "cohort/cohort.yaml"
    clinical = pd.read_csv(folder / "cohort/clinical.tsv", sep="\t")
    chosen = tmp_path / "ids.txt"
    chosen.write_text("\n".join(clinical["case_submitter_id"][:5]))
    answer = command(
        "impute", folder / "pre", spec, "--patients", chosen, "--modalities", "dnam,rna",
        "--draws", 2, "--seed", 4, "--tsv", "--out", tmp_path / "i",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    data = anndata.read_h5ad(tmp_path / "i" / "dnam.h5ad")
    assert data.n_obs == 5
    assert {"imputed", "low", "high", "draw_0", "draw_1"} <= set(data.layers)
    assert not np.array_equal(data.layers["draw_0"], data.layers["draw_1"])
    assert (tmp_path / "i" / "rna_low.tsv").exists()
    assert data.uns["omnisurv"]["run"].endswith("pre")


def test_evaluate_says_who_and_writes_a_report(command, folder, tmp_path):
    spec = folder / "cohort/cohort.yaml"
    answer = command(
        "evaluate", folder / "fine", spec, "--subsets", "rna,clinical+dnam", "--out",
        tmp_path / "e", "--json", tmp_path / "e.json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "the test part of the spec's split" in answer.out
    rows = pd.DataFrame(json.loads((tmp_path / "e.json").read_text())["rows"])
    assert set(rows["subset"]) == {"all", "rna", "clinical+dnam"}
    assert {"null", "mask_only", "cox_clinical", "imputmae:small"} <= set(rows["model"])
    assert set(rows["group"]) == {"all", "LGG", "GBM"}
    page = (tmp_path / "e" / "report.html").read_text()
    assert "predicted risk" in page
    assert "Any subset of modalities" in page
    assert (tmp_path / "e" / "figures" / "survival_by_predicted_risk.svg").exists()
    assert (tmp_path / "e" / "metrics.json").exists()


def test_evaluate_imputation(command, folder, tmp_path):
    spec = folder / "cohort/cohort.yaml"
    answer = command("evaluate", folder / "fine", spec, "--task", "imputation", "--out", tmp_path)
    assert answer.code == 0, answer.err
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert {"mean", "knn", "ridge"} <= set(table["model"])
    assert "coverage_90" in set(table["metric"])


def test_another_cohort_is_evaluated_whole(command, folder, tmp_path):
    write(simulate(50, seed=77, genes=40, cpgs=30, proteins=12), tmp_path / "other")
    for table in ("clinical.tsv", "cnv_arm.tsv"):  # other patients, not only other values
        file = tmp_path / "other" / table
        file.write_text(re.sub(r"TCGA-(..)-S", r"TCGA-\1-Q", file.read_text()))
    spec = tmp_path / "other" / "cohort.yaml"
    values = yaml.safe_load(spec.read_text())
    values["modalities"] = {
        name: part for name, part in values["modalities"].items() if name in ("clinical", "cnv_arm")
    }
    spec.write_text(yaml.safe_dump(values))
    answer = command("evaluate", folder / "fine", spec, "--out", tmp_path / "e")
    assert answer.code == 0, answer.err
    assert "a cohort that no stage of the weights has seen" in answer.out
    table = pd.read_csv(tmp_path / "e" / "metrics.csv")
    assert "cox_clinical" in set(table["model"]), "baselines are fitted on the run's own patients"


def test_preprocessed_cohort_is_the_same(command, folder, tmp_path):
    from omnisurv import Cohort

    spec = folder / "cohort/cohort.yaml"
    assert command("preprocess", spec, "--out", tmp_path).code == 0
    assert not (tmp_path / "rna").exists()
    again, first = Cohort.from_spec(tmp_path / "cohort.yaml"), Cohort.from_spec(spec)
    assert again.fingerprint() == first.fingerprint()


def test_from_scratch_and_a_network_of_another_size(command, folder, tmp_path):
    spec = folder / "cohort/cohort.yaml"
    answer = command("finetune", spec, "--out", tmp_path / "s", "--set", "dim=16")
    assert answer.code == 0, answer.err
    wrong = command("finetune", folder / "pre", "--out", tmp_path / "w", "--set", "dim=32")
    assert "changes the size of the network" in wrong.sentence


@pytest.mark.slow
def test_crossvalidate_goes_on_where_it_was(command, folder, tmp_path):
    spec = folder / "cohort/cohort.yaml"
    words = ("crossvalidate", spec, "--folds", 2, "--out", tmp_path, *QUICK)
    assert command(*words).code == 0
    written = (tmp_path / "fold_00" / "fold.json").stat().st_mtime_ns
    table = (tmp_path / "metrics.csv").read_text()
    assert command(*words).code == 0
    assert (tmp_path / "fold_00" / "fold.json").stat().st_mtime_ns == written
    assert (tmp_path / "metrics.csv").read_text() == table


@pytest.mark.parametrize("what", ["modalities", "heads", "recipes"])
def test_list(command, what):
    answer = command("list", what)
    assert answer.code == 0
    known = {"modalities": "rna", "heads": "survival", "recipes": "imputmae:small"}
    assert known[what] in answer.out


def test_version(command):
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", command("--version").out)


def test_our_fault_is_a_short_message(command, monkeypatch):
    from omnisurv import arguments

    def break_down(*_):
        raise RuntimeError("a bolt came loose")

    monkeypatch.setattr(arguments, "ready", break_down)
    answer = command("inspect", "x.yaml")
    assert answer.code == 1
    assert "our fault" in answer.err
    assert "--debug" in answer.err
    assert "Traceback" not in answer.err
    assert "Traceback" in command("inspect", "x.yaml", "--debug").err


@pytest.mark.slow(seconds=50)
def test_demo(command, tmp_path, monkeypatch):
    """With half the patients and one network, trained for a sixth of the time."""
    smaller = partial(get_recipe, members=1, pretrain={"epochs": 10})
    monkeypatch.setattr("omnisurv.recipe.get_recipe", smaller)
    monkeypatch.setitem(run_demo.__kwdefaults__, "patients", 120)
    monkeypatch.setitem(score_survival.__kwdefaults__, "draws", 100)
    monkeypatch.setitem(evaluate_imputation.__kwdefaults__, "draws", 10)
    answer = command("demo", "--out", tmp_path / "demo", "--json", tmp_path / "demo.json")
    assert answer.code == 0, answer.err
    for part in ("oracle", "mask-only", "null", "pooled", "LGG", "ridge R²", "report.html"):
        assert part in answer.out
    scores = pd.DataFrame(json.loads((tmp_path / "demo.json").read_text())["survival"])
    pooled = scores.set_index("model")["pooled"]
    ours = pooled["omnisurv (imputmae:small)"]
    assert ours > pooled["null (constant)"] + 0.1
    assert ours > pooled["mask-only (what is missing)"]
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<figure") >= 9
    assert "http://" not in page.replace("http://www.w3.org", "")
