"""Fusion attention: one class token reads all tokens of a patient."""

import torch
from torch import nn

from omnisurv.core import Latent
from omnisurv.layers import Attention, Block
from omnisurv.shapes import Float, Tensor


class Fusion(nn.Module):
    """One self-attention block over class token and tokens (impuTMAE §2, Fusion block).

    The paper's code is a bare attention, without residual, norm or feed-forward; ``bare`` is
    that. The default keeps them, so that the block can be deep and starts near the identity.
    """

    def __init__(self, dim: int, heads: int, mlp: int, dropout: float, *, bare: bool) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        self.attention = Attention(dim, heads, dropout) if bare else None
        self.block = None if bare else Block(dim, heads, mlp, dropout)
        self.norm = nn.Identity() if bare else nn.LayerNorm(dim)

    def forward(self, latent: Latent) -> Float[Tensor, "b d"]:
        """Return one vector for each patient."""
        first = (latent.summary + self.class_token)[:, None]
        sequence = torch.cat([first, latent.tokens], dim=1)
        usable = torch.cat([latent.usable.new_ones(len(first), 1), latent.usable], dim=1)
        if self.attention is not None:
            return self.attention(first, sequence, usable)[:, 0]
        assert self.block is not None
        return self.norm(self.block(sequence, usable)[:, 0])
