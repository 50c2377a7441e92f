"""Segmentation: a UNETR on the tokens and voxels of whichever sequences are there."""

import importlib.util
import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from omnisurv.core import Latent, Layout
from omnisurv.data.regions import OUTSIDE, REGIONS
from omnisurv.errors import DataError, InputError
from omnisurv.head import Evidence, Head
from omnisurv.registry import heads
from omnisurv.shapes import Bool, Float, Int, Tensor

SMOOTH = 1e-5
"""Added above and below the bar of the soft Dice, as MONAI does."""
PRIOR = 0.05
"""What an untrained network says of every voxel and region."""


@heads.register("segmentation")
class Unetr(Head):
    """Enhancing tumour, tumour core and whole tumour of each voxel, from any subset of sequences.

    UNETR (Hatamizadeh et al. 2022) on MONAI's blocks, as in BM-MAE §4.2: tokens after blocks 4, 7
    and 10 of 12 and the last ones, each averaged at every place over the sequences that are
    visible there (zero where none is), and a block on the voxels themselves.

    The first layer of that block is a convolution of its own for each sequence, averaged over the
    sequences that are visible: one convolution with a channel for each, the hidden ones zero and
    the rest scaled up. With shared weights bright in FLAIR and bright in T1 would be the same;
    averaged any later, T1ce minus T1, which is enhancement, would be out of reach. The paper has
    a channel for each sequence too, so that it needs a network for each subset.

    Args:
        layout: of the slots; all volumes must be cut alike.
        dim: width of a token.
        depth: layers of the trunk.
        features: channels at full resolution, doubled with each halving (paper: 16).
    """

    def __init__(self, layout: Layout, dim: int, depth: int, features: int) -> None:
        super().__init__()
        if importlib.util.find_spec("monai") is None:
            raise InputError("segmentation needs MONAI; pip install 'omnisurv[imaging]'")
        from monai.networks.blocks import (
            UnetOutBlock,
            UnetrBasicBlock,
            UnetrPrUpBlock,
            UnetrUpBlock,
        )

        names = [name for name in layout.lengths if len(layout.grid(name)) == 3]
        self.names, self.sees = names, frozenset(names)
        self.grid, halvings = _shared_cut(layout, names)
        self.taken = [level * depth // halvings for level in range(1, halvings)]
        place = torch.full((layout.slots,), -1)
        for name in names:
            place[layout.slices[name]] = torch.arange(layout.lengths[name])
        self.place = nn.Buffer(place, persistent=False)
        usual = {"spatial_dims": 3, "kernel_size": 3, "norm_name": "instance", "res_block": True}
        up = {"upsample_kernel_size": 2, **usual}
        channels = [features * 2**level for level in range(halvings)]
        self.stem = UnetrBasicBlock(
            in_channels=len(names), out_channels=features, stride=1, **usual
        )
        self.skips = nn.ModuleList(
            UnetrPrUpBlock(
                in_channels=dim,
                out_channels=channels[level],
                num_layer=halvings - 1 - level,
                stride=1,
                conv_block=True,
                **up,
            )
            for level in range(1, halvings)
        )
        self.ups = nn.ModuleList(
            UnetrUpBlock(in_channels=below, out_channels=above, **up)
            for below, above in pairwise([dim, *reversed(channels)])
        )
        self.out = UnetOutBlock(spatial_dims=3, in_channels=features, out_channels=len(REGIONS))
        # Tumours are small. From even odds, the first steps go into saying no everywhere, and some
        # initial weights never recover from them (the prior of Lin et al. 2017, §3.3).
        nn.init.constant_(self.out.conv.conv.bias, math.log(PRIOR / (1 - PRIOR)))
        # Few channels at many voxels: a quarter faster on a CPU, with the same numbers.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, evidence: Evidence) -> Float[Tensor, "b r x y z"]:
        """Return the logits of the regions, in the order of ``REGIONS``."""
        latent = evidence.latent
        *early, last = [
            self._average(tokens, latent)
            for tokens in (*(latent.hidden[i] for i in self.taken), latent.tokens)
        ]
        skips = [
            self.stem(self._voxels(evidence)),
            *(block(tokens) for block, tokens in zip(self.skips, early, strict=True)),
        ]
        found = last
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            found = up(found, skip)
        logits: Tensor = self.out(found)
        return logits

    def _voxels(self, evidence: Evidence) -> Float[Tensor, "b m x y z"]:
        """Return the voxels of all sequences, scaled up for those that are not there."""
        volumes = torch.stack([evidence.volumes[name] for name in self.names], dim=1)
        there = volumes.isfinite().flatten(2).any(2).sum(1)
        share = len(self.names) / there.clamp_min(1).to(volumes.dtype)
        scaled = volumes.nan_to_num(nan=0.0) * share[:, None, None, None, None]
        return scaled.contiguous(memory_format=torch.channels_last_3d)

    def _average(self, tokens: Float[Tensor, "b k d"], latent: Latent) -> Float[Tensor, "b d *g"]:
        """Return the mean token of each place, over the sequences visible there."""
        place = self.place[latent.slots]
        real = (latent.usable & (place >= 0)).to(tokens.dtype)
        index = place.clamp_min(0)
        total = tokens.new_zeros(len(tokens), math.prod(self.grid), tokens.shape[2])
        count = total[..., 0].scatter_add(1, index, real)
        index = index[..., None].expand(-1, -1, tokens.shape[2])
        total = total.scatter_add(1, index, tokens * real[..., None])
        mean = total / count.clamp_min(1)[..., None]
        return mean.transpose(1, 2).unflatten(2, self.grid)


def _shared_cut(layout: Layout, names: list[str]) -> tuple[tuple[int, ...], int]:
    """Return the grid of all volumes, and how often a patch can be halved."""
    cuts = {name: (layout.grid(name), round(layout.widths[name] ** (1 / 3))) for name in names}
    if not cuts:
        raise DataError(f"segmentation needs MRI sequences; the model knows {list(layout.lengths)}")
    first, (grid, patch) = next(iter(cuts.items()))
    for name, other in cuts.items():
        if other != (grid, patch):
            raise DataError(
                f"segmentation needs sequences that are cut alike, but {name} is {other[0]} "
                f"patches of {other[1]} and {first} {grid} of {patch}; say the same `size` and "
                "`patch`"
            )
    halvings = patch.bit_length() - 1
    if patch < 2 or patch != 2**halvings:
        raise DataError(
            f"segmentation doubles the resolution from patches to voxels, but patch {patch} is no "
            "power of two; say `patch: 8` or `patch: 16`, and pre-train again"
        )
    return grid, halvings


def regions_of(labels: Int[Tensor, "b x y z"]) -> Bool[Tensor, "b r x y z"]:
    """Return which voxels of common labels are in each region, in the order of ``REGIONS``."""
    inside = [
        torch.stack([labels == label for label in those]).any(0) for those in REGIONS.values()
    ]
    return torch.stack(inside, dim=1)


def overlap_loss(
    logits: Float[Tensor, "b r x y z"], labels: Int[Tensor, "b x y z"]
) -> Float[Tensor, ""]:
    """Return binary cross-entropy plus 1 − soft Dice, means over patients and regions.

    Each region is a question of its own. The paper's code takes softmax cross-entropy over the
    three, which is 0 on background and the same on enhancing tumour whatever the logits are, so
    that its Dice alone teaches. What is outside the scan is not scored.
    """
    logits = logits.float()
    scored = (labels != OUTSIDE)[:, None].to(logits.dtype)
    truth = regions_of(labels).to(logits.dtype)
    count = scored.flatten(1).sum(1).clamp_min(1)[:, None]
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = (entropy * scored).flatten(2).sum(2) / count
    found = logits.sigmoid() * scored
    both, each = ((x.flatten(2).sum(2)) for x in (found * truth, found + truth))
    dice = 1.0 - (2.0 * both + SMOOTH) / (each + SMOOTH)
    return (entropy + dice).mean()
