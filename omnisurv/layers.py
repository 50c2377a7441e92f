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


class Attention(nn.Module):
    """Multi-head attention of every row on the keys that ``usable`` allows (True = usable)."""

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
        usable: Bool[Tensor, "b k"],
    ) -> Float[Tensor, "b q d"]:
        """Return what each of the q rows reads from the k context tokens."""
        q = self._split(self.query(x))
        k, v = self.key_value(context).chunk(2, dim=-1)
        read = F.scaled_dot_product_attention(
            q,
            self._split(k),
            self._split(v),
            attn_mask=usable[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(read.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block (ViT-MAE's), whose keys are the first tokens of the sequence.

    Only the first ``usable.shape[1]`` tokens are keys; tokens after them are queries that
    nobody sees. With all tokens as keys this is the ordinary block.
    """

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
        self, x: Float[Tensor, "b q d"], usable: Bool[Tensor, "b k"]
    ) -> Float[Tensor, "b q d"]:
        """Return the updated sequence, same shape."""
        normed = self.norm_attention(x)
        return self._update(x, normed, normed[:, : usable.shape[1]], usable)

    def read(
        self,
        x: Float[Tensor, "b q d"],
        keys: Float[Tensor, "b k d"],
        usable: Bool[Tensor, "b k"],
    ) -> Float[Tensor, "b q d"]:
        """Return x, updated by what it reads from keys of another sequence."""
        return self._update(x, self.norm_attention(x), self.norm_attention(keys), usable)

    def _update(self, x: Tensor, queries: Tensor, keys: Tensor, usable: Tensor) -> Tensor:
        x = x + self.drop(self.attention(queries, keys, usable))
        return x + self.drop(self.mlp(self.norm_mlp(x)))


def sine_cosine(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Return fixed 1-D sine-cosine positions (Vaswani et al. 2017, as in ViT-MAE)."""
    half = (dim + 1) // 2
    rate = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :dim].float()


def positions(length: int, grid: tuple[int, ...], dim: int) -> Float[Tensor, "length dim"]:
    """Return fixed positions of slots that fill blocks of ``grid``, one block after another.

    Every axis has its share of the numbers (as in ViT-MAE for two axes); where there are several
    blocks, their number has one too.
    """
    blocks = length // math.prod(grid)
    sides = grid if blocks == 1 else (blocks, *grid)
    base, extra = divmod(dim, len(sides))
    shares = [base + (axis < extra) for axis in range(len(sides))]
    places = torch.cartesian_prod(*[torch.arange(side) for side in sides]).reshape(length, -1)
    codes = [
        sine_cosine(side, share)[place]
        for side, share, place in zip(sides, shares, places.T, strict=True)
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

    NaN counts as hidden: its value never enters, only the fact that it is not there.
    """

    def __init__(self, patches: int, width: int, dim: int, *, shared: bool) -> None:
        super().__init__()
        self.values = PatchLinear(patches, width, dim, shared=shared)
        self.holes = PatchLinear(patches, width, dim, shared=shared)
        nn.init.zeros_(self.holes.weight)

    def forward(self, x: Float[Tensor, "m p"], inside: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """Return one token for each patch."""
        hole = x.isnan()
        return self.values(x.masked_fill(hole, 0.0), inside) + self.holes(hole.to(x.dtype), inside)
