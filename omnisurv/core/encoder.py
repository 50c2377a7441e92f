"""The encoder: embeds visible tokens only, so that what is absent costs nothing."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import nn

from omnisurv.core.batch import Batch, Layout
from omnisurv.layers import Block, mask_of, pack, positions
from omnisurv.shapes import Bool, Float, Int, Tensor


class Latent(NamedTuple):
    """What the encoder knows of each patient; k is the longest row of the batch."""

    summary: Float[Tensor, "b d"]  # the class token after the trunk, or the mean token
    tokens: Float[Tensor, "b k d"]
    usable: Bool[Tensor, "b k"]  # True = a real token
    slots: Int[Tensor, "b k"]  # the slot each token belongs to; 0 where not usable
    hidden: tuple[Float[Tensor, "b k d"], ...]  # tokens after every trunk layer


class Encoder(nn.Module):
    """Per-modality layers (attention within a modality, or a tile), then a trunk shared by all.

    Args:
        layout: slots of the modalities.
        embeds: for each modality the module that turns patches (m, p) with their positions
            inside the modality (m,) into tokens (m, d).
        dim: width d of a token.
        heads: attention heads of every layer.
        mlp: width of the hidden layer of every block's MLP.
        depth: layers of each modality's own encoder (impuTMAE: 6/6/4/4; BM-MAE: 0).
        trunk: layers of the shared encoder (impuTMAE: 0; BM-MAE: 12).
        dropout: rate inside the blocks.
        named: whether a token carries a learned embedding of its modality (BM-MAE: no, nothing
            but its own projection tells).
        swap: positions in MONAI's order of axes.
    """

    modality: Tensor

    def __init__(
        self,
        layout: Layout,
        embeds: Mapping[str, nn.Module],
        *,
        dim: int,
        heads: int,
        mlp: int,
        depth: Mapping[str, int],
        trunk: int,
        dropout: float = 0.0,
        named: bool = True,
        swap: bool = False,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.embeds = nn.ModuleDict(embeds)
        if named:
            self.modality = nn.Parameter(torch.empty(len(layout.lengths), dim).normal_(std=0.02))
        else:
            nothing = torch.zeros(len(layout.lengths), dim)
            self.register_buffer("modality", nothing, persistent=False)
        self.class_token = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        for name, length in layout.lengths.items():
            place = positions(length, layout.grid(name), dim, swap=swap)
            self.register_buffer(f"position_{name}", place, persistent=False)
        self.encoders = nn.ModuleDict(
            {n: _stack(depth[n], dim, heads, mlp, dropout) for n in layout.lengths}
        )
        self.norms = nn.ModuleDict(
            {n: nn.LayerNorm(dim) if depth[n] else nn.Identity() for n in layout.lengths}
        )
        self.trunk = _stack(trunk, dim, heads, mlp, dropout)
        self.norm = nn.LayerNorm(dim) if trunk else nn.Identity()

    def forward(self, batch: Batch, visible: Bool[Tensor, "b n"]) -> Latent:
        """Encode the visible tokens; hidden patches are never read."""
        tokens, rows, slots = self._embed(batch, visible)
        packed, usable, columns = pack(tokens, rows, len(batch))
        placed = torch.zeros(usable.shape, dtype=torch.long, device=usable.device)
        placed = placed.index_put((rows, columns), slots)
        return self._run_trunk(packed, usable, placed)

    def _embed(
        self, batch: Batch, visible: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "m d"], Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Return the visible tokens that the trunk is given, with their patients and slots."""
        parts = [
            self._encode_modality(index, name, batch, visible)
            for index, name in enumerate(self.layout.lengths)
        ]
        tokens, rows, slots = (torch.cat(part) for part in zip(*parts, strict=True))
        return tokens, rows, slots

    def _encode_modality(
        self, index: int, name: str, batch: Batch, visible: Tensor
    ) -> tuple[Float[Tensor, "m d"], Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Return the modality's visible tokens with their patients and slots."""
        where = self.layout.slices[name]
        rows, inside = visible[:, where].nonzero(as_tuple=True)
        if not len(rows):
            return self.modality.new_zeros(0, self.modality.shape[1]), rows, inside
        position = self.get_buffer(f"position_{name}")[inside]
        tokens = self.embeds[name](batch.patches[name][rows, inside], inside)
        tokens = tokens + position + self.modality[index]
        blocks = cast(nn.ModuleList, self.encoders[name])
        if len(blocks):
            # Tiles of a slide are encoded one by one: attention within blocks.
            size = self.layout.block(name)
            group = rows * (self.layout.lengths[name] // size) + inside // size
            present, own_row = group.unique(return_inverse=True)
            packed, usable, columns = pack(tokens, own_row, len(present))
            mask = mask_of(usable)
            for block in blocks:
                packed = block(packed, mask)
            tokens = self.norms[name](packed[own_row, columns])
        return tokens, rows, inside + where.start

    def _run_trunk(self, packed: Tensor, usable: Tensor, slots: Tensor) -> Latent:
        if not len(self.trunk):
            weight = usable[..., None] / usable.sum(1).clamp_min(1)[:, None, None]
            summary = (packed * weight).sum(1)
            # A patient with nothing is the class token alone.
            summary = torch.where(usable.any(1, keepdim=True), summary, self.class_token)
            return Latent(summary, packed, usable, slots, ())
        head = self.class_token.expand(len(packed), 1, -1)
        sequence = torch.cat([head, packed], dim=1)
        mask = mask_of(torch.cat([usable.new_ones(len(usable), 1), usable], dim=1))
        hidden = []
        for block in self.trunk:
            sequence = block(sequence, mask)
            hidden.append(sequence[:, 1:])
        sequence = self.norm(sequence)
        return Latent(sequence[:, 0], sequence[:, 1:], usable, slots, tuple(hidden))


def _stack(depth: int, dim: int, heads: int, mlp: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList([Block(dim, heads, mlp, dropout) for _ in range(depth)])
