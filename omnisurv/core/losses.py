"""Reconstruction loss on scored tokens; what nobody measured is never scored."""

from collections.abc import Mapping

import torch

from omnisurv.core.batch import Batch
from omnisurv.shapes import Bool, Float, Tensor


def masked_mse(
    predicted: Mapping[str, Tensor], batch: Batch, scored: Bool[Tensor, "b n"]
) -> dict[str, Float[Tensor, ""]]:
    """Return each modality's mean squared error over measured values of scored tokens.

    ``predicted`` holds the scored tokens' patches (m, p), patient by patient. Modalities without
    any scored value are left out, so that no mean is ever taken of nothing.

    Source: impuTMAE eq. 2 (masked patches of modalities that are there).
    """
    errors = {}
    for name, where in batch.layout.slices.items():
        target = batch.patches[name][scored[:, where]]
        measured = target.isfinite()
        count = measured.sum()
        if bool(count):
            difference = (predicted[name] - target).where(measured, 0.0)
            errors[name] = difference.square().sum() / count
    return errors


def total(
    errors: Mapping[str, Tensor], weights: Mapping[str, float], anchor: Tensor
) -> Float[Tensor, ""]:
    """Return the weighted sum of the modalities' errors (impuTMAE eq. 1).

    ``anchor`` is any finite output of the model: with nothing scored, the loss is a zero that
    is still connected to the graph.
    """
    zero = torch.nan_to_num(anchor.sum() * 0.0)
    return sum((error * weights.get(name, 1.0) for name, error in errors.items()), start=zero)
