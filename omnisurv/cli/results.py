"""Commands that use a trained run: imputing, judging, pages, and what there is."""

from json import loads as read_json
from pathlib import Path
from typing import Annotated, Literal

import typer

from omnisurv import arguments, console
from omnisurv.arguments import Debug, Json, Out, Quiet, Root, Run, Seed, Spec, Subsets, Task
from omnisurv.cli.application import app, example


@app.command(**example("impute runs/a cohort/cohort.yaml --modalities dnam,rna --out imputed"))
def impute(
    run: Run, spec: Spec, out: Out,
    patients: Annotated[
        str | None, typer.Option(help="Ids with commas between, or a file of ids; all by default.")
    ] = None,
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
    run: Run, spec: Spec,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; the run's own by default.")
    ] = None,
    task: Task = None, subsets: Subsets = "each",
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Evaluate patients that the weights saw.")
    ] = False,
    root: Root = None, json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Judge a run on patients it has not seen, beside baselines and controls."""
    from omnisurv import evaluation, runs
    from omnisurv.pages import evaluation_page
    from omnisurv.patientpage import example_sections

    out = run if out is None else out
    arguments.ready(json, out)
    model, data = arguments.load_run(run), arguments.read(spec, root, quiet)
    asked = arguments.subsets_of(subsets, data.cohort, model)
    cohort, who = runs.to_evaluate(model, data.cohort)
    if not allow_seen:
        model.require_unseen(cohort)
    train, why = runs.training_part(run, model, data, cohort)
    console.say(f"Evaluating {len(cohort)} patients: {who}.")
    with console.working("evaluate", quiet=quiet):
        result = evaluation.evaluate(
            model, cohort, subsets=asked, train=train, task=task, allow_seen=allow_seen
        )
        result.notes.extend([why] if why else [])
        result.save(out)
        command = f"omnisurv evaluate {run} {spec} --subsets {subsets} --out {out}"
        more = example_sections(model, cohort)
        page = evaluation_page(out, result, model, cohort, command, more)
    console.show_scores(result.table)
    console.say("", f"Report: {page}")
    arguments.write_json(json, result.to_json())


@app.command(**example("patient runs/b cohort/cohort.yaml TCGA-02-0001 --out patient.html"))
def patient(
    run: Run, spec: Spec,
    who: Annotated[str, typer.Argument(metavar="PATIENT", help="Id of the patient.")],
    out: Annotated[Path, typer.Option("--out", help="Page to write.")] = Path("patient.html"),
    root: Root = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write the page of one patient: what is there, what is imputed, the predicted survival."""
    from omnisurv.files import writable
    from omnisurv.patientpage import patient_page

    writable(out.parent)
    model, data = arguments.load_run(run), arguments.read(spec, root, quiet)
    with console.working("draw", quiet=quiet):
        command = f"omnisurv patient {run} {spec} {who} --out {out}"
        page = patient_page(out, model, data.cohort, who, command)
    console.say(f"Page: {page}")


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
