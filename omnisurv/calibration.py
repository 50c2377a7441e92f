"""How far predictions of missing modalities are to be trusted, judged on held-out patients."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from omnisurv.core import Batch, Layout, MultimodalMAE
from omnisurv.core.masking import all_but
from omnisurv.shapes import Bool, Float, Tensor

Values = NDArray[np.float32]
MOST_ERRORS, LEAST_ERRORS = 500, 20
"""Held-out patients whose errors are kept for each modality, of pictures as many as …"""
ERROR_NUMBERS = 2**23
"""… hold so many numbers."""
PRIOR = 50
"""Patients' worth of the modality's pooled slope that each feature's own is shrunk towards."""


@torch.no_grad()
def predict_modality(
    networks: Sequence[MultimodalMAE], batch: Batch, visible: Bool[Tensor, "b n"], name: str
) -> Float[Tensor, "b l p"]:
    """Return every patch of a modality, the mean over networks, some patients at a time."""
    parts = []
    for rows in batch.chunks():
        part, seen = batch.rows(rows).load(), visible[rows]
        wanted = torch.zeros_like(seen)
        wanted[:, batch.layout.slices[name]] = True
        members = [network.reconstruct(part, seen, wanted)[name] for network in networks]
        parts.append(torch.stack(members).mean(0))
    return torch.cat(parts)


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
    for name in batch.layout.lengths:
        visible, rows = all_but(batch.observed, batch.layout, name)
        rows = rows[: _most_errors(batch.layout, name)]
        if not len(rows):
            continue
        part = batch.rows(rows)
        truth = part.values(name)
        predicted = predict_modality([network], part, visible[rows], name)
        pieces = not batch.layout.is_picture(name) and _in_pieces(batch, name)
        judged = _token_by_token(network, part.load(), name) if pieces else predicted
        slope = _slope(judged, truth)
        network.decoder.trust(name).mul_(slope)
        errors[name] = (predicted * slope - truth).numpy()
    return errors


def _most_errors(layout: Layout, name: str) -> int:
    """Return how many patients' errors are kept: of pictures fewer, or they fill the disk."""
    size = layout.lengths[name] * layout.widths[name]
    return min(MOST_ERRORS, max(LEAST_ERRORS, ERROR_NUMBERS // size))


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
