"""Every wrong input: one line that says what, where and how to mend it, exit 2, nothing lost."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from omnisurv.cli import run_command
from tests.commands import QUICK, edit, runner, write_cohort

PATIENTS = [f"P{number:03d}" for number in range(60)]
GENES = [f"ENSG{number:011d}" for number in range(1, 13)]
SPEC = {
    "name": "small",
    "patients": {"id": "column"},
    "endpoint": {"table": "clinical.csv", "time": "time", "event": "event", "unit": "days"},
    "labels": {"stage": {"table": "clinical.csv", "column": "stage", "classes": ["early", "late"]}},
    "strata": ["stage"],
    "modalities": {
        "clinical": {
            "kind": "table",
            "source": {"format": "table", "path": "clinical.csv"},
            "columns": {"age": "continuous", "sex": "binary"},
        },
        "rna": {"kind": "rna", "source": {"format": "matrix", "path": "rna.csv"}},
    },
    "splits": {"test": 0.25, "folds": 3, "stratify": ["event"]},
}


@pytest.fixture
def command(capsys):
    return runner(capsys)


@pytest.fixture
def spec(tmp_path):
    """A small cohort in plain tables."""
    rng = np.random.default_rng(0)
    clinical = pd.DataFrame(
        {
            "patient": PATIENTS,
            "time": rng.exponential(900, 60).round() + 10,
            "event": rng.integers(0, 2, 60),
            "stage": rng.choice(["early", "late"], 60),
            "age": rng.normal(60, 9, 60).round(),
            "sex": rng.choice(["f", "m"], 60),
        }
    )
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    values = np.exp(rng.normal(3, 1.5, (60, 12))).round(3)
    rna = pd.DataFrame(values, columns=GENES)
    rna.insert(0, "patient", PATIENTS)
    rna.to_csv(tmp_path / "rna.csv", index=False)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return tmp_path / "spec.yaml"


def change_table(spec, name, change):
    """Change a table on disk."""
    file = spec.parent / name
    table = pd.read_csv(file)
    changed = change(table)
    (table if changed is None else changed).to_csv(file, index=False)


def test_the_cohort_as_it_is_passes(command, spec):
    assert command("inspect", spec).code == 0


@pytest.mark.parametrize(
    ("path", "key", "near"),
    [
        ((), "modalitys", "modalities"),
        (("endpoint",), "tabel", "table"),
        (("modalities", "rna"), "pach", "patch"),
        (("modalities", "rna", "source"), "orientatoin", "orientation"),
        (("splits",), "fold", "folds"),
    ],
)
def test_unknown_key_in_a_spec(command, spec, path, key, near):
    def add(values):
        for step in path:
            values = values[step]
        values[key] = 1

    said = command("inspect", edit(spec, add)).sentence
    assert "spec.yaml" in said
    assert key in said
    assert f"Did you mean '{near}'?" in said


def test_unknown_kind_of_modality_in_a_spec(command, spec):
    edit(spec, lambda values: values["modalities"]["rna"].update(kind="rnaa"))
    assert "unknown kind 'rnaa'. Did you mean 'rna'?" in command("inspect", spec).sentence


def test_unknown_label_in_strata(command, spec):
    edit(spec, lambda values: values.update(strata=["stages"]))
    said = command("inspect", spec).sentence
    assert "strata: unknown label 'stages'. Did you mean 'stage'?" in said


def test_missing_spec(command, spec):
    said = command("inspect", spec.with_name("spek.yaml")).sentence
    assert "there is no data spec" in said
    assert "Did you mean 'spec.yaml'?" in said


def test_spec_that_is_no_yaml(command, spec):
    spec.write_text("modalities: {rna: [")
    assert "is not YAML" in command("inspect", spec).sentence


def test_missing_root(command, spec, tmp_path):
    assert "--root: there is no folder" in command("inspect", spec, "--root", "nowhere").sentence


def test_missing_file(command, spec):
    (spec.parent / "rna.csv").unlink()
    said = command("inspect", spec).sentence
    assert "rna.csv" in said
    assert "modality 'rna'" in said


def test_ambiguous_orientation(command, spec):
    def rename(table):
        table["patient"] = [f"X{n}" for n in range(60)]
        table.columns = ["patient", *(f"Y{n}" for n in range(12))]

    change_table(spec, "rna.csv", rename)
    said = command("inspect", spec).sentence
    assert "orientation is ambiguous" in said
    assert "orientation: features_x_samples|samples_x_features" in said


def test_ambiguous_feature_ids(command, spec):
    change_table(spec, "rna.csv", lambda t: t.set_axis(["patient", *map(str, range(12))], axis=1))
    assert "feature ids are row numbers" in command("inspect", spec).sentence


def test_feature_ids_of_several_types(command, spec):
    names = [*GENES[:6], *(f"cg{n:08d}" for n in range(6))]
    change_table(spec, "rna.csv", lambda t: t.set_axis(["patient", *names], axis=1))
    said = command("inspect", spec).sentence
    assert "of several types (6 ensembl, 6 probe)" in said


def test_ambiguous_scale(command, spec):
    def shrink(table):
        table[GENES] = (table[GENES] / table[GENES].max().max()).clip(0.01, 1).round(4)

    change_table(spec, "rna.csv", shrink)
    said = command("inspect", spec).sentence
    assert "the scale is ambiguous" in said
    assert "say `scale:" in said


def test_duplicate_patients_with_different_values(command, spec):
    def repeat(table):
        twin = table.head(1).copy()
        twin[GENES[0]] += 1
        return pd.concat([table, twin])

    change_table(spec, "rna.csv", repeat)
    said = command("inspect", spec).sentence
    assert "P000 stands there more than once with different values" in said


def test_duplicate_patients_in_the_clinical_table(command, spec):
    def repeat(table):
        return pd.concat([table, table.head(1).assign(time=5)])

    change_table(spec, "clinical.csv", repeat)
    assert "P000" in command("inspect", spec).sentence


def test_no_overlap_between_tables(command, spec):
    edit(spec, lambda v: v["modalities"]["rna"]["source"].update(orientation="samples_x_features"))
    change_table(spec, "rna.csv", lambda t: t.assign(patient=[f"Q{n:03d}" for n in range(60)]))
    said = command("inspect", spec).sentence
    assert "share no patient" in said
    for example in ("Q000", "Q001", "P000", "P001"):
        assert example in said


def test_a_modality_nobody_has(command, spec):
    change_table(spec, "rna.csv", lambda t: t.assign(**dict.fromkeys(GENES, np.nan)))
    said = command("inspect", spec).sentence
    assert "modality 'rna'" in said


def test_an_endpoint_without_events(command, spec):
    change_table(spec, "clinical.csv", lambda t: t.assign(event=0))
    said = command("inspect", spec).sentence
    assert "none of 60 patients has an event in column 'event'" in said


def test_no_positive_time(command, spec):
    change_table(spec, "clinical.csv", lambda t: t.assign(time=0))
    assert "no patient has both a positive time" in command("inspect", spec).sentence


def test_an_event_column_coded_as_censorship(command, spec):
    edit(spec, lambda v: v["endpoint"].update(event="censored"))
    change_table(spec, "clinical.csv", lambda t: t.rename(columns={"event": "censored"}))
    said = command("inspect", spec).sentence
    assert "censor" in said
    assert "event_values" in said


def test_an_event_column_that_contradicts_the_status(command, spec):
    def invert(table):
        table["vital_status"] = np.where(table["event"] == 1, "Dead", "Alive")
        table["event"] = 1 - table["event"]

    change_table(spec, "clinical.csv", invert)
    said = command("inspect", spec).sentence
    assert "vital_status" in said
    assert "event_values" in said


def test_a_fold_without_events(command, spec):
    def fewer(table):
        table["event"] = 0
        table.loc[:3, "event"] = 1

    change_table(spec, "clinical.csv", fewer)
    edit(spec, lambda v: v["splits"].update(folds=10))
    said = command("inspect", spec).sentence
    assert "no event among its" in said
    assert "use fewer folds" in said


def test_infinite_values_in_a_matrix(command, spec):
    def spoil(table):
        table.loc[3, GENES[0]] = np.inf
        table.loc[[4, 5], GENES[2]] = -np.inf

    change_table(spec, "rna.csv", spoil)
    said = command("inspect", spec).sentence
    assert "modality 'rna'" in said
    assert "rna.csv: 3 infinite values in 2 of 12 features (ENSG00000000001, ENSG" in said
    assert "leave empty what was not measured" in said
    assert "log(x + 1)" in said


def test_infinite_values_in_a_clinical_column(command, spec):
    change_table(spec, "clinical.csv", lambda t: t.assign(age=t["age"].where(t.index > 1, np.inf)))
    said = command("inspect", spec).sentence
    assert "modality 'clinical'" in said
    assert "clinical.csv: 2 infinite values in 1 of 2 features (age)" in said
    assert "leave empty what was not measured" in said


@pytest.mark.parametrize("empty", ["", "unknown", "[Not Available]"])
def test_a_named_clinical_column_without_any_value(command, spec, empty):
    change_table(spec, "clinical.csv", lambda t: t.assign(age_years=t["age"], age=empty))
    said = command("inspect", spec).sentence
    assert "clinical.csv: column 'age' has no value for any patient" in said
    assert said.endswith("remove it from `columns`, or name one that has: stage, age_years")


def test_empty_columns_of_a_matrix_are_a_warning(command, spec):
    change_table(spec, "rna.csv", lambda t: t.assign(**dict.fromkeys(GENES[1:4], np.nan)))
    answer = command("inspect", spec)
    assert answer.code == 0
    warning = f"warning: rna: rna.csv: 3 features have no value in any patient ({GENES[1]}, "
    assert warning in answer.out
    assert re.search(r"^rna +60 +\d+ +9 ", answer.out, re.MULTILINE)


def test_a_column_that_is_not_there(command, spec):
    edit(spec, lambda v: v["modalities"]["clinical"]["columns"].update(grade="continuous"))
    said = command("inspect", spec).sentence
    assert "grade" in said
    assert "clinical.csv" in said


def test_a_whole_modality_of_zeros_is_a_warning(command, spec):
    change_table(spec, "rna.csv", lambda t: t.assign(**dict.fromkeys(GENES, 0)))
    answer = command("inspect", spec)
    assert answer.code == 0
    assert "all values are 0: zeros are values, leave out what was not measured" in answer.out


def test_the_outcome_as_an_input(command, spec):
    edit(spec, lambda v: v["modalities"]["clinical"]["columns"].update(time="continuous"))
    assert "'time' is the outcome and cannot be an input" in command("inspect", spec).sentence


def test_unknown_recipe_preset_and_setting(command, spec, tmp_path):
    out = ("--out", tmp_path / "r")
    said = command("pretrain", spec, "--recipe", "imputmea", *out).sentence
    assert "Did you mean 'imputmae'?" in said
    said = command("pretrain", spec, "--recipe", "imputmae:smal", *out).sentence
    assert "Did you mean 'small'?" in said
    said = command("pretrain", spec, "--set", "pretrain.epoch=2", *out).sentence
    assert "Did you mean 'epochs'?" in said
    said = command("pretrain", spec, "--set", "dim", *out).sentence
    assert "'dim' is not of the form key=value" in said


def test_too_few_patients(command, spec, tmp_path):
    for name in ("rna.csv", "clinical.csv"):
        change_table(spec, name, lambda t: t.head(8))
    edit(spec, lambda v: v["splits"].update(folds=2))
    answer = command("pretrain", spec, "--out", tmp_path / "r")
    assert answer.code == 2
    assert len(answer.err.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [["pretrain"], ["impute", "a"], ["fly"], ["list", "planes"],
                                   ["inspect", "x", "--frob"]])  # fmt: skip
def test_a_command_line_that_does_not_parse(command, words):
    assert "--help" in command(*words).sentence


# Runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cohort, and runs trained on its development part and on everybody."""
    folder = tmp_path_factory.mktemp("messages")
    spec = write_cohort(folder / "cohort")
    for words in (
        ("pretrain", spec, "--out", folder / "pre", *QUICK),
        ("finetune", folder / "pre", "--out", folder / "fine"),
        ("finetune", folder / "pre", "--out", folder / "everyone", "--all-patients"),
    ):
        assert run_command([str(word) for word in words]) == 0
    return folder


@pytest.fixture
def broken(trained, tmp_path):
    """A copy of a run, to be damaged."""
    shutil.copytree(trained / "fine", tmp_path / "run")
    return tmp_path / "run"


def edit_config(run, change):
    edit(run / "config.yaml", change)


def test_no_run_there(command, trained, tmp_path):
    spec = trained / "cohort/cohort.yaml"
    said = command("evaluate", tmp_path, spec, "--out", tmp_path).sentence
    assert "is not a finished run" in said


def test_a_run_of_another_version(command, trained, broken):
    edit_config(broken, lambda config: config.update(format=99))
    said = command("evaluate", broken, trained / "cohort/cohort.yaml").sentence
    assert "was written in format 99" in said


def test_a_run_of_another_recipe(command, trained, broken):
    edit_config(broken, lambda config: config["recipe"].update(name="unheard_of"))
    said = command("evaluate", broken, trained / "cohort/cohort.yaml").sentence
    assert "unknown recipe 'unheard_of'" in said


def test_weights_that_do_not_fit(command, trained, broken):
    edit_config(broken, lambda config: config["recipe"].update(dim=32))
    said = command("evaluate", broken, trained / "cohort/cohort.yaml").sentence
    assert "weights do not fit the recipe" in said


def test_a_run_without_its_weights(command, trained, broken):
    (broken / "model.safetensors").unlink()
    assert (
        "model.safetensors" in command("evaluate", broken, trained / "cohort/cohort.yaml").sentence
    )


def test_seen_patients_are_refused_naming_the_stage(command, trained, tmp_path):
    spec = trained / "cohort/cohort.yaml"
    said = command("evaluate", trained / "everyone", spec, "--out", tmp_path / "e").sentence
    assert "were seen in finetune" in said
    assert "--allow-seen" in said
    answer = command(
        "evaluate", trained / "everyone", spec, "--out", tmp_path / "e", "--allow-seen",
        "--subsets", "none",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "seen in training were allowed" in (tmp_path / "e" / "metrics.json").read_text()


def test_a_run_whose_spec_has_moved(command, trained, broken, tmp_path):
    file = broken / "splits.json"
    file.write_text(file.read_text().replace("cohort.yaml", "moved.yaml"))
    said = command("finetune", broken, "--out", tmp_path / "f").sentence
    assert "moved.yaml is gone" in said
    assert "give the SPEC" in said


def test_impute_unknown_patients_and_modalities(command, trained, tmp_path):
    words = ("impute", trained / "pre", trained / "cohort/cohort.yaml", "--out", tmp_path / "i")
    assert "not in the cohort: NOBODY" in command(*words, "--patients", "NOBODY").sentence
    said = command(*words, "--modalities", "dnamm").sentence
    assert "Did you mean 'dnam'?" in said
    assert "--level 90" in command(*words, "--level", 90).sentence
    assert "names nobody" in command(*words, "--patients", ",").sentence


def test_unknown_modality_in_subsets(command, trained, tmp_path):
    words = ("evaluate", trained / "fine", trained / "cohort/cohort.yaml", "--out", tmp_path)
    said = command(*words, "--subsets", "rna+proteins").sentence
    assert "unknown modality 'proteins'. Did you mean 'protein'?" in said


# Disks


def long_commands(spec, run, out):
    return {
        "demo": ("demo",),
        "preprocess": ("preprocess", spec),
        "pretrain": ("pretrain", spec),
        "finetune": ("finetune", run),
        "impute": ("impute", run, spec),
        "evaluate": ("evaluate", run, spec),
        "crossvalidate": ("crossvalidate", spec),
    }


LONG = list(long_commands(None, None, None))


@pytest.fixture
def before_any_work(monkeypatch):
    """Fail if a cohort is read or simulated: the folder has to be checked first."""

    def forbidden(*_, **__):
        raise AssertionError("work was begun before --out was checked")

    monkeypatch.setattr("omnisurv.data.cohort.Cohort.from_spec", forbidden)
    monkeypatch.setattr("omnisurv.simulation.simulate", forbidden)


@pytest.mark.parametrize("name", LONG)
def test_unwritable_out_is_told_before_the_work(command, spec, tmp_path, before_any_work, name):
    (tmp_path / "file").write_text("in the way")
    words = long_commands(spec, tmp_path / "run", None)[name]
    said = command(*words, "--out", tmp_path / "file" / "out").sentence
    assert "cannot write to" in said
    assert "choose another --out" in said


@pytest.mark.parametrize("name", LONG)
def test_full_disk_is_told_before_the_work(
    command, spec, tmp_path, before_any_work, monkeypatch, name
):
    full = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    words = long_commands(spec, tmp_path / "run", None)[name]
    said = command(*words, "--out", tmp_path / "out").sentence
    assert "3 MB are free" in said


def test_unwritable_json_is_told_before_the_work(command, spec, tmp_path, before_any_work):
    (tmp_path / "file").write_text("in the way")
    words = ("inspect", spec, "--json", tmp_path / "file" / "x.json")
    assert "cannot write to" in command(*words).sentence


def test_a_disk_that_fills_up_is_no_fault_of_ours(command, trained, tmp_path, monkeypatch):
    import errno
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("omnisurv.files.os.replace", full)
    words = ("impute", trained / "pre", trained / "cohort/cohort.yaml", "--out", tmp_path / "i")
    assert "No space left on device" in command(*words).sentence
