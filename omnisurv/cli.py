"""The commands: parse, call one function, print.

Exit 0: done. 2: the user's input is wrong, one line says what, where and how to mend it. 1: our
fault; ``--debug`` shows the traceback. Heavy libraries are imported inside the commands.
"""

import sys
import traceback
import warnings
from collections.abc import Sequence
from json import loads as read_json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from omnisurv import __version__, arguments, console
from omnisurv.arguments import (
    Dask,
    Debug,
    Everyone,
    Json,
    Out,
    Quiet,
    RecipeName,
    Root,
    Run,
    Seed,
    Set,
    Spec,
    Subsets,
    Task,
    Workers,
)
from omnisurv.errors import InputError, OmnisurvError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def example(command: str) -> dict[str, Any]:
    """Return the settings of a command with its example."""
    return {"epilog": f"Example: omnisurv {command}"}


@app.callback()
def omnisurv() -> None:
    """Multimodal survival analysis with missing data. Not for clinical use."""


@app.command(**example("demo --out demo"))
def demo(
    out: Out = Path("demo"), seed: Seed = None, quiet: Quiet = False, json: Json = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Do the whole job on a simulated cohort with known truth, in a few minutes."""
    import torch

    from omnisurv.demo import run_demo
    from omnisurv.runs import require_space

    arguments.ready(json)
    torch.set_num_threads(1)  # its networks are so small that threads wait for each other
    with console.training(quiet=quiet) as progress:
        found = run_demo(
            require_space(out), seed=seed or 0, progress=progress,
            workers=arguments.usual_workers(),
            tell=lambda what, command: console.say(f"• {what}", f"    omnisurv {command}"),
        )  # fmt: skip
    console.say("", "Which modalities the patients have (the ten commonest combinations):")
    console.show(found.inspection.combinations.head(10), digits=2)
    console.say("", f"Harrell's C on {found.evaluated} test patients (0.5 is chance):")
    console.show(found.survival)
    console.say("", "Whole modalities predicted from the others, test patients:")
    console.show(found.imputation)
    console.say("", f"Report: {found.report}")
    arguments.write_json(json, found.to_dict())


@app.command(**example("simulate cohort --patients 300 --missing 0.5"))
def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    patients: Annotated[int, typer.Option(help="Number of patients.")] = 300,
    missing: Annotated[float, typer.Option(help="Share of missing modality cells.")] = 0.35,
    pictures: Annotated[bool, typer.Option(help="With MRI and slides.")] = True,
    seed: Seed = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write a cohort with known truth, in the layouts of GDC and BraTS."""
    from omnisurv.runs import require_space
    from omnisurv.simulation import simulate as draw
    from omnisurv.simulation import write

    require_space(out)
    with console.working("simulate", quiet=quiet):
        drawn = draw(patients, seed or 0, missing=missing, pictures=pictures)
        spec = write(drawn, out)
    console.say(f"{len(drawn)} patients: {spec}")


@app.command(**example("inspect data_specs/tcga_glioma_matrices.yaml --root tcga_glioma"))
def inspect(
    spec: Spec, root: Root = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the whole audit, as CSV.")
    ] = None,
    json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Say what a cohort holds, what was left out and why; exit 2 if it cannot be used."""
    from omnisurv.inspection import inspect as look

    arguments.ready(json, out)
    found = look(arguments.read(spec, root, quiet).cohort)
    console.show(found.modalities, title=repr(found.cohort))
    console.say("", "Modalities together (the ten commonest combinations):")
    console.show(found.combinations.head(10), digits=2)
    console.say("", "Endpoint: " + ", ".join(f"{k} {v}" for k, v in found.endpoint.items()))
    for patient, reason in found.unusable.itertuples(index=False):
        console.say(f"  {patient}: {reason}")
    console.say("")
    console.show(found.parts, title="Split")
    console.say("")
    console.show(found.audit, title="Audit")
    for line in found.warnings:
        console.say(f"warning: {line}")
    if out is not None:
        console.say(f"every row of the audit: {found.save(out) / 'audit.csv'}")
    arguments.write_json(json, found.to_dict())


@app.command(**example("preprocess data_specs/tcga_glioma_gdc.yaml --root gdc --out tables"))
def preprocess(
    spec: Spec, out: Out, root: Root = None, workers: Workers = None, dask: Dask = None,
    quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Decode every raw file once, into a folder of its own with a spec that reads it.

    Many files at a time; a stopped run goes on where it was.
    """
    from omnisurv.data.store import Store
    from omnisurv.preprocessing import STORE, damaged
    from omnisurv.preprocessing import preprocess as convert
    from omnisurv.runs import Data, require_space

    require_space(out)
    with arguments.decoders(workers, dask) as pool, console.reading(quiet=quiet) as progress:
        data = Data.read(spec, root, Store(out / STORE, progress=progress, pool=pool))
        written = convert(data.cohort, data.root, out)
    for line in damaged(data.cohort):
        console.say(f"left out: {line}")
    console.say(
        f"{data.cohort!r}",
        f"what became of every file: {out / 'audit.csv'}",
        f"use this spec from now on: {written}",
    )


@app.command(**example("pretrain cohort/cohort.yaml --out runs/a --set pretrain.epochs=60"))
def pretrain(
    spec: Spec, out: Out, recipe: RecipeName = None, set_: Set = None, root: Root = None,
    seed: Seed = None, all_patients: Everyone = False,
    start: Annotated[Path | None, typer.Option(
        "--start", metavar="RUN", help="Begin with the weights of this run, for the modalities "
        "both know: say, MRI of other patients.")] = None,
    json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Pre-train on the spec's development part, on whatever each patient has."""
    from functools import partial

    from omnisurv import training

    arguments.ready(json, out)
    settings = arguments.choose_recipe(spec, recipe, set_, seed)
    before = arguments.load_run(start) if start is not None else None
    data = arguments.read(spec, root, quiet)
    work = partial(training.pretrain, start=before)
    model = arguments.train(work, settings, data, out, settings, all_patients, quiet, start)
    arguments.tell_model(model, out, json)


@app.command("import", **example("import bm-mae bmmae.pth --out runs/bm_mae"))
def import_(
    whose: Annotated[Literal["bm-mae"], typer.Argument(metavar="bm-mae", help="Whose weights.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="State-dict (.pth) to read.")],
    out: Out, json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Turn published weights into a run, which knows t1, t1ce, t2 and flair."""
    from dataclasses import asdict

    from omnisurv.weights import import_bm_mae

    arguments.ready(json, out)
    with console.working("import", quiet=quiet):
        report = import_bm_mae(file, out)
    console.say(*report.lines())
    console.say(
        "All cases of BraTS 2021 count as seen: to evaluate those that the authors left out of "
        "this file, say --allow-seen.", f"run: {out}",
    )  # fmt: skip
    arguments.write_json(json, {"run": str(out), **asdict(report)})


@app.command(**example("finetune runs/a --task survival --out runs/b"))
def finetune(
    source: Annotated[Path, typer.Argument(
        metavar="RUN|SPEC", help="A pre-trained run, or a data spec to train from scratch.")],
    out: Out,
    spec: Annotated[Path | None, typer.Argument(
        metavar="[SPEC]", help="Data spec; the run's own by default.")] = None,
    task: Annotated[str, typer.Option(help="survival.")] = "survival",
    recipe: RecipeName = None, set_: Set = None, root: Root = None, seed: Seed = None,
    all_patients: Everyone = False, json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Fine-tune a pre-trained run for survival; given a spec, train from scratch."""
    from functools import partial

    from omnisurv import runs, training

    arguments.ready(json, out)
    work = partial(training.finetune, task=task)
    if not source.is_dir():
        settings = arguments.choose_recipe(source, recipe, set_, seed)
        data = arguments.read(source, root, quiet)
        model = arguments.train(work, settings, data, out, settings, all_patients, quiet)
    else:
        if recipe is not None:
            raise InputError("--recipe is for training from a SPEC; a RUN has its recipe")
        start = arguments.load_run(source)
        runs.require_same_network(start, arguments.adjust(start.recipe, set_, seed), source)
        with console.working("read", quiet=quiet):
            data = runs.Data.read(spec, root) if spec else runs.origin(source, root)
        model = arguments.train(work, start, data, out, start.recipe, all_patients, quiet, source)
    arguments.tell_model(model, out, json)


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


@app.command(**example("crossvalidate cohort/cohort.yaml --repeats 2 --out results"))
def crossvalidate(
    spec: Spec, out: Out, recipe: RecipeName = None,
    folds: Annotated[int | None, typer.Option(min=2, help="The spec's by default.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="The spec's by default.")] = None,
    subsets: Subsets = "none", set_: Set = None, root: Root = None, seed: Seed = None,
    json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Pre-train, fine-tune and score in every fold; a stopped one goes on where it was."""
    from omnisurv.evaluation import cross_validate
    from omnisurv.pages import crossvalidation_page

    arguments.ready(json, out)
    settings = arguments.choose_recipe(spec, recipe, set_, seed)
    data = arguments.read(spec, root, quiet)
    asked = arguments.subsets_of(subsets, data.cohort)
    with console.training(quiet=quiet) as progress:
        result = cross_validate(
            settings, data.cohort, folds=folds, repeats=repeats, subsets=asked, out=out,
            progress=progress,
        )  # fmt: skip
    result.save(out)
    command = f"omnisurv crossvalidate {spec} --recipe {settings.title} --out {out}"
    page = crossvalidation_page(out, result, settings.title, data.cohort, command)
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


def main(words: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    sys.exit(run_command(sys.argv[1:] if words is None else words))


def run_command(words: Sequence[str]) -> int:
    """Run a command; return 0 if it is done, 2 if the input is wrong, 1 if we are."""
    debug = "--debug" in words
    if list(words) == ["--version"]:
        console.say(__version__)
        return 0
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            code = app(list(words) or ["--help"], prog_name="omnisurv", standalone_mode=False)
        if code == 130:
            console.complain("stopped; the same command goes on where it was")
        return code if isinstance(code, int) else 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> int:
    """Print what went wrong as one line; return the exit code."""
    if hasattr(error, "format_message"):  # how the command line itself was written
        console.complain(f"{error.format_message()} See omnisurv --help.")
        return 2
    if isinstance(error, InputError):
        console.complain(str(error))
        return 2
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        console.complain(f"{where}{error.strerror or error}; check the path and the disk")
        return 2
    if isinstance(error, OmnisurvError):
        console.complain(str(error))
    else:
        console.complain(
            f"omnisurv {__version__} failed with {type(error).__name__}: {error}. This is our "
            "fault: please report it with the output of the same command with --debug."
        )
    return 1
