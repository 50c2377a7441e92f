"""impuTMAE: masked pre-training on incomplete cohorts for survival (Boyko et al. 2025).

Where this differs from the paper or its code, and why:

- Visible tokens go back to their own slots. The code's gather offsets read other patients' slots
  of later modalities, so its reconstruction targets are scrambled.
- Encoder and decoder know the modality of a token (learned embeddings); the code has one 1-D ramp
  over all modalities.
- In the decoder, mask tokens are queries and never keys, so a slot's prediction does not depend
  on which other slots are asked for, and absent modalities cost nothing.
- Missing modalities enter the fusion as the decoder's own tokens, predicted from *all* evidence
  and flagged as imputed; the code masks half of the evidence again while imputing, writes blurry
  means into the input and encodes them a second time.
- The loss is the mean over modalities with scored values; the padding of the last patch and
  unmeasured probes are never targets (the code scores zeros there).
- Every patient with any modality is pre-trained on; the code demanded RNA.
- The ten best tiles of a slide are ten blocks of tokens: one at random enters a pre-training
  step (``budget``), each is encoded on its own, and fusion reads all of them; the code took one
  of the tiles ranked 0, 10, 11 … 18, at random even at test time, and the paper averages class
  tokens of ten.
- Positions of volumes are 3-D (the code's are 1-D over the flattened grid), those of tiles 2-D.
- The slide's projection back to pixels is linear, as in the code (the paper: a transposed
  convolution); the volume's is two transposed convolutions, as in both.
- MRI is the post-contrast T1 in the code and "T1" in the paper; here any sequences the spec
  names, each a modality of its own.
- The last layer of every encoder is fine-tuned, the slide's and the volume's too (the paper
  freezes the slide's, the code the volume's); ``finetune.train_last`` says how many.
- Age and the treatment flags enter as the completed table of the linear path, standardised where
  continuous and imputed where missing; the code standardises the flags too and fills zeros.
- The linear path on the completed clinical table and its gated corrections (preset ``small``)
  are ours: on a few hundred patients omics help only as corrections of a Cox-like model. Patients
  without that table get two thirds of their shift from scores of single modalities.
- Attention masks are boolean; the code's float mask *adds* attention to missing tokens.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field

from omnisurv.core import Batch, Decoder, Encoder, MultimodalMAE
from omnisurv.core.masking import drop_modalities, holes, thin, uniform
from omnisurv.head import Head
from omnisurv.heads.classification import Classifier, RidgeClassifier
from omnisurv.heads.corrections import Corrections
from omnisurv.heads.fusion import Fusion
from omnisurv.heads.marginals import Marginals
from omnisurv.heads.survival import LogisticHazard, Scheme
from omnisurv.layers import initialise
from omnisurv.modality import Modality, Tokeniser
from omnisurv.recipe import Recipe, Stage, layout_of
from omnisurv.registry import recipes
from omnisurv.shapes import Bool, Tensor

if TYPE_CHECKING:
    from optuna import Trial


@recipes.register("imputmae")
class Imputmae(Recipe):
    """Settings of impuTMAE; the defaults are the paper's §3 and, where it is silent, its code."""

    paper: ClassVar[str] = (
        "impuTMAE: Multi-modal Transformer with Masked Pre-training for Missing Modalities "
        "Imputation in Cancer Survival Prediction (Boyko et al. 2025)"
    )
    tokenise: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "rna": {"patch": 512, "min_sd": 0.1, "order": "file", "normalise": "patient"},
        "dnam": {"patch": 1024, "order": "file", "values": "beta", "standardise": False},
    }
    tasks: ClassVar[frozenset[str]] = frozenset({"survival", "classification"})

    late: ClassVar[frozenset[str]] = frozenset(
        {"finetune", "intervals", "grid", "head_dropout", "bare_fusion", "imagine", "omics"}
        | {"ridge"}
    )

    dim: int = 256
    heads: int = 4
    mlp: int = 1024
    depth: dict[str, int] = Field(default={"rna": 6, "dnam": 6, "mri": 4, "wsi": 4, "table": 2})
    """Layers of each modality's own encoder, by kind."""
    trunk: int = 0
    """Layers of an encoder shared by all modalities (the paper has none)."""
    decoder_dim: int = 256
    decoder_mlp: int = 512
    decoder_depth: int = 3
    dropout: float = Field(default=0.0, ge=0, lt=1)
    shared: bool = True
    """One projection for all patches of a modality (the paper's convolution)."""
    mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    drop_rate: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a whole modality is hidden in pre-training."""
    budget: int = Field(default=256, gt=0)
    """Tokens of a slide in one pre-training step, whole tiles at a time (the paper: one tile)."""
    imagine: bool = True
    """Whether fusion reads the decoder's tokens of missing modalities (``omics: fusion``)."""
    hole_rate: float = Field(default=0.0, ge=0, lt=1)
    """Share of single values hidden inside visible patches in pre-training (the paper: none)."""
    pretrain: Stage = Stage(epochs=800, batch=24, lr=1e-3, weight_decay=1e-2, min_lr=5e-6)
    finetune: Stage = Stage(
        epochs=20, batch=24, lr=1e-4, weight_decay=1e-2, min_lr=5e-6, train_last=1
    )
    intervals: int = Field(default=20, gt=1)
    grid: Scheme = "equidistant"
    head_dropout: float = Field(default=0.1, ge=0, lt=1)
    bare_fusion: bool = False
    """Fusion without residual, norm and feed-forward, as in the paper's code."""
    omics: Literal["fusion", "corrections"] = "fusion"
    """How tokens enter the hazard. ``fusion``: attention over all of them (the paper).
    ``corrections``: single modalities shift the linear path within strata, where that gains
    likelihood on patients held out; nothing is trained by gradient."""
    linear: tuple[str, ...] = ("clinical",)
    """Modalities whose completed values the linear path reads, where the cohort has them."""
    ridge: float = Field(default=20.0, ge=0)
    """Penalty of the linear path."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "members": 3,
            "dim": 64,
            "mlp": 128,
            "depth": {},
            "trunk": 2,
            "decoder_dim": 64,
            "decoder_mlp": 128,
            "decoder_depth": 1,
            "shared": False,
            "mask_ratio": 0.7,
            "drop_rate": 0.3,
            "pretrain": {
                "epochs": 60,
                "batch": 32,
                "lr": 2e-3,
                "weight_decay": 1.0,
                "warmup": 5,
                "every": 5,
            },
            "finetune": {"train_last": 0},
            "grid": "quantiles",
            "omics": "corrections",
        }
    }

    def build(
        self, modalities: Mapping[str, Modality], tokenisers: Mapping[str, Tokeniser]
    ) -> MultimodalMAE:
        """Return an untrained network, sized by the fitted tokenisers."""
        layout = layout_of(tokenisers)
        encoder = Encoder(
            layout,
            {
                name: modality.embed(tokenisers[name], self.dim, shared=self.shared)
                for name, modality in modalities.items()
            },
            dim=self.dim,
            heads=self.heads,
            mlp=self.mlp,
            depth={name: self.depth.get(m.kind, 0) for name, m in modalities.items()},
            trunk=self.trunk,
            dropout=self.dropout,
        )
        decoder = Decoder(
            layout,
            {
                name: modality.predict(tokenisers[name], self.decoder_dim, shared=self.shared)
                for name, modality in modalities.items()
            },
            encoder_dim=self.dim,
            dim=self.decoder_dim,
            heads=self.heads,
            mlp=self.decoder_mlp,
            depth=self.decoder_depth,
        )
        mae = MultimodalMAE(encoder, decoder)
        initialise(mae)
        return mae

    def draw_visible(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "b n"]:
        """Hide half of the tokens of each present modality (§2), and now and then a whole one."""
        visible = uniform(batch.observed, batch.layout, self.mask_ratio, generator)
        if self.drop_rate:
            visible = drop_modalities(visible, batch.layout, self.drop_rate, generator)
        return visible

    def draw_kept(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "b n"]:
        """Draw the tiles that enter this step."""
        return thin(batch.observed, batch.layout, self.budget, generator)

    def draw_holes(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Hide single values as well, where the settings say so."""
        return holes(batch, self.hole_rate, generator) if self.hole_rate else batch

    def head(
        self, task: str, outputs: int, mae: MultimodalMAE, linear: list[str], strata: int
    ) -> Head:
        """Return the fusion attention head (§2), or the linear path with corrections."""
        self.require_head(task)
        layout = mae.encoder.layout
        # Of pictures, the head reads mean and spread of their patches.
        width = {
            name: (2 if layout.is_picture(name) else length) * layout.widths[name]
            for name, length in layout.lengths.items()
        }
        inputs = sum(width[name] for name in linear)
        if self.omics == "corrections":
            others = {name: w for name, w in width.items() if name not in linear}
            if task == "classification":
                return RidgeClassifier(outputs, inputs, others)
            return LogisticHazard(
                outputs,
                inputs,
                corrections=Corrections(others, strata),
                marginals=Marginals(others) if others else None,
            )
        fusion = Fusion(
            self.dim,
            self.heads,
            self.mlp,
            self.head_dropout,
            bare=self.bare_fusion,
            imagined=self.decoder_dim if self.imagine else None,
        )
        if task == "classification":
            return Classifier(outputs, self.dim, fusion=fusion, dropout=self.head_dropout)
        return LogisticHazard(
            outputs, inputs, fusion=fusion, dim=self.dim, dropout=self.head_dropout
        )

    def search_space(self, trial: "Trial") -> dict[str, Any]:
        """Suggest regularisation first: size matters less on a few hundred patients."""
        space = {
            "mask_ratio": trial.suggest_float("mask_ratio", 0.3, 0.8, step=0.1),
            "drop_rate": trial.suggest_float("drop_rate", 0.0, 0.6, step=0.3),
            "ridge": trial.suggest_float("ridge", 1.0, 200.0, log=True),
        }
        if self.omics == "corrections":  # nothing is trained by gradient
            return space
        dropout = trial.suggest_float("head_dropout", 0.0, 0.5)
        return {**super().search_space(trial), **space, "head_dropout": dropout}
