"""3-D SimCLR on sequences stacked as channels (Ali et al. 2021).

A baseline of BM-MAE (Robinet et al. 2025, §4.1), on the same network and stack of sequences as
``stacked_mae``, which says what follows from stacking. Two views of a patient shall have class
tokens that are alike, and unlike those of the other patients in the step (NT-Xent). Views are
compared behind a projection of two layers, which is thrown away.

What BM-MAE's paper does not say of its comparison, and what is chosen here:

- A view is BM-MAE's own augmentation (flips, scale, shift), drawn anew, and a random crop: a box of
  places whose sides are between half and all of the grid's stays visible, at its own positions.
  A crop of voxels would be scaled up to the cube again; a transformer need not.
- The projection has the width of the class token, then 128 numbers (Chen et al. 2020).
- The decoder is never trained, so its trust is zero: it completes all with the mean, and error
  bars are those of the mean. ``mask_ratio``, ``alpha`` and the decoder's settings do nothing.
- The best epoch on held-out patients is kept, by the same loss of all of them at once.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from omnisurv.core import Batch, MultimodalMAE
from omnisurv.core.masking import crop
from omnisurv.modality import Modality, Tokeniser
from omnisurv.recipe import Stage
from omnisurv.recipes.bm_mae import BmMae
from omnisurv.recipes.stacked_mae import StackedMae
from omnisurv.registry import recipes
from omnisurv.shapes import Bool, Tensor

if TYPE_CHECKING:
    from optuna import Trial


@recipes.register("simclr")
class SimClr(StackedMae):
    """Settings of SimCLR on stacked sequences; the defaults are those of BM-MAE's §4.1."""

    paper: ClassVar[str] = (
        "Self-Supervised Learning for 3D Medical Image Analysis using 3D SimCLR and Monte Carlo "
        "Dropout (Ali et al. 2021)"
    )
    objective: ClassVar[str] = "contrast"

    pretrain: Stage = Stage(epochs=400, batch=4, lr=1e-4, weight_decay=0.05, warmup=50, every=10)
    temperature: float = Field(default=0.05, gt=0)
    """What likeness is divided by; small, and the nearest other patients count most."""
    least: float = Field(default=0.5, gt=0, le=1)
    """Smallest side of a crop, as a share of the grid's."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {
            **BmMae.presets["tiny"],
            "augmented": True,  # views of the same voxels would be told at a glance
            "pretrain": {"epochs": 60, "batch": 16, "lr": 1e-3, "warmup": 5},
        }
    }

    def build(
        self, modalities: Mapping[str, Modality], tokenisers: Mapping[str, Tokeniser]
    ) -> MultimodalMAE:
        """Return an untrained network whose decoder completes everything with the mean."""
        mae = super().build(modalities, tokenisers)
        for name in mae.decoder.layout.lengths:
            mae.decoder.trust(name).zero_()
        return mae

    def draw_visible(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "b n"]:
        """Show a random box of each patient's volumes."""
        return crop(batch.observed, batch.layout, self.least, generator)

    def search_space(self, trial: "Trial") -> dict[str, Any]:
        """Suggest how views are drawn and compared."""
        return {
            **self._shared_space(trial),
            "temperature": trial.suggest_float("temperature", 0.05, 0.5, step=0.05),
            "least": trial.suggest_float("least", 0.3, 0.8, step=0.1),
        }
