"""The command that says what drives predicted risks."""

from typing import Annotated

import typer

from omnisurv import arguments, console
from omnisurv.arguments import Debug, Json, Out, Quiet, Root, Run, Seed, Spec
from omnisurv.cli.application import app, example


@app.command(**example("explain runs/b cohort/cohort.yaml --out explained"))
def explain(
    run: Run, spec: Spec, out: Out,
    patients: Annotated[str | None, typer.Option(
        help="Ids with commas between, or a file of ids; those that evaluate takes by default.")
    ] = None,
    modalities: Annotated[str | None, typer.Option(
        help="Those to measure and whose features to look into; all by default.")] = None,
    draws: Annotated[int, typer.Option(
        min=2, help="Of each missing modality, for each patient.")] = 50,
    root: Root = None, seed: Seed = None, json: Json = None, quiet: Quiet = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Say what drives predicted risks: modalities, features, and what is not measured yet."""
    from omnisurv import explanation, runs
    from omnisurv.pages.explanation import explanation_page, shown_modalities

    arguments.ready(json, out)
    model = explanation.require_survival(arguments.load_run(run))
    data, names = arguments.read(spec, root, quiet), arguments.names_of(modalities)
    cohort, who = runs.to_evaluate(model, data.cohort)
    if patients is not None:
        cohort, who = runs.choose_patients(data.cohort, patients), "named by --patients"
    console.say(f"Explaining {len(cohort)} patients: {who}.")
    with console.training(quiet=quiet) as progress:
        found = explanation.explain(
            model, cohort, names, draws=draws, seed=seed or 0, progress=progress
        )
    with console.working("draw", quiet=quiet):
        found.save(out)
        command = f"omnisurv explain {run} {spec} --out {out}"
        command += "".join(
            f" --{name} {given}"
            for name, given in (("patients", patients), ("modalities", modalities), ("seed", seed))
            if given is not None
        )
        told = f"{len(cohort)} patients: {who}"
        page = explanation_page(out, found, told, model.recipe.title, command)
    console.show(shown_modalities(found), title="In units of the log risk")
    for note in found.notes:
        console.say(note)
    console.say("", f"Tables: {out}", f"Report: {page}")
    arguments.write_json(json, found.to_dict())
