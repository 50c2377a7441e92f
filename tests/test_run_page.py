"""The page of a run says what there is, and in one sentence what there is not."""

import shlex
from itertools import pairwise

import optuna
import pandas as pd
import pytest
import tiny
from optuna.trial import create_trial

import omnisurv as om
from omnisurv import arguments, runs
from omnisurv.pages.run import run_page
from omnisurv.tuning.folder import read_study
from omnisurv.tuning.storage import open_storage, quiet
from tests.commands import runner, write_cohort
from tests.test_report import Page

pytestmark = pytest.mark.slow


def train(folder, data, source=None):
    """Write a run as the commands do; pre-trained, or fine-tuned from a pre-trained one."""
    train, test = data.parts()
    recipe = tiny.recipe(pretrain={"epochs": 2}, finetune={"epochs": 2})
    task = None if source is None else "survival"
    runs.begin(folder, data, train, test, recipe, source, task)
    if source is None:
        om.pretrain(recipe, train, run=folder)
    else:
        om.finetune(om.load(source), train, run=folder)
    runs.finish(folder, data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = runs.Data.read(write_cohort(folder / "cohort", patients=80))
    train(folder / "pre", data)
    train(folder / "fine", data, folder / "pre")
    return folder


@pytest.fixture(scope="module")
def page(folder):
    run = folder / "fine"
    path = run_page(
        folder / "fine.html", run, om.load(run), runs.origin(run), command="omnisurv report"
    )
    return Page(path.read_text(encoding="utf-8"))


def titles(page):
    ids = [attributes["id"] for attributes in page.named("section")]
    return ["-".join(name.split("-")[1:]) for name in ids]


def test_every_part_is_there_in_order(page, folder):
    found = titles(page)
    one = ["predicted-survival", "measured-and-imputed-when-hidden", "clinical-and-other-values"]
    patients = [at for at, title in enumerate(found) if title.startswith("a-patient")]
    assert len(patients) == 3
    for at in patients:
        assert found[at + 1 : at + 4] == one
    assert [title for title in found if title not in one and not title.startswith("a-")] == [
        *("cohort-and-gaps", "split-and-endpoint", "modalities-together", "data-audit"),
        *("what-was-trained-on-whom", "settings", "discrimination-and-error"),
        *("any-subset-of-modalities", "survival-by-predicted-risk", "calibration", "over-time"),
        *("decision-curve", "paired-differences-in-harrell-s-c", "modality-value"),
        "patients",
        *("training-history", "notes", "how-to-reproduce"),
    ]
    assert "not for clinical use" in page.text
    for model in ("imputmae:small", "null", "mask_only", "cox_clinical"):
        assert f"{model} all" in page.text
    train, test = runs.origin(folder / "fine").parts()
    assert f"{len(test)} patients were held out; 0 of them were seen by a stage." in page.text
    known = int(train.has_endpoint.sum())
    assert f"patients {len(train)} {known}" in page.text  # by stage
    assert "is the one that the run was trained on" in page.text


def test_its_commands_make_the_run_again(page, folder):
    code = next(words for words in page.words if words.startswith("omnisurv pretrain"))
    commands = {line.split()[1]: shlex.split(line)[1:] for line in code.splitlines()}
    assert list(commands) == ["pretrain", "finetune", "evaluate", "report"]
    made = commands["pretrain"]
    assert made[1] == str(folder / "cohort" / "cohort.yaml")
    given = [after for word, after in pairwise(made) if word == "--set"]
    recipe = arguments.adjust(om.get_recipe(made[made.index("--recipe") + 1]), given, None)
    assert recipe == om.load(folder / "pre").recipe
    tuned = commands["finetune"]
    assert tuned[1:6] == [str(folder / "pre"), "--task", "survival", "--out", str(folder / "fine")]
    assert (folder / "fine" / "metrics.json").exists()  # what it judged, it saved


def test_a_saved_evaluation_is_not_made_again_and_needs_no_data(page, folder, tmp_path, capsys):
    run, spec = folder / "fine", folder / "cohort" / "cohort.yaml"
    before = (run / "metrics.json").stat().st_mtime_ns
    spec.rename(tmp_path / "moved.yaml")
    try:
        answer = runner(capsys)("report", run, "--out", tmp_path / "r.html", "--quiet")
        assert (answer.code, answer.out.strip()) == (0, f"Report: {tmp_path / 'r.html'}")
        assert "its spec" in answer.err
        found = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
        assert "The cohort cannot be read:" in found.text
        assert "What needs the patients' data is left out:" in found.text
        assert {"survival-by-predicted-risk", "calibration", "settings"} <= set(titles(found))
        assert not {"modality-value", "data-audit"} & set(titles(found))
        wrong = runner(capsys)("report", run, spec, "--out", tmp_path / "r.html")
        assert "cohort.yaml" in wrong.sentence
    finally:
        (tmp_path / "moved.yaml").rename(spec)
    assert (run / "metrics.json").stat().st_mtime_ns == before


def test_the_patients_asked_for_are_shown(page, folder, tmp_path, capsys):
    run, call = folder / "fine", runner(capsys)
    train = runs.origin(run).parts()[0].patients
    out = tmp_path / "r.html"
    answer = call("report", run, "--patients", f"{train[1]},{train[0]}", "--out", out)
    assert answer.code == 0, answer.err
    found = Page(out.read_text(encoding="utf-8"))
    shown = [words for words in found.words if "predicted risk (rank" in words]
    assert [line.split(":")[0] for line in shown] == sorted(train[:2])
    assert "The model saw this patient in pretrain and finetune" in found.text
    assert f"--patients {train[1]},{train[0]}" in found.text
    wrong = call("report", run, "--patients", "nobody", "--out", out)
    assert "1 patients are not in the cohort: nobody" in wrong.sentence


def test_a_run_that_cannot_be_judged_says_so(folder, tmp_path):
    model = om.load(folder / "pre")
    path = run_page(tmp_path / "p.html", folder / "pre", model, None, why="its spec is gone.")
    found = Page(path.read_text(encoding="utf-8"))
    assert "The run has not been judged, and its cohort cannot be read." in found.text
    assert titles(found)[:4] == [
        "cohort-and-gaps",
        "what-was-trained-on-whom",
        "settings",
        "results",
    ]
    data = runs.origin(folder / "pre")
    everyone = data.cohort.hashed_ids()
    model.seen = {"pretrain": everyone}
    path = run_page(tmp_path / "p.html", folder / "pre", model, data)
    said = Page(path.read_text(encoding="utf-8")).text
    assert "Not judged:" in said
    assert "were seen in pretrain" in said
    assert not (folder / "pre" / "metrics.json").exists()


def test_a_pretrained_run_has_what_applies(folder, tmp_path):
    run = folder / "pre"
    path = run_page(tmp_path / "p.html", run, om.load(run), runs.origin(run))
    (run / "metrics.json").unlink()
    found = titles(Page(path.read_text(encoding="utf-8")))
    assert {"imputation", "imputed-rna", "measured-and-imputed-when-hidden"} <= set(found)
    assert not {"calibration", "modality-value", "predicted-survival"} & set(found)


def study(folder):
    recipe = tiny.recipe()
    with quiet():
        made = optuna.create_study(
            storage=open_storage(str(folder / "study.journal")), direction="maximize"
        )
    told = {"recipe": recipe.model_dump(mode="json"), "metrics": ["c_harrell"]}
    made.set_user_attr("omnisurv", told)
    space = {"dim": optuna.distributions.IntDistribution(8, 32)}
    for dim, value in ((16, 0.61), (24, 0.67)):
        attrs = {"c_harrell": value, "ibs": 0.2}
        made.add_trial(
            create_trial(params={"dim": dim}, distributions=space, value=value, user_attrs=attrs)
        )
    return recipe


def test_a_study_in_the_folder_joins(folder, tmp_path):
    recipe = study(tmp_path)
    tuned = read_study(tmp_path)
    assert tuned.recipe == recipe
    assert tuned.settings == {"dim": 24}
    assert read_study(folder) is None
    run = om.save(tiny.pretrained(), tmp_path)
    path = run_page(tmp_path / "p.html", run, om.load(run), None, why="no spec.")
    found = Page(path.read_text(encoding="utf-8"))
    assert {"tuning-imputmae-small", "best-settings", "every-trial"} <= set(titles(found))
    assert "The best is number 1: Harrell's C 0.670" in found.text


def test_settings_stand_beside_the_recipes_own(page):
    assert "dim 16 " + str(om.get_recipe("imputmae:small").dim) in page.text
    assert pd.__version__ in page.text
