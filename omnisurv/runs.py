"""What a run folder says of its data: spec, files, who was trained on and who was held out."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnisurv.data.spec import DataSpec, resolve_root
from omnisurv.errors import CheckpointError, DataError, InputError
from omnisurv.files import atomic, writable

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.data.store import Store
    from omnisurv.recipe import Recipe

SPACE = 100_000_000
"""Bytes that a folder must have free before anything long is begun."""


@dataclass(frozen=True)
class Data:
    """A cohort as a command line names it.

    Attributes:
        spec: the file of the data spec.
        root: the folder of the data files.
        cohort: all patients.
    """

    spec: Path
    root: Path
    cohort: "Cohort"

    @classmethod
    def read(
        cls, spec: str | Path, root: str | Path | None = None, store: "Store | None" = None
    ) -> "Data":
        """Read the cohort of a spec; see ``Cohort.from_spec`` for what is refused."""
        from omnisurv.data.cohort import Cohort

        DataSpec.load(spec)  # so that a mistake in the spec is told before one in --root
        folder = resolve_root(spec, root)
        return cls(Path(spec), folder, Cohort.from_spec(spec, root=folder, store=store))

    def parts(self, *, everyone: bool = False) -> "tuple[Cohort, Cohort]":
        """Return whom to train on and whom to hold out: the spec's split, or everyone."""
        if everyone:
            return self.cohort, self.cohort.subset([])
        return self.cohort.split()

    def told(self) -> dict[str, str]:
        """Return where the data came from, for the run folder."""
        return {
            "spec": str(self.spec.resolve()),
            "spec_sha256": hashlib.sha256(self.spec.read_bytes()).hexdigest(),
            "root": str(self.root.resolve()),
        }


def require_space(folder: str | Path) -> Path:
    """Create the folder and return it.

    Raises:
        InputError: it cannot be written to, or its disk is full.
    """
    folder = writable(Path(folder))
    free = shutil.disk_usage(folder).free
    if free < SPACE:
        raise InputError(
            f"cannot write to {folder}: {free / 1e6:.0f} MB are free, {SPACE / 1e6:.0f} MB are "
            "needed; free space or choose another --out"
        )
    return folder


def begin(
    run: Path,
    data: Data,
    train: "Cohort",
    held_out: "Cohort",
    recipe: "Recipe",
    source: "Path | None" = None,
    task: str | None = None,
) -> bool:
    """Write ``splits.json``; return True if exactly this training is already finished there.

    A stopped training of the same patients and settings is left as it is, to be resumed.

    Raises:
        CheckpointError: the folder holds a training of other patients or settings.
    """
    require_space(run)
    told: dict[str, Any] = {
        **data.told(),
        "source": None if source is None else str(source.resolve()),
        "task": task,
        "recipe": json.loads(recipe.model_dump_json()),
        "fingerprint": train.fingerprint(),
        "train": train.hashed_ids(),
        "held_out": held_out.hashed_ids(),
    }
    finished, stopped = (run / "config.yaml").exists(), (run / "resume").exists()
    if (finished or stopped) and not _same(read_split(run), told):
        what = "a finished run" if finished else "a stopped run"
        raise CheckpointError(
            f"{run} holds {what} of other patients or settings; choose another --out or delete it"
        )
    with atomic(run / "splits.json") as path:
        path.write_text(json.dumps(told, indent=1))
    return finished


def finish(run: Path, data: Data) -> None:
    """Add to ``provenance.json`` which spec file and which folder the data came from."""
    file = run / "provenance.json"
    told = {**json.loads(file.read_text()), **data.told(), "run": run.name}
    with atomic(file) as path:
        path.write_text(json.dumps(told, indent=1))


def origin(run: str | Path, root: str | Path | None = None) -> Data:
    """Read again the cohort that a run was trained on.

    Raises:
        CheckpointError: the run does not say, or the spec is no longer there.
    """
    told = read_split(Path(run))
    spec = Path(str(told.get("spec", "")))
    if not told or not spec.is_file():
        where = f"its spec {spec} is gone" if told else "it has no splits.json"
        raise CheckpointError(f"{run} does not say what it was trained on ({where}); give the SPEC")
    return Data.read(spec, root if root is not None else told["root"])


def seen(model: "FittedModel", cohort: "Cohort") -> "Cohort":
    """Return the patients of the cohort that any stage of the weights saw."""
    return _with_hashes(cohort, {hashed for stage in model.seen.values() for hashed in stage})


def to_evaluate(model: "FittedModel", cohort: "Cohort") -> tuple["Cohort", str]:
    """Return whom to evaluate, and in words who that is.

    If the weights saw patients of this cohort it is the test part of the cohort's split; of a
    cohort of strangers it is everybody.
    """
    if not len(seen(model, cohort)):
        return cohort, "all patients of a cohort that no stage of the weights has seen"
    return cohort.split()[1], "the test part of the spec's split"


def training_part(
    run: Path, model: "FittedModel", data: Data, judged: "Cohort"
) -> tuple["Cohort | None", str]:
    """Return the run's training patients for the baselines, or None and why there are none."""
    here = seen(model, data.cohort)
    if not len(here):
        try:
            here = seen(model, origin(run).cohort)
        except (InputError, OSError) as error:
            return None, f"baselines left out, the training patients cannot be read: {error}"
    rest = here.subset(here.patients.difference(judged.patients))
    if not len(rest):
        return None, "baselines left out: all training patients are among those evaluated"
    return rest, ""


def require_same_network(model: "FittedModel", recipe: "Recipe", run: Path) -> None:
    """Raise InputError if settings would change the network that was pre-trained.

    ``recipe`` replaces the model's own where they fit.
    """
    before = {key: value.shape for key, value in model.mae(0).state_dict().items()}
    old, model.recipe = model.recipe, recipe
    network = model.recipe.build(model.modalities, model.tokenisers)
    if {key: value.shape for key, value in network.state_dict().items()} != before:
        model.recipe = old
        raise InputError(
            f"--set changes the size of the network that was pre-trained in {run}; pre-train with "
            "these settings instead"
        )


def _with_hashes(cohort: "Cohort", hashes: set[str]) -> "Cohort":
    pairs = zip(cohort.patients, cohort.hashed_ids(), strict=True)
    return cohort.subset([patient for patient, hashed in pairs if hashed in hashes])


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return all(old.get(key) == new[key] for key in ("task", "recipe", "fingerprint", "source"))


def read_split(run: Path) -> dict[str, Any]:
    """Return what ``splits.json`` of a run says of its data; nothing if there is none."""
    file = run / "splits.json"
    told: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return told


def choose_patients(cohort: "Cohort", wanted: str | None) -> "Cohort":
    """Return the cohort of the patients that ``--patients`` names: ids, or a file of ids.

    Raises:
        DataError: a patient is not in the cohort.
    """
    if wanted is None:
        return cohort
    file = Path(wanted)
    text = file.read_text(encoding="utf-8") if file.is_file() else wanted
    ids = [word for word in text.replace(",", " ").split() if word]
    if not ids:
        raise DataError(f"--patients {wanted} names nobody")
    return cohort.subset(dict.fromkeys(ids))
