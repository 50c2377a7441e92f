"""The part of ``evaluate`` that makes the tables of a paper."""

from pathlib import Path
from typing import TYPE_CHECKING

from omnisurv import arguments, console
from omnisurv.errors import InputError

if TYPE_CHECKING:
    from omnisurv.recipe import Recipe


def make_study(
    spec: Path,
    second: Path | None,
    out: Path | None,
    task: str | None,
    arms: str,
    labelled: int | None,
    recipe: "Recipe",
    root: Path | None,
    json: Path | None,
    quiet: bool,
) -> None:
    """Train and judge what a paper compares, and write its tables.

    Raises:
        InputError: no ``--out``, a second SPEC, or another recipe than ``bm_mae``.
    """
    from omnisurv.pages.study import flat, headline, study_page
    from omnisurv.study import study_bm_mae

    if out is None or second is not None:
        raise InputError(
            "a study takes one SPEC and a folder: evaluate SPEC --study bm-mae --out DIR"
        )
    if recipe.name != "bm_mae":
        raise InputError(
            f"the study bm-mae compares recipe bm_mae with others, not '{recipe.title}'; say "
            "--recipe bm_mae or --recipe bm_mae:tiny"
        )
    arguments.ready(json, out)
    data = arguments.read(spec, root, quiet)
    with console.training(quiet=quiet) as progress:
        study = study_bm_mae(
            recipe,
            data.cohort,
            out=out,
            tasks=None if task is None else [task],
            arms=arguments.names_of(arms) or (),
            labelled=labelled,
            progress=progress,
        )
    study.save(out)
    command = f"omnisurv evaluate {spec} --study bm-mae --recipe {recipe.title} --arms {arms}"
    command += "" if task is None else f" --task {task}"
    command += "" if labelled is None else f" --labelled {labelled}"
    command += f" --out {out}"
    page = study_page(out, study, data.cohort, command)
    for name in study.results:
        console.show(flat(study.table(name)), title=headline(study, name))
    console.say("", f"Report: {page}")
    arguments.write_json(json, study.to_json())
