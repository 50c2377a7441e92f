"""Volumes and tiles in the core: grids, blocks, budgets, and patches that are read late."""

import pytest
import torch

from omnisurv.core import Batch, Encoder, Layout
from omnisurv.core.masking import all_but, thin
from omnisurv.layers import PatchEmbed, positions, sine_cosine

LAYOUT = Layout({"t1": 8, "wsi": 12, "rna": 3}, {"t1": 4, "wsi": 4, "rna": 4},
                {"t1": (2, 2, 2), "wsi": (2, 2)})  # fmt: skip


@pytest.fixture
def batch():
    """Four patients: all; a slide of one tile; no slide; nothing."""
    generator = torch.Generator().manual_seed(0)
    patches = {n: torch.randn(4, LAYOUT.lengths[n], 4, generator=generator) for n in LAYOUT.lengths}
    patches["wsi"][1, 4:] = torch.nan
    patches["wsi"][2:] = torch.nan
    patches["t1"][3] = torch.nan
    patches["rna"][3] = torch.nan
    return Batch(patches, LAYOUT)


def encoder(depth):
    torch.manual_seed(0)
    embeds = {n: PatchEmbed(LAYOUT.lengths[n], 4, 12, shared=True) for n in LAYOUT.lengths}
    sizes = {"dim": 12, "heads": 2, "mlp": 24}
    return Encoder(LAYOUT, embeds, depth=dict.fromkeys(LAYOUT.lengths, depth), trunk=0, **sizes)


def test_the_layout_knows_pictures():
    assert [LAYOUT.block(n) for n in ("t1", "wsi", "rna")] == [8, 4, 3]
    assert [LAYOUT.is_picture(n) for n in ("t1", "wsi", "rna")] == [True, True, False]


def test_every_place_has_its_own_position_and_neighbours_share_axes():
    codes = positions(27, (3, 3, 3), 12)
    assert len(codes.unique(dim=0)) == 27
    assert torch.equal(codes[0, 8:], codes[3, 8:])  # (0,0,0) and (0,1,0): the last axis agrees
    assert not torch.equal(codes[0, 4:8], codes[3, 4:8])
    assert torch.equal(positions(7, (7,), 10), sine_cosine(7, 10))


def test_tiles_differ_by_their_number_alone():
    codes = positions(12, (2, 2), 12)
    assert torch.equal(codes[:4, 4:], codes[4:8, 4:])
    assert not torch.equal(codes[0, :4], codes[4, :4])


def test_tiles_are_encoded_one_by_one(batch):
    """A modality's own layers attend within a tile; without its neighbours nothing changes."""
    net = encoder(depth=2).eval()
    whole = net(batch, batch.observed)
    visible = batch.observed.clone()
    visible[:, LAYOUT.slices["wsi"]][:, 4:] = False
    alone = net(batch, visible)
    for slot in range(8, 12):
        a = whole.tokens[0][whole.slots[0] == slot]
        b = alone.tokens[0][alone.slots[0] == slot]
        torch.testing.assert_close(a, b)
    changed = {**batch.patches, "wsi": batch.patches["wsi"].clone()}
    changed["wsi"][0, 3] += 1.0  # another token of the first tile is seen
    after = net(Batch(changed, LAYOUT), batch.observed)
    assert not torch.allclose(after.tokens[0][after.slots[0] == 8], whole.tokens[0][:1] * 0)
    assert not torch.allclose(
        after.tokens[0][after.slots[0] == 8], whole.tokens[0][whole.slots[0] == 8]
    )


@pytest.mark.parametrize(("budget", "tiles"), [(1, 1), (4, 1), (8, 2), (100, 3)])
def test_a_budget_keeps_whole_tiles(batch, budget, tiles):
    where = LAYOUT.slices["wsi"]
    seen = set()
    for seed in range(30):
        kept = thin(batch.observed, LAYOUT, budget, torch.Generator().manual_seed(seed))
        assert torch.equal(kept[:, :8], batch.observed[:, :8])
        by_tile = kept[:, where].unflatten(1, (3, 4))
        assert torch.equal(by_tile.any(2), by_tile.all(2))
        assert by_tile.any(2).sum(1).tolist() == [tiles, 1, 0, 0]
        seen |= set(by_tile[0].any(1).nonzero()[:, 0].tolist())
    assert seen == {0, 1, 2}


class Late:
    """Patches behind a curtain, with a count of what was read."""

    def __init__(self, patches, log):
        self.patches, self.log = patches, log
        self.observed = patches.isfinite().any(-1)

    def __getitem__(self, rows):
        return Late(self.patches[rows], self.log)

    def load(self, kept):
        self.log.append(len(self.patches))
        if kept is None:
            return self.patches
        return self.patches.masked_fill(~kept[..., None], torch.nan)


def test_stored_patches_are_read_when_loaded_and_not_before(batch):
    log = []
    there = {n: p for n, p in batch.patches.items() if n != "wsi"}
    late = Batch(there, LAYOUT, {"wsi": Late(batch.patches["wsi"], log)})
    assert len(late) == 4
    assert torch.equal(late.observed, batch.observed)
    part = late.rows(torch.tensor([True, False, True, False]))
    assert log == []
    loaded = part.load()
    assert log == [2]
    for name, patch in batch.rows(torch.tensor([0, 2])).patches.items():
        torch.testing.assert_close(loaded.patches[name], patch, equal_nan=True)
    assert torch.equal(late.values("wsi").isfinite(), batch.patches["wsi"].isfinite())


def test_what_is_not_kept_is_not_there(batch):
    kept = thin(batch.observed, LAYOUT, 4, torch.Generator().manual_seed(1))
    assert torch.equal(batch.load(kept).observed, kept)


def test_chunks_cover_everybody_once(batch):
    assert torch.cat(list(batch.chunks())).tolist() == [0, 1, 2, 3]


def test_hiding_a_modality_whole(batch):
    visible, who = all_but(batch.observed, LAYOUT, "wsi")
    assert who.tolist() == [0, 1]
    assert not visible[:, LAYOUT.slices["wsi"]].any()
    assert torch.equal(visible[:, :8], batch.observed[:, :8])
