"""Fusion attention: one class token reads all tokens of a patient."""

import torch
from torch import nn

from omnisurv.core import Latent
from omnisurv.head import Imagined
from omnisurv.layers import Attention, Block, mask_of
from omnisurv.shapes import Float, Tensor


class Fusion(nn.Module):
    """One attention block over class token and tokens (impuTMAE §2, Fusion block).

    The paper's code is a bare attention, without residual, norm or feed-forward; ``bare`` is
    that. The default keeps them, so that the block starts near the identity. Only the class
    token is read, so only it asks.

    Args:
        dim: width of the tokens.
        heads: attention heads.
        mlp: width of the block's hidden layer.
        dropout: rate inside the block.
        bare: attention alone.
        imagined: width of the tokens that the decoder imagines for missing modalities; None for
            doing without. They come in through a map of their own, which says what they are.
    """

    def __init__(
        self, dim: int, heads: int, mlp: int, dropout: float, *, bare: bool, imagined: int | None
    ) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        self.attention = Attention(dim, heads, dropout) if bare else None
        self.block = None if bare else Block(dim, heads, mlp, dropout)
        self.norm = nn.Identity() if bare else nn.LayerNorm(dim)
        self.adopt = None if imagined is None else nn.Linear(imagined, dim)

    def forward(self, latent: Latent, imagined: Imagined | None = None) -> Float[Tensor, "b d"]:
        """Return one vector for each patient."""
        first = (latent.summary + self.class_token)[:, None]
        parts, real = [first, latent.tokens], [latent.usable.new_ones(len(first), 1), latent.usable]
        if self.adopt is not None and imagined is not None:
            parts.append(self.adopt(imagined.tokens))
            real.append(imagined.usable)
        keys, mask = torch.cat(parts, dim=1), mask_of(torch.cat(real, dim=1))
        if self.attention is not None:
            return self.attention(first, keys, mask)[:, 0]
        assert self.block is not None
        return self.norm(self.block.read(first, keys, mask)[:, 0])
