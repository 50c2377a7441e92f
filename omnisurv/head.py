"""The seam of a head: what a task reads from a patient's latent."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from omnisurv.core import Batch, Latent, MultimodalMAE
from omnisurv.core.volumes import join
from omnisurv.shapes import Bool, Float, Int, Tensor


class Imagined(NamedTuple):
    """Tokens of modalities that are missing whole, as the decoder imagines them."""

    tokens: Float[Tensor, "b k d"]
    usable: Bool[Tensor, "b k"]  # True = a token of a missing modality


class Evidence(NamedTuple):
    """All that a head may look at; imputed values never come without saying so."""

    latent: Latent
    completed: Float[Tensor, "b f"]  # values of the linear modalities, imputed where not visible
    imputed: Bool[Tensor, "b f"]  # True = the value was imputed
    values: Mapping[str, Float[Tensor, "b _"]]  # what the head asks for, NaN = hidden
    stratum: Int[Tensor, " b"]  # class of the patient; -1 = not known
    imagined: Imagined | None = None  # only if the head asks for it
    # Of what the head sees; NaN = hidden, not there or outside the scan.
    volumes: Mapping[str, Float[Tensor, "b x y z"]] = MappingProxyType({})


class Head(nn.Module, ABC):
    """Turns evidence into the outputs of a task.

    Attributes:
        reads: modalities whose visible values it looks at: patches of tables, and for pictures
            mean and spread of their patches.
        sees: volumes whose visible voxels it looks at.
        imagines: whether it looks at imagined tokens of missing modalities.
        by_gradient: whether it is trained by gradient; else the task fits it.
    """

    reads: frozenset[str] = frozenset()
    sees: frozenset[str] = frozenset()
    imagines: bool = False
    by_gradient: bool = True

    @abstractmethod
    def forward(self, evidence: Evidence) -> Float[Tensor, "b *o"]:
        """Return the task's outputs."""


class TaskNetwork(nn.Module):
    """A pre-trained core with a head on top; serves any subset of modalities.

    Args:
        mae: encoder and decoder; the decoder imputes what the linear path misses.
        head: the task's head.
        linear: modalities whose completed values the head reads, in this order.
    """

    def __init__(self, mae: MultimodalMAE, head: Head, linear: list[str]) -> None:
        super().__init__()
        self.mae = mae
        self.head = head
        self.linear = linear

    def forward(
        self, batch: Batch, visible: Bool[Tensor, "b n"], stratum: Int[Tensor, " b"]
    ) -> Float[Tensor, "b *o"]:
        """Return the head's outputs from the visible tokens alone."""
        return self.head(self.evidence(batch, visible, stratum))

    def evidence(
        self, batch: Batch, visible: Bool[Tensor, "b n"], stratum: Int[Tensor, " b"]
    ) -> Evidence:
        """Return what the head may look at; nothing hidden is in it."""
        latent = self.mae.encode(batch, visible)
        wanted = torch.zeros_like(visible)
        for name in self.linear:
            wanted[:, batch.layout.slices[name]] = True
        predicted = self.mae.decoder(latent, wanted) if self.linear else {}
        values = {
            name: self._values(batch, visible, name)
            for name in batch.layout.lengths
            if name in self.head.reads or name in self.linear
        }
        completed, imputed = [latent.summary[:, :0]], [visible[:, :0]]
        for name in self.linear:
            imputed.append(values[name].isnan())
            completed.append(values[name].where(~imputed[-1], predicted[name].flatten(1)))
        imagined = self._imagine(latent, batch, visible) if self.head.imagines else None
        table, holes = torch.cat(completed, 1), torch.cat(imputed, 1)
        volumes = {name: _volume(batch, visible, name) for name in self.head.sees}
        return Evidence(latent, table, holes, values, stratum, imagined, volumes)

    def tables(self, batch: Batch, stratum: Int[Tensor, " b"]) -> Evidence:
        """Return the evidence of many patients, some at a time, without their tokens."""
        parts = []
        for rows in batch.chunks():
            part = batch.rows(rows).load()
            parts.append(self.evidence(part, part.observed, stratum[rows]))
        values = {name: torch.cat([p.values[name] for p in parts]) for name in parts[0].values}
        completed = torch.cat([p.completed for p in parts])
        imputed = torch.cat([p.imputed for p in parts])
        return Evidence(parts[0].latent, completed, imputed, values, stratum)

    def _values(
        self, batch: Batch, visible: Bool[Tensor, "b n"], name: str
    ) -> Float[Tensor, "b _"]:
        patches = batch.patches[name]
        seen = visible[:, batch.layout.slices[name], None] & patches.isfinite()
        if not batch.layout.is_picture(name):
            return patches.where(seen, torch.nan).flatten(1)
        # Not its tokens: the encoder knows the pictures it was trained on too well.
        own = seen.flatten(1).any(1)
        there = patches[own].where(seen[own], torch.nan)
        mean = there.nanmean(1)
        spread = (there - mean[:, None]).square().nanmean(1).sqrt()
        found = patches.new_full((len(patches), 2 * patches.shape[2]), torch.nan)
        return found.index_put((own.nonzero()[:, 0],), torch.cat([mean, spread], dim=1))

    def _imagine(self, latent: Latent, batch: Batch, visible: Bool[Tensor, "b n"]) -> Imagined:
        """Decode the tokens of modalities that are missing whole; of a slide, one tile."""
        wanted = torch.zeros_like(visible)
        for name, where in batch.layout.slices.items():
            first = slice(where.start, where.start + batch.layout.block(name))
            wanted[:, first] = ~visible[:, where].any(1, keepdim=True)
        tokens, usable = self.mae.decoder.imagine(latent, wanted)
        return Imagined(tokens, usable)


def _volume(batch: Batch, visible: Bool[Tensor, "b n"], name: str) -> Float[Tensor, "b x y z"]:
    """Return the visible part of each patient's volume; NaN elsewhere."""
    seen = visible[:, batch.layout.slices[name], None]
    return join(batch.patches[name].where(seen, torch.nan), batch.layout.grid(name))
