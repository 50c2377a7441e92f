"""BM-MAE's baselines on stacked sequences: MAE and SimCLR, from the embedding to label maps."""

import math
from functools import cache

import brain_cohort
import numpy as np
import pandas as pd
import picture_cohort
import pytest
import torch
from torch.nn import functional as F

import omnisurv as om
from omnisurv import optimisation
from omnisurv.core import Batch
from omnisurv.core.contrast import Projected, info_nce
from omnisurv.core.masking import crop, everywhere, explicit
from omnisurv.core.volumes import join
from omnisurv.data.cohort import Cohort
from omnisurv.data.images import Images
from omnisurv.data.spec import Label
from omnisurv.errors import DataError, SpecError
from omnisurv.modalities.mri import Mri, MriOptions
from omnisurv.modalities.table import Table
from omnisurv.objectives import Contrast, Reconstruction
from omnisurv.recipe import layout_of

SEQUENCES = ("t1", "t1ce", "t2", "flair")
TITLES = ("stacked_mae", "simclr")
SMALL = {"dim": 24, "heads": 2, "mlp": 32, "trunk": 2, "decoder_dim": 12, "decoder_mlp": 32,
         "decoder_depth": 1, "features": 4}  # fmt: skip
FEW = {"epochs": 2, "every": 1, "batch": 8, "warmup": 0}


def recipe(title="stacked_mae", **settings):
    stages = {stage: {**FEW, **settings.pop(stage, {})}
              for stage in ("pretrain", "finetune", "classification", "segmentation")}  # fmt: skip
    return om.get_recipe(f"{title}:tiny", **{**SMALL, **settings}, **stages)


def parts(names=SEQUENCES, size=8, patch=4):
    kinds = {name: Mri(name, MriOptions(size=size, patch=patch, center=False)) for name in names}
    return kinds, {name: kind.fit(Images([], "z-score")) for name, kind in kinds.items()}


def network(title="stacked_mae", names=SEQUENCES, size=8, **settings):
    """Return a small untrained network, and its layout."""
    kinds, tokenisers = parts(names, size)
    torch.manual_seed(0)
    mae = recipe(title, **settings).build(kinds, tokenisers).eval()
    return mae, layout_of(tokenisers)


def batch_of(layout, patients=5, seed=1):
    """Return patients of whom the second has no t1, the last nothing, others all."""
    generator = torch.Generator().manual_seed(seed)
    patches = {
        name: torch.randn(patients, layout.lengths[name], layout.widths[name], generator=generator)
        for name in layout.lengths
    }
    patches["t1"][1] = torch.nan
    for patch in patches.values():
        patch[-1] = torch.nan
    return Batch(patches, layout)


def whole_of(layout, patients):
    return torch.ones(patients, layout.slots, dtype=torch.bool)


# The stack


@pytest.mark.parametrize("names", [SEQUENCES, ("t1",), ("flair", "t1")])
def test_the_embedding_is_a_convolution_over_stacked_channels(names):
    mae, layout = network(names=names)
    batch = batch_of(layout)
    tokens, rows, slots = mae.encoder._embed(batch, batch.observed)
    embed = mae.encoder.embeds["+".join(names)].values
    weight = embed.weight[0].T.reshape(24, len(names), 4, 4, 4)
    volumes = torch.stack([join(batch.patches[n], layout.grid(n)) for n in names], dim=1)
    found = F.conv3d(volumes.nan_to_num(), weight, embed.bias[0], stride=4).flatten(2)
    place = mae.encoder.get_buffer(f"position_{names[0]}")
    wanted = (found.transpose(1, 2) + place)[rows, slots]
    torch.testing.assert_close(tokens, wanted, rtol=0, atol=1e-5)
    assert rows.unique().tolist() == [0, 2, 3]
    assert len(tokens) == 8 * 3  # L, not |S| · L


def test_a_place_is_visible_if_it_is_in_all_sequences():
    mae, layout = network()
    batch = batch_of(layout)
    visible = batch.observed.clone()
    visible[0, layout.slices["flair"].start + 3] = False
    latent = mae.encode(batch, visible)
    assert latent.slots[0][latent.usable[0]].tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert latent.usable.sum(1).tolist() == [7, 0, 8, 8, 0]


def test_hidden_places_do_not_matter_and_have_no_gradient():
    mae, layout = network()
    batch = batch_of(layout)
    visible = recipe().draw_visible(batch, torch.Generator().manual_seed(0))
    patches = {n: p.clone().requires_grad_() for n, p in batch.patches.items()}
    mae.encode(Batch(patches, layout), visible).summary[0].square().sum().backward()
    hidden = ~everywhere(visible, layout)
    for name in SEQUENCES:
        assert (patches[name].grad[hidden] == 0).all()
        assert (patches[name].grad[0][~hidden[0]] != 0).any()
    noisy = {n: torch.where(hidden[..., None], 99.0, p) for n, p in batch.patches.items()}
    a, b = (mae.encode(x, visible).summary for x in (batch, Batch(noisy, layout)))
    assert torch.equal(a, b)


def test_who_lacks_a_sequence_is_the_class_token_alone():
    mae, layout = network()
    batch = batch_of(layout)
    latent = mae.encode(batch, batch.observed)
    torch.testing.assert_close(latent.summary[1], latent.summary[4], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(latent.summary[1], latent.summary[0], atol=1e-3)
    filled = mae.reconstruct(batch, batch.observed, whole_of(layout, 5))
    assert all(filled[name].isfinite().all() for name in SEQUENCES)
    for other in SEQUENCES:
        seen = [name for name in SEQUENCES if name != other]
        subset = mae.encode(batch, explicit(batch.observed, layout, seen)).summary
        torch.testing.assert_close(subset, subset[:1].expand_as(subset), rtol=1e-5, atol=1e-6)


def test_nothing_but_the_stack_tells_sequences_apart():
    mae, _ = network()
    assert not [key for key in mae.state_dict() if key.endswith(".modality")]
    assert list(mae.encoder.embeds) == ["t1+t1ce+t2+flair"]
    assert list(mae.decoder.predicts) == list(SEQUENCES)


@pytest.mark.parametrize("mutual", [False, True])
def test_each_sequence_is_predicted_from_the_one_state_of_its_place(mutual):
    mae, layout = network(mutual=mutual)
    batch = batch_of(layout)
    visible = recipe().draw_visible(batch, torch.Generator().manual_seed(0))
    asked = whole_of(layout, 5)
    first = torch.zeros_like(asked)
    first[:, layout.slices["t1"]] = True
    latent = mae.encode(batch, visible)
    hidden = mae.decoder._hidden(latent, asked).unflatten(1, (4, 8))
    assert torch.equal(hidden[:, 0], ~everywhere(visible, layout))
    assert not hidden[:, 1:].any()
    places = mae.decoder._states(latent, first).unflatten(0, (5, 8))
    states = mae.decoder._states(latent, asked).unflatten(0, (5, 4, 8))
    for index, name in enumerate(SEQUENCES):
        assert torch.equal(states[:, index], places)
        back = mae.decoder.predicts[name]
        wanted = states[:, index] @ back.weight[0] + back.bias[0]
        found = mae.decoder(latent, asked)[name]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    some = torch.rand(asked.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    less, all_of = mae.decoder(latent, some), mae.decoder(latent, asked)
    for name, where in layout.slices.items():
        torch.testing.assert_close(
            less[name][some[:, where]], all_of[name][some[:, where]], rtol=1e-5, atol=1e-6
        )
        assert less[name][~some[:, where]].isnan().all()


def test_trust_is_a_factor_of_each_sequence():
    mae, layout = network()
    batch = batch_of(layout)
    before = mae.reconstruct(batch, batch.observed, whole_of(layout, 5))
    mae.decoder.trust("t2").fill_(0.25)
    after = mae.reconstruct(batch, batch.observed, whole_of(layout, 5))
    torch.testing.assert_close(after["t2"], 0.25 * before["t2"])
    assert torch.equal(after["t1"], before["t1"])


# Masks


def test_the_papers_mask_shows_128_of_512_places_in_all_sequences():
    layout = layout_of(parts(size=32)[1])  # 8³ places, as 128³ in patches of 16
    batch = Batch({n: torch.zeros(6, 512, 64) for n in SEQUENCES}, layout)
    visible = om.get_recipe("stacked_mae").draw_visible(batch, torch.Generator().manual_seed(0))
    each = visible.unflatten(1, (4, 512))
    assert (each.sum(2) == 128).all()
    assert (each == each[:, :1]).all()
    assert not torch.equal(each[0], each[1])
    assert each[:, 0].any(0).float().mean() > 0.7  # 1 - .75⁶ = .82 of places


def test_only_places_that_all_sequences_have_are_shown():
    _, layout = network(size=16)
    batch = Batch({n: torch.zeros(3, 64, 64) for n in SEQUENCES}, layout)
    batch.patches["t2"][0, 40:] = torch.nan
    batch.patches["t1"][1] = torch.nan
    visible = recipe().draw_visible(batch, torch.Generator().manual_seed(0)).unflatten(1, (4, 64))
    assert visible.sum(2).tolist() == [[10] * 4, [0] * 4, [16] * 4]
    assert not visible[0, :, 40:].any()


def test_a_crop_is_a_box_of_the_grid_and_sides_are_uniform():
    _, layout = network(size=16)
    observed = whole_of(layout, 4000)
    observed[0, layout.slices["t2"]] = False
    generator = torch.Generator().manual_seed(0)
    boxes = crop(observed, layout, 0.5, generator).unflatten(1, (4, 4, 4, 4))
    assert (boxes == boxes[:, :1]).all()
    assert not boxes[0].any()
    boxes = boxes[1:, 0]
    spans = [boxes.flatten(2).any(2), boxes.transpose(1, 2).flatten(2).any(2),
             boxes.transpose(1, 3).flatten(2).any(2)]  # fmt: skip
    product = spans[0][:, :, None, None] & spans[1][:, None, :, None] & spans[2][:, None, None]
    assert torch.equal(boxes, product)
    for span in spans:
        side = span.sum(1)
        assert (span.int().diff(dim=1) == 1).sum(1).max() <= 1  # in one piece
        shares = torch.stack([(side == n).float().mean() for n in (2, 3, 4)])
        torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=0.03)
        twos = span[side == 2].float().mean(0)
        torch.testing.assert_close(twos, torch.tensor([1, 2, 2, 1]) / 3, rtol=0, atol=0.06)
    full = crop(observed[1:5], layout, 1.0, generator)
    assert full.all()


# Contrast


def test_info_nce_is_the_papers_formula():
    generator = torch.Generator().manual_seed(0)
    first, second = (F.normalize(torch.randn(4, 6, generator=generator), dim=1) for _ in range(2))
    views = torch.cat([first, second]).tolist()
    total = 0.0
    for i in range(8):
        alike = [sum(a * b for a, b in zip(views[i], views[k], strict=True)) / 0.2
                 for k in range(8)]  # fmt: skip
        among = sum(math.exp(alike[k]) for k in range(8) if k != i)
        total -= math.log(math.exp(alike[(i + 4) % 8]) / among)
    assert float(info_nce(first, second, 0.2)) == pytest.approx(total / 8, abs=1e-5)


def test_pairs_that_belong_together_cost_less():
    points = F.normalize(torch.eye(6) + 0.05, dim=1)
    same = float(info_nce(points, points, 0.05))
    assert same < 1e-3
    assert float(info_nce(points, points.roll(1, 0), 0.05)) > 10
    alone = points[:1].clone().requires_grad_()
    loss = info_nce(alone, alone, 0.05)
    loss.backward()
    assert loss.item() == 0.0
    assert (alone.grad == 0).all()
    assert float(info_nce(points[:0], points[:0], 0.05)) == 0.0


def test_a_view_in_which_nothing_is_visible_is_left_out():
    mae, layout = network("simclr")
    batch, simclr = batch_of(layout), recipe("simclr", temperature=0.5)
    objective = Contrast(batch, batch, simclr)
    whole = objective.network(mae).eval()
    with torch.no_grad():
        loss, told = objective.step(whole, torch.arange(5), torch.Generator().manual_seed(0))
    assert told == {}
    kept = batch.rows(torch.tensor([0, 2, 3]))
    generator = torch.Generator().manual_seed(0)
    views = []
    for _ in range(2):
        view = simclr.augment(batch, generator)
        visible = simclr.draw_visible(view, generator)
        views.append(whole(view, visible)[[0, 2, 3]].detach())
    assert loss.item() == pytest.approx(float(info_nce(*views, 0.5)), abs=1e-6)
    assert not torch.allclose(views[0], views[1])
    torch.testing.assert_close(views[0].norm(dim=1), torch.ones(3))
    scores = [Contrast(kept, kept, simclr).validate(whole) for _ in range(2)]
    assert scores[0] == scores[1] > 0


def test_the_projection_is_drawn_from_the_recipes_seed_alone():
    mae, _ = network("simclr")
    before = torch.get_rng_state()
    a, b, c = (Contrast(None, None, recipe("simclr", seed=s)).network(mae) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(a, Projected)
    assert torch.equal(a.project[0].weight, b.project[0].weight)
    assert not torch.equal(a.project[0].weight, c.project[0].weight)
    assert [tuple(layer.weight.shape) for layer in a.project[::2]] == [(24, 24), (128, 24)]


# Recipes


def test_the_defaults_are_bm_maes_and_its_papers_comparison():
    """Robinet et al. 2025, §4.1."""
    ours, theirs = om.get_recipe("stacked_mae").model_dump(), om.get_recipe("bm_mae").model_dump()
    differ = {key for key in theirs if ours[key] != theirs[key]}
    assert differ == {"name", "drop_rate"}
    r = om.get_recipe("simclr")
    p = r.pretrain
    assert (p.epochs, p.batch, p.lr, p.weight_decay, p.warmup) == (400, 4, 1e-4, 0.05, 50)
    assert (r.temperature, r.dim, r.trunk, r.drop_rate) == (0.05, 768, 12, 0.0)
    for title in TITLES:
        tiny, same = (om.get_recipe(f"{name}:tiny").model_dump() for name in (title, "bm_mae"))
        for key in ("dim", "heads", "mlp", "trunk", "segmentation", "classification", "finetune"):
            assert tiny[key] == same[key]


def test_the_masked_error_is_validated_on_masked_places_alone():
    mae, layout = network()
    batch = batch_of(layout).rows(torch.tensor([0, 2, 3]))
    generator = torch.Generator().manual_seed(0)
    errors = mae(batch, recipe().draw_visible(batch, generator))[1]
    wanted = sum(error.item() for error in errors.values()) / 4
    found = Reconstruction(batch, batch, recipe()).validate(mae)
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("title", TITLES)
def test_what_cannot_be_stacked_is_one_line(title):
    def refused(kinds, tokenisers):
        with pytest.raises(DataError) as error:
            recipe(title).build(kinds, tokenisers)
        assert "\n" not in str(error.value)
        return str(error.value)

    kinds, tokenisers = parts(("t1", "t2"))
    table, data = Table.example(np.random.default_rng(0))
    assert refused({**kinds, "clinical": table}, {**tokenisers, "clinical": table.fit(data)}) == (
        f"'{title}' stacks MRI sequences as channels, and 'clinical' is of kind table; take it out "
        "of the spec, or use bm_mae"
    )
    other, fitted = parts(("flair",), size=16)
    assert refused({**kinds, **other}, {**tokenisers, **fitted}) == (
        f"'{title}' stacks sequences that are cut alike, but flair is 4×4×4 patches of 64 voxels "
        "and t1 is 2×2×2 patches of 64 voxels; say the same `size` and `patch`, or use bm_mae"
    )
    with pytest.raises(SpecError) as error:
        recipe(title, drop_rate=0.5)
    assert str(error.value) == (
        f"recipe {title}:tiny: key 'drop_rate': must be 0: sequences that are stacked are hidden "
        "together or not (got 0.5)"
    )


# Training


@cache
def brains():
    return brain_cohort.cohort(32, 8, 4, 0.05).split()


@cache
def patients():
    """Return patients with t1, t2, survival and a label that they tell."""
    whole = picture_cohort.cohort(110)
    grade = pd.Series(whole["clinical"].X[:, 0], whole["clinical"].obs_names)
    grade = grade.reindex(whole.patients)
    kind = pd.Series(np.where(grade > 0, "high", "low"), grade.index, dtype=object)
    label = Label(column="kind", table="clinical.tsv")
    spec = whole.spec.model_copy(update={"labels": {"kind": label}})
    modalities = {name: whole[name] for name in ("t1", "t2")}
    return Cohort(whole.obs.assign(kind=kind.where(grade.notna(), None)), modalities, spec).split()


@cache
def started(title):
    return om.pretrain(recipe(title), patients()[0])


@pytest.mark.parametrize("title", TITLES)
def test_who_lacks_a_sequence_teaches_nothing(title):
    dev, _ = patients()
    complete = dev.subset(dev.patients[dev.availability.all(axis=1)])
    assert 10 < len(complete) < len(dev) - 10
    assert started(title).seen["pretrain"] == sorted(complete.hashed_ids())
    few = dev.subset([*complete.patients[:9], *dev.patients[~dev.availability.all(axis=1)]])
    for train in (om.pretrain, om.finetune):
        with pytest.raises(DataError) as error:
            train(recipe(title), few)
        assert str(error.value) == (
            f"9 training patients have all of t1, t2, which '{title}' wants together; 10 are "
            "needed: leave out what few have, or use bm_mae"
        )
    with pytest.raises(DataError, match=r"^0 training patients have all of t1, t2"):
        om.finetune(started(title), dev.drop_modalities(["t2"]))


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("task", ["survival", "kind"])
def test_risk_and_classes(title, task, tmp_path):
    dev, test = patients()
    model = om.finetune(started(title), dev, task=task)
    assert set(model.seen) == {"pretrain", "finetune"}
    predict = model.predict if task == "survival" else model.predict_proba
    found = predict(test)
    assert np.isfinite(found.to_numpy()).all()
    complete = test.availability.all(axis=1).to_numpy()
    assert 0 < complete.sum() < len(test)
    rest = found[~complete].to_numpy()
    np.testing.assert_allclose(rest, np.broadcast_to(rest[:1], rest.shape), rtol=1e-4, atol=1e-6)
    assert found[complete].to_numpy().std() > 0
    again = om.load(om.save(model, tmp_path / "run"))
    found_again = (again.predict if task == "survival" else again.predict_proba)(test)
    np.testing.assert_array_equal(found_again, found)


@pytest.mark.parametrize("title", TITLES)
def test_segmentation(title):
    dev, test = brains()
    start = om.pretrain(recipe(title), dev)
    model = om.finetune(start, dev, task="segmentation")
    after, before = model.mae(0).state_dict(), start.mae(0).state_dict()
    same = {key for key in before if torch.equal(after[key], before[key])}
    assert {key for key in before if key.startswith("decoder")} <= same < set(before)
    maps = model.predict(test, ["t1", "flair"])
    assert len(maps) == len(test)
    assert all(np.isin(entry.array, (0, 1, 2, 3, 255)).all() for entry in maps.entries)
    table = om.evaluate(model, test, subsets=[["t1"], list(SEQUENCES)]).table
    dice = table[table["metric"].str.startswith("dice") & (table["model"] == f"{title}:tiny")]
    assert set(dice["subset"]) >= {"t1", "t1+t1ce+t2+flair"}
    assert dice["value"].between(0, 1).all()


def test_simclr_changes_the_encoder_and_throws_the_projection_away(tmp_path):
    model = started("simclr")
    torch.manual_seed(0)
    untrained = om.training._build(model, model.recipe.seed)
    trained = om.pretrain(recipe("simclr", pretrain={"epochs": 8}), patients()[0])
    assert trained.history["chosen"].any()  # its loss fell on held-out patients
    before, after = untrained.state_dict(), trained.mae(0).state_dict()
    assert list(before) == list(after)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(key.startswith("encoder.embeds") for key in changed)
    assert any(key.startswith("encoder.trunk") for key in changed)
    assert all(key.startswith("encoder.") for key in changed)
    assert set(trained.history) == {"stage", "member", "epoch", "train", "seconds", "validation",
                                    "chosen"}  # fmt: skip
    loaded = om.load(om.save(trained, tmp_path / "run")).mae(0).state_dict()
    assert all(torch.equal(loaded[key], after[key]) for key in after)


def test_simclr_does_not_pretend_to_impute():
    _, test = patients()
    model = started("simclr")
    assert all((model.mae(0).decoder.trust(name) == 0).all() for name in ("t1", "t2"))
    filled = om.impute(model, test, ["t2"]).values["t2"]
    assert filled.imputed.any()
    mean = model.tokenisers["t2"].center
    for cube in filled.values[filled.imputed]:
        np.testing.assert_array_equal(np.unique(cube[np.isfinite(cube)]), np.unique(mean))


class Killed(Exception):
    pass


@pytest.mark.parametrize("title", TITLES)
def test_a_killed_pre_training_ends_with_the_same_bits(title, tmp_path, monkeypatch):
    monkeypatch.setattr(optimisation, "QUICK", math.inf)  # a checkpoint after every epoch

    def stop(label, epoch, total, text):
        if epoch == 3:
            raise Killed

    dev, _ = patients()
    settings = {"pretrain": {"epochs": 5}, "dropout": 0.1}
    whole = om.pretrain(recipe(title, **settings), dev, run=tmp_path / "whole")
    with pytest.raises(Killed):
        om.pretrain(recipe(title, **settings), dev, run=tmp_path / "killed", progress=stop)
    assert list((tmp_path / "killed" / "resume").iterdir())
    told = []
    again = om.pretrain(recipe(title, **settings), dev, run=tmp_path / "killed",
                        progress=lambda label, epoch, *_: told.append(epoch))  # fmt: skip
    assert told == [4, 5]
    first, second = whole.mae(0).state_dict(), again.mae(0).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        again.history.drop(columns=drop), whole.history.drop(columns=drop), check_exact=True
    )


@pytest.mark.parametrize("title", TITLES)
def test_who_watches_sees_the_masked_autoencoder(title):
    told = []

    def watch(model, mae, epoch):
        told.append((type(mae).__name__, mae.training, epoch))

    om.pretrain(recipe(title), patients()[0], watch=watch)
    assert told == [("MultimodalMAE", False, 1), ("MultimodalMAE", False, 2)]
