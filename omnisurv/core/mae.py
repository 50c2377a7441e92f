"""The multimodal masked autoencoder: encode what is visible, reconstruct what is scored."""

from collections.abc import Mapping

from torch import nn

from omnisurv.core.batch import Batch
from omnisurv.core.decoder import Decoder
from omnisurv.core.encoder import Encoder, Latent
from omnisurv.core.losses import masked_mse, total
from omnisurv.shapes import Bool, Float, Tensor


class MultimodalMAE(nn.Module):
    """Encoder and joint decoder over the slots of all modalities.

    Missing modalities, masked patches, padding and unmeasured values are the same thing here: a
    hidden token. Nothing in this class may ask why a token is hidden.

    Args:
        encoder: reads what is visible.
        decoder: predicts what is wanted.
        weights: of the modalities' errors in the loss; 1 where none is given.
        average: whether the loss is the mean over scored modalities (BM-MAE), not their sum.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        weights: Mapping[str, float] | None = None,
        *,
        average: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.weights = dict(weights or {})
        self.average = average

    def encode(self, batch: Batch, visible: Bool[Tensor, "b n"]) -> Latent:
        """Return the latent of each patient, from the visible tokens alone."""
        return self.encoder(batch, visible)

    def reconstruct(
        self, batch: Batch, visible: Bool[Tensor, "b n"], wanted: Bool[Tensor, "b n"]
    ) -> dict[str, Tensor]:
        """Predict the wanted slots from the visible ones; NaN elsewhere."""
        return self.decoder(self.encode(batch, visible), wanted)

    def forward(
        self, batch: Batch, visible: Bool[Tensor, "b n"], given: Batch | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss on ``observed & ~visible`` tokens, in all and by modality.

        ``given`` is what the encoder reads where it differs from the target: the same patches
        with more holes.
        """
        scored = batch.observed & ~visible
        latent = self.encode(given or batch, visible)
        errors = masked_mse(self.decoder.patches(latent, scored), batch, scored)
        loss = total(errors, self.weights, latent.summary)
        return loss / max(len(errors), 1) if self.average else loss, errors
