"""`omnisurv explain`: the tables are those of the Python functions, of the right patients."""

import json

import numpy as np
import pandas as pd
import pytest

import omnisurv as om
from omnisurv import runs
from omnisurv.cli import run_command
from omnisurv.explanation import explain
from tests.commands import QUICK, runner, write_cohort

DRAWS = ("--draws", 3)
ASKED = ["clinical", "rna"]


@pytest.fixture
def command(capsys):
    return runner(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort, a pre-trained run, and one for survival."""
    folder = tmp_path_factory.mktemp("explain")
    spec = write_cohort(folder / "cohort", patients=70)
    pre, words = str(folder / "pre"), [*QUICK, "--set", "members=1", "--quiet"]
    assert run_command(["pretrain", str(spec), "--out", pre, *words]) == 0
    assert run_command(["finetune", pre, "--out", str(folder / "fine"), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def explained(folder):
    """The command's folder and JSON."""
    words = ["explain", folder / "fine", folder / "cohort/cohort.yaml", "--out", folder / "out"]
    words += [*DRAWS, "--modalities", ",".join(ASKED), "--json", folder / "out.json", "--quiet"]
    assert run_command([str(word) for word in words]) == 0
    return folder / "out", json.loads((folder / "out.json").read_text())


@pytest.fixture(scope="module")
def parts(folder):
    """The model, and the patients whom evaluate takes."""
    model = om.load(folder / "fine")
    return model, runs.to_evaluate(model, runs.origin(folder / "fine").cohort)[0]


def test_it_explains_those_whom_evaluate_takes(explained, parts):
    (out, _), (model, test) = explained, parts
    shapley = pd.read_csv(out / "shapley.csv")
    assert set(shapley["patient"]) <= set(test.patients)
    pd.testing.assert_frame_equal(shapley, om.modality_value(model, test), atol=1e-9)
    drop = pd.read_csv(out / "permutation.csv")
    known = om.modality_value(model, test, "permutation")
    pd.testing.assert_frame_equal(drop, known, atol=1e-9, check_dtype=False)


def test_measuring_is_of_every_missing_cell_asked_for(explained, parts):
    (out, _), (model, test) = explained, parts
    rows = pd.read_csv(out / "measuring.csv").set_index(["patient", "modality"])
    there = test.availability[ASKED]
    patient, modality = np.nonzero(~there.to_numpy())
    cells = zip(there.index[patient], there.columns[modality], strict=True)
    assert set(rows.index) == set(cells)
    own = om.value_of_measuring(model, test, "rna", draws=3)
    found = rows.xs("rna", level="modality").loc[own.index]
    pd.testing.assert_frame_equal(found, own, atol=1e-6, check_names=False)


def test_features_add_up_to_the_difference_of_risks(explained, parts):
    (out, _), (model, test) = explained, parts
    table = pd.read_csv(out / "features" / "clinical.csv", index_col="patient")
    assert list(table.index) == list(test.patients[test.availability["clinical"]])
    own = om.attributions(model, test, "clinical")
    np.testing.assert_allclose(table.sum(axis=1), (own.risk - own.baseline), atol=0.02)
    assert table.sum(axis=1).abs().max() > 0.1
    long = pd.read_csv(out / "features.csv")
    assert set(long["modality"]) == set(ASKED)
    rows = long[long["modality"] == "clinical"].set_index("feature")
    assert rows.index[0] == table.abs().mean().idxmax()
    assert rows["size"].is_monotonic_decreasing
    first = table.columns[0]
    assert rows.loc[first, "mean"] == pytest.approx(table[first].mean())


def test_the_summary_has_a_row_for_each_modality(explained, parts):
    (_, told), (model, test) = explained, parts
    rows = pd.DataFrame(told["modalities"]).set_index("modality")
    assert set(rows.index) == set(model.modalities)
    assert rows["shapley"].is_monotonic_decreasing
    there = test.availability
    assert rows["has"].to_dict() == {name: int(there[name].sum()) for name in rows.index}
    assert rows["lack"].to_dict() == {name: int((~there[name]).sum()) for name in rows.index}
    drop = pd.DataFrame(told["permutation"]).set_index("modality")["value"]
    pd.testing.assert_series_equal(rows["drop"], drop[rows.index], check_names=False)
    strongest = next(row for row in told["features"] if row["modality"] == "clinical")["feature"]
    assert rows.loc["clinical", "strongest"].split(", ")[0] == strongest
    assert told["notes"] == []


def test_page_and_figures(explained):
    out, _ = explained
    page = (out / "report.html").read_text()
    for title in ("Each modality", "Each patient", "Drop of concordance", "Features of rna"):
        assert f">{title}</h2>" in page
    names = {path.name for path in (out / "figures").iterdir()}
    assert {"each_modality.svg", "features_of_rna.svg", "measuring_rna.svg"} <= names
    assert "omnisurv explain" in page


def test_named_patients_and_modalities(command, folder, parts, tmp_path):
    model, test = parts
    seen = runs.seen(model, runs.origin(folder / "fine").cohort).patients[0]
    who = f"{seen},{test.patients[0]}"
    answer = command(
        "explain", folder / "fine", folder / "cohort/cohort.yaml", "--out", tmp_path,
        "--patients", who, "--modalities", "clinical", *DRAWS,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "Explaining 2 patients: named by --patients." in answer.out
    assert "drop of concordance: left out, the weights saw 1 of these 2 patients" in answer.out
    assert not (tmp_path / "permutation.csv").exists()
    assert set(pd.read_csv(tmp_path / "shapley.csv")["patient"]) == {seen, test.patients[0]}
    assert {path.stem for path in (tmp_path / "features").iterdir()} == {"clinical"}
    page = (tmp_path / "report.html").read_text()
    assert f"--patients {who} --modalities clinical" in page


def test_what_cannot_be_explained_is_one_line(command, folder, tmp_path):
    run, spec, out = folder / "fine", folder / "cohort/cohort.yaml", tmp_path / "out"
    wrong = command("explain", run, spec, "--out", out, "--modalities", "rnaa")
    assert "the model knows no modality 'rnaa'. Did you mean 'rna'?" in wrong.sentence
    wrong = command("explain", run, spec, "--out", out, "--patients", "nobody")
    assert "1 patients are not in the cohort: nobody" in wrong.sentence
    wrong = command("explain", folder / "pre", spec, "--out", out)
    assert "a survival model can be explained, this one is for pretrain" in wrong.sentence


def test_nobody_with_an_event_is_noted(parts):
    model, test = parts
    censored = test.subset(test.patients[test.obs["event"] == 0][:3])
    told = []
    found = explain(model, censored, ["clinical"], draws=2, progress=lambda *a: told.append(a))
    assert found.permutation is None
    assert found.notes[0] == (
        "drop of concordance: left out, permutation needs patients with an event; none of these "
        "has one"
    )
    assert [row[1:3] for row in told] == [(at, 4) for at in range(4)]
    assert "drop" not in found.modalities()
