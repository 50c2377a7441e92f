"""Missing modalities of given patients: a deterministic mean, an honest interval, seeded draws."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from omnisurv.calibration import margin, predict_modality
from omnisurv.checkpoint import FittedModel
from omnisurv.core import Batch
from omnisurv.data.images import FilledImages, Images
from omnisurv.embedding import embed
from omnisurv.errors import DataError
from omnisurv.imputed import Imputation, Values
from omnisurv.modality import Tokeniser
from omnisurv.shapes import Bool, Tensor

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.data.cohort import Cohort


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
    obs = cohort.obs.assign(evidence=_evidence(cohort))
    return Imputation(values, level, dict(model.modalities), drawn, obs, embed(model, cohort))


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
    observed = _observed(cohort, name, data, tokeniser)
    low = np.asarray(tokeniser.untokenise(predicted.low, patients).X)
    high = np.asarray(tokeniser.untokenise(predicted.high, patients).X)
    data.X = np.where(imputed, data.X, observed).astype(np.float32)
    data.layers["imputed"] = imputed
    data.layers["low"] = np.where(imputed, np.minimum(low, high), observed).astype(np.float32)
    data.layers["high"] = np.where(imputed, np.maximum(low, high), observed).astype(np.float32)
    data.obs["imputed"] = imputed.all(axis=1)
    data.obs["evidence"] = _evidence(cohort)
    data.uns["omnisurv"] = {
        "recipe": model.recipe.title,
        "data_fingerprint": str(model.provenance.get("data_fingerprint", "")),
        "run": str(model.provenance.get("run", "")),
        "level": level,
    }
    return data


def _evidence(cohort: "Cohort") -> list[str]:
    """Return which modalities each patient has, such as ``rna+clinical``."""
    there = cohort.availability
    return ["+".join(there.columns[row]) or "none" for row in there.to_numpy()]


def _observed(cohort: "Cohort", name: str, like: "AnnData", tokeniser: Tokeniser) -> Values:
    """Return the cohort's own values, (patients, features) in the tokeniser's order."""
    values = np.full(like.shape, np.nan, np.float32)
    if name in cohort.availability.columns and cohort.availability[name].any():
        own = cohort[name]
        if isinstance(own, Images):  # tiles, of which the values are summaries
            own = tokeniser.untokenise(tokeniser.tokenise(own), list(own.obs_names))
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
    filled = held_out_errors(model, name, generator)
    chosen = generator.integers(len(filled), size=(draws, len(predicted.mean)))
    return np.where(measured, np.nan, predicted.mean - filled[chosen])


def held_out_errors(model: FittedModel, name: str, generator: np.random.Generator) -> Values:
    """Return error vectors (k, l, p) of held-out patients to draw from, without holes.

    Raises:
        DataError: there are none.
    """
    errors = model.residuals.get(name)
    if errors is None or not len(errors):
        raise DataError(
            f"modality '{name}': no patient held out of training had it and another modality, "
            "so there are no errors to draw from; pre-train on more patients"
        )
    return _without_holes(errors, generator)


def _in_own_unit(model: FittedModel, cohort: "Cohort", name: str, drawn: Values) -> Values:
    """Return draws of patches as values, with what was measured in its place."""
    tokeniser, patients = model.tokenisers[name], list(cohort.patients)
    result = []
    for patches in drawn:
        values = tokeniser.untokenise(patches, patients)
        if hasattr(values, "var_names"):
            own = _observed(cohort, name, values, tokeniser)
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
