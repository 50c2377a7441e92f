"""Whole volumes through a network that knows cubes: window by window, blended."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from omnisurv.core import Batch
from omnisurv.core.masking import explicit
from omnisurv.core.volumes import cut
from omnisurv.head import TaskNetwork
from omnisurv.pictures import PictureTokeniser
from omnisurv.shapes import Float, Tensor

OVERLAP = 0.5
"""Share of a window that the next one covers again."""
VOXELS = 2**18
"""Voxels of each sequence at most that the networks are given at a time, but for one window."""

Predict = Callable[[Float[Tensor, "n m s s s"]], Float[Tensor, "n c s s s"]]


def slide(
    volumes: Float[Tensor, "m x y z"], size: int, predict: Predict
) -> Float[Tensor, "c x y z"]:
    """Return what is predicted of each voxel, windows blended by a Gaussian around their middle.

    Args:
        volumes: one grid, a channel for each sequence. What is smaller than a window is padded
            with NaN, as cubes are.
        size: side of a window.
        predict: of one window.
    """
    from monai.inferers import sliding_window_inference

    found: Tensor = sliding_window_inference(
        volumes[None],
        (size,) * 3,
        max(1, VOXELS // size**3),
        predict,
        overlap=OVERLAP,
        mode="gaussian",
        padding_mode="constant",
        cval=torch.nan,
    )
    return found[0]


def tokenise(
    window: Float[Tensor, "n m s s s"],
    tokenisers: Mapping[str, PictureTokeniser],
    others: Batch,
) -> Batch:
    """Return windows as the networks take them, as if they were the patient's cubes.

    Args:
        window: a channel for each of the ``tokenisers``, in their order.
        tokenisers: of the sequences.
        others: the one patient's other modalities.
    """
    cubes = {}
    for channel, (name, tokeniser) in enumerate(tokenisers.items()):
        center, spread = (float(value[0]) for value in (tokeniser.center, tokeniser.spread))
        cubes[name] = cut((window[:, channel] - center) / spread, tokeniser.grid)
    patches = {
        name: cubes[name]
        if name in cubes
        else others.patches[name].to(window.device).expand(len(window), -1, -1)
        for name in others.layout.lengths
    }
    return Batch(patches, others.layout)


@torch.no_grad()
def probabilities(
    networks: Sequence[TaskNetwork], batch: Batch, subsets: Sequence[Collection[str]]
) -> Float[Tensor, "n c s s s"]:
    """Return the regions' probabilities from each subset in turn, the mean over networks."""
    stratum = torch.zeros(len(batch), dtype=torch.long, device=batch.observed.device)
    found = []
    for subset in subsets:
        visible = explicit(batch.observed, batch.layout, subset)
        members = [network(batch, visible, stratum).float().sigmoid() for network in networks]
        found.append(torch.stack(members).mean(0))
    return torch.cat(found, dim=1)
