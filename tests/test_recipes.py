"""What every registered recipe must do; and impuTMAE's numbers, one by one."""

import optuna
import pytest
import torch

import omnisurv as om
from omnisurv.config import override
from omnisurv.core import Batch
from omnisurv.errors import SpecError
from omnisurv.head import Head
from omnisurv.objectives import PRETRAINING
from omnisurv.recipe import Recipe, layout_of
from omnisurv.registry import modalities, recipes

NAMES = recipes.names()
TITLES = [name for name in NAMES] + [  # noqa: C416
    f"{name}:{preset}" for name in NAMES for preset in recipes.get(name).presets
]
SMALL = {"dim": 16, "heads": 4, "mlp": 32, "decoder_dim": 16, "decoder_mlp": 32}


def parts(title="imputmae"):
    """Return a modality of each kind that the recipe takes, and patients who lack some."""
    import numpy as np

    taken = recipes.get(title.partition(":")[0]).kinds
    fitted, patches = {}, {}
    for kind in modalities.names() if taken is None else sorted(taken):
        modality, data = modalities.get(kind).example(np.random.default_rng(0))
        fitted[kind] = (modality, modality.fit(data))
        patches[kind] = torch.from_numpy(fitted[kind][1].tokenise(data))
    rows = min(len(p) for p in patches.values())
    patches = {name: p[:rows].clone() for name, p in patches.items()}
    first, second = (list(patches) * 2)[:2]
    patches[first][: rows // 3] = torch.nan
    patches[second][rows // 4 : rows // 2] = torch.nan
    tokenisers = {name: tokeniser for name, (_, tokeniser) in fitted.items()}
    return (
        {name: modality for name, (modality, _) in fitted.items()},
        tokenisers,
        Batch(patches, layout_of(tokenisers)),
    )


def small(title):
    recipe = om.get_recipe(title)
    known = type(recipe).model_fields
    return om.get_recipe(title, **{k: v for k, v in SMALL.items() if k in known})


@pytest.mark.parametrize("title", TITLES)
def test_every_recipe_and_preset_parses_and_says_which_paper(title):
    recipe = om.get_recipe(title)
    assert isinstance(recipe, Recipe)
    assert recipe.title == title
    assert recipe.paper
    assert recipe.pretrain.epochs > 0
    # What config.yaml holds is the recipe again.
    values = recipe.model_dump(mode="json")
    assert om.get_recipe(values.pop("name"), **values) == recipe


@pytest.mark.parametrize("title", TITLES)
def test_every_recipe_builds_trains_and_reconstructs(title):
    kinds, tokenisers, batch = parts(title)
    recipe = small(title)
    torch.manual_seed(0)
    mae = recipe.build(kinds, tokenisers)
    generator = torch.Generator().manual_seed(0)
    visible = recipe.draw_visible(batch, generator)
    loss, errors = mae(batch, visible, recipe.draw_holes(batch, generator))
    assert loss.isfinite()
    assert set(errors) <= set(kinds)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in mae.parameters() if p.grad is not None)
    filled = mae.eval().reconstruct(batch, batch.observed, torch.ones_like(batch.observed))
    assert all(filled[name].isfinite().all() for name in kinds)


@pytest.mark.parametrize("title", TITLES)
def test_visible_is_within_observed_and_drawn_from_the_generator(title):
    _, _, batch = parts(title)
    recipe = om.get_recipe(title)
    draws = [recipe.draw_visible(batch, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    for visible in draws:
        assert visible.dtype == torch.bool
        assert not (visible & ~batch.observed).any()
        assert (batch.observed & ~visible).any()
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("title", TITLES)
def test_holes_only_ever_hide(title):
    _, _, batch = parts(title)
    given = om.get_recipe(title).draw_holes(batch, torch.Generator().manual_seed(0))
    for name, patch in batch.patches.items():
        kept = given.patches[name].isfinite()
        assert torch.equal(given.patches[name][kept], patch[kept])


@pytest.mark.parametrize("title", TITLES)
def test_every_recipe_has_a_survival_head(title):
    kinds, tokenisers, batch = parts(title)
    recipe = small(title)
    mae = recipe.build(kinds, tokenisers).eval()
    linear = [name for name in ("table",) if name in kinds]
    head = recipe.head("survival", 7, mae, linear, 2).eval()
    assert isinstance(head, Head)
    from omnisurv.head import TaskNetwork

    network = TaskNetwork(mae, head, linear).eval()
    stratum = torch.zeros(len(batch), dtype=torch.long)
    logits = network(batch, batch.observed, stratum)
    assert logits.shape == (len(batch), 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_says_of_itself_is_known(name):
    kind = recipes.get(name)
    assert kind.objective in PRETRAINING
    assert kind.kinds is None or kind.kinds <= set(modalities.names())


@pytest.mark.parametrize("title", TITLES)
def test_a_search_space_gives_settings_that_parse(title):
    recipe = om.get_recipe(title)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(5):
        suggested = recipe.search_space(study.ask())
        assert suggested
        tuned = override(recipe, [f"{key}={value!r}" for key, value in suggested.items()])
        flat = tuned.model_dump()
        for path, value in suggested.items():
            found = flat
            for key in path.split("."):
                found = found[key]
            assert found == value
    fixed = optuna.trial.FixedTrial(suggested)
    assert recipe.search_space(fixed) == suggested


def test_imputmae_is_the_papers():
    """Boyko et al. 2025, §2 and §3; what the paper leaves out is its code's."""
    r = om.get_recipe("imputmae")
    assert r.title == "imputmae"
    assert {k: r.depth[k] for k in ("rna", "dnam", "mri", "wsi")} == {
        "rna": 6,
        "dnam": 6,
        "mri": 4,
        "wsi": 4,
    }
    assert r.trunk == 0
    assert (r.dim, r.heads, r.mlp, r.dropout) == (256, 4, 1024, 0.0)
    assert (r.decoder_dim, r.decoder_depth, r.decoder_mlp) == (256, 3, 512)
    assert r.mask_ratio == 0.5
    assert r.drop_rate == r.hole_rate == 0.0
    assert r.shared
    pretrain, finetune = r.pretrain, r.finetune
    assert (pretrain.epochs, pretrain.batch, pretrain.lr) == (800, 24, 1e-3)
    assert (pretrain.weight_decay, pretrain.min_lr, pretrain.warmup) == (1e-2, 5e-6, 0)
    assert pretrain.patience is None
    assert (finetune.epochs, finetune.batch, finetune.lr) == (20, 24, 1e-4)
    assert finetune.train_last == 1
    assert (r.intervals, r.grid) == (20, "equidistant")
    assert r.omics == "fusion"
    assert r.head_dropout == 0.1
    assert r.members == 1


def test_imputmae_tokenises_as_the_paper():
    r = om.get_recipe("imputmae")
    options = {
        kind: r.tokeniser_options(modalities.get(kind)(kind, modalities.get(kind).Options()))
        for kind in ("rna", "dnam")
    }
    rna, dnam = options["rna"], options["dnam"]
    assert (rna.patch, rna.min_sd, rna.order, rna.normalise) == (512, 0.1, "file", "patient")
    assert (dnam.patch, dnam.order, dnam.values, dnam.standardise) == (1024, "file", "beta", False)
    # What a spec says wins over the recipe's preference, which wins over the kind's default.
    kind = modalities.get("rna")
    said = r.tokeniser_options(kind("rna", kind.Options(patch=64)))
    assert (said.patch, said.order) == (64, "file")


def test_imputmae_small_keeps_the_kinds_own_options():
    kind = modalities.get("rna")
    r = om.get_recipe("imputmae:small")
    assert r.tokeniser_options(kind("rna", kind.Options())) == kind.Options()


def test_the_paper_masks_half_of_each_present_modality():
    _, _, batch = parts()
    r = om.get_recipe("imputmae")
    generator = torch.Generator().manual_seed(0)
    shares = torch.stack(
        [r.draw_visible(batch, generator).sum() / batch.observed.sum() for _ in range(200)]
    )
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)


def test_settings_replace_single_fields():
    r = om.get_recipe("imputmae:small", dim=32, pretrain={"epochs": 5})
    preset = om.get_recipe("imputmae:small")
    assert (r.dim, r.pretrain.epochs) == (32, 5)
    assert r.pretrain == preset.pretrain.model_copy(update={"epochs": 5})
    assert r.finetune == preset.finetune
    assert r.mlp == preset.mlp


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: om.get_recipe("imputmea"), "unknown recipe 'imputmea'. Did you mean 'imputmae'?"),
        (
            lambda: om.get_recipe("imputmae:smal"),
            "recipe 'imputmae' has no preset 'smal'. Did you mean 'small'?",
        ),
        (
            lambda: om.get_recipe("imputmae", mask_ration=0.5),
            "recipe imputmae: unknown key 'mask_ration'. Did you mean 'mask_ratio'?",
        ),
        (
            lambda: om.get_recipe("imputmae", pretrain={"epoch": 5}),
            "unknown key 'pretrain.epoch'. Did you mean 'epochs'?",
        ),
        (lambda: om.get_recipe("imputmae", mask_ratio=1.5), "key 'mask_ratio'"),
        (lambda: om.get_recipe("imputmae", pretrain={"epochs": 0}), "key 'pretrain.epochs'"),
        (
            lambda: override(om.get_recipe("imputmae"), ["pretrain.epocs=3"]),
            "unknown key 'pretrain.epocs'. Did you mean 'epochs'?",
        ),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(call, sentence):
    with pytest.raises(SpecError) as error:
        call()
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        om.get_recipe("imputmae").dim = 3
