"""Commands that train: pre-training, fine-tuning, cross-validation, published weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omnisurv import arguments, console
from omnisurv.arguments import (
    Debug,
    Everyone,
    Json,
    Out,
    Quiet,
    RecipeName,
    Root,
    Seed,
    Set,
    Spec,
    Subsets,
    TrainedFor,
)
from omnisurv.cli.application import app, example
from omnisurv.errors import InputError

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort
    from omnisurv.recipe import Recipe
    from omnisurv.tasks.survival import SurvivalModel


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
    task: TrainedFor = "survival",
    recipe: RecipeName = None, set_: Set = None, root: Root = None, seed: Seed = None,
    all_patients: Everyone = False, json: Json = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Fine-tune a pre-trained run for a task; given a spec, train from scratch."""
    from functools import partial

    from omnisurv import runs, training

    arguments.ready(json, out)
    work = partial(training.finetune, task=task)
    if not source.is_dir():
        settings = arguments.choose_recipe(source, recipe, set_, seed)
        data = arguments.read(source, root, quiet)
        model = arguments.train(work, settings, data, out, settings, all_patients, quiet, task=task)
    else:
        if recipe is not None:
            raise InputError("--recipe is for training from a SPEC; a RUN has its recipe")
        start = arguments.load_run(source)
        runs.require_same_network(start, arguments.adjust(start.recipe, set_, seed), source)
        with console.working("read", quiet=quiet):
            data = runs.Data.read(spec, root) if spec else runs.origin(source, root)
        model = arguments.train(
            work, start, data, out, start.recipe, all_patients, quiet, source, task
        )
    arguments.tell_model(model, out, json)


@app.command(**example("crossvalidate cohort/cohort.yaml --repeats 2 --out results"))
def crossvalidate(
    spec: Spec, out: Out, recipe: RecipeName = None,
    folds: Annotated[int | None, typer.Option(min=2, help="The spec's by default.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="The spec's by default.")] = None,
    subsets: Subsets = "none", task: TrainedFor = "survival", set_: Set = None,
    root: Root = None, seed: Seed = None, json: Json = None, quiet: Quiet = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Pre-train, fine-tune and score in every fold; a stopped one goes on where it was."""
    from omnisurv.evaluation import cross_validate
    from omnisurv.pages.results import crossvalidation_page

    arguments.ready(json, out)
    settings = arguments.choose_recipe(spec, recipe, set_, seed)
    data = arguments.read(spec, root, quiet)
    asked = arguments.subsets_of(subsets, data.cohort)
    with console.training(quiet=quiet) as progress:
        result = cross_validate(
            settings, data.cohort, folds=folds, repeats=repeats, subsets=asked, out=out,
            progress=progress, task=task,
        )  # fmt: skip
    result.save(out)
    command = f"omnisurv crossvalidate {spec} --recipe {settings.title} --out {out}"
    command += f" --task {task}" if task != "survival" else ""
    page = crossvalidation_page(out, result, settings.title, data.cohort, command)
    console.show_scores(result.table)
    console.say("", f"Report: {page}")
    arguments.write_json(json, result.to_json())


@app.command(**example("tune cohort/cohort.yaml --recipe imputmae:small --trials 30 --out tuned"))
def tune(
    spec: Spec, out: Out = Path("tuned"), recipe: RecipeName = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the study in all.")] = 30,
    storage: Annotated[str | None, typer.Option(
        metavar="FILE|URL", help="Journal file, sqlite:///FILE or postgresql://USER@HOST/DB; a "
        "journal in --out by default. Workers with the same one share the trials.")] = None,
    space: Annotated[Path | None, typer.Option(
        "--space", help="YAML of ranges and choices, such as ridge: {low: 1, high: 50}.")] = None,
    metrics: Annotated[str, typer.Option(help="c_harrell, ibs, or c_harrell,ibs.")] = "c_harrell",
    prune: Annotated[Literal["folds", "epochs", "none"], typer.Option(
        help="What is compared with other trials, to stop the hopeless.")] = "folds",
    folds: Annotated[int | None, typer.Option(min=2, help="The spec's by default.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study in its storage.")] = None,
    fit: Annotated[Path | None, typer.Option(
        "--fit", metavar="RUN", help="Train the best settings on the development part.")] = None,
    set_: Set = None, root: Root = None, seed: Seed = None, json: Json = None,
    quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Search settings on inner folds of the development part; a stopped search goes on.

    The test part is not read. The recipe's own settings are tried first.
    """
    import optuna

    from omnisurv import tuning

    arguments.ready(json, out)
    settings = arguments.choose_recipe(spec, recipe, set_, seed)
    searched = tuning.read_space(space)
    tuning.Space.of(settings, searched)  # so that a mistake is told before the data are read
    data = arguments.read(spec, root, quiet)
    dev = data.parts()[0]
    if not debug:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    wanted: Any = arguments.names_of(metrics)
    with console.training(quiet=quiet) as progress:
        tuned = tuning.tune(
            settings, dev, trials=trials, space=searched, metrics=wanted, prune=prune, folds=folds,
            out=out, storage=storage, name=name, seed=seed or 0, progress=progress,
        )  # fmt: skip
    command = f"omnisurv tune {spec} --recipe {settings.title} --trials {trials} --out {out}"
    page = tuned.save(out, command)
    console.show(tuned.summary())
    console.say("", f"Report: {page}")
    if fit is not None:

        def work(best: "Recipe", chosen: "Cohort", **where: Any) -> "SurvivalModel":
            return tuned.fit(chosen, **where)

        best = tuned.best_recipe
        arguments.train(work, best, data, fit, best, False, quiet)
        console.say(f"run: {fit}")
    arguments.write_json(json, tuned.to_dict())
