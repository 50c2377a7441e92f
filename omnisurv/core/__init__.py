"""Tokens and masks: the masked autoencoder that every recipe is a setting of."""

from omnisurv.core.batch import Batch, Layout
from omnisurv.core.decoder import Decoder
from omnisurv.core.encoder import Encoder, Latent
from omnisurv.core.losses import masked_mse
from omnisurv.core.mae import MultimodalMAE

__all__ = ["Batch", "Decoder", "Encoder", "Latent", "Layout", "MultimodalMAE", "masked_mse"]
