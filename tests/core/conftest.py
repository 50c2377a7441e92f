import pytest
import torch

from omnisurv.core import Batch, Decoder, Encoder, Layout, MultimodalMAE
from omnisurv.layers import PatchEmbed, PatchLinear, initialise

LENGTHS = {"rna": 5, "dnam": 3, "clinical": 2}
WIDTHS = {"rna": 4, "dnam": 6, "clinical": 1}


@pytest.fixture
def layout():
    return Layout(LENGTHS, WIDTHS)


@pytest.fixture
def batch(layout):
    """Six patients: complete, no rna, only clinical, nothing at all, holes, only dnam."""
    generator = torch.Generator().manual_seed(1)
    patches = {
        name: torch.randn(6, LENGTHS[name], WIDTHS[name], generator=generator) for name in LENGTHS
    }
    patches["rna"][[1, 2, 3, 5]] = torch.nan
    patches["dnam"][[2, 3]] = torch.nan
    patches["clinical"][[3, 5]] = torch.nan
    patches["rna"][4, 1] = torch.nan
    patches["dnam"][4, 0, :3] = torch.nan
    return Batch(patches, layout)


def build(layout, depth=1, trunk=1, shared=False, seed=0):
    torch.manual_seed(seed)
    encoder = Encoder(
        layout,
        {n: PatchEmbed(LENGTHS[n], WIDTHS[n], 16, shared=shared) for n in LENGTHS},
        dim=16,
        heads=2,
        mlp=32,
        depth=dict.fromkeys(LENGTHS, depth),
        trunk=trunk,
    )
    decoder = Decoder(
        layout,
        {n: PatchLinear(LENGTHS[n], 12, WIDTHS[n], shared=shared) for n in LENGTHS},
        encoder_dim=16,
        dim=12,
        heads=2,
        mlp=24,
        depth=2,
    )
    mae = MultimodalMAE(encoder, decoder)
    initialise(mae)
    return mae.eval()


@pytest.fixture(params=[(2, 0), (0, 2), (1, 1)], ids=["per-modality", "trunk", "both"])
def mae(layout, request):
    depth, trunk = request.param
    return build(layout, depth, trunk)
