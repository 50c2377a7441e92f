"""Contrast: two views of a patient are alike, and unlike those of other patients."""

import torch
from torch import nn
from torch.nn import functional as F

from omnisurv.core.batch import Batch
from omnisurv.core.mae import MultimodalMAE
from omnisurv.shapes import Bool, Float, Tensor

WIDTH = 128
"""Numbers that views are compared by (Chen et al. 2020)."""


class Projected(nn.Module):
    """An encoder with the two layers that views are compared behind, to be thrown away later.

    Args:
        mae: whose encoder is trained; its decoder has no part in it.
    """

    def __init__(self, mae: MultimodalMAE) -> None:
        super().__init__()
        self.mae = mae
        dim = mae.encoder.class_token.shape[0]
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, WIDTH))

    def forward(self, batch: Batch, visible: Bool[Tensor, "b n"]) -> Float[Tensor, "b e"]:
        """Return where the class tokens of what is visible lie on the sphere."""
        projected = self.project(self.mae.encode(batch, visible).summary)
        return F.normalize(projected.float(), dim=1)


def info_nce(
    first: Float[Tensor, "b e"], second: Float[Tensor, "b e"], temperature: float
) -> Float[Tensor, ""]:
    """Return NT-Xent, the mean over all 2b views (Chen et al. 2020, eq. 1).

    A view has to pick the other one of its patient among all views but itself. With less than
    two patients there is nothing to tell apart: the loss is a zero on the graph.
    """
    views = torch.cat([first, second])
    if len(first) < 2:
        return views.sum() * 0.0
    # No matrix product, which would be rounded where training is of mixed precision.
    alike = ((views[:, None] * views).sum(2) / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(alike, partner)
