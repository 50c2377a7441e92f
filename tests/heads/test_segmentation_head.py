"""The segmentation head: UNETR on any subset of sequences, and its loss."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import omnisurv as om
from omnisurv.core import Batch, Layout
from omnisurv.core.masking import explicit
from omnisurv.core.volumes import cut, join
from omnisurv.data.images import Images
from omnisurv.data.regions import OUTSIDE, REGIONS
from omnisurv.errors import DataError
from omnisurv.head import TaskNetwork
from omnisurv.heads.segmentation import PRIOR, Unetr, overlap_loss, regions_of
from omnisurv.modalities.mri import Mri, MriOptions

SEQUENCES = ("t1", "t1ce", "t2", "flair")
SUBSETS = [s for n in (1, 2, 3, 4) for s in itertools.combinations(SEQUENCES, n)]
SMALL = {"dim": 24, "heads": 2, "mlp": 32, "trunk": 3, "decoder_dim": 12, "decoder_mlp": 32,
         "decoder_depth": 1, "features": 6}  # fmt: skip
ET, TC, WT = range(3)


def network(names=SEQUENCES, size=8, patch=4, seed=0, **settings):
    options = MriOptions(size=size, patch=patch, center=False)
    kinds = {name: Mri(name, options) for name in names}
    tokenisers = {name: kind.fit(Images([], "z-score")) for name, kind in kinds.items()}
    torch.manual_seed(seed)
    recipe = om.get_recipe("bm_mae:tiny", **{**SMALL, **settings})
    mae = recipe.build(kinds, tokenisers)
    return TaskNetwork(mae, recipe.head("segmentation", 3, mae, [], 1), []).eval()


def patients(net, count=4, seed=1):
    """The first is complete, the second lacks t1, the third has t2 alone, the last nothing."""
    layout = net.mae.encoder.layout
    generator = torch.Generator().manual_seed(seed)
    patches = {
        name: torch.randn(count, layout.lengths[name], layout.widths[name], generator=generator)
        for name in layout.lengths
    }
    patches["t1"][1] = torch.nan
    for name in ("t1", "t1ce", "flair"):
        patches[name][2] = torch.nan
    for patch in patches.values():
        patch[-1] = torch.nan
    return Batch(patches, layout)


def run(net, batch, subset=None):
    visible = batch.observed if subset is None else explicit(batch.observed, batch.layout, subset)
    return net(batch, visible, torch.zeros(len(batch), dtype=torch.long))


# Form


@pytest.mark.parametrize(
    ("size", "patch", "trunk", "taken"),
    [(32, 16, 12, [3, 6, 9]), (32, 8, 4, [1, 2]), (8, 4, 3, [1]), (8, 2, 3, []),
     (32, 16, 2, [0, 1, 1])],
)  # fmt: skip
def test_the_form_follows_the_patch_and_the_trunk(size, patch, trunk, taken):
    """UNETR reads after blocks 4, 7 and 10 of 12, which are 3, 6 and 9 counted from 0."""
    net = network(size=size, patch=patch, trunk=trunk)
    assert net.head.taken == taken
    with torch.no_grad():
        assert run(net, patients(net).rows([0, 2])).shape == (2, 3, size, size, size)


class GivenTokens(nn.Module):
    """Stands for the encoder of MONAI's UNETR: what it says is set, not computed."""

    tokens = None

    def __init__(self, **settings):
        super().__init__()

    def forward(self, image):
        return self.tokens[-1], self.tokens[:-1]


@pytest.fixture
def unetr(monkeypatch):
    from monai.networks.nets import unetr

    monkeypatch.setattr(unetr, "ViT", GivenTokens)
    return partial(unetr.UNETR, in_channels=4, out_channels=3, norm_name="instance")


def test_without_missing_sequences_it_is_monais_unetr(unetr):
    torch.manual_seed(0)
    theirs = unetr(img_size=32, feature_size=6, hidden_size=24, num_heads=2).eval()
    net = network(size=32, patch=16, trunk=12)
    head = net.head
    head.stem.load_state_dict(theirs.encoder1.state_dict())
    for number, block in enumerate(head.skips):
        block.load_state_dict(getattr(theirs, f"encoder{number + 2}").state_dict())
    for number, block in enumerate(head.ups):
        block.load_state_dict(getattr(theirs, f"decoder{5 - number}").state_dict())
    head.out.load_state_dict(theirs.out.state_dict())
    batch = patients(net).rows(slice(0, 1))
    latent = net.mae.encode(batch, batch.observed)
    theirs.vit.tokens = [t.reshape(1, 4, 8, 24).mean(1) for t in (*latent.hidden, latent.tokens)]
    voxels = torch.stack([join(batch.patches[n], (2, 2, 2)) for n in SEQUENCES], 1)
    with torch.no_grad():
        torch.testing.assert_close(run(net, batch), theirs(voxels), atol=1e-5, rtol=1e-5)


def test_the_papers_head_is_as_large_as_monais(unetr):
    """4.44 M with one sequence; each further one has a 3³ and a 1³ kernel for 16 channels."""
    layout = Layout(
        dict.fromkeys(SEQUENCES, 512), dict.fromkeys(SEQUENCES, 4096),
        dict.fromkeys(SEQUENCES, (8, 8, 8)),
    )  # fmt: skip
    recipe = om.get_recipe("bm_mae")
    head = Unetr(layout, recipe.dim, recipe.trunk, recipe.features)
    assert head.taken == [3, 6, 9]
    weights = sum(p.numel() for p in head.parameters())
    assert weights == sum(p.numel() for p in unetr(img_size=128).parameters())
    assert round((weights - 3 * 16 * 28) / 1e6, 2) == 4.44


def test_an_untrained_head_expects_little_tumour():
    """From even odds, some initial weights never learned (Dice .13 where others had .87)."""
    torch.manual_seed(0)
    net = network(size=32, patch=8, trunk=4)
    with torch.no_grad():
        expected = run(net, patients(net)).sigmoid().mean((0, 2, 3, 4))
    assert expected.tolist() == pytest.approx([PRIOR] * 3, rel=0.8)


def test_volumes_are_cut_as_the_tokeniser_cuts_them():
    tokeniser = Mri("t1", MriOptions(size=8, patch=2, center=False)).fit(Images([], "z-score"))
    cubes = torch.randn(3, 8, 8, 8)
    wanted = tokeniser._cut(cubes[..., None].numpy()).reshape(3, 64, 8)
    patches = cut(cubes, tokeniser.grid)
    assert torch.equal(patches, torch.from_numpy(wanted))
    assert torch.equal(join(patches, tokeniser.grid), cubes)


@pytest.mark.parametrize(
    ("lengths", "widths", "grids", "said"),
    [
        ({"rna": 3}, {"rna": 8}, {}, "segmentation needs MRI sequences; the model knows ['rna']"),
        ({"t1": 8, "t2": 8}, {"t1": 64, "t2": 512}, {"t1": (2, 2, 2), "t2": (2, 2, 2)},
         "cut alike, but t2 is (2, 2, 2) patches of 8 and t1 (2, 2, 2) of 4"),
        ({"t1": 8}, {"t1": 216}, {"t1": (2, 2, 2)}, "patch 6 is no power of two"),
        ({"t1": 8}, {"t1": 1}, {"t1": (2, 2, 2)}, "patch 1 is no power of two"),
    ],
)  # fmt: skip
def test_what_cannot_be_segmented_is_said(lengths, widths, grids, said):
    with pytest.raises(DataError) as error:
        Unetr(Layout(lengths, widths, grids), 8, 2, 4)
    assert said in str(error.value)


def test_other_recipes_say_who_can():
    net = network()
    with pytest.raises(DataError) as error:
        om.get_recipe("imputmae:small").head("segmentation", 3, net.mae, [], 1)
    assert str(error.value) == (
        "recipe 'imputmae' has no head for segmentation; use one that has: bm_mae, "
        "simclr, stacked_mae"
    )


def test_the_stage_of_segmentation_is_the_papers():
    """Robinet et al. 2025, §4.2."""
    recipe = om.get_recipe("bm_mae")
    s = recipe.stage("segmentation")
    assert (s.epochs, s.batch, s.lr, s.weight_decay, s.warmup) == (70, 2, 5e-4, 0.05, 10)
    assert recipe.stage("survival") is recipe.finetune
    assert recipe.features == 16
    assert om.get_recipe("bm_mae", segmentation={"epochs": 3}).segmentation.lr == 5e-4


# Any subset


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_subset_gives_finite_answers_and_gradients(subset):
    net = network().train()
    batch = patients(net)
    logits = run(net, batch, subset)
    assert logits.shape == (4, 3, 8, 8, 8)
    assert logits.isfinite().all()
    labels = torch.randint(0, 4, (4, 8, 8, 8))
    overlap_loss(logits, labels).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_the_order_of_sequences_changes_nothing():
    net = network()
    batch = patients(net)
    backwards = Batch({n: batch.patches[n] for n in reversed(SEQUENCES)}, batch.layout)
    with torch.no_grad():
        assert torch.equal(run(net, batch), run(net, backwards))
    # A network built in another order, of the same weights, says the same.
    other = network(tuple(reversed(SEQUENCES)))
    weights = dict(net.state_dict())
    for name, value in weights.items():
        if name.startswith(("head.stem.layer.conv1", "head.stem.layer.conv3")):
            weights[name] = value.flip(1)
        if name == "mae.decoder.modality":
            weights[name] = value.flip(0)
    other.load_state_dict(weights)
    swapped = Batch(batch.patches, other.mae.encoder.layout)
    with torch.no_grad():
        torch.testing.assert_close(run(other, swapped), run(net, batch), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("hidden", SEQUENCES)
def test_a_hidden_sequence_changes_nothing_and_has_no_gradient(hidden):
    net = network()
    batch = patients(net)
    rest = [name for name in SEQUENCES if name != hidden]
    with torch.no_grad():
        before = run(net, batch, rest)
        gone = Batch({**batch.patches, hidden: batch.patches[hidden] * torch.nan}, batch.layout)
        assert torch.equal(run(net, gone, rest), before)
        assert not torch.equal(run(net, batch)[0], before[0])
    patches = {name: patch.clone().requires_grad_() for name, patch in batch.patches.items()}
    run(net, Batch(patches, batch.layout), rest).square().sum().backward()
    assert not patches[hidden].grad.any()
    assert all(patches[name].grad[0].any() for name in rest)


def test_a_patients_answer_does_not_depend_on_batch_mates():
    net = network()
    batch = patients(net)
    with torch.no_grad():
        together = run(net, batch)
        for row in range(4):
            alone = run(net, batch.rows(slice(row, row + 1)))
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)


def test_sequences_are_told_apart():
    """Bright in FLAIR and bright in T1 are not the same, even to the first layer."""
    net = network()
    batch = patients(net)
    swapped = {**batch.patches, "t1": batch.patches["flair"], "flair": batch.patches["t1"]}
    with torch.no_grad():
        evidence = net.evidence(batch, batch.observed, torch.zeros(4, dtype=torch.long))
        other = net.evidence(
            Batch(swapped, batch.layout), batch.observed, torch.zeros(4, dtype=torch.long)
        )
        a, b = (net.head.stem(net.head._voxels(e))[0] for e in (evidence, other))
    assert not torch.allclose(a, b, atol=1e-3)


def test_tokens_are_averaged_at_each_place_over_what_is_visible_there():
    net = network()
    batch = patients(net)
    visible = batch.observed.clone()
    visible[0, batch.layout.slices["t1"].start + 3] = False  # one place, of three sequences left
    latent = net.mae.encode(batch, visible)
    mean = net.head._average(latent.tokens, latent).flatten(2)
    for row, place in itertools.product(range(4), range(8)):
        wanted = torch.zeros(24)
        mine = [
            latent.tokens[row, column]
            for column in latent.usable[row].nonzero()[:, 0]
            if latent.slots[row, column] % 8 == place
        ]
        if mine:
            wanted = torch.stack(mine).mean(0)
        torch.testing.assert_close(mean[row, :, place], wanted)
    counts = [(latent.slots[0][latent.usable[0]] % 8 == place).sum() for place in (2, 3)]
    assert counts == [4, 3]


# The loss


def test_regions_are_nested():
    labels = torch.tensor([0, 1, 2, 3, 255]).reshape(1, 5, 1, 1)
    inside = regions_of(labels)[0, :, :, 0, 0].int().tolist()
    assert inside == [[0, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0]]
    assert list(REGIONS) == ["ET", "TC", "WT"]


def test_cross_entropy_grows_when_enhancing_tumour_is_missed():
    """The code's softmax cross-entropy on three overlapping channels does not (notes in the
    docstring of the loss): on enhancing tumour, where all three are 1, logits cancel out."""
    labels = torch.full((1, 4, 4, 4), 3)
    right, missed = torch.full((1, 3, 4, 4, 4), 5.0), torch.full((1, 3, 4, 4, 4), 5.0)
    missed[:, ET] = -5.0
    all_missed = torch.full((1, 3, 4, 4, 4), -5.0)
    truth = regions_of(labels).float()

    def theirs(logits):
        return F.cross_entropy(logits, truth)

    torch.testing.assert_close(theirs(right), theirs(all_missed))  # teaches nothing
    assert overlap_loss(missed, labels) > overlap_loss(right, labels) + 1.0
    assert overlap_loss(all_missed, labels) > overlap_loss(missed, labels) + 1.0
    # On background theirs is 0 whatever is said; ours grows with false positives.
    nothing = torch.zeros((1, 4, 4, 4), dtype=torch.long)
    zero = regions_of(nothing).float()
    assert F.cross_entropy(right, zero) == F.cross_entropy(all_missed, zero) == 0
    assert overlap_loss(right, nothing) > overlap_loss(all_missed, nothing) + 1.0


def test_enhancing_tumour_has_a_gradient_of_its_own():
    labels = torch.zeros((1, 4, 4, 4), dtype=torch.long)
    labels[0, :2] = 3
    logits = torch.zeros(1, 3, 4, 4, 4, requires_grad=True)
    overlap_loss(logits, labels).backward()
    assert (logits.grad[0, ET, :2] < 0).all()
    assert (logits.grad[0, ET, 2:] > 0).all()


def test_the_loss_is_cross_entropy_and_monais_dice_where_all_is_scored():
    from monai.losses import DiceLoss

    logits = torch.randn(3, 3, 4, 5, 6)
    labels = torch.randint(0, 4, (3, 4, 5, 6))
    truth = regions_of(labels).float()
    wanted = DiceLoss(sigmoid=True)(logits, truth)
    wanted += F.binary_cross_entropy_with_logits(logits, truth)
    assert overlap_loss(logits, labels) == pytest.approx(float(wanted), rel=1e-5)


def test_outside_the_volume_is_not_scored():
    logits = torch.randn(2, 3, 4, 4, 6, requires_grad=True)
    labels = torch.randint(0, 4, (2, 4, 4, 6))
    labels[..., 4:] = OUTSIDE
    loss = overlap_loss(logits, labels)
    torch.testing.assert_close(loss, overlap_loss(logits[..., :4], labels[..., :4]))
    loss.backward()
    assert not logits.grad[..., 4:].any()
    assert logits.grad[..., :4].any()
    labels[1] = OUTSIDE
    assert overlap_loss(logits, labels).isfinite()
