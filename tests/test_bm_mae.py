"""BM-MAE: the paper's numbers, any subset of sequences, and its published weights."""

import hashlib
import itertools
import json
import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import picture_cohort
import pytest
import torch

import omnisurv as om
from omnisurv import weights
from omnisurv.core import Batch
from omnisurv.core.masking import explicit
from omnisurv.data.cohort import Cohort
from omnisurv.data.images import Images
from omnisurv.data.store import Entry
from omnisurv.errors import CheckpointError, DataError, SeenPatientsError
from omnisurv.layers import positions
from omnisurv.modalities.mri import Mri, MriOptions
from omnisurv.objectives import Reconstruction
from omnisurv.recipe import layout_of
from omnisurv.recipes.bm_mae import flip
from omnisurv.warmstart import adopt
from omnisurv.weights import import_bm_mae, read_state
from tests.commands import runner

SEQUENCES = ("t1", "t1ce", "t2", "flair")
SUBSETS = [s for n in (1, 2, 3, 4) for s in itertools.combinations(SEQUENCES, n)]
SMALL = {"dim": 24, "heads": 2, "mlp": 32, "trunk": 2, "decoder_dim": 12, "decoder_mlp": 32,
         "decoder_depth": 1}  # fmt: skip


def network(names=SEQUENCES, seed=0, size=8, patch=4, **settings):
    """Return a small untrained network, and its tokenisers."""
    options = MriOptions(size=size, patch=patch, center=False)
    kinds = {name: Mri(name, options) for name in names}
    tokenisers = {name: kind.fit(Images([], "z-score")) for name, kind in kinds.items()}
    torch.manual_seed(seed)
    recipe = om.get_recipe("bm_mae:tiny", **{**SMALL, **settings})
    return recipe.build(kinds, tokenisers).eval(), layout_of(tokenisers)


def batch_of(layout, patients=5, seed=1):
    """Return patients of whom the first is complete, the last has nothing, others a part."""
    generator = torch.Generator().manual_seed(seed)
    patches = {
        name: torch.randn(patients, layout.lengths[name], layout.widths[name], generator=generator)
        for name in sorted(layout.lengths)
    }
    patches["t1"][1], patches["t1ce"][1:3], patches["t2"][2] = (torch.nan,) * 3
    for patch in patches.values():
        patch[-1] = torch.nan
    return Batch(patches, layout)


# The recipe


def test_the_defaults_are_the_papers():
    """Robinet et al. 2025, §3, §4.1 and §4.4; what the paper leaves out is its code's."""
    r = om.get_recipe("bm_mae")
    assert (r.dim, r.trunk, r.heads, r.mlp) == (768, 12, 12, 1536)
    assert (r.decoder_dim, r.decoder_depth, r.decoder_mlp, r.decoder_dropout) == (384, 3, 1536, 0.1)
    assert (r.mask_ratio, r.alpha) == (0.75, 1.0)
    p, f = r.pretrain, r.finetune
    assert (p.epochs, p.batch, p.lr, p.weight_decay, p.warmup) == (1000, 6, 1e-4, 0.05, 50)
    assert (f.epochs, f.batch, f.lr, f.weight_decay, f.warmup) == (5, 2, 1e-4, 0.05, 5)
    assert (r.intervals, r.grid, r.linear) == (10, "quantiles", ())
    assert p.patience is None


@pytest.mark.parametrize("title", ["bm_mae", "bm_mae:tiny"])
def test_volumes_are_not_centred_on_a_mean_volume(title):
    recipe = om.get_recipe(title)
    options = recipe.tokeniser_options(Mri("t1", MriOptions(size=8, patch=4)))
    assert options == MriOptions(size=8, patch=4, center=False)
    data = Mri.example(np.random.default_rng(0))[1]
    tokeniser = Mri("t1", options).fit(data)
    cube = data.array(5)
    first = tokeniser.tokenise(data)[5, 0]
    np.testing.assert_array_equal(first, cube[:4, :4, :4].ravel())


def test_positions_are_monais():
    codes = positions(24, (2, 3, 4), 12, swap=True)
    for row, (h, w, d) in enumerate(itertools.product(range(2), range(3), range(4))):
        wanted = []
        for place in (w, h, d):  # in this order: MONAI's build_sincos_position_embedding
            angles = [place / 10_000 ** (j / 2) for j in range(2)]
            wanted += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        np.testing.assert_allclose(codes[row], wanted, atol=1e-6)
    assert not torch.equal(codes, positions(24, (2, 3, 4), 12))


def test_tokens_do_not_say_their_modality_but_for_their_projection():
    mae, layout = network()
    with torch.no_grad():
        mae.encoder.embeds["t2"].load_state_dict(mae.encoder.embeds["t1"].state_dict())
    batch = batch_of(layout)
    twin = Batch({**batch.patches, "t2": batch.patches["t1"]}, layout)
    a, b = (mae.encode(twin, explicit(twin.observed, layout, [n])).summary for n in ("t1", "t2"))
    assert torch.equal(a, b)
    c = mae.encode(twin, explicit(twin.observed, layout, ["flair"])).summary
    assert not torch.allclose(a[0], c[0])


def test_one_map_back_to_voxels_serves_all_sequences():
    mae, layout = network()
    assert list(mae.decoder.predicts) == ["volumes_64"]
    batch = batch_of(layout)
    with torch.no_grad():
        mae.decoder.predicts["volumes_64"].weight.zero_()
        mae.decoder.predicts["volumes_64"].bias.fill_(3.0)
    found = mae.reconstruct(batch, batch.observed, torch.ones_like(batch.observed))
    assert all((found[name] == 3.0).all() for name in SEQUENCES)


# Masks and loss


def test_the_budget_is_constant_for_complete_patients_and_own_for_others():
    recipe = om.get_recipe("bm_mae")
    _, layout = network(size=16, patch=4)  # 64 tokens of each
    observed = torch.ones(200, layout.slots, dtype=torch.bool)
    observed[100:150, layout.slices["t1"]] = False
    observed[150:, :192] = False
    patches = {
        name: torch.zeros(200, 64, 64).where(observed[:, where, None], torch.nan)
        for name, where in layout.slices.items()
    }
    visible = recipe.draw_visible(Batch(patches, layout), torch.Generator().manual_seed(0))
    assert (visible[:100].sum(1) == 64).all()
    assert (visible[100:150].sum(1) == 48).all()
    assert (visible[150:].sum(1) == 16).all()
    share = visible[:100, layout.slices["t1"]].sum(1) / 64
    assert share.mean() == pytest.approx(0.25, abs=0.06)
    assert share.std() == pytest.approx((3 / 80) ** 0.5, abs=0.05)  # of Dirichlet(1, 1, 1, 1)


def test_the_loss_is_the_mean_over_sequences_that_are_scored():
    mae, layout = network()
    batch = batch_of(layout)
    visible = explicit(batch.observed, layout, ["t1", "flair"])
    loss, errors = mae(batch, visible)
    assert set(errors) == {"t1ce", "t2"}
    assert loss.item() == pytest.approx((errors["t1ce"] + errors["t2"]).item() / 2)
    found = mae.reconstruct(batch, visible, batch.observed & ~visible)
    rows = [0, 3]  # who has t1ce
    square = (found["t1ce"][rows] - batch.patches["t1ce"][rows]).square().mean().item()
    assert errors["t1ce"].item() == pytest.approx(square, rel=1e-5)


@pytest.mark.parametrize("mutual", [False, True])
def test_a_fully_visible_sequence_gives_no_nan(mutual):
    mae, layout = network(mutual=mutual)
    batch = batch_of(layout)
    visible = explicit(batch.observed, layout, ["t1"])
    loss, errors = mae.train()(batch, visible)
    assert "t1" not in errors
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in mae.parameters() if p.grad is not None)
    nothing_hidden, errors = mae(batch, batch.observed)
    assert (nothing_hidden.item(), errors) == (0.0, {})


# Any subset


@pytest.mark.parametrize("mutual", [False, True])
def test_every_subset_is_encoded_and_the_rest_reconstructed(mutual):
    mae, layout = network(mutual=mutual)
    batch = batch_of(layout)
    summaries = []
    for subset in SUBSETS:
        visible = explicit(batch.observed, layout, subset)
        with torch.no_grad():
            latent = mae.encode(batch, visible)
            found = mae.decoder(latent, torch.ones_like(visible))
        assert all(found[name].isfinite().all() for name in SEQUENCES)
        summaries.append(latent.summary[0])
    assert len(summaries) == 15
    assert len(torch.stack(summaries).unique(dim=0)) == 15
    assert torch.stack(summaries).isfinite().all()


@pytest.mark.parametrize("mutual", [False, True])
def test_a_sequence_that_is_absent_is_one_that_is_masked(mutual):
    mae, layout = network(mutual=mutual)
    batch = batch_of(layout)
    gone = {**batch.patches, "t1ce": torch.full_like(batch.patches["t1ce"], torch.nan)}
    masked = explicit(batch.observed, layout, ["t1", "t2", "flair"])
    wanted = torch.ones_like(masked)
    with torch.no_grad():
        a = mae.reconstruct(batch, masked, wanted)
        b = mae.reconstruct(Batch(gone, layout), Batch(gone, layout).observed, wanted)
        one = torch.zeros_like(wanted)
        one[:, layout.slices["t2"]] = True
        c = mae.reconstruct(batch, masked, one)
    assert all(torch.equal(a[name], b[name]) for name in SEQUENCES)
    torch.testing.assert_close(a["t2"], c["t2"], rtol=1e-5, atol=1e-6)  # whatever else is asked


@pytest.mark.parametrize("mutual", [False, True])
def test_the_order_of_sequences_changes_nothing(mutual):
    mae, layout = network(mutual=mutual)
    other, turned = network(("flair", "t2", "t1", "t1ce"), seed=7, mutual=mutual)
    adopt(other, mae)
    batch = batch_of(layout)
    again = Batch({name: batch.patches[name] for name in turned.lengths}, turned)
    with torch.no_grad():
        for subset in SUBSETS:
            visible, seen = (explicit(b.observed, b.layout, subset) for b in (batch, again))
            a, b = mae.encode(batch, visible), other.encode(again, seen)
            torch.testing.assert_close(a.summary, b.summary, rtol=1e-5, atol=1e-5)
            full, empty = torch.ones_like(visible), torch.ones_like(seen)
            a, b = mae.decoder(a, full), other.decoder(b, empty)
            for name in SEQUENCES:
                torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-5)


def test_mask_tokens_read_from_each_other_only_if_said():
    """A change of one sequence's mask tokens reaches those of another one, or it does not."""
    for mutual in (False, True):
        mae, layout = network(mutual=mutual)
        batch = batch_of(layout)
        visible = explicit(batch.observed, layout, ["t1"])
        wanted = torch.ones_like(visible)
        with torch.no_grad():
            before = mae.reconstruct(batch, visible, wanted)
            mae.decoder.modality[SEQUENCES.index("flair")] += torch.randn(12)
            after = mae.reconstruct(batch, visible, wanted)
        assert not torch.allclose(before["flair"][0], after["flair"][0])
        assert torch.allclose(before["t2"][0], after["t2"][0], atol=1e-6) != mutual


# Augmentation


def test_a_flip_is_that_of_the_volume():
    cubes = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    cubes[:, :, :2] = np.nan
    data = Images([Entry("a", cubes, {})] * 8, "z-score")
    tokeniser = Mri("t1", MriOptions(size=8, patch=4, center=False)).fit(data)
    patches = torch.from_numpy(tokeniser.tokenise(data))
    axes = torch.tensor(list(itertools.product([False, True], repeat=3)))
    found = tokeniser.untokenise(flip(patches, (2, 2, 2), axes).numpy(), ["a"] * 8)[:, 0, ..., 0]
    for row, chosen in enumerate(axes.tolist()):
        wanted = np.flip(cubes, [axis for axis in range(3) if chosen[axis]])
        np.testing.assert_array_equal(found[row], wanted)


def test_sequences_of_a_patient_are_changed_alike_and_within_bounds():
    recipe = om.get_recipe("bm_mae")
    _, layout = network()
    batch = batch_of(layout, patients=40)
    alike = Batch(dict.fromkeys(SEQUENCES, batch.patches["flair"]), layout)
    changed = recipe.augment(alike, torch.Generator().manual_seed(0))
    again = recipe.augment(alike, torch.Generator().manual_seed(0))
    flat = changed.patches["t1"][:-1].flatten(1)
    for name in SEQUENCES:
        torch.testing.assert_close(
            changed.patches[name], changed.patches["t1"], rtol=0, atol=0, equal_nan=True
        )
        assert torch.equal(changed.patches[name].nan_to_num(), again.patches[name].nan_to_num())
    before = alike.patches["t1"][:-1].flatten(1)
    scale = flat.std(1) / before.std(1)
    shift = flat.mean(1) - scale * before.mean(1)
    for change in (scale - 1.0, shift):
        assert change.abs().max() <= 0.1 + 1e-5
        assert change.std() == pytest.approx(0.1 / 3**0.5, abs=0.015)  # uniform, own of each
    assert torch.equal(changed.observed.sum(1), alike.observed.sum(1))
    assert recipe.augment(batch, torch.Generator()).patches["t1"][1].isnan().all()
    still = om.get_recipe("bm_mae", augmented=False)
    assert still.augment(alike, torch.Generator()) is alike


def test_a_step_of_pre_training_sees_the_changed_batch():
    mae, layout = network()
    batch = batch_of(layout)

    class Doubled(type(om.get_recipe("bm_mae"))):
        def augment(self, batch, generator):
            return Batch({name: 2.0 * p for name, p in batch.patches.items()}, batch.layout)

        def draw_visible(self, batch, generator):
            return torch.zeros_like(batch.observed)

    recipe = Doubled(**om.get_recipe("bm_mae:tiny", **SMALL).model_dump())
    step = Reconstruction(batch, batch, recipe).step
    _, errors = step(mae, torch.arange(5), torch.Generator().manual_seed(0))
    twice = Batch({name: 2.0 * p for name, p in batch.patches.items()}, layout)
    wanted = mae(twice, torch.zeros_like(batch.observed))[1]
    assert errors == {name: pytest.approx(error.item()) for name, error in wanted.items()}


# Training


@pytest.fixture(scope="module")
def brains():
    """Patients with one sequence, both or none, of 8³ voxels."""
    cohort = picture_cohort.cohort().drop_modalities(["clinical", "rna", "wsi"])
    return cohort.split()


def tiny(**settings):
    stages = {"pretrain": {"epochs": 2, "every": 1}, "finetune": {"epochs": 2, "warmup": 1}}
    return om.get_recipe("bm_mae:tiny", **{**SMALL, **stages, **settings})


@pytest.fixture(scope="module")
def trained(brains):
    start = om.pretrain(tiny(), brains[0])
    return start, om.finetune(start, brains[0])


def test_tiny_pre_trains_and_fine_tunes_and_is_the_same_after_loading(trained, brains, tmp_path):
    start, model = trained
    _, test = brains
    history = model.history
    assert (history.groupby("stage").size() == 2).all()
    assert np.isfinite(history[history["stage"] == "pretrain"][["train", "t1", "t2"]]).all(
        axis=None
    )
    assert all((t.center == 0).all() for t in model.tokenisers.values())
    before, after = start.mae(0).state_dict(), model.mae(0).state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    if model.history["chosen"].any():
        assert changed
        assert all(key.startswith("encoder.") for key in changed)
        assert any(key.startswith("encoder.embeds") for key in changed)  # all of it, as the paper
    risk = model.predict(test)
    assert np.isfinite(risk).all()
    again = om.load(om.save(model, tmp_path / "run"))
    pd.testing.assert_series_equal(again.predict(test), risk, check_exact=True)
    filled = om.impute(om.load(om.save(start, tmp_path / "start")), test, ["t2"])
    mine = om.impute(start, test, ["t2"])
    np.testing.assert_array_equal(filled.values["t2"].values, mine.values["t2"].values)
    assert np.isfinite(filled.values["t2"].values[filled.values["t2"].imputed]).all()


def test_any_subset_and_a_patient_with_nothing_get_a_curve(trained, brains):
    _, model = trained
    _, test = brains
    assert not test.availability.any(axis=1).all()  # somebody has nothing
    for subset in (["t1"], ["t2"], ["t1", "t2"], None):
        S = model.predict_survival_function(test, subset)
        assert np.isfinite(S).all(axis=None)
        assert (S.iloc[0] == 1).all()
        assert (S.diff().iloc[1:] <= 1e-12).all(axis=None)
    nobody = model.predict(Cohort(test.obs, {"t1": test["t1"][[]]}, test.spec))
    assert nobody.max() == nobody.min()  # nothing is known of anybody


def test_the_hazard_reads_the_class_token_on_ten_quantiles_of_the_fold(trained, brains):
    _, model = trained
    dev = brains[0].with_endpoint()
    kept = dev.subset(dev.patients[dev.availability.any(axis=1)])
    died = kept.obs["time"][kept.obs["event"] == 1].to_numpy()
    assert len(model.grid.cuts) == 10
    assert model.grid.cuts[0] == 0
    assert model.grid.cuts[-1] == pytest.approx(kept.obs["time"].max())
    deaths = np.histogram(died, model.grid.cuts)[0]
    assert deaths.min() >= 1
    head = model.networks[0].head
    batch = model.batch(brains[1])
    with torch.no_grad():
        latent = model.mae(0).encode(batch, batch.observed)
        stratum = torch.zeros(len(batch), dtype=torch.long)
        logits = model.networks[0](batch, batch.observed, stratum)
    wanted = head.baseline + latent.summary @ head.read.weight.T + head.read.bias
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-5)


def test_a_linear_path_beside_the_class_token_can_be_asked_for():
    cohort = picture_cohort.cohort().drop_modalities(["rna", "wsi"])
    model = om.finetune(tiny(linear=("clinical",), finetune={"epochs": 1}), cohort)
    assert model.networks[0].head.linear.abs().min() > 0
    assert np.isfinite(model.predict(cohort, ["t1"])).all()


def test_a_picture_on_the_linear_path_is_refused():
    with pytest.raises(DataError, match="`linear` reads tables, and 't1' is a picture"):
        om.finetune(tiny(linear=("t1",)), picture_cohort.cohort())


# Published weights


class Size(NamedTuple):
    """The published sizes, or smaller ones of the same form."""

    d: int = 768
    e: int = 384
    mlp: int = 1536
    heads: int = 12
    depth: int = 12
    decoder_depth: int = 3
    cube: int = 128
    patch: int = 16

    @property
    def side(self):
        return self.cube // self.patch


TINY = Size(24, 12, 32, 2, 2, 1, 8, 4)


def published(size=Size()):  # noqa: B008
    """Return random weights with the keys and shapes of the published file (MONAI 1.3.0)."""
    generator = torch.Generator().manual_seed(0)
    d, e, places, voxels = size.d, size.e, size.side**3, size.patch**3

    def draw(*shape, std=0.02):
        return torch.randn(*shape, generator=generator) * std

    def block(name, d):
        return {
            f"{name}.norm1.weight": 1 + draw(d), f"{name}.norm1.bias": draw(d),
            f"{name}.norm2.weight": 1 + draw(d), f"{name}.norm2.bias": draw(d),
            f"{name}.attn.qkv.weight": draw(3 * d, d, std=0.05),
            f"{name}.attn.qkv.bias": draw(3 * d),
            f"{name}.attn.out_proj.weight": draw(d, d), f"{name}.attn.out_proj.bias": draw(d),
            f"{name}.mlp.linear1.weight": draw(size.mlp, d),
            f"{name}.mlp.linear1.bias": draw(size.mlp),
            f"{name}.mlp.linear2.weight": draw(d, size.mlp), f"{name}.mlp.linear2.bias": draw(d),
        }  # fmt: skip

    state = {"cls_token": draw(1, 1, d), "norm.weight": 1 + draw(d), "norm.bias": draw(d)}
    for name in SEQUENCES:
        part = f"tokenizers.{name}.patch_embedding"
        state[f"{part}.position_embeddings"] = table(size.side, d)
        state[f"{part}.patch_embeddings.weight"] = draw(d, 1, *[size.patch] * 3)
        state[f"{part}.patch_embeddings.bias"] = draw(d, std=0.5)
    for index in range(size.depth):
        state |= block(f"blocks.{index}", d)
    state |= {
        "decoder.mask_tokens": draw(1, 1, e, std=0.5),
        "decoder.position_embeddings": table(size.side, e),
        "decoder.decoder_embed.weight": draw(e, d), "decoder.decoder_embed.bias": draw(e),
        "decoder.decoder_norm.weight": 1 + draw(e), "decoder.decoder_norm.bias": draw(e),
        "decoder.decoder_pred.weight": draw(voxels, e), "decoder.decoder_pred.bias": draw(voxels),
    }  # fmt: skip
    for name in SEQUENCES:
        state[f"decoder.modality_embeddings.{name}"] = draw(1, 1, e, std=0.5)
    for index in range(size.decoder_depth):
        state |= block(f"decoder.decoder_blocks.{index}", e)
    assert state["tokenizers.t1.patch_embedding.position_embeddings"].shape == (1, places, d)
    return state


def table(side, dim):
    """Return the published positions: sin(w) cos(w) sin(h) cos(h) sin(d) cos(d) of each place."""
    rate = 1.0 / 10_000 ** (torch.arange(dim // 6) / (dim // 6))
    h, w, d = torch.meshgrid(*[torch.arange(float(side))] * 3, indexing="ij")
    angles = [place.flatten()[:, None] * rate for place in (w, h, d)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None]


def plain_norm(state, name, x):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def plain_linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def plain_block(state, name, x, heads):
    """Return what a pre-norm block of MONAI 1.3.0 makes of (n, d); the matrix is written out."""
    n, d = x.shape
    fused = plain_linear(state, f"{name}.attn.qkv", plain_norm(state, f"{name}.norm1", x))
    q, k, v = fused.reshape(n, 3, heads, d // heads).permute(1, 2, 0, 3)
    scores = torch.einsum("hqc,hkc->hqk", q, k) / (d // heads) ** 0.5
    read = torch.einsum("hqk,hkc->qhc", scores.softmax(-1), v).reshape(n, d)
    x = x + plain_linear(state, f"{name}.attn.out_proj", read)
    hidden = plain_linear(state, f"{name}.mlp.linear1", plain_norm(state, f"{name}.norm2", x))
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return x + plain_linear(state, f"{name}.mlp.linear2", gelu)


def plain_encoder(state, size, volumes, kept):
    """Encode the tokens ``kept[name]`` of one patient's volumes: class token, then the rest."""
    parts, s, p = [state["cls_token"][0]], size.side, size.patch
    for name in SEQUENCES:
        part = f"tokenizers.{name}.patch_embedding"
        for place in kept.get(name, []):
            h, w, d = (p * i for i in (place // s**2, place // s % s, place % s))
            cube = volumes[name][h : h + p, w : w + p, d : d + p]
            kernel = state[f"{part}.patch_embeddings.weight"][:, 0]
            token = torch.einsum("ohwd,hwd->o", kernel, cube)
            token = token + state[f"{part}.patch_embeddings.bias"]
            parts.append((token + state[f"{part}.position_embeddings"][0, place])[None])
    x = torch.cat(parts)
    for index in range(size.depth):
        x = plain_block(state, f"blocks.{index}", x, size.heads)
    return plain_norm(state, "norm", x)


def plain_decoder(state, size, encoded, kept):
    """Return the predicted patches of all slots (4, l, p) from the encoder's output."""
    length = size.side**3
    small = plain_linear(state, "decoder.decoder_embed", encoded)
    slots = state["decoder.mask_tokens"][0].repeat(4 * length, 1)
    seen = [length * i + place for i, n in enumerate(SEQUENCES) for place in kept.get(n, [])]
    slots[seen] = small[1:]
    for i, name in enumerate(SEQUENCES):
        where = slice(length * i, length * (i + 1))
        slots[where] += state[f"decoder.modality_embeddings.{name}"][0]
        slots[where] += state["decoder.position_embeddings"][0]
    x = torch.cat([small[:1], slots])
    for index in range(size.decoder_depth):
        x = plain_block(state, f"decoder.decoder_blocks.{index}", x, size.heads)
    x = plain_norm(state, "decoder.decoder_norm", x)
    return plain_linear(state, "decoder.decoder_pred", x)[1:].reshape(4, length, -1)


def assert_same_numbers(state, size, model, kept):
    generator = torch.Generator().manual_seed(3)
    volumes = {name: torch.randn(*[size.cube] * 3, generator=generator) for name in SEQUENCES}
    there = {n: Images([Entry("a", volumes[n].numpy(), {})], "z-score") for n in kept}
    obs = pd.DataFrame({"time": [1.0], "event": [0.0]}, ["a"])
    batch = model.batch(Cohort(obs, there, None))
    visible = torch.zeros_like(batch.observed)
    for name, places in kept.items():
        visible[0, [batch.layout.slices[name].start + place for place in places]] = True
    with torch.no_grad():
        latent = model.mae(0).encode(batch, visible)
        wanted = plain_encoder(state, size, volumes, kept)
        assert wanted.std() > 0.5
        torch.testing.assert_close(latent.summary[0], wanted[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(latent.tokens[0], wanted[1:], rtol=0, atol=1e-4)
        found = model.mae(0).decoder(latent, ~visible)
        plain = plain_decoder(state, size, wanted, kept)
    for i, (name, where) in enumerate(batch.layout.slices.items()):
        hidden = ~visible[0, where]
        torch.testing.assert_close(found[name][0, hidden], plain[i, hidden], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_published_weights_give_the_same_numbers(tmp_path):
    """The whole way: a file as published, the run written of it, the run loaded."""
    state = published()
    torch.save(state, tmp_path / "bmmae.pth")
    report = import_bm_mae(tmp_path / "bmmae.pth", tmp_path / "run")
    model = om.load(tmp_path / "run")
    assert len(report.used) == len(state) == 207
    assert (report.unused, report.missing) == ([], [])
    # Counted in the paper's code: all numbers, and those that are trained.
    assert sum(v.numel() for v in state.values()) == 78_280_576
    assert sum(p.numel() for p in model.mae(0).parameters()) == 76_511_104
    several = {"t1": [0, 77, 511], "t1ce": [3, 200], "t2": [], "flair": [*range(100, 130)]}
    for kept in (several, {"t2": [*range(0, 512, 16)]}):
        assert_same_numbers(state, Size(), model, kept)


@pytest.fixture
def smaller(monkeypatch, tmp_path):
    """A file of the published form, small enough to be imported in no time."""
    known = om.get_recipe
    sizes = {**SMALL, "mutual": True, "name": "bm_mae"}
    monkeypatch.setattr(weights, "get_recipe", lambda name, **_: known(name, **sizes))
    monkeypatch.setattr(weights, "SIZE", TINY.cube)
    monkeypatch.setattr(weights, "PATCH", TINY.patch)
    state = published(TINY)

    def write(changed=None):
        torch.save(state if changed is None else changed, tmp_path / "bmmae.pth")
        return tmp_path / "bmmae.pth"

    return state, write


@pytest.mark.parametrize(
    "kept", [{"t1": [0, 5], "flair": [3, 4, 7]}, {"t2": [*range(8)]}, {"t1": []}]
)
def test_weights_of_the_published_form_give_the_same_numbers(smaller, tmp_path, kept):
    state, write = smaller
    import_bm_mae(write(), tmp_path / "run")
    assert_same_numbers(state, TINY, om.load(tmp_path / "run"), kept)


def test_the_command_names_every_key(smaller, tmp_path, capsys):
    state, write = smaller
    extra = {f"blocks.{i}.norm_cross_attn.weight": torch.ones(24) for i in (0, 1)}
    file, run = write({**state, **extra}), tmp_path / "run"
    answer = runner(capsys)("import", "bm-mae", file, "--out", run, "--json", tmp_path / "j.json")
    assert answer.code == 0, answer.err
    assert "blocks.*.attn.qkv.weight (2)" in answer.out
    assert "2 keys unused: blocks.*.norm_cross_attn.weight (2)" in answer.out
    assert "0 keys missing" in answer.out
    told = json.loads((tmp_path / "j.json").read_text())
    assert (set(told["used"]), set(told["unused"])) == (set(state), set(extra))
    assert json.loads((run / "import.json").read_text())["used"] == told["used"]
    source = json.loads((run / "provenance.json").read_text())["weights"]
    assert source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    again = runner(capsys)("import", "bm-mae", file, "--out", run)
    assert f"{run} already holds a run" in again.sentence


def test_a_file_without_decoder_completes_with_the_mean(smaller, tmp_path):
    state, write = smaller
    bare = {key: value for key, value in state.items() if not key.startswith("decoder.")}
    report = import_bm_mae(write(bare), tmp_path / "run")
    assert set(report.missing) == set(state) - set(bare)
    assert set(report.used) == set(bare)
    mae, batch = om.load(tmp_path / "run").mae(0), batch_of(network()[1])
    found = mae.reconstruct(batch, batch.observed, torch.ones_like(batch.observed))
    assert all((found[name] == 0).all() for name in SEQUENCES)


def test_an_imported_run_is_fine_tuned_on_what_a_cohort_has(smaller, tmp_path, brains):
    _, write = smaller
    import_bm_mae(write(), tmp_path / "run")
    start = om.load(tmp_path / "run")
    dev, test = brains  # t1 and t2
    model = om.finetune(start, dev)
    assert np.isfinite(model.predict(test)).all()
    obs = test.obs.set_axis([f"BraTS2021_{i:05d}" for i in range(len(test))])
    with pytest.raises(SeenPatientsError, match=r"were seen in pretrain \(published\)"):
        model.require_unseen(Cohort(obs, {}, None))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (self.target, "w"))


def test_nothing_in_a_file_is_run(tmp_path):
    torch.save({"cls_token": Trap(str(tmp_path / "sprung"))}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds more than weights") as error:
        read_state(tmp_path / "a.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sprung").exists()


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


def renamed(state, old, new):
    return {key.replace(f".{old}.", f".{new}."): value for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: without(s, "blocks.1.norm1.bias"),
         "lacks 1 of the 39 keys of BM-MAE's encoder, such as blocks.1.norm1.bias"),
        (lambda s: renamed(s, "t1ce", "t1gd"),
         "has 63 keys and the sequences t1, t1gd, t2, flair, wanted are t1, t1ce, t2, flair"),
        (lambda s: s | {"tokenizers.t2.patch_embedding.patch_embeddings.weight":
                        torch.zeros(24, 1, 8, 8, 8)},
         "tokenizers.t2.patch_embedding.patch_embeddings.weight is 24×1×8×8×8, in BM-MAE it is "
         "24×1×4×4×4"),
        (lambda s: s | {"tokenizers.t2.patch_embedding.position_embeddings": torch.zeros(1, 8, 24)},
         "position_embeddings is not the sine-cosine table of MONAI 1.3 (they differ by up to 1)"),
        (lambda s: {"state_dict": s, "epoch": 7}, "holds no state-dict"),
        (lambda s: {}, "holds no state-dict"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(smaller, tmp_path, capsys, change, sentence):
    state, write = smaller
    file = write(change(state))
    answer = runner(capsys)("import", "bm-mae", file, "--out", tmp_path / "run")
    assert sentence in answer.sentence
    assert str(file) in answer.sentence
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_files_that_are_none_are_one_line(tmp_path, capsys):
    command = runner(capsys)
    answer = command("import", "bm-mae", tmp_path / "no.pth", "--out", tmp_path / "run")
    assert "cannot read" in answer.sentence
    assert "no.pth" in answer.sentence
    (tmp_path / "page.pth").write_text("<html>you have no access</html>")
    answer = command("import", "bm-mae", tmp_path / "page.pth", "--out", tmp_path / "run")
    assert "is damaged or holds more than weights" in answer.sentence
    torch.save({"a": torch.zeros(1000)}, tmp_path / "half.pth")
    whole = (tmp_path / "half.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    answer = command("import", "bm-mae", tmp_path / "half.pth", "--out", tmp_path / "run")
    assert "download it again" in answer.sentence
    assert "'bm-mea'" in command("import", "bm-mea", "a.pth", "--out", tmp_path / "run").sentence
