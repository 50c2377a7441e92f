"""BM-MAE: one pre-training for brain MRI with missing sequences (Robinet et al. 2025).

Where this differs from the paper or its code, and why:

- Patients who lack sequences are pre-trained on: the budget of visible tokens and the Dirichlet
  shares are over the sequences *present*. The code wants all four of everybody. With all four
  the budget is the paper's, 512 of 2048 tokens of every patient.
- What rounding the shares down leaves of the budget goes to the sequences nearest to one token
  more (paper: lost; code: drawn from or hidden in any sequence), what a sequence has no tokens
  for to the others, so that the budget is always spent.
- The loss is the mean over sequences (paper; the code sums) that have scored tokens; a sequence
  that nobody of the batch has hidden is left out (code: 0/0, which is NaN).
- Sequences are known by name; the code goes by the order in which they are given. Their number,
  the cube and the patch are free (code: four names, 128³ and 16³ written out), and modalities
  that are no volumes may join, embedded as their kind is elsewhere.
- In the decoder, mask tokens are queries and never keys, so that a slot's prediction does not
  depend on which others are asked for and an absent sequence costs nothing. ``mutual`` is the
  paper's formulation, which published weights need.
- The decoder's dropout hides the values of whole tokens from a head (paper: single pairs of query
  and key), which fused attention can do.
- The cube lies where the spec says (``size: 128``): around the brain or the tumour, or in the
  middle of the file, as the paper's, which segmentation asks for (``crop: centre``).
- Volumes are turned to the same orientation first (code: as they lie in the file). BraTS's own
  differs from it by flips alone, all of which the published weights have seen.
- Flips, scale and shift are the code's, drawn anew for each patient, in pre-training. When
  fine-tuning the volumes stay as they are (code: the same random changes), but for segmentation:
  there each cube is moved by up to a quarter of its side and turned over left to right, because
  windows of a whole volume lie anywhere.
- The cosine ends at zero with the last epoch (code: at a quarter of the rate, its horizon being
  1500 epochs). Biases, norms and tokens do not decay, the gradient's norm is bounded and the best
  epoch on patients held out is kept, as in every recipe here (code: the last epoch).
- One fine-tuned network serves every subset, for which whole sequences are hidden at random
  (``drop_rate``); the paper fine-tunes one for each of the 15.
- The same holds for segmentation: the UNETR's first convolution is averaged over the sequences
  there are, as its tokens are (``heads/segmentation.py``). Its loss is binary cross-entropy and
  Dice of each region; the code's softmax cross-entropy on regions that overlap teaches nothing.
- Label maps are made of the whole volume, a window at a time, and judged there (code: on the
  128³ in the middle).
- The hazard is one linear layer on the class token (paper; the code has two), with dropout before
  it and none inside the encoder (code: 0.1 there). So is the classes' softmax, which takes any
  number of them (paper and code: two, one logit). Five epochs are all warm-up, as in the paper.
- The ten intervals are quantiles fitted on training patients (code: on all, before the split).
  Risk is the log cumulative hazard; the code sums raw logits.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from omnisurv.core import Batch, Decoder, Encoder, Layout, MultimodalMAE
from omnisurv.core.masking import dirichlet
from omnisurv.head import Evidence, Head
from omnisurv.heads.classification import Classifier
from omnisurv.heads.segmentation import Unetr
from omnisurv.heads.survival import LogisticHazard, Scheme
from omnisurv.layers import PatchEmbed, PatchLinear, initialise
from omnisurv.modality import Modality, Tokeniser
from omnisurv.recipe import Recipe, Stage, layout_of
from omnisurv.registry import recipes
from omnisurv.shapes import Bool, Float, Tensor

if TYPE_CHECKING:
    from optuna import Trial

CHANGE = 0.1
"""Largest change of a patient's intensities: a share of each, and in standard units for all."""


@recipes.register("bm_mae")
class BmMae(Recipe):
    """Settings of BM-MAE; the defaults are the paper's §3 and §4 and, where it is silent, its code.

    The volumes are what the spec says: the paper's are ``size: 128, patch: 16`` at 1 mm.
    """

    paper: ClassVar[str] = (
        "Multimodal Masked Autoencoder Pre-training for 3D MRI-Based Brain Tumor Analysis with "
        "Missing Modalities (Robinet et al. 2025)"
    )
    tokenise: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mri": {"center": False}}
    late: ClassVar[frozenset[str]] = frozenset(
        {"finetune", "drop_rate", "intervals", "grid", "head_dropout", "ridge"}
        | {"classification", "segmentation", "features"}
    )
    tasks: ClassVar[frozenset[str]] = frozenset({"survival", "classification", "segmentation"})

    dim: int = 768
    heads: int = 12
    """Attention heads, of the decoder as well."""
    mlp: int = 1536
    trunk: int = Field(default=12, gt=0)
    """Layers of the encoder, which all sequences share."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    decoder_dim: int = 384
    decoder_mlp: int = 1536
    decoder_depth: int = 3
    decoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    mutual: bool = False
    """Whether mask tokens read from each other in the decoder (the paper: yes)."""
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    alpha: float = Field(default=1.0, gt=0)
    """Concentration of the Dirichlet shares; 1 makes all divisions equally likely."""
    augmented: bool = True
    """Whether pre-training flips volumes and changes their intensities at random."""
    pretrain: Stage = Stage(epochs=1000, batch=6, lr=1e-4, weight_decay=0.05, warmup=50, every=10)
    finetune: Stage = Stage(epochs=5, batch=2, lr=1e-4, weight_decay=0.05, warmup=5)
    classification: Stage = Stage(epochs=10, batch=2, lr=1e-4, weight_decay=0.05, warmup=5)
    """How a label's classes are fine-tuned."""
    segmentation: Stage = Stage(epochs=70, batch=2, lr=5e-4, weight_decay=0.05, warmup=10)
    """How segmentation is fine-tuned; ``finetune`` is for survival."""
    features: int = Field(default=16, gt=0)
    """Channels of the segmentation head at full resolution."""
    drop_rate: float = Field(default=0.5, ge=0, lt=1)
    """Chance that a sequence is hidden in a step of fine-tuning; 0.5 shows every subset alike."""
    intervals: int = Field(default=10, gt=1)
    grid: Scheme = "quantiles"
    head_dropout: float = Field(default=0.1, ge=0, lt=1)
    linear: tuple[str, ...] = ()
    """Modalities whose completed values shift the hazard linearly (the paper: none)."""
    ridge: float = Field(default=20.0, ge=0)
    """Penalty of the linear path."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            "dim": 96,
            "heads": 4,
            "mlp": 192,
            "trunk": 4,
            "decoder_dim": 48,
            "decoder_mlp": 96,
            "decoder_depth": 2,
            "decoder_dropout": 0.0,
            "augmented": False,  # a hundred patients and a few minutes teach no invariances
            "pretrain": {"epochs": 120, "batch": 8, "lr": 2e-3, "warmup": 5},
            "finetune": {"epochs": 20, "batch": 16, "lr": 5e-4, "warmup": 2, "patience": 5},
            "classification": {"epochs": 20, "batch": 16, "lr": 5e-4, "warmup": 2, "patience": 5},
            "features": 8,
            # The head wants a rate at which a few hundred steps undo what the encoder knows.
            "segmentation": {
                "epochs": 48,
                "batch": 2,
                "lr": 5e-3,
                "warmup": 1,
                "every": 2,
                "encoder_rate": 0.1,
            },
        }
    }

    def build(
        self, modalities: Mapping[str, Modality], tokenisers: Mapping[str, Tokeniser]
    ) -> MultimodalMAE:
        """Return an untrained network, sized by the fitted tokenisers."""
        layout = layout_of(tokenisers)
        embeds, predicts, shares = {}, {}, {}
        for name, modality in modalities.items():
            tokeniser = tokenisers[name]
            width = tokeniser.width
            if not is_volume(layout, name):
                embeds[name] = modality.embed(tokeniser, self.dim, shared=False)
                predicts[name] = modality.predict(tokeniser, self.decoder_dim, shared=False)
                continue
            # One convolution for each sequence with kernel = stride = patch, and one map back to
            # voxels for all of them (§3).
            embeds[name] = PatchEmbed(1, width, self.dim, shared=True, holes=False)
            shares[name] = predictor_of(width)
            if shares[name] not in predicts:
                back = PatchLinear(1, self.decoder_dim, width, shared=True, gain=0.1)
                predicts[shares[name]] = back
        return self._assemble(layout, embeds, predicts, shares)

    def _assemble(
        self,
        layout: Layout,
        embeds: Mapping[str, nn.Module],
        predicts: Mapping[str, nn.Module],
        shares: Mapping[str, str],
        *,
        encoder: type[Encoder] = Encoder,
        decoder: type[Decoder] = Decoder,
        named: bool = True,
    ) -> MultimodalMAE:
        """Return an untrained network of these settings' size; ``named`` is the decoder's."""
        mae = MultimodalMAE(
            encoder(
                layout,
                embeds,
                dim=self.dim,
                heads=self.heads,
                mlp=self.mlp,
                depth=dict.fromkeys(layout.lengths, 0),
                trunk=self.trunk,
                dropout=self.dropout,
                named=False,
                swap=True,
            ),
            decoder(
                layout,
                predicts,
                encoder_dim=self.dim,
                dim=self.decoder_dim,
                heads=self.heads,
                mlp=self.decoder_mlp,
                depth=self.decoder_depth,
                dropout=self.decoder_dropout,
                shares=shares,
                mutual=self.mutual,
                named=named,
                swap=True,
            ),
            average=True,
        )
        initialise(mae)
        return mae

    def draw_visible(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "b n"]:
        """Divide a fixed budget of visible tokens among the sequences a patient has (§3)."""
        return dirichlet(batch.observed, batch.layout, self.mask_ratio, self.alpha, generator)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Flip each patient's volumes along random axes, scale and shift their intensities.

        All sequences of a patient are changed alike, and the background is shifted as well, as
        in the code.
        """
        if not self.augmented:
            return batch
        axes = torch.rand(len(batch), 3, generator=generator) < 0.5
        scale, shift = (
            CHANGE * (2.0 * torch.rand(len(batch), 1, 1, generator=generator) - 1.0)
            for _ in range(2)
        )
        patches = dict(batch.patches)
        for name in batch.layout.lengths:
            if is_volume(batch.layout, name):
                turned = flip(patches[name], batch.layout.grid(name), axes)
                patches[name] = turned * (1.0 + scale.to(turned)) + shift.to(turned)
        return Batch(patches, batch.layout)

    def head(
        self, task: str, outputs: int, mae: MultimodalMAE, linear: list[str], strata: int
    ) -> Head:
        """Return the UNETR of §4.2, or §4.3's classes or §4.4's hazard on the class token."""
        self.require_head(task)
        layout = mae.encoder.layout
        if task == "segmentation":
            return Unetr(layout, self.dim, self.trunk, self.features)
        if task == "classification":
            return Classifier(outputs, self.dim, dropout=self.head_dropout)
        inputs = sum(layout.lengths[name] * layout.widths[name] for name in linear)
        return ClassTokenHazard(outputs, inputs, self.dim, self.head_dropout)

    def stage(self, task: str) -> Stage:
        """Return how a head for a task is trained: for 70 epochs (§4.2), 10 (§4.3) or 5 (§4.4)."""
        own = {"segmentation": self.segmentation, "classification": self.classification}
        return own.get(task, self.finetune)

    def search_space(self, trial: "Trial") -> dict[str, Any]:
        """Suggest how much is hidden, in either stage."""
        return {
            **super().search_space(trial),
            "mask_ratio": trial.suggest_float("mask_ratio", 0.5, 0.9, step=0.05),
            "drop_rate": trial.suggest_float("drop_rate", 0.0, 0.7),
            "head_dropout": trial.suggest_float("head_dropout", 0.0, 0.5),
        }

    def _preferences(self) -> Mapping[str, Mapping[str, Any]]:
        # In every preset: a mean volume fits no volume that is flipped.
        return self.tokenise


class ClassTokenHazard(LogisticHazard):
    """logit h(t | x) = baseline(t) + linear path + one linear layer on the class token.

    Args:
        intervals: number of cuts of the time grid.
        linear: number of completed values the linear path reads; 0 for none.
        dim: width of the class token.
        dropout: rate before the layer.
    """

    def __init__(self, intervals: int, linear: int, dim: int, dropout: float) -> None:
        super().__init__(intervals, linear, dropout=dropout)
        self.read = nn.Linear(dim, intervals)

    def forward(self, evidence: Evidence) -> Float[Tensor, "b t"]:
        """Return the logits of the hazard on the grid."""
        return self.path(evidence.completed) + self.read(self.dropout(evidence.latent.summary))


def is_volume(layout: Layout, name: str) -> bool:
    """Return whether a modality's patches are cubes of a volume."""
    return len(layout.grid(name)) == 3


def predictor_of(width: int) -> str:
    """Return the name of the decoder's map to cubes of so many voxels, which sequences share."""
    return f"volumes_{width}"


def flip(
    patches: Float[Tensor, "b l p"], grid: tuple[int, ...], axes: Bool[Tensor, "b 3"]
) -> Float[Tensor, "b l p"]:
    """Return each patient's volume turned over along the chosen axes, cut as before."""
    side = round(patches.shape[2] ** (1 / 3))
    volumes = patches.reshape(len(patches), *grid, side, side, side)
    turned = [
        # The order of cubes turns over, and so does each cube.
        volume.flip([part for axis in chosen.nonzero()[:, 0].tolist() for part in (axis, axis + 3)])
        for volume, chosen in zip(volumes, axes, strict=True)
    ]
    return torch.stack(turned).reshape(patches.shape)
