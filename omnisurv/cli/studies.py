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
    import torch

    from omnisurv.data.workers import helpers
    from omnisurv.pages.reproduction import command_line, set_words
    from omnisurv.pages.study import headline, study_page
    from omnisurv.study import main_metric, study_bm_mae

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
    if recipe.preset == "tiny":
        torch.set_num_threads(1)  # its networks are so small that threads wait for each other
    # An accelerator judges all of it faster than processes that would share it.
    judges = 1 if torch.cuda.is_available() else arguments.usual_workers()
    with helpers(judges) as pool, console.training(quiet=quiet) as progress:
        study = study_bm_mae(
            recipe,
            data.cohort,
            out=out,
            tasks=None if task is None else [task],
            arms=arguments.names_of(arms) or (),
            labelled=labelled,
            progress=progress,
            pool=pool,
        )
    study.save(out)
    words: list[object] = ["evaluate", spec, "--study", "bm-mae", "--recipe", recipe.title]
    words += [*set_words(recipe), "--arms", arms]
    words += [] if task is None else ["--task", task]
    words += [] if labelled is None else ["--labelled", labelled]
    words += [] if root is None else ["--root", root]
    page = study_page(out, study, data.cohort, command_line(*words, "--out", out))
    for name in study.results:
        # All metrics of four arms would be wider than a terminal; the page and the CSV have them.
        table = study.table(name)[main_metric(name)]
        console.show(table.reset_index(), title=headline(study, name))
    console.say("", f"Report: {page}")
    arguments.write_json(json, study.to_json())
