"""The joint decoder: any slot of any modality, predicted from whatever was visible."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from omnisurv.core.batch import Layout
from omnisurv.core.encoder import Latent
from omnisurv.layers import Block, mask_of, pack, positions
from omnisurv.shapes import Bool, Float, Tensor


class Decoder(nn.Module):
    """Self-attention among visible tokens; wanted slots read from them and from nobody else.

    Because mask tokens are never keys, a slot's prediction does not depend on which other slots
    are asked for: decoding only what is scored gives the same numbers as decoding everything,
    and an absent modality costs nothing until somebody wants it. With ``mutual``, the mask tokens
    of *all* hidden slots are keys as well (MAE's formulation): nothing depends on what is asked
    for either, but all of it is decoded each time.

    Args:
        layout: slots of the modalities.
        predicts: for each modality the module that turns decoder states (m, d) with their
            positions inside the modality (m,) into patches (m, p).
        shares: modalities that share a module, and the name it has among ``predicts``.
        encoder_dim: width of the encoder's tokens.
        dim: width d of the decoder.
        heads: attention heads.
        mlp: width of the hidden layer of each block's MLP.
        depth: number of blocks.
        dropout: rate inside the blocks.
        mutual: whether hidden slots read from each other.
        named: whether a slot carries a learned embedding of its modality.
        swap: positions in MONAI's order of axes.
    """

    modality: Tensor

    def __init__(
        self,
        layout: Layout,
        predicts: Mapping[str, nn.Module],
        *,
        encoder_dim: int,
        dim: int,
        heads: int,
        mlp: int,
        depth: int,
        dropout: float = 0.0,
        shares: Mapping[str, str] | None = None,
        mutual: bool = False,
        named: bool = True,
        swap: bool = False,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.mutual = mutual
        self.project = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        if named:
            self.modality = nn.Parameter(torch.empty(len(layout.lengths), dim).normal_(std=0.02))
        else:
            nothing = torch.zeros(len(layout.lengths), dim)
            self.register_buffer("modality", nothing, persistent=False)
        place = [
            positions(n, layout.grid(name), dim, swap=swap) for name, n in layout.lengths.items()
        ]
        self.register_buffer("position", torch.cat(place), persistent=False)
        self.register_buffer("modality_of_slot", layout.modality_of_slot, persistent=False)
        self.blocks = nn.ModuleList([Block(dim, heads, mlp, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.predicts = nn.ModuleDict(predicts)
        self.shares = dict(shares or {})
        for name, length in layout.lengths.items():
            self.register_buffer(f"trust_{name}", torch.ones(length, layout.widths[name]))

    def trust(self, name: str) -> Float[Tensor, "l p"]:
        """Return how far predictions are believed, a factor towards the mean; 1 in training."""
        return self.get_buffer(f"trust_{name}")

    def forward(self, latent: Latent, wanted: Bool[Tensor, "b n"]) -> dict[str, Tensor]:
        """Predict the patches of the wanted slots.

        Returns:
            For each modality (b, l, p); NaN where a slot was not wanted.
        """
        patches = self.patches(latent, wanted)
        predicted = {}
        for name, where in self.layout.slices.items():
            mine = wanted[:, where]
            dense = patches[name].new_full((*mine.shape, self.layout.widths[name]), torch.nan)
            predicted[name] = dense.index_put(mine.nonzero(as_tuple=True), patches[name])
        return predicted

    def patches(self, latent: Latent, wanted: Bool[Tensor, "b n"]) -> dict[str, Tensor]:
        """Predict the patches of the wanted slots: of each modality (m, p), patient by patient."""
        slots = wanted.nonzero(as_tuple=True)[1]
        states = self._states(latent, wanted)
        predicted = {}
        for name, where in self.layout.slices.items():
            mine = (slots >= where.start) & (slots < where.stop)
            inside = slots[mine] - where.start
            if len(inside):
                predict = self.predicts[self.shares.get(name, name)]
                predicted[name] = predict(states[mine], inside) * self.trust(name)[inside]
            else:
                predicted[name] = states.new_zeros(0, self.layout.widths[name])
        return predicted

    def imagine(
        self, latent: Latent, wanted: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b k d"], Bool[Tensor, "b k"]]:
        """Return the states of the wanted slots side by side, and which of them are real."""
        rows = wanted.nonzero(as_tuple=True)[0]
        states, usable, _ = pack(self._states(latent, wanted), rows, len(wanted))
        return states, usable

    def _states(self, latent: Latent, wanted: Bool[Tensor, "b n"]) -> Float[Tensor, "m d"]:
        """Return the decoder's state of each wanted slot."""
        hidden = self._hidden(latent, wanted) if self.mutual else wanted
        asked = wanted | hidden
        rows, slots = asked.nonzero(as_tuple=True)
        # Looked up, not indexed: gradients add up in the same order however many threads there are.
        kind = F.embedding(self.get_buffer("modality_of_slot"), self.modality)
        place = self.get_buffer("position") + kind
        summary = self.project(latent.summary)[:, None]
        seen = self.project(latent.tokens) + F.embedding(latent.slots, place)
        context = torch.cat([summary, seen], dim=1)
        usable = torch.cat([latent.usable.new_ones(len(seen), 1), latent.usable], dim=1)
        asked_for = self.mask_token + F.embedding(slots, place)
        queries, _, columns = pack(asked_for, rows, len(seen))
        if self.mutual:
            blank = usable.new_zeros(queries.shape[:2])
            read = blank.index_put((rows, columns), hidden[rows, slots])
            usable = torch.cat([usable, read], dim=1)
        mask, keys = mask_of(usable), usable.shape[1]
        sequence = torch.cat([context, queries], dim=1)
        for block in self.blocks[:-1]:
            sequence = block(sequence, mask, keys)
        states = sequence[:, context.shape[1] :]
        for block in self.blocks[-1:]:  # nobody reads what it would make of the context
            states = cast(Block, block).read(states, sequence[:, :keys], mask)
        mine = wanted[rows, slots]
        return self.norm(states[rows[mine], columns[mine]])

    def _hidden(self, latent: Latent, wanted: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        """Return which slots the encoder was not given."""
        rows, columns = latent.usable.nonzero(as_tuple=True)
        seen = torch.zeros_like(wanted)
        return ~seen.index_put((rows, latent.slots[rows, columns]), latent.usable[rows, columns])
