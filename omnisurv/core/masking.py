"""Mask samplers: each *draws* which observed tokens the encoder may see; none applies anything.

Every sampler takes ``observed`` and returns ``visible ⊆ observed`` (True = usable), both over
all slots of all modalities, and takes its randomness from one ``torch.Generator``.
"""

import math
from collections.abc import Collection

import torch

from omnisurv.core.batch import Batch, Layout
from omnisurv.shapes import Bool, Float, Int, Tensor


def keep_random(
    candidates: Bool[Tensor, "b n"], keep: Int[Tensor, " b"], generator: torch.Generator
) -> Bool[Tensor, "b n"]:
    """Keep ``keep[i]`` random candidates of row i (all of them where there are fewer)."""
    noise = torch.rand(candidates.shape, generator=generator).to(candidates.device)
    noise = noise.masked_fill(~candidates, 2.0)
    rank = noise.argsort(dim=1).argsort(dim=1)
    return candidates & (rank < keep[:, None])


def uniform(
    observed: Bool[Tensor, "b n"], layout: Layout, ratio: float, generator: torch.Generator
) -> Bool[Tensor, "b n"]:
    """Hide ``ratio`` of the observed tokens of each modality (impuTMAE §2: one half).

    A modality with a single token is hidden with probability ``ratio``.
    """
    visible = torch.zeros_like(observed)
    for where in layout.slices.values():
        has = observed[:, where]
        exact = has.sum(1) * (1.0 - ratio)
        draw = torch.rand(len(has), generator=generator).to(has.device)
        keep = torch.floor(exact + draw).long()  # rounds at random, so the mean ratio is exact
        visible[:, where] = keep_random(has, keep, generator)
    return visible


def dirichlet(
    observed: Bool[Tensor, "b n"],
    layout: Layout,
    ratio: float,
    alpha: float,
    generator: torch.Generator,
) -> Bool[Tensor, "b n"]:
    """Share a budget of ``1 - ratio`` of a patient's tokens among the modalities present.

    The shares are Dirichlet(``alpha``) over *present* modalities (MultiMAE §3.2; BM-MAE §2.1
    with alpha = 1 and ratio = 0.75); what a modality cannot use goes to the others.
    """
    counts = torch.stack([observed[:, s].sum(1) for s in layout.slices.values()], dim=1)
    budget = torch.round(counts.sum(1) * (1.0 - ratio)).long()
    shares = _dirichlet_shares(counts > 0, alpha, generator)
    keep = _spend(shares, counts, budget)
    visible = torch.zeros_like(observed)
    for index, where in enumerate(layout.slices.values()):
        visible[:, where] = keep_random(observed[:, where], keep[:, index], generator)
    return visible


def everywhere(flags: Bool[Tensor, "b n"], layout: Layout) -> Bool[Tensor, "b l"]:
    """Return for each place of a grid that all modalities share whether all have the flag."""
    return flags.unflatten(1, (len(layout.lengths), -1)).all(1)


def alike(
    observed: Bool[Tensor, "b n"], layout: Layout, ratio: float, generator: torch.Generator
) -> Bool[Tensor, "b n"]:
    """Hide the same places of all modalities: ``ratio`` of those where all are observed.

    What is hidden of one sequence could else be read off the others; this is MAE's mask on
    sequences stacked as channels.
    """
    whole = everywhere(observed, layout)
    keep = torch.round(whole.sum(1) * (1.0 - ratio)).long()
    return keep_random(whole, keep, generator).repeat(1, len(layout.lengths))


def crop(
    observed: Bool[Tensor, "b n"], layout: Layout, least: float, generator: torch.Generator
) -> Bool[Tensor, "b n"]:
    """Show one random box of each patient's grid, the same of all modalities.

    Each side is drawn between ``least`` and all of the grid's, then where it lies.
    """
    grid = layout.grid(next(iter(layout.lengths)))
    box = torch.ones(len(observed), *grid, dtype=torch.bool)
    for axis, side in enumerate(grid):
        smallest = max(1, math.ceil(least * side))
        size = torch.randint(smallest, side + 1, (len(observed), 1), generator=generator)
        start = torch.rand(len(observed), 1, generator=generator) * (side - size + 1)
        beyond = torch.arange(side) - start.long()
        inside = (beyond >= 0) & (beyond < size)
        box &= inside.reshape(-1, *[side if other == axis else 1 for other in range(len(grid))])
    seen = everywhere(observed, layout) & box.flatten(1).to(observed.device)
    return seen.repeat(1, len(layout.lengths))


def drop_modalities(
    visible: Bool[Tensor, "b n"], layout: Layout, rate: float, generator: torch.Generator
) -> Bool[Tensor, "b n"]:
    """Hide each visible modality whole with probability ``rate``, but never a patient's last."""
    seen = torch.stack([visible[:, s].any(1) for s in layout.slices.values()], dim=1)
    draw = torch.rand(seen.shape, generator=generator).to(seen.device)
    kept = seen & (draw >= rate)
    lucky = torch.where(seen, draw, -1.0).argmax(1)
    rescue = torch.nn.functional.one_hot(lucky, seen.shape[1]).bool()
    kept = torch.where(kept.any(1, keepdim=True), kept, rescue & seen)
    return visible & kept[:, layout.modality_of_slot.to(kept.device)]


def thin(
    observed: Bool[Tensor, "b n"], layout: Layout, budget: int, generator: torch.Generator
) -> Bool[Tensor, "b n"]:
    """Keep at most ``budget`` observed tokens of each modality that has blocks, whole blocks.

    A slide has thousands of tokens and other modalities tens; without a budget a step would
    be about slides alone. At least one block is kept, drawn at random (impuTMAE: one tile).
    """
    kept = observed.clone()
    for name, where in layout.slices.items():
        size = layout.block(name)
        count = layout.lengths[name] // size
        if count == 1:
            continue
        has = observed[:, where].unflatten(1, (count, size)).any(2)
        most = torch.full((len(has),), max(1, budget // size), device=has.device)
        chosen = keep_random(has, most, generator)
        kept[:, where] &= chosen.repeat_interleave(size, dim=1)
    return kept


def all_but(
    observed: Bool[Tensor, "b n"], layout: Layout, name: str
) -> tuple[Bool[Tensor, "b n"], Int[Tensor, " _"]]:
    """Hide one modality whole, as patients lack it.

    Returns:
        What stays visible, and the patients who have the modality and something to predict it
        from.
    """
    others = [other for other in layout.lengths if other != name]
    visible = explicit(observed, layout, others)
    who = visible.any(1) & observed[:, layout.slices[name]].any(1)
    return visible, who.nonzero()[:, 0]


def holes(batch: Batch, rate: float, generator: torch.Generator) -> Batch:
    """Hide single values of patches at ``rate``: a hole is a hidden token writ small.

    A patch of many features cannot then be read off a few of them, which is what a network
    does that has hundreds of patients.
    """
    patches = {
        name: patch.masked_fill(
            torch.rand(patch.shape, generator=generator).to(patch.device) < rate, torch.nan
        )
        for name, patch in batch.patches.items()
    }
    return Batch(patches, batch.layout)


def explicit(
    observed: Bool[Tensor, "b n"], layout: Layout, modalities: Collection[str]
) -> Bool[Tensor, "b n"]:
    """Show exactly the observed tokens of the named modalities."""
    chosen = torch.tensor([name in modalities for name in layout.lengths], dtype=torch.bool)
    return observed & chosen[layout.modality_of_slot].to(observed.device)[None]


def _dirichlet_shares(
    present: Bool[Tensor, "b m"], alpha: float, generator: torch.Generator
) -> Float[Tensor, "b m"]:
    concentration = torch.full(present.shape, alpha, dtype=torch.float64)
    gamma = torch._standard_gamma(concentration, generator=generator).to(present.device)
    gamma = gamma.clamp_min(1e-30) * present
    return gamma / gamma.sum(1, keepdim=True).clamp_min(1e-30)


def _spend(
    shares: Float[Tensor, "b m"], counts: Int[Tensor, "b m"], budget: Int[Tensor, " b"]
) -> Int[Tensor, "b m"]:
    """Turn shares into whole tokens that sum to ``budget`` and never exceed ``counts``."""
    keep = torch.minimum((shares * budget[:, None]).floor().long(), counts)
    for _ in range(int((budget - keep.sum(1)).max().clamp_min(0)) if len(budget) else 0):
        left = budget - keep.sum(1)
        room = counts - keep
        if not bool((left > 0).any()):
            break
        wish = torch.where(room > 0, shares * budget[:, None] - keep, -torch.inf)
        next_one = torch.nn.functional.one_hot(wish.argmax(1), shares.shape[1])
        keep = keep + next_one * (left > 0)[:, None]
    return keep
