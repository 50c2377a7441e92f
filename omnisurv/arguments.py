"""What the commands take: options, and what their texts mean."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnisurv import console
from omnisurv.errors import DataError, InputError, did_you_mean
from omnisurv.files import atomic, writable

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.recipe import Recipe
    from omnisurv.runs import Data

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="Data spec (YAML).")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of pretrain or finetune.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Root = Annotated[
    Path | None, typer.Option("--root", help="Folder of the data files (or OMNISURV_ROOT).")
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="recipe or recipe:preset; the spec's by default.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="key=value of the recipe; may be repeated.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
Everyone = Annotated[
    bool, typer.Option("--all-patients", help="Train on the spec's test part as well.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback if something breaks.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes; one for each core by default, up to 8."),
]
Dask = Annotated[
    str | None,
    typer.Option("--dask", metavar="ADDRESS", help="Scheduler of a dask cluster to do the work."),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="survival|segmentation|LABEL|imputation|consistency",
        help="What to judge; what the run was trained for by default.",
    ),
]
TrainedFor = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="survival|segmentation|LABEL",
        help="survival, segmentation, or a label of the spec, such as subtype.",
    ),
]
Patients = Annotated[
    str | None, typer.Option(help="Ids with commas between, or a file of ids; all by default.")
]
Subsets = Annotated[
    str, typer.Option("--subsets", help="all, each, none, or a list such as rna+dnam,clinical.")
]


def ready(json: Path | None, out: Path | None = None) -> None:
    """Raise InputError before anything long begins if the results could not be written."""
    from omnisurv.runs import require_space

    if out is not None:
        require_space(out)
    if json is not None:
        writable(json.parent)


def read(spec: Path, root: Path | None, quiet: bool) -> "Data":
    """Read the cohort of a spec."""
    from omnisurv.data.store import Store, default_folder
    from omnisurv.runs import Data

    with console.reading(quiet=quiet) as progress:
        return Data.read(spec, root, Store(default_folder(), progress=progress))


def usual_workers() -> int:
    """Return the cores that this process may use, up to 8: each decoder wants memory, too."""
    own = hasattr(os, "sched_getaffinity")
    return min(len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1, 8)


@contextmanager
def decoders(workers: int | None, address: str | None) -> "Iterator[Executor | None]":
    """Give what decodes: processes, or a dask cluster; None where this process does it itself.

    Args:
        workers: number of processes; the usual one by default.
        address: of the cluster's scheduler, which goes first.

    Raises:
        InputError: dask is not installed, or no scheduler answers.
    """
    from omnisurv.data.workers import helpers

    if address is not None:
        with _connect(address) as client:
            yield client.get_executor()
        return
    with helpers(workers or usual_workers()) as pool:
        yield pool


def _connect(address: str) -> Any:
    """Return a client of a dask cluster."""
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--dask needs dask: pip install 'omnisurv[cluster]'") from None
    try:
        return Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"--dask {address}: no scheduler answers ({said}); an address is like tcp://host:8786"
        ) from None


def load_run(run: Path) -> "FittedModel":
    """Load a run, and let the model remember which it is."""
    from omnisurv.checkpoint import load

    model = load(run)
    model.provenance["run"] = str(run)
    return model


def tell_unread(model: "FittedModel", cohort: "Cohort") -> None:
    """Say on standard error which modalities of the cohort the model does not read."""
    if sentence := model.unread(cohort):
        console.complain(sentence)


def choose_recipe(
    spec: Path, name: str | None, settings: Sequence[str] | None, seed: int | None
) -> "Recipe":
    """Return the named recipe, or the spec's, with ``--set`` and ``--seed`` applied."""
    from omnisurv.data.spec import DataSpec
    from omnisurv.recipe import get_recipe

    return adjust(get_recipe(name or DataSpec.load(spec).recipe), settings, seed)


def adjust(recipe: "Recipe", settings: Sequence[str] | None, seed: int | None) -> "Recipe":
    """Return the recipe with ``--set`` and ``--seed`` applied."""
    from omnisurv.config import override

    seeded = [] if seed is None else [f"seed={seed}"]
    return override(recipe, [*(settings or []), *seeded])


def train(
    work: "Callable[..., FittedModel]",
    source: "FittedModel | Recipe",
    data: "Data",
    out: Path,
    recipe: "Recipe",
    everyone: bool,
    quiet: bool,
    run: Path | None = None,
    task: str | None = None,
) -> "FittedModel":
    """Train on the spec's development part, unless the run already holds the result."""
    from omnisurv import runs

    chosen, held_out = data.parts(everyone=everyone)
    console.say(f"Training on {len(chosen)} patients, {len(held_out)} are held out.")
    if runs.begin(out, data, chosen, held_out, recipe, run, task):
        console.say(f"{out} already holds this run; nothing to do.")
        return load_run(out)
    with console.training(quiet=quiet) as progress:
        model = work(source, chosen, run=out, progress=progress)
    runs.finish(out, data)
    return model


def tell_model(model: "FittedModel", out: Path, json: Path | None) -> None:
    """Print what was trained."""
    counts = {stage: len(hashes) for stage, hashes in model.seen.items()}
    console.say(repr(model), f"run: {out}")
    write_json(json, {"run": str(out), "recipe": model.recipe.title, "seen": counts})


def subsets_of(text: str, cohort: "Cohort", model: "FittedModel | None" = None) -> Any:
    """Return what ``--subsets`` asks for.

    Raises:
        DataError: a modality that the cohort or the model does not know.
    """
    if text in ("all", "each", "none"):
        return text
    subsets = [tuple(n.strip() for n in part.split("+")) for part in text.split(",")]
    known = [n for n in cohort.modalities if model is None or n in model.modalities]
    for name in (name for subset in subsets for name in subset):
        if name not in known:
            raise DataError(
                f"--subsets: unknown modality '{name}'.{did_you_mean(name, known)} "
                "Or say all, each or none"
            )
    return subsets


def names_of(text: str | None) -> list[str] | None:
    """Return names with commas between; None for all."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def require_level(level: float) -> None:
    """Raise InputError if the level of intervals is no share."""
    if not 0 < level < 1:
        raise InputError(f"--level {level} must lie between 0 and 1, such as 0.9")


def write_json(file: Path | None, result: Any) -> None:
    """Write a result as JSON, if a file was named."""
    if file is None:
        return
    with atomic(file) as path:
        path.write_text(result if isinstance(result, str) else dumps(result, indent=1, default=str))
