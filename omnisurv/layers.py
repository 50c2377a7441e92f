"""Transformer parts: packing of ragged rows, fused attention, positions, patch maps."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from omnisurv.shapes import Bool, Float, Int, Tensor


def pack(
    tokens: Float[Tensor, "m d"], rows: Int[Tensor, " m"], count: int
) -> tuple[Float[Tensor, "b k d"], Bool[Tensor, "b k"], Int[Tensor, " m"]]:
    """Lay the tokens of each row side by side, left-aligned, in the order they come.

    Args:
        tokens: m tokens of many patients.
        rows: the patient of each token, in any order.
        count: number of patients b; some may have no token.

    Returns:
        The padded tokens, which of them are real, and the column each token went to.
    """
    order = torch.argsort(rows, stable=True)
    sizes = torch.bincount(rows, minlength=count)
    starts = sizes.cumsum(0) - sizes
    columns = torch.empty_like(rows)
    columns[order] = torch.arange(len(rows), device=rows.device) - starts[rows[order]]
    width = int(sizes.max()) if len(rows) else 0
    packed = tokens.new_zeros(count, width, tokens.shape[1])
    packed = packed.index_put((rows, columns), tokens)
    usable = torch.arange(width, device=rows.device)[None] < sizes[:, None]
    return packed, usable, columns


def mask_of(usable: Bool[Tensor, "b k"]) -> Bool[Tensor, "b 1 1 k"] | None:
    """Return which keys attention may read; None for all, which is the fastest."""
    return None if bool(usable.all()) else usable[:, None, None, :]


class Attention(nn.Module):
    """Multi-head attention of every row on the keys that the mask allows (True = usable).

    Dropout forgets what a key says to a head, for all queries alike: one number for each pair, as
    is usual, would take the memory that fused attention saves.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} does not divide into heads={heads}")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        context: Float[Tensor, "b k d"],
        mask: Bool[Tensor, "b 1 1 k"] | None,
    ) -> Float[Tensor, "b q d"]:
        """Return what each of the q rows reads from the k context tokens."""
        q = self._split(self.query(x))
        k, v = (self._split(part) for part in self.key_value(context).chunk(2, dim=-1))
        if self.training and self.dropout:
            v = v * F.dropout(v.new_ones(*v.shape[:3], 1), self.dropout)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(read.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block (ViT-MAE's)."""

    def __init__(self, dim: int, heads: int, mlp: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        mask: Bool[Tensor, "b 1 1 k"] | None = None,
        keys: int | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Return the updated sequence, same shape.

        Only the first ``keys`` tokens are keys; tokens after them are queries that nobody sees.
        """
        normed = self.norm_attention(x)
        return self._update(x, normed, normed[:, :keys], mask)

    def read(
        self,
        x: Float[Tensor, "b q d"],
        keys: Float[Tensor, "b k d"],
        mask: Bool[Tensor, "b 1 1 k"] | None,
    ) -> Float[Tensor, "b q d"]:
        """Return x, updated by what it reads from keys of another sequence."""
        return self._update(x, self.norm_attention(x), self.norm_attention(keys), mask)

    def _update(self, x: Tensor, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.drop(self.attention(queries, keys, mask))
        return x + self.drop(self.mlp(self.norm_mlp(x)))


def sine_cosine(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Return fixed 1-D sine-cosine positions (Vaswani et al. 2017, as in ViT-MAE)."""
    half = (dim + 1) // 2
    rate = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :dim].float()


def positions(
    length: int, grid: tuple[int, ...], dim: int, *, swap: bool = False
) -> Float[Tensor, "length dim"]:
    """Return fixed positions of slots that fill blocks of ``grid``, one block after another.

    Every axis has its share of the numbers (as in ViT-MAE for two axes); where there are several
    blocks, their number has one too. With ``swap`` the second axis of a grid has its share before
    the first one, as in MONAI's tables.
    """
    blocks = length // math.prod(grid)
    sides = grid if blocks == 1 else (blocks, *grid)
    base, extra = divmod(dim, len(sides))
    shares = [base + (axis < extra) for axis in range(len(sides))]
    places = torch.cartesian_prod(*[torch.arange(side) for side in sides]).reshape(length, -1)
    order = list(range(len(sides)))
    if swap and len(grid) > 1:
        first = len(sides) - len(grid)
        order[first : first + 2] = [first + 1, first]
    codes = [
        sine_cosine(sides[axis], share)[places[:, axis]]
        for axis, share in zip(order, shares, strict=True)
    ]
    return torch.cat(codes, dim=1)


def initialise(module: nn.Module) -> None:
    """Draw weights as MAE's own code does: Xavier-uniform, zero biases, unit norms."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


class PatchLinear(nn.Module):
    """One linear map for all patches of a modality, or one for each patch.

    A shared map is the convolution of the papers (kernel = stride = patch). Patches of genes
    share no meaning between their positions, so small cohorts do better with a map per patch.
    """

    def __init__(
        self, patches: int, inputs: int, outputs: int, *, shared: bool, gain: float = 1.0
    ) -> None:
        super().__init__()
        maps = 1 if shared else patches
        self.weight = nn.Parameter(torch.empty(maps, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(maps, outputs))
        nn.init.trunc_normal_(self.weight, std=gain * inputs**-0.5)

    def forward(self, x: Float[Tensor, "m i"], inside: Int[Tensor, " m"]) -> Float[Tensor, "m o"]:
        """Map each patch, given its position inside the modality."""
        if len(self.weight) == 1:
            return x @ self.weight[0] + self.bias[0]
        packed, _, columns = pack(x, inside, len(self.weight))
        return (torch.bmm(packed, self.weight) + self.bias[:, None])[inside, columns]


class PatchEmbed(nn.Module):
    """Turn a patch with holes into a token: measured values and which ones they are.

    NaN counts as hidden: its value never enters, only the fact that it is not there. Without
    ``holes`` not even that: NaN is 0, as around a volume that is all background already.
    """

    def __init__(
        self, patches: int, width: int, dim: int, *, shared: bool, holes: bool = True
    ) -> None:
        super().__init__()
        self.values = PatchLinear(patches, width, dim, shared=shared)
        self.holes = PatchLinear(patches, width, dim, shared=shared) if holes else None
        if self.holes is not None:
            nn.init.zeros_(self.holes.weight)

    def forward(self, x: Float[Tensor, "m p"], inside: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """Return one token for each patch."""
        hole = x.isnan()
        token = self.values(x.masked_fill(hole, 0.0), inside)
        return token if self.holes is None else token + self.holes(hole.to(x.dtype), inside)


class PatchConv(nn.Module):
    """Turn a patch of a picture into a token by two convolutions (as impuTMAE does: 4³, then 4³).

    Kernel and stride of both are the root of the patch's side, so that no cell of one patch ever
    sees another patch. A side that is no square number is taken in by one convolution. NaN is a
    hole: it enters as a second input channel, whose weights start at zero.

    Args:
        patch: side of the patch.
        axes: 2 for tiles, 3 for volumes.
        channels: numbers in a pixel.
        dim: width of a token.
        hidden: channels between the convolutions.
    """

    def __init__(self, patch: int, axes: int, channels: int, dim: int, hidden: int = 16) -> None:
        super().__init__()
        self.cells = _Cells(patch, axes, channels)
        first = hidden if self.cells.count > 1 else dim
        self.first = PatchEmbed(1, self.cells.width, first, shared=True)
        self.second = (
            PatchLinear(1, self.cells.count * hidden, dim, shared=True)
            if self.cells.count > 1
            else None
        )

    def forward(self, x: Float[Tensor, "m p"], inside: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """Return one token for each patch; where in the picture it lies makes no difference."""
        count = self.cells.count
        found = self.first(self.cells.cut(x).flatten(0, 1), inside.repeat_interleave(count))
        if self.second is None:
            return found
        return self.second(F.gelu(found).reshape(len(x), count * found.shape[1]), inside)


class PatchDeconv(nn.Module):
    """Turn a decoder state into a patch of a picture: ``PatchConv`` the other way round.

    It starts near zero, which is the mean of every picture.
    """

    def __init__(self, patch: int, axes: int, channels: int, dim: int, hidden: int = 16) -> None:
        super().__init__()
        self.cells = _Cells(patch, axes, channels)
        last = hidden if self.cells.count > 1 else dim
        self.first = (
            PatchLinear(1, dim, self.cells.count * hidden, shared=True)
            if self.cells.count > 1
            else None
        )
        self.last = PatchLinear(1, last, self.cells.width, shared=True, gain=0.1)

    def forward(self, x: Float[Tensor, "m d"], inside: Int[Tensor, " m"]) -> Float[Tensor, "m p"]:
        """Return one patch for each state."""
        count = self.cells.count
        if self.first is not None:
            hidden = F.gelu(self.first(x, inside))
            x = hidden.reshape(len(x) * count, hidden.shape[1] // count)
        painted = self.last(x, inside.repeat_interleave(count))
        return self.cells.join(painted.reshape(len(inside), count, self.cells.width))


class _Cells:
    """The cells of a patch that a convolution with kernel = stride sees one by one.

    A patch is (side, side, …, channels) laid flat, as ``PictureTokeniser`` cuts it; so is a
    cell.

    Attributes:
        count: cells in a patch; 1 where the side is no square number.
        width: numbers in a cell.
    """

    def __init__(self, patch: int, axes: int, channels: int) -> None:
        root = math.isqrt(patch)
        self.axes, self.channels = axes, channels
        self.outer = root if root**2 == patch else 1
        self.inner = patch // self.outer
        self.count = self.outer**axes
        self.width = self.inner**axes * channels

    def cut(self, patches: Float[Tensor, "m p"]) -> Float[Tensor, "m cells c"]:
        """Return the cells of each patch."""
        sides = (self.outer, self.inner) * self.axes
        split = patches.reshape(len(patches), *sides, self.channels)
        outer, inner = range(1, 2 * self.axes, 2), range(2, 2 * self.axes + 1, 2)
        ordered = split.permute(0, *outer, *inner, 2 * self.axes + 1)
        return ordered.reshape(len(patches), self.count, self.width)

    def join(self, cells: Float[Tensor, "m cells c"]) -> Float[Tensor, "m p"]:
        """Return the patches of which these are the cells, the inverse of ``cut``."""
        sides = (self.outer,) * self.axes + (self.inner,) * self.axes
        split = cells.reshape(len(cells), *sides, self.channels)
        pairs = [place for axis in range(self.axes) for place in (1 + axis, 1 + self.axes + axis)]
        ordered = split.permute(0, *pairs, 2 * self.axes + 1)
        return ordered.reshape(len(cells), self.count * self.width)
