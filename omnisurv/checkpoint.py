"""A fitted model and the run folder it lives in: no pickle, written atomically."""

import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save as serialise
from torch import nn

from omnisurv.card import write_card
from omnisurv.core import Batch, MultimodalMAE
from omnisurv.data.images import Images
from omnisurv.errors import (
    CheckpointError,
    DataError,
    InputError,
    SeenPatientsError,
    did_you_mean,
)
from omnisurv.files import atomic, writable
from omnisurv.modality import Modality, Tokeniser
from omnisurv.pictures import PictureTokeniser, StoredPatches
from omnisurv.recipe import Recipe, get_recipe, layout_of
from omnisurv.registry import fitted, modalities

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.data.cohort import Cohort

FORMAT = 3
"""Version of the run folder; raised when an older one can no longer be read."""


HELD = 2**26
"""Numbers of a picture modality that are read at once and held in memory: 256 MB."""


@fitted.register("pretrain")
@dataclass(repr=False)
class FittedModel:
    """What one training produced: networks, fitted tokenisers, and whom each stage saw."""

    task: ClassVar[str] = "pretrain"

    recipe: Recipe
    modalities: dict[str, Modality]
    tokenisers: dict[str, Tokeniser]
    networks: list[nn.Module]
    seen: dict[str, list[str]] = field(default_factory=dict)
    """Hashed ids of the patients each stage was trained on, inner validation included."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    residuals: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    """Errors (patients, l, p) of each modality on held-out patients, in standard units."""
    provenance: dict[str, Any] = field(default_factory=dict)

    def mae(self, member: int) -> MultimodalMAE:
        """Return a member's encoder and decoder."""
        network = self.networks[member]
        return network if isinstance(network, MultimodalMAE) else network.mae  # type: ignore[return-value]

    def batch(self, cohort: "Cohort", modalities: Collection[str] | None = None) -> Batch:
        """Return the cohort's patches; what is absent, or not in ``modalities``, is NaN.

        Pictures that would fill the memory stay in the store until a batch is loaded.

        Raises:
            DataError: a named modality the model does not know, or none in common.
        """
        self.require_known(modalities or ())
        if not set(cohort.availability.columns) & set(self.modalities):
            raise DataError(
                f"the cohort has {list(cohort.availability.columns)}, the model was trained on "
                f"{list(self.modalities)}: no modality in common"
            )
        patches, stored = {}, {}
        for name, tokeniser in self.tokenisers.items():
            there = name in cohort and (modalities is None or name in modalities)
            data = cohort[name] if there else None
            if isinstance(tokeniser, PictureTokeniser):
                images = data if isinstance(data, Images) else Images([], tokeniser.unit)
                places = images.obs_names.get_indexer(cohort.patients)
                late = StoredPatches(tokeniser, images, places)
                if late.size > HELD:
                    stored[name] = late
                else:
                    patches[name] = late.load()
            else:
                patches[name] = torch.from_numpy(tokenise(cohort.patients, data, tokeniser))
        return Batch(patches, layout_of(self.tokenisers), stored)

    def require_known(self, modalities: Collection[str]) -> None:
        """Raise DataError, with the nearest name, if the model does not know one of these."""
        for name in modalities:
            if name not in self.modalities:
                raise DataError(
                    f"the model knows no modality '{name}'.{did_you_mean(name, self.modalities)}"
                )

    def unread(self, cohort: "Cohort") -> str:
        """Say which modalities of a cohort the model has not seen and so does not read."""
        strange = [name for name in cohort.modalities if name not in self.modalities]
        if not strange:
            return ""
        return (
            f"not read, for the model has not seen them: {', '.join(strange)}; to add them, "
            "`omnisurv pretrain SPEC --start RUN`"
        )

    def require_unseen(self, cohort: "Cohort") -> None:
        """Raise SeenPatientsError if any stage of the weights saw a patient of the cohort."""
        hashes = dict(zip(cohort.hashed_ids(), cohort.patients, strict=True))
        for stage, seen in self.seen.items():
            both = [hashes[h] for h in seen if h in hashes]
            if both:
                raise SeenPatientsError(
                    f"{len(both)} of {len(cohort)} patients were seen in {stage} "
                    f"(for example {both[0]}); evaluate on other patients, or say --allow-seen"
                )

    def save(self, run: str | Path) -> Path:
        """Write the run folder and return it."""
        run = writable(Path(run))
        arrays = {
            f"{index}.{key}": value
            for index, network in enumerate(self.networks)
            for key, value in network.state_dict().items()
        }
        _write_tensors(run / "model.safetensors", arrays)
        _write_tokenisers(run / "preprocessing", self.tokenisers)
        if self.residuals:
            _write_arrays(run / "residuals.npz", self.residuals)
        with atomic(run / "history.csv") as path:
            self.history.to_csv(path, index=False)
        with atomic(run / "provenance.json") as path:
            path.write_text(json.dumps({**self.provenance, "seen": self.seen}, indent=1))
        with atomic(run / "config.yaml") as path:  # last: a folder with it is whole
            path.write_text(yaml.safe_dump(self.config(), sort_keys=False))
        write_card(run)
        return run

    def config(self) -> dict[str, Any]:
        """Return all settings, resolved."""
        return {
            "format": FORMAT,
            "task": self.task,
            "members": len(self.networks),
            "recipe": json.loads(self.recipe.model_dump_json()),
            "modalities": {
                name: {"kind": m.kind, **json.loads(m.options.model_dump_json())}
                for name, m in self.modalities.items()
            },
        }

    def build(self) -> nn.Module:
        """Return an untrained network of this model's form."""
        return self.recipe.build(self.modalities, self.tokenisers)

    def restore(self, run: Path, config: Mapping[str, Any]) -> None:
        """Read what a subclass wrote beside the weights."""

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {t.length}×{t.width}" for name, t in self.tokenisers.items())
        weights = sum(p.numel() for p in self.networks[0].parameters())
        return (
            f"{type(self).__name__}({self.recipe.title}, {len(self.networks)} × "
            f"{weights:,} weights, patches: {sizes})"
        )


def save(model: FittedModel, run: str | Path) -> Path:
    """Write a model to a run folder and return it; raise InputError if it cannot be written."""
    return model.save(run)


def load(run: str | Path) -> FittedModel:
    """Load a run folder; nothing is unpickled.

    Raises:
        CheckpointError: no run there, an incomplete one, or one of another version.
    """
    run = Path(run)
    if not (run / "config.yaml").exists():
        what = "give the --out folder of pretrain or finetune"
        if (run / "resume").exists():
            what = "it was stopped before the end; run the same command again to resume it"
        raise CheckpointError(f"{run} is not a finished run (no config.yaml): {what}")
    config = _config(run)
    try:
        return _restore(run, config)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError, BadZipFile) as error:
        first = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{run} is damaged ({type(error).__name__}: {first}); copy it again or train it again"
        ) from error


def _config(run: Path) -> dict[str, Any]:
    """Read the settings of a run of this format."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(f"{run}/config.yaml holds no settings; train it again")
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{run} was written in format {config.get('format')}, this omnisurv reads {FORMAT}; "
            "train it again or use the version in its provenance.json"
        )
    return config


def _restore(run: Path, config: dict[str, Any]) -> FittedModel:
    recipe = _recipe(run, config["recipe"])
    kinds = {name: modalities.get(o.pop("kind")) for name, o in config["modalities"].items()}
    parts = {n: kind(n, kind.Options(**config["modalities"][n])) for n, kind in kinds.items()}
    tokenisers = _read_tokenisers(run / "preprocessing", parts)
    provenance = json.loads((run / "provenance.json").read_text())
    model: FittedModel = fitted.get(config["task"])(
        recipe=recipe,
        modalities=parts,
        tokenisers=tokenisers,
        networks=[],
        seen=provenance.pop("seen"),
        history=_read_history(run / "history.csv"),
        provenance=provenance,
    )
    if (run / "residuals.npz").exists():
        model.residuals = _read_arrays(run / "residuals.npz")
    model.restore(run, config)
    model.networks = _read_networks(run, model, config["members"])
    return model


def tokenise(
    patients: pd.Index, data: "AnnData | None", tokeniser: Tokeniser
) -> np.ndarray[Any, Any]:
    """Return the patches (n, l, p) of these patients; NaN where ``data`` has none of them."""
    patches = np.full((len(patients), tokeniser.length, tokeniser.width), np.nan, np.float32)
    if data is not None and data.n_obs:
        patches[patients.get_indexer(data.obs_names)] = tokeniser.tokenise(data)
    return patches


def provenance(cohort: "Cohort", recipe: Recipe) -> dict[str, Any]:
    """Return versions, seed and data fingerprint of a training."""
    packages = ("omnisurv", "torch", "numpy", "pandas", "pycox", "scikit-survival", "anndata")
    return {
        "versions": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "seed": recipe.seed,
        "spec": cohort.spec.name if cohort.spec else None,
        "spec_hash": hashlib.sha256(
            cohort.spec.model_dump_json().encode() if cohort.spec else b""
        ).hexdigest()[:16],
        "data_fingerprint": cohort.fingerprint(),
    }


def counts(cohort: "Cohort") -> dict[str, Any]:
    """Return patients, events, and patients with each modality."""
    events = int((cohort.obs["event"][cohort.has_endpoint] == 1).sum())
    there = {str(name): int(n) for name, n in cohort.availability.sum().items()}
    return {"patients": len(cohort), "events": events, "modalities": there}


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"


def _recipe(run: Path, values: Mapping[str, Any]) -> Recipe:
    try:
        title = values["name"]
        return get_recipe(title, **{k: v for k, v in values.items() if k != "name"})
    except ValueError as error:
        raise CheckpointError(f"{run} is of another recipe or version: {error}") from None


def _read_history(path: Path) -> pd.DataFrame:
    """Read the history; a training without epochs has none."""
    return pd.read_csv(path) if path.read_text().strip() else pd.DataFrame()


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    # Through Python's own writing, so that a full disk is an OSError like any other.
    content = serialise({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _read_networks(run: Path, model: FittedModel, members: int) -> list[nn.Module]:
    from safetensors.torch import load_file

    stored = load_file(run / "model.safetensors")
    networks = []
    for index in range(members):
        network = model.build()
        mine = {k.split(".", 1)[1]: v for k, v in stored.items() if k.startswith(f"{index}.")}
        try:
            network.load_state_dict(mine)
        except RuntimeError as error:
            first = str(error).strip().splitlines()[1].strip() if "\n" in str(error) else error
            raise CheckpointError(
                f"{run}: weights do not fit the recipe in its config.yaml ({first})"
            ) from None
        networks.append(network.eval())
    return networks


def _read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _write_tokenisers(folder: Path, tokenisers: Mapping[str, Tokeniser]) -> None:
    folder.mkdir(exist_ok=True)
    for name, tokeniser in tokenisers.items():
        settings, arrays = tokeniser.state()
        with atomic(folder / f"{name}.json") as path:
            path.write_text(json.dumps(settings))
        _write_arrays(folder / f"{name}.npz", arrays)


def _read_tokenisers(folder: Path, parts: Mapping[str, Modality]) -> dict[str, Tokeniser]:
    tokenisers = {}
    for name, modality in parts.items():
        settings = json.loads((folder / f"{name}.json").read_text())
        tokenisers[name] = modality.restore((settings, _read_arrays(folder / f"{name}.npz")))
    return tokenisers
