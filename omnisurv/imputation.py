"""Missing modalities of given patients: a deterministic mean, an honest interval, seeded draws."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from omnisurv.calibration import margin, predict_modality
from omnisurv.checkpoint import FittedModel
from omnisurv.core import Batch
from omnisurv.data.images import FilledImages
from omnisurv.errors import DataError
from omnisurv.files import atomic, writable
from omnisurv.modality import Modality
from omnisurv.shapes import Bool, Tensor

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from omnisurv.data.cohort import Cohort

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Imputation:
    """Completed modalities of a cohort.

    Of tables, ``values[name]`` is an AnnData of all patients, in the modality's own unit: ``X``
    holds what was measured and, elsewhere, the imputed mean; ``layers["imputed"]`` says which is
    which; ``layers["low"]`` and ``["high"]`` bound the ``level`` interval (equal to X where
    measured); ``layers["draw_0"]`` and on are the draws, where asked for. Of pictures it is a
    ``FilledImages``.
    """

    values: dict[str, Any]
    level: float
    modalities: dict[str, Modality] = field(default_factory=dict)
    """The kinds that write the values."""
    draws: dict[str, Values] = field(default_factory=dict)
    """Seeded draws (draws, patients, features) of each modality, where asked for."""

    def to_mudata(self) -> "MuData":
        """Return the completed tables as one MuData; pictures stay behind."""
        import mudata

        tables = {n: v for n, v in self.values.items() if not isinstance(v, FilledImages)}
        with mudata.set_options(pull_on_update=False):
            return mudata.MuData(tables)

    def save(self, folder: str | Path, *, tsv: bool = False) -> Path:
        """Write every modality in the field's format, and a manifest.

        Tables become one ``.h5ad`` (and ``.tsv`` with bounds on request), pictures a folder of
        files by patient.

        Raises:
            InputError: the folder cannot be written to.
        """
        folder = writable(Path(folder))
        manifest = {}
        for name, data in self.values.items():
            pictures = isinstance(data, FilledImages)
            place = writable(folder / name) if pictures else folder
            files = self.modalities[name].write(data, place)
            if tsv and not isinstance(data, FilledImages):
                _save_tsv(data, folder, name)
            manifest[name] = {**_told(data), "level": self.level}
            manifest[name]["files"] = [str(file.relative_to(folder)) for file in files]
        with atomic(folder / "imputation.json") as path:
            path.write_text(json.dumps(manifest, indent=1))
        return folder


def _told(data: "AnnData | FilledImages") -> dict[str, Any]:
    """Return what the manifest says of a modality."""
    if isinstance(data, FilledImages):
        whole = any_value = data.imputed
        told: dict[str, Any] = {"run": data.run}
    else:
        whole = data.obs["imputed"].to_numpy()
        any_value = np.any(data.layers["imputed"], axis=1)
        told = data.uns["omnisurv"]
    return {
        "patients": len(whole),
        "patients_without": int(whole.sum()),
        "patients_with_imputed_values": int(any_value.sum()),
        **told,
    }


def _save_tsv(data: "AnnData", folder: Path, name: str) -> None:
    for suffix, values in (
        ("", data.X),
        ("_low", data.layers["low"]),
        ("_high", data.layers["high"]),
        ("_imputed", np.asarray(data.layers["imputed"]).astype(int)),
    ):
        frame = pd.DataFrame(values, index=data.obs_names, columns=data.var_names)
        with atomic(folder / f"{name}{suffix}.tsv") as path:
            frame.to_csv(path, sep="\t")


@dataclass(frozen=True)
class Reconstruction:
    """A modality predicted from the others, in standard units."""

    mean: Values
    """(n, l, p)."""
    half: Values
    """(l, p) half-width of the interval; infinite where too few errors are known."""

    @property
    def low(self) -> Values:
        """Lower bound (n, l, p)."""
        return (self.mean - self.half).astype(np.float32)

    @property
    def high(self) -> Values:
        """Upper bound (n, l, p)."""
        return (self.mean + self.half).astype(np.float32)


def impute(
    model: FittedModel,
    cohort: "Cohort",
    modalities: Collection[str] | None = None,
    *,
    level: float = 0.9,
    draws: int = 0,
    seed: int = 0,
) -> Imputation:
    """Fill in what patients of a cohort lack, from all that each of them has.

    The mean is deterministic and nothing observed is masked or changed. Intervals are
    split-conformal: per feature, the quantile of absolute errors on patients held out of
    training, each with the whole modality hidden (Lei et al. 2018).

    Args:
        model: any fitted model; its decoder does the work.
        cohort: the patients.
        modalities: which to complete; all by default.
        level: nominal coverage of the intervals.
        draws: number of draws from mean + held-out errors; 0 for none.
        seed: seed of the draws.

    Raises:
        DataError: a modality the model does not know.
    """
    names = list(model.modalities if modalities is None else modalities)
    model.require_known(names)
    batch = model.batch(cohort)
    values: dict[str, AnnData | FilledImages] = {}
    drawn = {}
    for name in names:
        predicted = reconstruct(model, batch, name, batch.observed, level)
        measured = batch.values(name).isfinite().numpy()
        if batch.layout.is_picture(name):
            values[name] = _complete_pictures(model, cohort, name, predicted, batch, level)
        else:
            values[name] = _complete(model, cohort, name, predicted, measured, level)
        if draws:
            # A stream for each modality: what else is asked for does not change its draws.
            generator = np.random.default_rng([seed, crc32(name.encode())])
            patches = _draw(model, name, predicted, measured, draws, generator)
            drawn[name] = _in_own_unit(model, cohort, name, patches)
            table = values[name]
            if isinstance(table, FilledImages):
                # As the mean has it: a measured picture stays, with what it lacks at its edges.
                whole = table.imputed.reshape(-1, *[1] * (table.values.ndim - 1))
                drawn[name] = np.where(whole, drawn[name], table.values)
            else:
                for number, values_drawn in enumerate(drawn[name]):
                    table.layers[f"draw_{number}"] = values_drawn
    return Imputation(values, level, dict(model.modalities), drawn)


@torch.no_grad()
def reconstruct(
    model: FittedModel, batch: Batch, name: str, visible: Bool[Tensor, "b n"], level: float
) -> Reconstruction:
    """Predict every patch of a modality from the visible tokens, with bounds."""
    networks = [model.mae(index) for index in range(len(model.networks))]
    mean = predict_modality(networks, batch, visible, name).numpy()
    return Reconstruction(mean, margin(model.residuals.get(name), mean.shape[1:], level))


def _complete(
    model: FittedModel,
    cohort: "Cohort",
    name: str,
    predicted: Reconstruction,
    measured: NDArray[np.bool_],
    level: float,
) -> "AnnData":
    """Return measured values with holes filled, bounds and provenance."""
    tokeniser, patients = model.tokenisers[name], list(cohort.patients)
    data = tokeniser.untokenise(predicted.mean, patients)
    real = np.asarray(tokeniser.untokenise(np.where(measured, 1.0, np.nan), patients).X)
    imputed = ~np.isfinite(real)
    observed = _observed(cohort, name, data)
    low = np.asarray(tokeniser.untokenise(predicted.low, patients).X)
    high = np.asarray(tokeniser.untokenise(predicted.high, patients).X)
    data.X = np.where(imputed, data.X, observed).astype(np.float32)
    data.layers["imputed"] = imputed
    data.layers["low"] = np.where(imputed, np.minimum(low, high), observed).astype(np.float32)
    data.layers["high"] = np.where(imputed, np.maximum(low, high), observed).astype(np.float32)
    data.obs["imputed"] = imputed.all(axis=1)
    data.obs["evidence"] = [
        "+".join(str(m) for m in row.index[row.to_numpy()]) or "none"
        for _, row in cohort.availability.iterrows()
    ]
    data.uns["omnisurv"] = {
        "recipe": model.recipe.title,
        "data_fingerprint": str(model.provenance.get("data_fingerprint", "")),
        "run": str(model.provenance.get("run", "")),
        "level": level,
    }
    return data


def _observed(cohort: "Cohort", name: str, like: "AnnData") -> Values:
    """Return the cohort's own values, (patients, features) in the tokeniser's order."""
    values = np.full(like.shape, np.nan, np.float32)
    if name in cohort.availability.columns and cohort.availability[name].any():
        own = cohort[name]
        columns = own.var_names.get_indexer(like.var_names)
        rows = cohort.patients.get_indexer(own.obs_names)
        there = columns >= 0
        values[np.ix_(rows, there)] = np.asarray(own.X)[:, columns[there]]
    return values


def _complete_pictures(
    model: FittedModel,
    cohort: "Cohort",
    name: str,
    predicted: Reconstruction,
    batch: Batch,
    level: float,
) -> FilledImages:
    """Return measured pictures, and imputed ones where a patient has none at all."""
    tokeniser, patients = model.tokenisers[name], list(cohort.patients)
    imputed = ~batch.observed[:, batch.layout.slices[name]].any(1).numpy()
    patches = np.where(imputed[:, None, None], predicted.mean, batch.values(name).numpy())
    images = cohort[name] if name in cohort.modalities else None
    spread = tokeniser.untokenise(
        np.stack([predicted.half, np.zeros_like(predicted.half)]), ["", ""]
    )
    return FilledImages(
        patients,
        images,
        tokeniser.untokenise(patches, patients),
        spread[0] - spread[1],
        imputed,
        _siblings(model, cohort, name),
        level,
        str(model.provenance.get("run", "")),
    )


def _siblings(model: FittedModel, cohort: "Cohort", name: str) -> list[Mapping[str, Any] | None]:
    """Return what is known of each patient's other pictures of the same kind."""
    kind = model.modalities[name].kind
    others = [other for other, m in model.modalities.items() if m.kind == kind and other in cohort]
    found: list[Mapping[str, Any] | None] = []
    for patient in cohort.patients:
        entries = [entry for other in others if (entry := cohort[other].of(patient)) is not None]
        found.append(entries[0].meta if entries else None)
    return found


def _draw(
    model: FittedModel,
    name: str,
    predicted: Reconstruction,
    measured: NDArray[np.bool_],
    draws: int,
    generator: np.random.Generator,
) -> Values:
    """Add held-out error vectors, so that draws keep the errors' correlation; NaN if measured."""
    errors = model.residuals.get(name)
    if errors is None or not len(errors):
        raise DataError(
            f"modality '{name}': no patient held out of training had it and another modality, "
            "so there are no errors to draw from; pre-train on more patients"
        )
    filled = _without_holes(errors, generator)
    chosen = generator.integers(len(filled), size=(draws, len(predicted.mean)))
    return np.where(measured, np.nan, predicted.mean - filled[chosen])


def _in_own_unit(model: FittedModel, cohort: "Cohort", name: str, drawn: Values) -> Values:
    """Return draws of patches as values, with what was measured in its place."""
    tokeniser, patients = model.tokenisers[name], list(cohort.patients)
    result = []
    for patches in drawn:
        values = tokeniser.untokenise(patches, patients)
        if hasattr(values, "var_names"):
            own = _observed(cohort, name, values)
            values = np.where(np.isfinite(values.X), values.X, own)
        result.append(values)
    return np.stack(result).astype(np.float32)


def _without_holes(errors: Values, generator: np.random.Generator) -> Values:
    """Give unmeasured errors those of other patients, lest a draw of rare values be the mean."""
    flat = errors.reshape(len(errors), -1).copy()
    for column in flat.T:
        hole = ~np.isfinite(column)
        if hole.any():
            column[hole] = 0.0 if hole.all() else generator.choice(column[~hole], hole.sum())
    return flat.reshape(errors.shape)
