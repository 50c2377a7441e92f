"""Missing modalities of given patients: a deterministic mean, an honest interval, seeded draws."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from omnisurv.checkpoint import FittedModel
from omnisurv.core import Batch, MultimodalMAE
from omnisurv.core.masking import explicit
from omnisurv.errors import DataError
from omnisurv.files import atomic, writable
from omnisurv.shapes import Bool, Tensor

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from omnisurv.data.cohort import Cohort

Values = NDArray[np.float32]
MOST_ERRORS = 500
"""Held-out patients whose errors are kept for each modality."""
PRIOR = 50
"""Patients' worth of the modality's pooled slope that each feature's own is shrunk towards."""


@dataclass(frozen=True)
class Imputation:
    """Completed modalities of a cohort.

    ``values[name]`` is an AnnData of all patients, in the modality's own unit: ``X`` holds what
    was measured and, elsewhere, the imputed mean; ``layers["imputed"]`` says which is which;
    ``layers["low"]`` and ``["high"]`` bound the ``level`` interval (equal to X where measured);
    ``layers["draw_0"]`` and on are the draws, where asked for.
    """

    values: "dict[str, AnnData]"
    level: float
    draws: dict[str, Values] = field(default_factory=dict)
    """Seeded draws (draws, patients, features) of each modality, where asked for."""

    def to_mudata(self) -> "MuData":
        """Return all completed modalities as one MuData."""
        import mudata

        with mudata.set_options(pull_on_update=False):
            return mudata.MuData(dict(self.values))

    def save(self, folder: str | Path, *, tsv: bool = False) -> Path:
        """Write one ``.h5ad`` a modality (and ``.tsv`` with bounds on request) and a manifest.

        Raises:
            InputError: the folder cannot be written to.
        """
        folder = writable(Path(folder))
        manifest = {}
        for name, data in self.values.items():
            with atomic(folder / f"{name}.h5ad") as path:
                data.write_h5ad(path)
            if tsv:
                self._save_tsv(folder, name)
            imputed = np.asarray(data.layers["imputed"]).any(axis=1)
            manifest[name] = {
                "patients": int(data.n_obs),
                "patients_with_imputed_values": int(imputed.sum()),
                "level": self.level,
                **{k: v for k, v in data.uns["omnisurv"].items() if k != "level"},
            }
        with atomic(folder / "imputation.json") as path:
            path.write_text(json.dumps(manifest, indent=1))
        return folder

    def _save_tsv(self, folder: Path, name: str) -> None:
        data = self.values[name]
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
    """A modality predicted from the others, (n, l, p) in standard units."""

    mean: Values
    low: Values
    high: Values


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
    values, drawn = {}, {}
    for name in names:
        predicted = reconstruct(model, batch, name, batch.observed, level)
        measured = batch.patches[name].isfinite().numpy()
        values[name] = _complete(model, cohort, name, predicted, measured, level)
        if draws:
            # A stream for each modality: what else is asked for does not change its draws.
            generator = np.random.default_rng([seed, crc32(name.encode())])
            drawn[name] = _draw(model, cohort, name, predicted, measured, draws, generator)
            for number, values_drawn in enumerate(drawn[name]):
                values[name].layers[f"draw_{number}"] = values_drawn
    return Imputation(values, level, drawn)


@torch.no_grad()
def reconstruct(
    model: FittedModel, batch: Batch, name: str, visible: Bool[Tensor, "b n"], level: float
) -> Reconstruction:
    """Predict every patch of a modality from the visible tokens, with bounds."""
    wanted = torch.zeros_like(visible)
    wanted[:, batch.layout.slices[name]] = True
    members = [
        model.mae(index).reconstruct(batch, visible, wanted)[name]
        for index in range(len(model.networks))
    ]
    mean = torch.stack(members).mean(0).numpy()
    half = margin(model.residuals.get(name), mean.shape[1:], level)
    return Reconstruction(mean, (mean - half).astype(np.float32), (mean + half).astype(np.float32))


def margin(errors: Values | None, shape: tuple[int, ...], level: float) -> Values:
    """Return the half-width (l, p) of the conformal interval; infinite where too few errors.

    With n errors it is the ⌈(n + 1) · level⌉-th smallest absolute error.
    """
    if errors is None or not len(errors):
        return np.full(shape, np.inf, np.float32)
    ordered = np.sort(np.abs(errors), axis=0)  # NaN sorts last
    count = np.isfinite(errors).sum(0)
    rank = np.ceil((count + 1) * level).astype(int)
    index = np.clip(rank - 1, 0, len(ordered) - 1)
    half = np.take_along_axis(ordered, index[None], axis=0)[0]
    return np.where((rank <= count) & (count > 0), half, np.inf).astype(np.float32)


@torch.no_grad()
def calibrate(network: MultimodalMAE, batch: Batch) -> dict[str, Values]:
    """Set how far the network's predictions are trusted, and return its errors thereafter.

    The least-squares slope of truth on prediction, per feature and shrunk towards the modality's
    own, becomes the decoder's ``trust``: what does not generalise falls back to the mean. It is
    taken as the modality is usually missing among these patients: whole, or a token here and
    there (a clinical table) with the rest of the modality at hand.

    Args:
        network: a trained encoder and decoder; its trust is set in place.
        batch: patients held out of training.

    Returns:
        Errors (patients, l, p) of each modality, hidden whole from patients who have something
        else to predict it from, in standard units; NaN where not measured.
    """
    errors = {}
    for name, where in batch.layout.slices.items():
        others = [other for other in batch.layout.lengths if other != name]
        visible = explicit(batch.observed, batch.layout, others)
        rows = (visible.any(1) & batch.observed[:, where].any(1)).nonzero()[:, 0][:MOST_ERRORS]
        if not len(rows):
            continue
        part = batch.rows(rows)
        truth = part.patches[name]
        predicted = network.reconstruct(part, visible[rows], part.observed)[name]
        judged = _token_by_token(network, part, name) if _in_pieces(batch, name) else predicted
        slope = _slope(judged, truth)
        network.decoder.trust(name).mul_(slope)
        errors[name] = (predicted * slope - truth).numpy()
    return errors


def _in_pieces(batch: Batch, name: str) -> bool:
    """Return whether more of the modality's tokens are missing singly than with all others."""
    observed = batch.observed[:, batch.layout.slices[name]]
    has = observed.any(1)
    return int((~observed[has]).sum()) > int((~has).sum()) * observed.shape[1]


def _token_by_token(network: MultimodalMAE, batch: Batch, name: str) -> Tensor:
    """Predict each token of a modality from everything but itself."""
    predicted = torch.full_like(batch.patches[name], torch.nan)
    start = batch.layout.slices[name].start
    for position in range(batch.layout.lengths[name]):
        wanted = torch.zeros_like(batch.observed)
        wanted[:, start + position] = True
        found = network.reconstruct(batch, batch.observed & ~wanted, wanted)[name]
        predicted[:, position] = found[:, position]
    return predicted


def _slope(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the least-squares slope (l, p) of truth on prediction, within [0, 1].

    Every feature borrows PRIOR patients from the modality's pooled slope.
    """
    measured = truth.isfinite() & predicted.isfinite()
    p, t = predicted.where(measured, 0.0), truth.where(measured, 0.0)
    cross, square, count = (p * t).sum(0), p.square().sum(0), measured.sum(0)
    pooled = cross.sum() / square.sum().clamp_min(1e-12)
    prior = PRIOR * square.sum() / count.sum().clamp_min(1)
    return ((cross + prior * pooled) / (square + prior).clamp_min(1e-12)).clamp(0.0, 1.0)


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


def _draw(
    model: FittedModel,
    cohort: "Cohort",
    name: str,
    predicted: Reconstruction,
    measured: NDArray[np.bool_],
    draws: int,
    generator: np.random.Generator,
) -> Values:
    """Add held-out error vectors, so that draws keep the errors' correlation."""
    errors = model.residuals.get(name)
    if errors is None or not len(errors):
        raise DataError(
            f"modality '{name}': no patient held out of training had it and another modality, "
            "so there are no errors to draw from; pre-train on more patients"
        )
    filled = _without_holes(errors, generator)
    tokeniser, patients = model.tokenisers[name], list(cohort.patients)
    observed = _observed(cohort, name, tokeniser.untokenise(predicted.mean, patients))
    result = []
    for _ in range(draws):
        chosen = generator.integers(len(filled), size=len(patients))
        z = np.where(measured, np.nan, predicted.mean - filled[chosen])
        value = np.asarray(tokeniser.untokenise(z, patients).X)
        result.append(np.where(np.isfinite(value), value, observed))
    return np.stack(result).astype(np.float32)


def _without_holes(errors: Values, generator: np.random.Generator) -> Values:
    """Give unmeasured errors those of other patients, lest a draw of rare values be the mean."""
    flat = errors.reshape(len(errors), -1).copy()
    for column in flat.T:
        hole = ~np.isfinite(column)
        if hole.any():
            column[hole] = 0.0 if hole.all() else generator.choice(column[~hole], hole.sum())
    return flat.reshape(errors.shape)
