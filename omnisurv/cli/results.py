"""Commands that use a trained run: imputing, judging, pages, and what there is."""

from json import loads as read_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from omnisurv import arguments, console
from omnisurv.arguments import (
    Debug,
    Json,
    Out,
    Patients,
    Quiet,
    RecipeName,
    Root,
    Run,
    Seed,
    Set,
    Spec,
    Subsets,
    Task,
)
from omnisurv.cli.application import app, example
from omnisurv.cli.studies import make_study
from omnisurv.errors import InputError

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort


@app.command(**example("impute runs/a cohort/cohort.yaml --modalities dnam,rna --out imputed"))
def impute(
    run: Run, spec: Spec, out: Out,
    patients: Patients = None,
    modalities: Annotated[
        str | None, typer.Option(help="Names with commas between; all by default.")
    ] = None,
    draws: Annotated[int, typer.Option(min=0, help="Seeded draws, a layer each.")] = 0,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.9,
    tsv: Annotated[bool, typer.Option("--tsv", help="Write TSV tables as well.")] = False,
    root: Root = None, seed: Seed = None, json: Json = None, quiet: Quiet = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Fill in missing modalities with intervals, in the field's formats (h5ad, NIfTI)."""
    from omnisurv.imputation import impute as fill
    from omnisurv.runs import choose_patients

    arguments.ready(json, out)
    arguments.require_level(level)
    model, data = arguments.load_run(run), arguments.read(spec, root, quiet)
    cohort = choose_patients(data.cohort, patients)
    arguments.tell_unread(model, cohort)
    with console.working("impute", quiet=quiet):
        filled = fill(
            model, cohort, arguments.names_of(modalities), level=level, draws=draws, seed=seed or 0
        )
        filled.save(out, tsv=tsv)
    manifest = read_json((out / "imputation.json").read_text())
    for name, told in manifest.items():
        where = f"{len(told['files'])} files in {out / name}"
        console.say(
            f"{name}: {told['patients']} patients, {told['patients_without']} had none of it, "
            f"{told['patients_with_imputed_values']} with imputed values: "
            f"{out / told['files'][0] if len(told['files']) == 1 else where}"
        )
    arguments.write_json(json, manifest)


@app.command(**example("evaluate runs/b cohort/cohort.yaml --subsets all --out results"))
def evaluate(
    run: Annotated[Path, typer.Argument(
        metavar="RUN|SPEC", help="Run folder of pretrain or finetune; of a --study, a data spec.")],
    spec: Annotated[Path | None, typer.Argument(
        metavar="[SPEC]", help="Data spec; the run's own by default.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; the run's own by default.")
    ] = None,
    task: Task = None, subsets: Subsets = "each",
    against: Annotated[Path | None, typer.Option(
        "--against", metavar="FOLDER", help="Evaluated run, or --out of its evaluation, to compare "
        "each patient's Dice and HD95 with (segmentation).")] = None,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Evaluate patients that the weights saw.")
    ] = False,
    study: Annotated[Literal["bm-mae"] | None, typer.Option(
        "--study", help="Make the tables of a paper: train and judge all that it compares.")
    ] = None,
    arms: Annotated[str, typer.Option(
        "--arms", help="Of a study: which of bm_mae, scratch, stacked_mae and simclr to compare.")
    ] = "bm_mae,scratch",
    labelled: Annotated[int | None, typer.Option(
        "--labelled", min=10, metavar="N", help="Of a study: learn segmentation from this many "
        "patients' label maps alone.")] = None,
    recipe: RecipeName = None, set_: Set = None,
    root: Root = None, json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Judge a run on patients it has not seen, beside baselines and controls.

    With --study the tables of a paper are made of a spec instead: everything that it compares is
    trained on the development part, and judged on the test part.
    """
    if study is not None:
        settings = arguments.choose_recipe(run, recipe, set_, None)
        make_study(run, spec, out, task, arms, labelled, settings, root, json, quiet)
        return
    if recipe is not None or set_:
        raise InputError("--recipe and --set are for a --study; a RUN has its recipe")
    from dataclasses import replace

    from omnisurv import evaluation, runs
    from omnisurv.pages.patient import example_sections
    from omnisurv.pages.results import evaluation_page

    out = run if out is None else out
    arguments.ready(json, out)
    theirs = None if against is None else evaluation.read_cases(against)
    model = arguments.load_run(run)
    data = runs.origin(run, root) if spec is None else arguments.read(spec, root, quiet)
    arguments.tell_unread(model, data.cohort)
    asked = arguments.subsets_of(subsets, data.cohort, model)
    cohort, who = runs.to_evaluate(model, data.cohort)
    if not allow_seen:
        model.require_unseen(cohort)
    train, why = runs.training_part(run, model, data, cohort)
    console.say(f"Evaluating {len(cohort)} patients: {who}.")
    if task == "consistency":
        _judge_consistency(out, model, cohort, json)
        return
    with console.working("evaluate", quiet=quiet):
        result = evaluation.evaluate(
            model, cohort, subsets=asked, train=train, task=task, allow_seen=allow_seen
        )
        result.notes.extend([why] if why else [])
        if theirs is not None:
            told = evaluation.compare_cases(result.cases, theirs, (str(run), str(against)))
            result = replace(result, differences=told)
        result.save(out)
        where = run if spec is None else f"{run} {spec}"
        command = f"omnisurv evaluate {where} --subsets {subsets} --out {out}"
        more = example_sections(model, cohort)
        page = evaluation_page(out, result, model, cohort, command, more)
    console.show_scores(result.table)
    console.say("", f"Report: {page}")
    arguments.write_json(json, result.to_json())


def _judge_consistency(
    out: Path, model: "FittedModel", cohort: "Cohort", json: Path | None
) -> None:
    """Write how alike patients are placed by subsets of sequences, and draw it."""
    from omnisurv import evaluation, plots
    from omnisurv.files import atomic, writable

    cosines = evaluation.consistency(model, cohort)
    by_size = evaluation.save_consistency(cosines, out)
    with atomic(writable(out / "figures") / "consistency.svg") as path, plots.style():
        plots.consistency(cosines, by_size).savefig(path, format="svg", metadata={"Date": None})
    told = by_size.rename_axis(columns=None).reset_index()
    console.show(told, title="Mean cosine of centred embeddings, by number of modalities given")
    console.say("", f"All subsets: {out / 'consistency.csv'}")
    arguments.write_json(json, cosines.to_json())


@app.command(**example("segment runs/b cohort/cohort.yaml --labels brats21 --out segmented"))
def segment(
    run: Run, spec: Spec, out: Out,
    patients: Patients = None,
    modalities: Annotated[
        str | None, typer.Option(help="Sequences to look at, commas between; all by default.")
    ] = None,
    labels: Annotated[str | None, typer.Option(
        metavar="EDITION", help="Labels to write: brats15, brats21 (2017 to 2021), brats23, "
        "brats24 or msd; the cohort's own by default, or brats23.")] = None,
    root: Root = None, json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write a label map of each patient's tumour, from whichever sequences there are."""
    from omnisurv.runs import choose_patients
    from omnisurv.segmentation import require_trained, write_label_maps

    arguments.ready(json, out)
    model = require_trained(arguments.load_run(run), run)
    cohort = choose_patients(arguments.read(spec, root, quiet).cohort, patients)
    arguments.tell_unread(model, cohort)
    with console.working("segment", quiet=quiet):
        told = write_label_maps(model, cohort, out, arguments.names_of(modalities), edition=labels)
    cubes = [patient for patient, one in told["patients"].items() if not one["whole"]]
    if cubes:
        console.say(f"{len(cubes)} patients: raw files are gone, only the cube was segmented")
    console.say(f"{len(told['patients'])} label maps of {told['labels']}: {out}")
    arguments.write_json(json, told)
    if told["refused"]:
        sentence = (
            f"{len(told['refused'])} patients have no MRI sequence to look at, the others are done:"
            f" {', '.join(told['refused'])}"
        )
        if patients is not None:
            raise InputError(sentence)
        console.complain(sentence)


@app.command(**example("patient runs/b cohort/cohort.yaml TCGA-02-0001 --out patient.html"))
def patient(
    run: Run, spec: Spec,
    who: Annotated[str, typer.Argument(metavar="PATIENT", help="Id of the patient.")],
    out: Annotated[Path, typer.Option("--out", help="Page to write.")] = Path("patient.html"),
    root: Root = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write the page of one patient: what is there, what is imputed, the predicted survival."""
    from omnisurv.files import writable
    from omnisurv.pages.patient import patient_page

    writable(out.parent)
    model, data = arguments.load_run(run), arguments.read(spec, root, quiet)
    with console.working("draw", quiet=quiet):
        command = f"omnisurv patient {run} {spec} {who} --out {out}"
        page = patient_page(out, model, data.cohort, who, command)
    console.say(f"Page: {page}")


@app.command(**example("report runs/b --out report.html"))
def report(
    run: Run,
    spec: Annotated[Path | None, typer.Argument(
        metavar="[SPEC]", help="Data spec; the run's own by default.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Page to write; RUN/report.html by default.")
    ] = None,
    patients: Annotated[str | None, typer.Option(
        help="Ids with commas between, or a file of ids; three who differ by default.")] = None,
    root: Root = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write one page of a run: cohort, training, results, patients, how to make it again.

    A run that was not judged yet is judged on patients it has not seen.
    """
    from omnisurv import runs
    from omnisurv.files import writable
    from omnisurv.pages.run import run_page

    out = run / "report.html" if out is None else out
    writable(out.parent)
    model, why = arguments.load_run(run), ""
    try:
        data = arguments.read(spec, root, quiet) if spec is not None else runs.origin(run, root)
    except InputError as error:
        if spec is not None or patients is not None:
            raise
        data, why = None, f"{error}."
    words = ["omnisurv report", run, *([spec] if spec is not None else []), f"--out {out}"]
    words += [f"--patients {patients}"] if patients is not None else []
    shown = None
    if data is not None and patients is not None:
        shown = runs.choose_patients(data.cohort, patients)
    with console.working("report", quiet=quiet):
        page = run_page(
            out, run, model, data, shown=shown, why=why,
            command=" ".join(str(word) for word in words),
        )  # fmt: skip
    if data is None:
        console.complain(f"the cohort is left out: {why}")
    console.say(f"Report: {page}")


@app.command("list", **example("list recipes"))
def list_(
    what: Annotated[
        Literal["modalities", "heads", "recipes"], typer.Argument(help="What to list.")
    ],
    debug: Debug = False,
) -> None:
    """List the kinds of modalities, the heads or the recipes there are."""
    from omnisurv import registry

    for name, entry in getattr(registry, what):
        first = (entry.__doc__ or "").strip().splitlines()[0]
        console.say(f"{name}: {getattr(entry, 'paper', getattr(entry, 'summary', first))}")
        for preset in getattr(entry, "presets", {}):
            console.say(f"    {name}:{preset}")
