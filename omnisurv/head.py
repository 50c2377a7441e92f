"""The seam of a head: what a task reads from a patient's latent."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from omnisurv.core import Batch, Latent, MultimodalMAE
from omnisurv.shapes import Bool, Float, Int, Tensor


class Evidence(NamedTuple):
    """All that a head may look at; imputed values never come without saying so."""

    latent: Latent
    completed: Float[Tensor, "b f"]  # values of the linear modalities, imputed where not visible
    imputed: Bool[Tensor, "b f"]  # True = the value was imputed
    values: Mapping[str, Float[Tensor, "b _"]]  # visible values by modality, NaN = hidden
    stratum: Int[Tensor, " b"]  # class of the patient; -1 = not known


class Head(nn.Module, ABC):
    """Turns evidence into the outputs of a task."""

    @abstractmethod
    def forward(self, evidence: Evidence) -> Float[Tensor, "b o"]:
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
    ) -> Float[Tensor, "b o"]:
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
        values = {}
        for name, where in batch.layout.slices.items():
            seen = visible[:, where, None] & batch.patches[name].isfinite()
            values[name] = batch.patches[name].where(seen, torch.nan).flatten(1)
        completed, imputed = [latent.summary[:, :0]], [visible[:, :0]]
        for name in self.linear:
            imputed.append(values[name].isnan())
            completed.append(values[name].where(~imputed[-1], predicted[name].flatten(1)))
        return Evidence(latent, torch.cat(completed, 1), torch.cat(imputed, 1), values, stratum)
