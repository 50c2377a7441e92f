"""Commands about cohorts: the demonstration, simulating, inspecting, decoding."""

from pathlib import Path
from typing import Annotated

import typer

from omnisurv import arguments, console
from omnisurv.arguments import Dask, Debug, Json, Out, Quiet, Root, Seed, Spec, Workers
from omnisurv.cli.application import app, example


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
    brats: Annotated[
        bool, typer.Option("--brats", help="MRI and label maps of the tumour alone, as BraTS 2021.")
    ] = False,
    seed: Seed = None, quiet: Quiet = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write a cohort with known truth, in the layouts of GDC and BraTS."""
    from omnisurv.runs import require_space
    from omnisurv.simulation import simulate as draw
    from omnisurv.simulation import simulate_brats, write, write_brats

    require_space(out)
    with console.working("simulate", quiet=quiet):
        if brats:
            drawn = simulate_brats(patients, seed or 0, missing=missing)
            spec = write_brats(drawn, out)
        else:
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
