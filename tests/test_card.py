"""The model card of a run: counts and never ids, figures where there are some."""

import json

import pytest
import tiny
import yaml

import omnisurv as om
from omnisurv.card import write_card


def read(run):
    """Return front matter and body."""
    _, front, body = (run / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A survival run, evaluated into its own folder."""
    dev, test = tiny.parts()
    run = om.save(tiny.survival(), tmp_path_factory.mktemp("runs") / "survival")
    before = read(run)
    om.evaluate(tiny.survival(), test, train=dev, subsets="none").save(run)
    return run, before, read(run)


def test_it_is_written_on_saving_and_says_what_each_stage_saw(judged):
    dev, _ = tiny.parts()
    front, body = judged[1]
    assert front["library_name"] == "omnisurv"
    assert {"survival", "imputmae", "missing-data"} <= set(front["tags"])
    assert "model-index" not in front
    assert "It has not been judged in this folder" in body
    known = dev.with_endpoint()
    events = int((known.obs["event"] == 1).sum())
    rows = [line for line in body.splitlines() if line.startswith(("| stage", "| pre", "| fine"))]
    names = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    cells = {row.split("|")[1].strip(): row.split("|")[1:-1] for row in rows[1:]}
    found = {
        stage: dict(zip(names, (c.strip() for c in row), strict=True))
        for stage, row in cells.items()
    }
    assert found["pretrain"]["patients"] == str(len(dev))
    assert found["finetune"]["patients"] == str(len(known))
    assert found["finetune"]["events"] == str(events)
    assert found["pretrain"]["with rna"] == str(int(dev.availability["rna"].sum()))
    assert found["finetune"]["with rna"] == str(int(known.availability["rna"].sum()))


def test_settings_versions_limits_and_how_to_use_it(judged):
    body = judged[1][1]
    assert "Not for clinical use" in body
    assert "decoder_dim: 16" in body
    assert f"| torch | {tiny.survival().provenance['versions']['torch']} |" in body
    assert tiny.survival().provenance["data_fingerprint"] in body
    assert 'om.load("RUN")' in body


def test_evaluating_adds_figures_with_intervals(judged):
    run, _, (front, body) = judged
    rows = json.loads((run / "metrics.json").read_text())["rows"]
    own = next(r for r in rows if r["metric"] == "c_harrell" and r["group"] == "all")
    assert f"| {own['model']} | all | c_harrell | {own['value']:.3f} |" in body
    assert f"| {own['ci_low']:.3f} to {own['ci_high']:.3f} | {own['n']} | {own['events']} |" in body
    assert "| cox_clinical | all | c_harrell |" in body
    (result,) = front["model-index"][0]["results"]
    told = {m["type"]: m["value"] for m in result["metrics"]}
    assert told["c_harrell"] == pytest.approx(own["value"], abs=1e-4)
    assert result["task"] == {"type": "survival"}


def test_no_id_stands_in_it_and_small_counts_are_not_told(judged, tmp_path):
    run, _, _ = judged
    text = (run / "README.md").read_text()
    for cohort in tiny.parts():
        for patient, hashed in zip(cohort.patients, cohort.hashed_ids(), strict=True):
            assert patient not in text
            assert hashed not in text
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["stages"]["finetune"]["modalities"]["rna"] = 3
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "provenance.json").write_text(json.dumps(provenance))
    (copy / "config.yaml").write_text((run / "config.yaml").read_text())
    assert "| < 5 |" in write_card(copy).read_text()
    assert "| 3 |" not in write_card(copy).read_text()


def test_the_split_has_a_hash_that_tells_another_split(judged, tmp_path):
    run, _, _ = judged
    for name in ("config.yaml", "provenance.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    found = []
    for train in (["b", "a"], ["a", "b"], ["a", "c"]):
        (tmp_path / "splits.json").write_text(json.dumps({"train": train, "held_out": ["d"]}))
        body = write_card(tmp_path).read_text()
        found += [line for line in body.splitlines() if line.startswith("| split")]
    assert found[0] == found[1] != found[2]


def test_figures_of_imputation_are_by_modality(tmp_path):
    dev, test = tiny.parts()
    run = om.save(tiny.pretrained(), tmp_path / "run")
    om.evaluate(tiny.pretrained(), test, train=dev, task="imputation").save(run)
    front, body = read(run)
    assert "model-index" not in front
    assert "| imputmae:small | rna | pearson |" in body
    assert "| ridge | rna | pearson |" in body
    assert "pre-trained" in body.splitlines()[1] + body.splitlines()[2]


def test_a_run_in_two_stages_keeps_the_first_ones_counts(tmp_path):
    dev, _ = tiny.parts()
    again = om.load(om.save(tiny.pretrained(), tmp_path / "a"))
    tuned = om.finetune(again, dev, run=tmp_path / "b")
    assert list(tuned.provenance["stages"]) == ["pretrain", "finetune"]
    assert tuned.provenance["stages"]["pretrain"]["patients"] == len(dev)
    assert "| pretrain |" in (tmp_path / "b" / "README.md").read_text()
    more = om.pretrain(tiny.recipe(pretrain={"epochs": 1}), dev, start=again)
    assert list(more.provenance["stages"]) == ["pretrain before", "pretrain"]
