"""Beginning where another pre-training ended, for the modalities that both know."""

from collections.abc import Collection

import torch

from omnisurv.checkpoint import FittedModel
from omnisurv.core import Layout, MultimodalMAE
from omnisurv.errors import DataError
from omnisurv.modality import Modality, Tokeniser

ROWS = ("encoder.modality", "decoder.modality")
"""Weights with a row for each modality."""


def shared(
    start: FittedModel, modalities: Collection[str]
) -> tuple[dict[str, Modality], dict[str, Tokeniser]]:
    """Return the modalities, with tokenisers, that a model knows by name.

    Raises:
        DataError: there is none.
    """
    names = [name for name in start.modalities if name in modalities]
    if not names:
        raise DataError(
            f"the model to start from knows {list(start.modalities)}, the cohort has "
            f"{list(modalities)}: nothing in common; name the modality alike in both specs"
        )
    return (
        {name: start.modalities[name] for name in names},
        {name: start.tokenisers[name] for name in names},
    )


@torch.no_grad()
def adopt(network: MultimodalMAE, start: MultimodalMAE) -> None:
    """Copy all weights of modalities that both know, and those they share between modalities.

    Raises:
        DataError: the networks are of different sizes.
    """
    ours, theirs = network.state_dict(), start.state_dict()
    for key, value in theirs.items():
        if key.startswith("decoder.trust_"):
            continue  # judged anew on the patients of this training
        if key in ROWS and key in ours:
            _copy_rows(ours[key], value, network.encoder.layout, start.encoder.layout)
        elif key in ours:
            _require(ours[key].shape == value.shape, key)
            ours[key].copy_(value)


def _copy_rows(ours: torch.Tensor, theirs: torch.Tensor, layout: Layout, other: Layout) -> None:
    _require(ours.shape[1:] == theirs.shape[1:], "modality embedding")
    for row, name in enumerate(layout.lengths):
        if name in other.lengths:
            ours[row] = theirs[list(other.lengths).index(name)]


def _require(same: bool, key: str) -> None:
    if not same:
        raise DataError(
            f"the model to start from has another size ({key}); pre-train it with the same "
            "recipe and --set"
        )
