"""Published weights, read into our core: BM-MAE's encoder and decoder for brain MRI."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from omnisurv import __version__
from omnisurv.checkpoint import FittedModel
from omnisurv.core import MultimodalMAE
from omnisurv.data.images import Images
from omnisurv.errors import CheckpointError
from omnisurv.files import atomic
from omnisurv.layers import positions
from omnisurv.recipe import get_recipe
from omnisurv.registry import modalities
from omnisurv.shapes import Tensor

if TYPE_CHECKING:
    from omnisurv.recipes.bm_mae import BmMae

Weights = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

SEQUENCES = ("t1", "t1ce", "t2", "flair")
"""In the order of BM-MAE's decoder."""
SIZE, PATCH = 128, 16
CASES = 1667
"""Cases of BraTS 2021 are numbered 00000 to 01666."""
SEEN = "pretrain (published)"


@dataclass(frozen=True)
class KeyReport:
    """What became of every key of a published file."""

    used: list[str]
    """The run has these weights; of positions, which are fixed, it was seen that they agree."""
    unused: list[str]
    missing: list[str]
    """The decoder's, of which none is then used: all is completed with the mean."""

    def lines(self) -> list[str]:
        """Return the keys in words, those of numbered blocks together."""
        return [
            f"{len(keys)} keys {what}" + (f": {', '.join(_together(keys))}" if keys else "")
            for what, keys in asdict(self).items()
        ]


def import_bm_mae(file: str | Path, run: str | Path) -> KeyReport:
    """Write a run with the published weights of BM-MAE, to fine-tune, impute or go on from.

    The run knows t1, t1ce, t2 and flair as cubes of 128³ voxels. All cases of BraTS 2021 count as
    seen by its weights, as the file does not say which of them its authors left out.

    Args:
        file: a state-dict with the keys and shapes of Robinet et al.'s code under MONAI 1.3.
        run: folder to write.

    Raises:
        CheckpointError: the file cannot be read safely, lacks a key of the encoder, or has one of
            another shape; or the folder holds a run.
    """
    file, run = Path(file), Path(run)
    if (run / "config.yaml").exists():
        raise CheckpointError(f"{run} already holds a run; choose another --out or delete it")
    state = read_state(file)
    model = _untrained()
    recipe: Any = model.recipe
    report = _check(state, _encoder_shapes(recipe), _decoder_shapes(recipe), file)
    _require_positions(state, report, file)
    network = model.build().eval()
    assert isinstance(network, MultimodalMAE)
    _load(network, state, report, recipe)
    model.networks.append(network)
    cases = [f"BraTS2021_{case:05d}".encode() for case in range(CASES)]
    model.seen = {SEEN: [hashlib.sha256(case).hexdigest()[:16] for case in cases]}
    model.provenance = _provenance(file, run, recipe.seed)
    model.save(run)
    with atomic(run / "import.json") as path:
        path.write_text(json.dumps(asdict(report), indent=1))
    return report


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a state-dict; nothing that is in the file is ever run.

    Raises:
        CheckpointError: no such file, more than weights in it, or damaged.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from None
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{file} is damaged or holds more than weights ({type(error).__name__}), so it is not "
            "opened; download it again"
        ) from None
    plain = isinstance(found, Mapping) and all(isinstance(v, Tensor) for v in found.values())
    if not plain or not found:
        raise CheckpointError(
            f"{file} holds no state-dict (names and tensors); save `model.state_dict()` alone"
        )
    return {str(key): value for key, value in found.items()}


def _encoder_shapes(recipe: "BmMae") -> Shapes:
    """Return the shapes of the published encoder's weights and positions."""
    d = recipe.dim
    shapes: Shapes = {"cls_token": (1, 1, d), "norm.weight": (d,), "norm.bias": (d,)}
    for name in SEQUENCES:
        part = f"tokenizers.{name}.patch_embedding"
        shapes[f"{part}.position_embeddings"] = (1, (SIZE // PATCH) ** 3, d)
        shapes[f"{part}.patch_embeddings.weight"] = (d, 1, PATCH, PATCH, PATCH)
        shapes[f"{part}.patch_embeddings.bias"] = (d,)
    for index in range(recipe.trunk):
        shapes |= _block_shapes(f"blocks.{index}", d, recipe.mlp)
    return shapes


def _decoder_shapes(recipe: "BmMae") -> Shapes:
    """Return the shapes of the published decoder's weights and positions."""
    d, e, voxels = recipe.dim, recipe.decoder_dim, PATCH**3
    shapes: Shapes = {
        "decoder.mask_tokens": (1, 1, e),
        "decoder.position_embeddings": (1, (SIZE // PATCH) ** 3, e),
        "decoder.decoder_embed.weight": (e, d),
        "decoder.decoder_embed.bias": (e,),
        "decoder.decoder_norm.weight": (e,),
        "decoder.decoder_norm.bias": (e,),
        "decoder.decoder_pred.weight": (voxels, e),
        "decoder.decoder_pred.bias": (voxels,),
    }
    for name in SEQUENCES:
        shapes[f"decoder.modality_embeddings.{name}"] = (1, 1, e)
    for index in range(recipe.decoder_depth):
        shapes |= _block_shapes(f"decoder.decoder_blocks.{index}", e, recipe.decoder_mlp)
    return shapes


def _block_shapes(block: str, d: int, mlp: int) -> Shapes:
    weights = {
        "attn.qkv": (3 * d, d),
        "attn.out_proj": (d, d),
        "mlp.linear1": (mlp, d),
        "mlp.linear2": (d, mlp),
    }
    shapes: Shapes = {}
    for layer, shape in weights.items():
        shapes |= {f"{block}.{layer}.weight": shape, f"{block}.{layer}.bias": shape[:1]}
    for norm in ("norm1", "norm2"):
        shapes |= {f"{block}.{norm}.weight": (d,), f"{block}.{norm}.bias": (d,)}
    return shapes


def _check(state: Weights, encoder: Shapes, decoder: Shapes, file: Path) -> KeyReport:
    """Return which keys are used; raise CheckpointError if the encoder's do not fit."""
    lacking = [key for key in encoder if key not in state]
    if lacking:
        there = dict.fromkeys(key.split(".")[1] for key in state if key.startswith("tokenizers."))
        names = ", ".join(there) or "none"
        raise CheckpointError(
            f"{file} lacks {len(lacking)} of the {len(encoder)} keys of BM-MAE's encoder, such as "
            f"{lacking[0]}; it has {len(state)} keys and the sequences {names}, wanted are "
            f"{', '.join(SEQUENCES)}"
        )
    missing = [key for key in decoder if key not in state]
    wanted = encoder if missing else encoder | decoder
    for key, shape in wanted.items():
        if tuple(state[key].shape) != shape:
            raise CheckpointError(
                f"{file}: {key} is {_by(state[key].shape)}, in BM-MAE it is {_by(shape)}; only "
                f"weights for cubes of {SIZE}³ voxels and patches of {PATCH}³ can be imported"
            )
    return KeyReport(
        used=[key for key in state if key in wanted],
        unused=[key for key in state if key not in wanted],
        missing=missing,
    )


def _require_positions(state: Weights, report: KeyReport, file: Path) -> None:
    """Raise CheckpointError if the file's fixed positions are not those of our core."""
    for key in (key for key in report.used if key.endswith("position_embeddings")):
        theirs = state[key][0].float()
        ours = positions(len(theirs), (SIZE // PATCH,) * 3, theirs.shape[1], swap=True)
        if not torch.allclose(theirs, ours, rtol=0, atol=1e-4):
            raise CheckpointError(
                f"{file}: {key} is not the sine-cosine table of MONAI 1.3 (they differ by up to "
                f"{float((theirs - ours).abs().max()):.2g}), so the weights would see other places"
            )


def _untrained() -> FittedModel:
    """Return a model of BM-MAE's form, without networks."""
    kind = modalities.get("mri")
    options = kind.Options(size=SIZE, patch=PATCH, center=False)
    parts = {name: kind(name, options) for name in SEQUENCES}
    nobody = Images([], "z-score")  # without a mean volume there is nothing to fit
    tokenisers = {name: modality.fit(nobody) for name, modality in parts.items()}
    return FittedModel(get_recipe("bm_mae", mutual=True), parts, tokenisers, [])


@torch.no_grad()
def _load(network: MultimodalMAE, state: Weights, report: KeyReport, recipe: "BmMae") -> None:
    """Copy the weights; a decoder that the file lacks is left to predict the mean."""
    ours = _encoder(state, recipe.trunk)
    if report.missing:
        for name in SEQUENCES:
            network.decoder.trust(name).zero_()
    else:
        ours |= _decoder(state, recipe.decoder_depth, network.decoder.shares[SEQUENCES[0]])
    whole = {**network.state_dict(), **{key: value.float() for key, value in ours.items()}}
    network.load_state_dict(whole)


def _encoder(state: Weights, depth: int) -> dict[str, Tensor]:
    ours = {
        "encoder.class_token": state["cls_token"].flatten(),
        **_same(state, "norm", "encoder.norm"),
    }
    for name in SEQUENCES:
        theirs = f"tokenizers.{name}.patch_embedding.patch_embeddings"
        ours |= _patch_map(state, theirs, f"encoder.embeds.{name}.values")
    for index in range(depth):
        ours |= _block(state, f"blocks.{index}", f"encoder.trunk.{index}")
    return ours


def _decoder(state: Weights, depth: int, predictor: str) -> dict[str, Tensor]:
    names = [state[f"decoder.modality_embeddings.{name}"].flatten() for name in SEQUENCES]
    ours = {
        "decoder.mask_token": state["decoder.mask_tokens"].flatten(),
        "decoder.modality": torch.stack(names),
        **_same(state, "decoder.decoder_embed", "decoder.project"),
        **_same(state, "decoder.decoder_norm", "decoder.norm"),
        **_patch_map(state, "decoder.decoder_pred", f"decoder.predicts.{predictor}"),
    }
    for index in range(depth):
        ours |= _block(state, f"decoder.decoder_blocks.{index}", f"decoder.blocks.{index}")
    return ours


def _same(state: Weights, theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}


def _patch_map(state: Weights, theirs: str, ours: str) -> dict[str, Tensor]:
    """Return a convolution with kernel = stride, or a linear layer, as our map of patches."""
    weight, bias = state[f"{theirs}.weight"].flatten(1), state[f"{theirs}.bias"]
    return {f"{ours}.weight": weight.T[None].contiguous(), f"{ours}.bias": bias[None]}


def _block(state: Weights, theirs: str, ours: str) -> dict[str, Tensor]:
    """Return one block; the rows of MONAI's fused map are queries, keys, values."""
    block: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        fused = state[f"{theirs}.attn.qkv.{part}"]
        d = len(fused) // 3
        block[f"{ours}.attention.query.{part}"] = fused[:d]
        block[f"{ours}.attention.key_value.{part}"] = fused[d:]
    for a, b in {
        "attn.out_proj": "attention.out",
        "norm1": "norm_attention",
        "norm2": "norm_mlp",
        "mlp.linear1": "mlp.0",
        "mlp.linear2": "mlp.3",
    }.items():
        block |= _same(state, f"{theirs}.{a}", f"{ours}.{b}")
    return block


def _provenance(file: Path, run: Path, seed: int) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {
        "versions": {"omnisurv": __version__, "torch": torch.__version__},
        "seed": seed,
        "weights": {"of": "BM-MAE (Robinet et al. 2025)", "file": file.name, "sha256": digest},
        "run": run.resolve().name,
    }


def _by(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape))


def _together(keys: Iterable[str]) -> list[str]:
    """Return the keys, those that differ in a number alone as one."""
    counts = Counter(re.sub(r"\b\d+\b", "*", key) for key in keys)
    return [key if count == 1 else f"{key} ({count})" for key, count in counts.items()]
