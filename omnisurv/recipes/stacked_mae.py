"""A masked autoencoder on sequences stacked as channels (Zhou et al. 2023).

A baseline of BM-MAE (Robinet et al. 2025, §4.1), on the same network: a place of the volume is one
token for all sequences together, hidden and seen as one. Such a model is of its set of sequences
alone; BM-MAE's paper trains one for each of the 15 (name the sequences in the spec). A patient who
lacks one has no token: none is trained on, and all that the class token alone says is predicted.

Settings are BM-MAE's, as its paper took the same for both; ``alpha`` divides nothing here. Where
this differs from MAE as BM-MAE's paper compares with it, beyond what ``bm_mae`` says of the rest:

- The mask is over places where all sequences were measured. In a whole cube that is the paper's,
  128 of 512 visible.
- Mask tokens are queries and never keys; ``mutual`` is MAE's formulation.
- A sequence that is missing whole is completed from nothing, which pre-training never asked for.
  Trust is judged on held-out patients as in every recipe, and falls towards the mean.
- Segmentation reads what voxels there are beside the tokens, as with ``bm_mae``. Of patients who
  lack a sequence these are all it reads, and it was not trained to.
- No sequence is hidden in fine-tuning (``drop_rate`` is 0): it would hide the others with it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, field_validator

from omnisurv.core import Batch, Layout, MultimodalMAE
from omnisurv.core.masking import alike
from omnisurv.core.stacked import StackedDecoder, StackedEncoder, stack_of
from omnisurv.errors import DataError
from omnisurv.layers import PatchEmbed, PatchLinear
from omnisurv.modality import Modality, Tokeniser
from omnisurv.recipe import Recipe, layout_of
from omnisurv.recipes.bm_mae import BmMae
from omnisurv.registry import recipes
from omnisurv.shapes import Bool, Tensor

if TYPE_CHECKING:
    from optuna import Trial


@recipes.register("stacked_mae")
class StackedMae(BmMae):
    """Settings of MAE on stacked sequences; the defaults are those of BM-MAE's §4.1."""

    paper: ClassVar[str] = (
        "Self Pre-training with Masked Autoencoders for Medical Image Classification and "
        "Segmentation (Zhou et al. 2023)"
    )
    kinds: ClassVar[frozenset[str] | None] = frozenset({"mri"})
    complete: ClassVar[bool] = True

    drop_rate: float = Field(default=0.0)
    """Chance that a sequence is hidden in a step of fine-tuning: none."""

    @field_validator("drop_rate")
    @classmethod
    def _check_drop_rate(cls, rate: float) -> float:
        if rate:
            raise ValueError("must be 0: sequences that are stacked are hidden together or not")
        return rate

    def build(
        self, modalities: Mapping[str, Modality], tokenisers: Mapping[str, Tokeniser]
    ) -> MultimodalMAE:
        """Return an untrained network, sized by the fitted tokenisers.

        Raises:
            DataError: a modality that is no MRI sequence, or sequences cut differently.
        """
        layout = layout_of(tokenisers)
        self._require_stack(modalities, layout)
        width = sum(layout.widths.values())
        embed = PatchEmbed(1, width, self.dim, shared=True, holes=False)
        predicts = {
            name: PatchLinear(1, self.decoder_dim, voxels, shared=True, gain=0.1)
            for name, voxels in layout.widths.items()
        }
        return self._assemble(
            layout,
            {stack_of(layout): embed},
            predicts,
            shares={},
            encoder=StackedEncoder,
            decoder=StackedDecoder,
            named=False,
        )

    def draw_visible(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "b n"]:
        """Show a fixed share of places, in all sequences alike."""
        return alike(batch.observed, batch.layout, self.mask_ratio, generator)

    def search_space(self, trial: "Trial") -> dict[str, Any]:
        """Suggest how much is hidden in pre-training."""
        return {
            **self._shared_space(trial),
            "mask_ratio": trial.suggest_float("mask_ratio", 0.5, 0.9, step=0.05),
        }

    def _shared_space(self, trial: "Trial") -> dict[str, Any]:
        return {
            **Recipe.search_space(self, trial),
            "head_dropout": trial.suggest_float("head_dropout", 0.0, 0.5),
        }

    def _require_stack(self, modalities: Mapping[str, Modality], layout: Layout) -> None:
        """Raise DataError if the modalities cannot be channels of one volume."""
        cuts = {name: (layout.grid(name), layout.widths[name]) for name in layout.lengths}
        first = next(iter(cuts))
        for name, modality in modalities.items():
            if self.kinds and modality.kind not in self.kinds:
                raise DataError(
                    f"'{self.name}' stacks MRI sequences as channels, and '{name}' is of kind "
                    f"{modality.kind}; take it out of the spec, or use bm_mae"
                )
            if cuts[name] != cuts[first]:
                raise DataError(
                    f"'{self.name}' stacks sequences that are cut alike, but {_said(cuts, name)} "
                    f"and {_said(cuts, first)}; say the same `size` and `patch`, or use bm_mae"
                )


def _said(cuts: Mapping[str, tuple[tuple[int, ...], int]], name: str) -> str:
    grid, voxels = cuts[name]
    return f"{name} is {'×'.join(map(str, grid))} patches of {voxels} voxels"
