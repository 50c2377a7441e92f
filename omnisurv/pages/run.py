"""The page of a run: cohort, training, results, patients, and how to make all of it again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from omnisurv import runs
from omnisurv.errors import InputError
from omnisurv.pages import results
from omnisurv.pages.explanation import permutation_section
from omnisurv.pages.patients import differing_patients, patients_section
from omnisurv.pages.reproduction import again_section, settings_section
from omnisurv.report import Section, write_report
from omnisurv.tasks.survival import SurvivalModel
from omnisurv.tuning.folder import read_study
from omnisurv.tuning.page import study_lead, study_sections

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.evaluation import Evaluation

FIRST = 10
"""Combinations of modalities in the table."""
DONE = {"pretrain": "pre-trained", "finetune": "fine-tuned"}


@dataclass(frozen=True)
class Judged:
    """What a run was judged on.

    Attributes:
        result: the evaluation; None if there is none.
        cohort: the patients it is of; None where they are not in the cohort that was read.
        why: what is missing, and why; nothing if nothing is.
    """

    result: "Evaluation | None" = None
    cohort: "Cohort | None" = None
    why: str = ""


def run_page(
    path: str | Path,
    run: str | Path,
    model: "FittedModel",
    data: "runs.Data | None",
    *,
    shown: "Cohort | None" = None,
    why: str = "",
    command: str = "",
) -> Path:
    """Write the page of a run and return it; what cannot be had is told in its place.

    A run that was not judged yet is judged on patients it has not seen, and the evaluation saved
    in its folder.

    Args:
        path: the HTML file.
        run: the run's folder.
        model: of that folder.
        data: the cohort it was trained on, or another; None if it cannot be read.
        shown: patients of that cohort to show one by one; three who differ by default.
        why: why it cannot.
        command: what made the page.
    """
    run = Path(run)
    judged = judge(run, model, data, why)
    title = model.recipe.title
    done = "pre-trained" if model.task == "pretrain" else f"for {model.task}"
    told = "" if judged.result is None else results.headline(judged.result, title)
    lead = f"{title}, {done}, on {' + '.join(model.modalities)}. {told}".strip()
    sections = [
        *_of_cohort(data, why),
        *_or_why("What was trained on whom", lambda: _training(run, model)),
        *_or_why("Results", lambda: _results(model, judged)),
        *_or_why("Modality value", lambda: _modality_value(model, judged)),
        *_or_why("Patients", lambda: _patients(model, judged, data, shown)),
        *results.history_section(model),
        *_or_why("Tuning", lambda: _tuning(run)),
        *results.notes_section([] if judged.result is None else judged.result.notes),
        *_or_why("How to reproduce", lambda: [again_section(run, model, data)]),
    ]
    return write_report(
        path, title=f"Run {run.name}", sections=sections, lead=lead, command=command
    )


def judge(run: Path, model: "FittedModel", data: "runs.Data | None", why: str = "") -> Judged:
    """Return the evaluation that a run's folder holds, or judge the run and save it there."""
    from omnisurv import evaluation

    if (run / "metrics.json").is_file():
        result = evaluation.Evaluation.load(run)
        who = result.predictions.index.get_level_values(-1).astype(str).unique()
        if data is None:
            return Judged(result, why=f"What needs the patients' data is left out: {why}")
        if not len(who) or not set(who) <= set(data.cohort.patients):
            return Judged(
                result, why="What needs the patients' data is left out: the saved evaluation is of "
                "patients who are not in this cohort; name the SPEC it was made with."
            )  # fmt: skip
        return Judged(result, data.cohort.subset(who))
    if data is None:
        return Judged(
            why="The run has not been judged, and its cohort cannot be read. "
            f"`omnisurv evaluate {run} SPEC` does both; then write this page again. {why}"
        )
    try:
        cohort, _ = runs.to_evaluate(model, data.cohort)
        model.require_unseen(cohort)
        train, left_out = runs.training_part(run, model, data, cohort)
        result = evaluation.evaluate(model, cohort, train=train)
    except InputError as error:
        return Judged(
            why=f"Not judged: {error}. `omnisurv evaluate {run} SPEC` judges it on other patients."
        )
    result.notes.extend([left_out] if left_out else [])
    result.save(run)
    return Judged(result, cohort)


def _or_why(title: str, make: Callable[[], Iterable[Section]]) -> list[Section]:
    """Return sections, or one that says why there are none."""
    try:
        return list(make())
    except (InputError, OSError) as error:
        return [Section(title, f"Left out: {error}.")]


def _of_cohort(data: "runs.Data | None", why: str) -> list[Section]:
    title = "Cohort and gaps"
    if data is None:
        return [Section(title, f"The cohort cannot be read: {why}")]
    return [
        *results.cohort_sections(data.cohort, title),
        *_or_why("Data audit", lambda: _audit(data.cohort)),
    ]


def _audit(cohort: "Cohort") -> Iterable[Section]:
    """Yield the parts of the split, the commonest combinations, and what was left out and why."""
    from omnisurv.inspection import inspect

    found = inspect(cohort)
    ends = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.endpoint.items())
    yield Section(
        "Split and endpoint",
        f"Endpoint: {ends}. Median follow-up is by reverse Kaplan–Meier.",
        table=found.parts.rename(columns={"with_endpoint": "with endpoint"}),
    )
    if len(found.combinations) > 1:
        told = f"The {FIRST} commonest. " if len(found.combinations) > FIRST else ""
        yield Section(
            "Modalities together",
            f"{told}Where the share of events differs, having the data already says something.",
            table=found.combinations.head(FIRST).rename(columns={"event_rate": "event rate"}),
        )
    left = (
        f"{len(found.unusable)} patients have no usable endpoint. " if len(found.unusable) else ""
    )
    yield Section(
        "Data audit",
        f"What became of every file, column and sample, with the commonest reasons. {left}"
        "`omnisurv inspect SPEC --out DIR` writes every row.",
        table=found.audit,
    )


def _training(run: Path, model: "FittedModel") -> Iterable[Section]:
    """Yield how many patients each stage saw, and the settings."""
    split = runs.read_split(run)
    seen = {i for ids in model.seen.values() for i in ids}
    held = set(split.get("held_out", []))
    apart = (
        f"{len(held)} patients were held out; {len(held & seen)} of them were seen by a stage."
        if split
        else "The folder does not say who was held out."
    )
    yield Section(
        "What was trained on whom",
        f"{apart} Whatever learns (scalers, filters, cut points, early stopping) learned from the "
        "patients below alone; inner validation is among them.",
        table=_seen(model) if model.seen else None,
    )
    yield settings_section(model)


def _seen(model: "FittedModel") -> pd.DataFrame:
    """Return how many patients each stage saw, with an event, and with each modality."""
    stages = {}
    for stage, ids in model.seen.items():
        told = model.provenance.get("stages", {}).get(stage, {})
        has = {f"with {name}": count for name, count in told.get("modalities", {}).items()}
        stages[stage] = {"patients": len(ids), "with an event": told.get("events"), **has}
    table = pd.DataFrame(stages).astype("Int64").rename_axis("who")
    return table.rename(columns={stage: DONE.get(stage, stage) for stage in stages}).reset_index()


def _results(model: "FittedModel", judged: Judged) -> Iterable[Section]:
    if judged.result is None:
        return [Section("Results", judged.why)]
    sections = results.judged_sections(judged.result, model, judged.cohort)
    if judged.why:
        sections.insert(0, Section("Results", judged.why))
    return sections


def _modality_value(model: "FittedModel", judged: Judged) -> Iterable[Section]:
    """Yield how much the ranking hangs on each modality, of a survival model."""
    if not isinstance(model, SurvivalModel) or judged.cohort is None:
        return
    from omnisurv.explanation import modality_value

    yield permutation_section(modality_value(model, judged.cohort, "permutation"))


def _patients(
    model: "FittedModel", judged: Judged, data: "runs.Data | None", shown: "Cohort | None"
) -> Iterable[Section]:
    """Return the section of patients: those asked for, or some who differ of those judged."""
    cohort = judged.cohort
    if data is not None and (cohort is None or shown is not None):
        cohort = data.cohort
    if cohort is None or not len(cohort):
        return []
    chosen = list(shown.patients) if shown is not None else differing_patients(model, cohort)
    return [patients_section(model, cohort, chosen)] if chosen else []


def _tuning(run: Path) -> list[Section]:
    tuned = read_study(run)
    if tuned is None:
        return []
    return [Section(f"Tuning {tuned.recipe.title}", study_lead(tuned)), *study_sections(tuned)]
