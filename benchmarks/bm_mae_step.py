"""BM-MAE at the paper's size: a step of pre-training and the 15 subsets, beside its formulation.

``paper`` is the formulation of Robinet et al. 2025 written out here: every token of every volume
is embedded by a convolution, the visible ones are gathered by argsort, attention is a matrix, the
decoder sees all 2048 slots with every mask token among the keys, and the error of all voxels is
taken and then masked. ``mutual`` is omnisurv with the same keys, hence the same numbers, which
this checks first. ``default`` is omnisurv as it trains: mask tokens are no keys.

``from files`` is the 15 subsets of a patient whose sequences lie on disk, gzipped. The paper's
evaluation is 15 runs of a script, each of which reads its sequences through MONAI's transforms;
omnisurv decodes every volume once, into its store, for all subsets.

Rounds of all are interleaved in one process, so that whatever else the machine does hits all
alike; peak memory is that of a process of its own.

    python benchmarks/bm_mae_step.py --json bm_mae_step.json
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from store import decode, write_volumes
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from omnisurv.core import Batch, Layout, MultimodalMAE
from omnisurv.core.masking import dirichlet, explicit
from omnisurv.data.images import Images
from omnisurv.layers import Block, PatchEmbed, PatchLinear, positions
from omnisurv.modalities.mri import Mri, MriOptions
from omnisurv.recipe import get_recipe, layout_of

SEQUENCES = ("t1", "t1ce", "t2", "flair")
SUBSETS = [s for n in (1, 2, 3, 4) for s in itertools.combinations(SEQUENCES, n)]
MODES = ("paper", "mutual", "default")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PATCH = 16
SIDES = {"cpu": 1536, "cuda": 8192}
"""Rows of the square matrices whose product is the machine's matrix rate."""
CLOSE = 1e-3
"""Largest relative difference of a loss or a gradient in fp32."""
SLOW = 0.25
"""Share of the matrix rate in fp32 under which bf16 is not worth a run."""
TINY = {"dim": 24, "heads": 2, "mlp": 32, "trunk": 1, "decoder_dim": 12, "decoder_depth": 1}
Row = dict[str, Any]


class PaperAttention(nn.Module):
    """Multi-head attention with one map to queries, keys and values, and the matrix in memory."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.drop_weights, self.drop = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return what every token reads from all (b, n, d)."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = torch.einsum("bhqc,bhkc->bhqk", q, k) * self.scale
        weights = self.drop_weights(scores.softmax(dim=-1))
        read = torch.einsum("bhqk,bhkc->bhqc", weights, v)
        return self.drop(self.out(read.transpose(1, 2).reshape(b, n, d)))


class PaperBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = PaperAttention(dim, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the updated sequence, same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.drop(self.mlp(self.norm2(x)))

    @torch.no_grad()
    def take(self, block: Block) -> None:
        """Copy the weights of a block of omnisurv."""
        theirs, attention = self.attention, block.attention
        for part in ("weight", "bias"):
            maps = [getattr(m, part) for m in (attention.query, attention.key_value)]
            getattr(theirs.qkv, part).copy_(torch.cat(maps))
        for mine, its in (
            (theirs.out, attention.out),
            (self.norm1, block.norm_attention),
            (self.norm2, block.norm_mlp),
            (self.mlp, block.mlp),
        ):
            mine.load_state_dict(its.state_dict())


class Paper(nn.Module):
    """BM-MAE after §3 of the paper, with the weights of a network of omnisurv."""

    place: Tensor
    small_place: Tensor

    def __init__(self, mae: MultimodalMAE, recipe: Any, side: int) -> None:
        super().__init__()
        r, voxels, length = recipe, PATCH**3, side**3
        self.side = side
        self.embeds = nn.ModuleDict(
            {n: nn.Conv3d(1, r.dim, PATCH, stride=PATCH) for n in SEQUENCES}
        )
        self.class_token = nn.Parameter(mae.encoder.class_token.detach().clone())
        self.blocks = _blocks(mae.encoder.trunk, r.dim, r.heads, r.mlp, r.dropout)
        self.norm = nn.LayerNorm(r.dim)
        self.project = nn.Linear(r.dim, r.decoder_dim)
        self.mask_token = nn.Parameter(mae.decoder.mask_token.detach().clone())
        self.modality = nn.Parameter(mae.decoder.modality.detach().clone())
        self.decoder_blocks = _blocks(
            mae.decoder.blocks, r.decoder_dim, r.heads, r.decoder_mlp, r.decoder_dropout
        )
        self.decoder_norm = nn.LayerNorm(r.decoder_dim)
        self.predict = nn.Linear(r.decoder_dim, voxels)
        grid = (side,) * 3
        self.register_buffer("place", positions(length, grid, r.dim, swap=True))
        self.register_buffer("small_place", positions(length, grid, r.decoder_dim, swap=True))
        self._take(mae)

    @torch.no_grad()
    def _take(self, mae: MultimodalMAE) -> None:
        encoder, decoder = mae.encoder, mae.decoder
        maps = {name: cast(PatchEmbed, encoder.embeds[name]).values for name in SEQUENCES}
        for name, conv in self.embeds.items():
            conv.load_state_dict(
                {
                    "weight": maps[name].weight[0].T.reshape(-1, 1, *[PATCH] * 3),
                    "bias": maps[name].bias[0],
                }
            )
        back = cast(PatchLinear, decoder.predicts[decoder.shares[SEQUENCES[0]]])
        self.predict.load_state_dict({"weight": back.weight[0].T, "bias": back.bias[0]})
        for mine, its in (
            (self.norm, encoder.norm),
            (self.project, decoder.project),
            (self.decoder_norm, decoder.norm),
        ):
            mine.load_state_dict(its.state_dict())

    def tokens(self, volumes: dict[str, Tensor]) -> Tensor:
        """Return the tokens of volumes (b, 1, 128, 128, 128), side by side."""
        found = [
            self.embeds[n](volume).flatten(2).transpose(1, 2) + self.place
            for n, volume in volumes.items()
        ]
        return torch.cat(found, dim=1)

    def encode(self, tokens: Tensor) -> Tensor:
        """Return the class token and the tokens after the encoder."""
        x = torch.cat([self.class_token.expand(len(tokens), 1, -1), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, volumes: dict[str, Tensor], visible: Tensor) -> tuple[Tensor, None]:
        """Return the loss; all rows show the same number of tokens."""
        tokens = self.tokens(volumes)
        mask = (~visible).to(tokens.dtype)
        order = mask.argsort(dim=1, stable=True)
        kept = order[:, : int(visible[0].sum())]
        seen = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        small = self.project(self.encode(seen))
        blank = self.mask_token.expand(len(mask), mask.shape[1] - kept.shape[1], -1)
        filled = torch.cat([small[:, 1:], blank], dim=1)
        restore = order.argsort(dim=1)
        filled = filled.gather(1, restore[..., None].expand(-1, -1, filled.shape[2]))
        length = self.side**3
        where = self.modality.repeat_interleave(length, dim=0) + self.small_place.repeat(4, 1)
        x = torch.cat([small[:, :1], filled + where], dim=1)
        for block in self.decoder_blocks:
            x = block(x)
        found = self.predict(self.decoder_norm(x))[:, 1:]
        errors = []
        for index, name in enumerate(SEQUENCES):
            mine = slice(index * length, (index + 1) * length)
            error = (found[:, mine] - cut(volumes[name], self.side)).square().mean(-1)
            errors.append((mask[:, mine] * error).sum() / mask[:, mine].sum())
        return torch.stack(errors).mean(), None


def _blocks(blocks: nn.ModuleList, dim: int, heads: int, mlp: int, dropout: float) -> nn.ModuleList:
    copies = nn.ModuleList()
    for block in blocks:
        copy = PaperBlock(dim, heads, mlp, dropout)
        copy.take(cast(Block, block))
        copies.append(copy)
    return copies


def cut(volumes: Tensor, side: int) -> Tensor:
    """Return the patches (b, l, p) of volumes (b, 1, …)."""
    cubes = volumes.reshape(len(volumes), side, PATCH, side, PATCH, side, PATCH)
    return cubes.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(volumes), side**3, PATCH**3)


@dataclass(frozen=True)
class Setting:
    """What is run: size, place and numerics."""

    patients: int
    cube: int
    device: str
    precision: str
    dropout: float
    """Of the decoder, in training; 0.1 in the paper's code."""
    folder: str
    """Holds the files of one patient."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the recipe, where they differ from the paper's."""

    def autocast(self) -> torch.autocast:
        """Return how a step computes: bf16 means ``precision: bf16-mixed``."""
        lower = self.precision == "bf16"
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=lower)

    def build(self, mode: str) -> tuple[nn.Module, Layout]:
        """Return a network in evaluation mode, always of the same weights, and its layout."""
        recipe = self.recipe(mode)
        options = MriOptions(size=self.cube, patch=PATCH, center=False)
        kinds = {name: Mri(name, options) for name in SEQUENCES}
        tokenisers = {name: kind.fit(Images([], "z-score")) for name, kind in kinds.items()}
        torch.manual_seed(0)
        mae = recipe.build(kinds, tokenisers)
        network = Paper(mae, recipe, self.side) if mode == "paper" else mae
        return network.to(self.device).eval(), layout_of(tokenisers)

    def recipe(self, mode: str) -> Any:
        """Return the recipe's settings."""
        return get_recipe(
            "bm_mae", mutual=mode != "default", decoder_dropout=self.dropout, **self.settings
        )

    @property
    def side(self) -> int:
        """Patches along an axis."""
        return self.cube // PATCH

    def volumes(self) -> dict[str, Tensor]:
        """Return noise in the place of volumes."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.patients, 1, *[self.cube] * 3)
        return {n: torch.randn(shape, generator=generator).to(self.device) for n in SEQUENCES}

    def synchronise(self) -> None:
        """Wait for what the device was asked to do."""
        if self.device == "cuda":
            torch.cuda.synchronize()


class Step:
    """One training step, ready to be repeated: each formulation from its own form of input."""

    def __init__(self, setting: Setting, mode: str) -> None:
        self.setting = setting
        self.network, layout = setting.build(mode)
        volumes = setting.volumes()
        patches = {n: cut(volume, setting.side) for n, volume in volumes.items()}
        self.batch = Batch(patches, layout)
        self.given: Any = volumes if mode == "paper" else self.batch
        # As omnisurv.optimisation has it, and as torch has it by default.
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=1e-4, weight_decay=0.05, fused=mode != "paper"
        )
        self.generator = torch.Generator().manual_seed(1)

    def backward(self) -> Tensor:
        """Return the loss, after its gradients."""
        observed, layout = self.batch.observed, self.batch.layout
        visible = dirichlet(observed, layout, 0.75, 1.0, self.generator)
        with self.setting.autocast():
            loss: Tensor = self.network(self.given, visible)[0]
        loss.backward()
        return loss.detach()

    def __call__(self) -> float:
        """Return the seconds that one step took."""
        self.network.train()
        self.setting.synchronise()
        start = time.perf_counter()
        self.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.setting.synchronise()
        return time.perf_counter() - start

    def flop(self) -> float:
        """Return the operations of forward and backward, those of matrix products."""
        # Fused attention is counted as the products it does, not those it repeats.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.backward()
        self.optimiser.zero_grad()
        return float(counter.get_total_flops())


class Subsets:
    """The hazard of patients from each of the 15 subsets, ready to be repeated."""

    def __init__(self, setting: Setting, mode: str, subsets: list[tuple[str, ...]]) -> None:
        self.setting, self.subsets = setting, subsets
        self.network, layout = setting.build(mode)
        self.volumes = setting.volumes()
        patches = {n: cut(volume, setting.side) for n, volume in self.volumes.items()}
        self.batch = Batch(patches, layout)
        torch.manual_seed(1)
        self.read = nn.Linear(setting.recipe(mode).dim, 10).to(setting.device)

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Return the logits of all subsets."""
        with self.setting.autocast():
            return torch.stack([self.read(self._summary(subset)) for subset in self.subsets])

    def _summary(self, subset: tuple[str, ...]) -> Tensor:
        if isinstance(self.network, Paper):
            tokens = self.network.tokens({n: self.volumes[n] for n in subset})
            return self.network.encode(tokens)[:, 0]
        assert isinstance(self.network, MultimodalMAE)
        visible = explicit(self.batch.observed, self.batch.layout, subset)
        return self.network.encode(self.batch, visible).summary

    def __call__(self) -> float:
        """Return the seconds that all subsets took."""
        self.setting.synchronise()
        start = time.perf_counter()
        self.logits()
        self.setting.synchronise()
        return time.perf_counter() - start


class SubsetsFromFiles(Subsets):
    """The same of one patient whose volumes are read each time, as each formulation reads them."""

    def __init__(self, setting: Setting, mode: str, subsets: list[tuple[str, ...]]) -> None:
        from monai.transforms import (
            CenterSpatialCropd,
            Compose,
            EnsureChannelFirstd,
            EnsureTyped,
            LoadImaged,
            NormalizeIntensityd,
            Spacingd,
        )

        super().__init__(setting, mode, subsets)
        self.folder, cube = Path(setting.folder), (setting.cube,) * 3
        every = {"keys": SEQUENCES, "allow_missing_keys": True}
        self.transforms = Compose(
            [
                LoadImaged(**every),
                EnsureChannelFirstd(**every),
                EnsureTyped(**every),
                Spacingd(**every, pixdim=(1.0, 1.0, 1.0), mode="bilinear"),
                CenterSpatialCropd(**every, roi_size=cube),
                NormalizeIntensityd(**every, nonzero=True, channel_wise=True),
            ]
        )

    def _summary(self, subset: tuple[str, ...]) -> Tensor:
        if isinstance(self.network, Paper):
            self.volumes = self._transformed(subset)
        elif subset == self.subsets[0]:
            self.batch = self._decoded()
        return super()._summary(subset)

    def _transformed(self, subset: tuple[str, ...]) -> dict[str, Tensor]:
        files = {n: next(self.folder.rglob(f"*-{n}.nii.gz")) for n in subset}
        read: Any = self.transforms(files)
        return {n: read[n].as_tensor()[None].to(self.setting.device) for n in subset}

    def _decoded(self) -> Batch:
        with tempfile.TemporaryDirectory() as store:
            images = decode(self.folder, Path(store), self.setting.cube)
            cubes = {n: torch.from_numpy(images[n].array(0).copy()) for n in SEQUENCES}
        patches = {
            n: cut(c[None, None].to(self.setting.device), self.setting.side)
            for n, c in cubes.items()
        }
        return Batch(patches, self.batch.layout)


SUBSETS_OF = {"15 subsets": Subsets, "15 subsets from files": SubsetsFromFiles}
WORKS = {"step": MODES, **dict.fromkeys(SUBSETS_OF, ("paper", "default"))}


def matrix_rate(setting: Setting, side: int) -> float:
    """Return the operations a second of a product of square matrices, the best of three."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(side, side, generator=generator).to(
        setting.device, PRECISIONS[setting.precision]
    )
    seconds = []
    for _ in range(3):
        setting.synchronise()
        start = time.perf_counter()
        a @ a
        setting.synchronise()
        seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(seconds)


def rounds_of(
    works: dict[str, Callable[[], float]], rounds: int, setting: Setting, warm: bool
) -> tuple[dict[str, list[float]], list[float]]:
    """Return the seconds of each work, rounds interleaved, and the matrix rate in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    rates = []
    for index in range(rounds + warm):
        taken = {name: work() for name, work in works.items()}
        rate = matrix_rate(setting, SIDES[setting.device])
        if index >= warm:
            rates.append(rate)
            for name, value in taken.items():
                seconds[name].append(value)
    return seconds, rates


def check(setting: Setting) -> dict[str, float]:
    """Return how far ours is from the paper's formulation: loss, gradients, logits of a subset.

    Without dropout, in fp32, on one patient; with ``mutual``.
    """
    exact = replace(setting, patients=1, precision="fp32", dropout=0.0)
    paper, ours = (Step(exact, mode) for mode in ("paper", "mutual"))
    losses = [step.backward().item() for step in (paper, ours)]
    found = {"loss": abs(losses[1] / losses[0] - 1.0)}
    with torch.no_grad():
        for weight in ours.network.parameters():
            weight.copy_(weight.new_zeros(()) if weight.grad is None else weight.grad)
    assert isinstance(ours.network, MultimodalMAE)
    # Our gradients, laid out as the paper's formulation has them.
    mirror = Paper(ours.network, exact.recipe("mutual"), exact.side)
    gradients = [
        float((mine.detach().to(weight) - weight.grad).norm() / weight.grad.norm())
        for mine, weight in zip(mirror.parameters(), paper.network.parameters(), strict=True)
        if weight.grad is not None
    ]
    found[f"{len(gradients)} gradients"] = max(gradients)
    some = [("flair",), ("t1", "t2")]
    a, b = (Subsets(exact, mode, some).logits() for mode in ("paper", "mutual"))
    found["logits"] = float((a - b).norm() / a.norm())
    worst = max(found, key=lambda name: found[name])
    if not found[worst] <= CLOSE:
        raise SystemExit(f"not the same numbers: {worst} differs by {found[worst]:.1e}")
    return found


def probe(setting: Setting, what: str, mode: str) -> float:
    """Run the work here and return the growth of the peak, MiB."""
    small = replace(setting, cube=2 * PATCH, patients=1, settings=TINY)
    _repeat(small, what, mode)  # loads what torch loads on first use
    before = _peak(setting)
    _repeat(setting, what, mode)
    return max(_peak(setting) - before, 1.0)


def _repeat(setting: Setting, what: str, mode: str) -> None:
    if what == "step":
        step = Step(setting, mode)
        step()
        step()
    else:
        SUBSETS_OF[what](replace(setting, patients=1), mode, SUBSETS[-1:])()


def _peak(setting: Setting) -> float:
    if setting.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_memory(setting: Setting, what: str, mode: str) -> float:
    """Return the MiB by which a fresh process grew, its network included."""
    told = subprocess.run(
        [sys.executable, __file__, "--probe", what, mode, "--given", json.dumps(asdict(setting))],
        capture_output=True,
        text=True,
        check=True,
    )
    print(f"{setting.precision} {what} {mode}: {float(told.stdout):.0f} MiB", file=sys.stderr)
    return float(told.stdout)


def measure(setting: Setting, rounds: int, memory: Mapping[tuple[str, str], float]) -> list[Row]:
    """Return a row for each formulation of the step and of the subsets."""
    steps: dict[str, Any] = {mode: Step(setting, mode) for mode in MODES}
    flop = {mode: step.flop() for mode, step in steps.items()}
    seconds, rates = rounds_of(steps, rounds, setting, setting.device == "cuda")
    rows = [
        _row(setting, "step", mode, seconds, rates, memory, flop[mode], setting.patients)
        for mode in MODES
    ]
    del steps
    alone = replace(setting, patients=1)
    tokens = [setting.side**3 * len(subset) + 1 for subset in SUBSETS]
    need = sum(setting.recipe("default").trunk * _block_flop(setting, n) for n in tokens)
    need += sum(2.0 * setting.recipe("default").dim * PATCH**3 * (n - 1) for n in tokens)
    for what, kind in SUBSETS_OF.items():
        works: dict[str, Any] = {mode: kind(alone, mode, SUBSETS) for mode in WORKS[what]}
        seconds, rates = rounds_of(works, max(1, rounds // 2), alone, setting.device == "cuda")
        rows += [_row(alone, what, mode, seconds, rates, memory, need, 1) for mode in works]
    return rows


def _block_flop(setting: Setting, tokens: int) -> float:
    """Return the operations of one block of the encoder on one patient."""
    recipe = setting.recipe("default")
    linear = 4 * recipe.dim**2 + 2 * recipe.dim * recipe.mlp
    return 2.0 * tokens * linear + 4.0 * tokens**2 * recipe.dim


def _row(
    setting: Setting,
    what: str,
    mode: str,
    seconds: Mapping[str, list[float]],
    rates: list[float],
    memory: Mapping[tuple[str, str], float],
    flop: float,
    patients: int,
) -> Row:
    mine, paper = seconds[mode], seconds["paper"]
    return {
        "what": what,
        "precision": setting.precision,
        "mode": mode,
        "seconds": statistics.median(mine),
        "patients_per_second": patients / statistics.median(mine),
        # Ratios within a round, so that a slow minute cancels.
        "times_faster": statistics.median(b / a for a, b in zip(mine, paper, strict=True)),
        "peak_mib": memory[what, mode],
        "memory_ratio": memory[what, mode] / memory[what, "paper"],
        "tflop": flop / 1e12,
        "matrix_rate": statistics.median(rates) / 1e12,
        "fraction_of_matrix_rate": statistics.median(
            flop / a / rate for a, rate in zip(mine, rates, strict=True)
        ),
    }


def show(rows: list[Row]) -> None:
    print(
        "| what | precision | mode | s | patients/s | times faster | peak MiB | memory × paper | "
        "TFLOP | of the matrix rate |"
    )
    print("| --- " * 10 + "|")
    for r in rows:
        print(
            f"| {r['what']} | {r['precision']} | {r['mode']} | {r['seconds']:.3g} | "
            f"{r['patients_per_second']:.3g} | {r['times_faster']:.2f} | {r['peak_mib']:.0f} | "
            f"{r['memory_ratio']:.2f} | {r['tflop']:.3g} | {r['fraction_of_matrix_rate']:.0%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--patients", type=int, default=2, help="patients in a batch")
    parser.add_argument("--cube", type=int, default=128, help="voxels along an axis")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each formulation")
    parser.add_argument("--dropout", type=float, default=0.1, help="of the decoder")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", nargs="+", choices=list(PRECISIONS), help="default: both")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--probe", nargs=2, metavar=("WHAT", "MODE"), help=argparse.SUPPRESS)
    parser.add_argument("--given", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe:
        print(probe(Setting(**given.given), *given.probe))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_volumes(Path(folder), 1)
        run(given, folder)


def run(given: argparse.Namespace, folder: str) -> None:
    first = Setting(given.patients, given.cube, given.device, "fp32", given.dropout, folder)
    settings = [replace(first, precision=name) for name in given.precision or PRECISIONS]
    # Small ones, as a processor without bf16 takes minutes over large ones.
    rates = {s.precision: matrix_rate(s, 256) / 1e9 for s in settings}
    print(", ".join(f"{name} matrices: {rate:.0f} GFLOP/s" for name, rate in rates.items()))
    if not given.precision and given.device == "cpu" and rates["bf16"] < SLOW * rates["fp32"]:
        print("bf16 is left out: this processor has no instructions for it (--precision bf16)")
        settings = settings[:1]
    # Memory first: a child's peak counts from that of the process that started it.
    memory = {
        (s.precision, what, mode): peak_memory(s, what, mode)
        for s in settings
        for what, modes in WORKS.items()
        for mode in modes
    }
    errors = check(first)
    print("relative differences: " + ", ".join(f"{n} {e:.0e}" for n, e in errors.items()))
    rows: list[Row] = []
    for setting in settings:
        own = {key[1:]: value for key, value in memory.items() if key[0] == setting.precision}
        rows += measure(setting, given.rounds, own)
    show(rows)
    if given.json:
        told = {
            **{k: v for k, v in vars(given).items() if k not in ("json", "probe", "given")},
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "gflops_of_matrices": rates,
            "differences": errors,
            "rows": rows,
        }
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
