"""Volumes stacked as channels: one token for a place of all of them, as single-input MAEs have it.

Batches and slots stay those of the modalities, so that masks, heads and imputation know no
difference. A place is visible if all modalities are visible there.
"""

import torch

from omnisurv.core.batch import Batch, Layout
from omnisurv.core.decoder import Decoder
from omnisurv.core.encoder import Encoder, Latent
from omnisurv.core.masking import everywhere
from omnisurv.shapes import Bool, Float, Int, Tensor


def stack_of(layout: Layout) -> str:
    """Return the name of the encoder's one embedding, which serves this stack and no other."""
    return "+".join(layout.lengths)


class StackedEncoder(Encoder):
    """An encoder whose token is a place of all modalities, in the slot of the first one.

    Its one embedding, named by ``stack_of``, takes the patches of all modalities at a place side
    by side: a convolution over their channels. A patient who lacks a modality has no token.
    """

    def _embed(
        self, batch: Batch, visible: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "m d"], Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Return one token for each place that is visible in all modalities."""
        rows, inside = everywhere(visible, self.layout).nonzero(as_tuple=True)
        channels = [batch.patches[name][rows, inside] for name in self.layout.lengths]
        tokens = self.embeds[stack_of(self.layout)](torch.cat(channels, dim=1), inside)
        first = next(iter(self.layout.lengths))
        return tokens + self.get_buffer(f"position_{first}")[inside], rows, inside


class StackedDecoder(Decoder):
    """A decoder with one state for a place, from which each modality's patch is predicted."""

    def _states(self, latent: Latent, wanted: Bool[Tensor, "b n"]) -> Float[Tensor, "m d"]:
        here = wanted.unflatten(1, (len(self.layout.lengths), -1)).any(1)
        places = torch.zeros_like(wanted)
        places[:, : here.shape[1]] = here
        states = super()._states(latent, places)
        number = here.flatten().cumsum(0).view_as(here) - 1
        rows, slots = wanted.nonzero(as_tuple=True)
        return states[number[rows, slots % here.shape[1]]]

    def _hidden(self, latent: Latent, wanted: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        """Return which places the encoder was not given, as slots of the first modality."""
        hidden = super()._hidden(latent, wanted)
        hidden[:, hidden.shape[1] // len(self.layout.lengths) :] = False
        return hidden
