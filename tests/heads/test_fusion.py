"""Fusion attention, bare as in the paper's code and full."""

import pytest
import torch

from omnisurv.core import Latent
from omnisurv.head import Imagined
from omnisurv.heads.fusion import Fusion


@pytest.fixture
def latent():
    """Three patients with 4, 2 and no tokens."""
    generator = torch.Generator().manual_seed(0)
    usable = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    tokens = torch.randn(3, 4, 8, generator=generator)
    summary = torch.randn(3, 8, generator=generator)
    return Latent(summary, tokens, usable, torch.zeros(3, 4, dtype=torch.long), ())


def build(bare, imagined=None):
    torch.manual_seed(0)
    return Fusion(8, 2, 16, 0.1, bare=bare, imagined=imagined).eval()


@pytest.mark.parametrize("bare", [True, False])
def test_imagined_tokens_are_read_where_a_modality_is_missing(latent, bare):
    fusion = build(bare, imagined=5)
    usable = torch.tensor([[0, 0], [1, 0], [1, 1]]).bool()
    imagined = Imagined(torch.randn(3, 2, 5), usable)
    plain, after = fusion(latent), fusion(latent, imagined)
    assert torch.equal(plain[0], after[0])  # complete: nothing is imagined
    assert not torch.equal(plain[1], after[1])
    spoilt = imagined.tokens.masked_fill(~usable[..., None], 1e4)
    assert torch.equal(after, fusion(latent, Imagined(spoilt, usable)))


@pytest.mark.parametrize("bare", [True, False])
def test_a_patient_without_tokens_is_finite(latent, bare):
    out = build(bare)(latent)
    assert out.shape == (3, 8)
    assert out.isfinite().all()


@pytest.mark.parametrize("bare", [True, False])
def test_padding_is_never_read(latent, bare):
    fusion = build(bare)
    spoilt = latent.tokens.masked_fill(~latent.usable[..., None], 1e4)
    assert torch.equal(fusion(latent), fusion(latent._replace(tokens=spoilt)))
    changed = latent.tokens.clone()
    changed[1, 1] += 1.0  # a real token is read
    after = fusion(latent._replace(tokens=changed))
    assert not torch.equal(fusion(latent)[1], after[1])
    assert torch.equal(fusion(latent)[0], after[0])


@pytest.mark.parametrize("bare", [True, False])
def test_the_order_of_tokens_does_not_matter(latent, bare):
    fusion = build(bare)
    order = torch.tensor([2, 0, 3, 1])
    turned = latent._replace(tokens=latent.tokens[:, order], usable=latent.usable[:, order])
    torch.testing.assert_close(fusion(latent), fusion(turned))


def test_bare_is_the_attention_of_torch(latent):
    """One bare multi-head attention whose first row is read (the paper's code)."""
    fusion = build(bare=True)
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    attention = fusion.attention
    weight = torch.cat([attention.query.weight, attention.key_value.weight])
    bias = torch.cat([attention.query.bias, attention.key_value.bias])
    with torch.no_grad():
        reference.in_proj_weight.copy_(weight)
        reference.in_proj_bias.copy_(bias)
        reference.out_proj.load_state_dict(attention.out.state_dict())
    first = (latent.summary + fusion.class_token)[:, None]
    sequence = torch.cat([first, latent.tokens], 1)
    blocked = ~torch.cat([torch.ones(3, 1).bool(), latent.usable], 1)
    expected, _ = reference(sequence, sequence, sequence, key_padding_mask=blocked)
    torch.testing.assert_close(fusion(latent), expected[:, 0], rtol=1e-4, atol=1e-5)
