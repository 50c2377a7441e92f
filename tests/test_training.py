"""Pre-training and fine-tuning: who is held out, what is kept, what is refused."""

import numpy as np
import pytest
import tiny
import torch

import omnisurv as om
from omnisurv.data.cohort import Cohort
from omnisurv.errors import DataError
from omnisurv.training import freeze


def with_nothing(cohort, patient="NOBODY"):
    obs = cohort.obs.reindex([*cohort.patients, patient])
    return Cohort(obs, {name: cohort[name] for name in cohort.modalities}, cohort.spec)


def test_pretraining_lowers_the_error_and_marks_the_epoch_it_returns():
    dev, _ = tiny.parts()
    model = om.pretrain(tiny.recipe(pretrain={"epochs": 15, "every": 1}), dev)
    history = model.history
    assert set(history["stage"]) == {"pretrain"}
    assert history["epoch"].tolist() == list(range(1, 16))
    assert history["train"].iloc[-3:].mean() < history["train"].iloc[0] - 0.02
    chosen = history.loc[history["chosen"], "epoch"].tolist()
    best = history.loc[history["validation"].idxmin(), "epoch"]
    assert chosen in ([], [best])  # none where the untrained network was best
    assert set(model.modalities) <= set(history.columns)  # the error of each modality


def test_training_twice_gives_the_same_bits():
    dev, _ = tiny.parts()
    again = om.finetune(om.pretrain(tiny.recipe(), dev), dev)
    for a, b in zip(tiny.survival().networks, again.networks, strict=True):
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y), name


def test_another_seed_is_another_model():
    dev, _ = tiny.parts()
    other = om.pretrain(tiny.recipe(seed=1), dev).networks[0].state_dict()
    mine = tiny.pretrained().networks[0].state_dict()
    assert not all(torch.equal(mine[name], other[name]) for name in mine)


def test_patients_without_an_endpoint_pretrain_but_are_not_fine_tuned_on():
    dev, _ = tiny.parts()
    unknown = dev.patients[~dev.has_endpoint]
    assert len(unknown)
    has = dict(zip(dev.patients, dev.hashed_ids(), strict=True))
    for patient in unknown:
        assert has[patient] in tiny.survival().seen["pretrain"]
        assert has[patient] not in tiny.survival().seen["finetune"]


def test_a_patient_with_nothing_is_left_out():
    dev, _ = tiny.parts()
    grown = with_nothing(dev)
    model = om.pretrain(tiny.recipe(), grown)
    assert len(model.seen["pretrain"]) == len(dev)
    mine = tiny.pretrained().networks[0].state_dict()
    assert all(torch.equal(mine[k], v) for k, v in model.networks[0].state_dict().items())


def test_every_member_holds_out_other_patients():
    dev, _ = tiny.parts()
    model = om.pretrain(tiny.recipe(members=2, pretrain={"epochs": 1}), dev)
    assert len(model.networks) == 2
    assert sorted(model.history["member"].unique()) == [0, 1]
    one = om.pretrain(tiny.recipe(members=1, pretrain={"epochs": 1}), dev)
    for name, errors in model.residuals.items():
        assert len(errors) > len(one.residuals[name])


def test_fine_tuning_starts_from_the_pretrained_weights_and_freezes_the_rest():
    dev, _ = tiny.parts()
    settings = {"omics": "fusion", "depth": {"table": 2}, "finetune": {"train_last": 1}}
    origin = om.pretrain(tiny.recipe(**settings, pretrain={"epochs": 1}), dev)
    model = om.finetune(origin, dev)
    before, after = (m.mae(0).state_dict() for m in (origin, model))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [n for n in moved if n.startswith(("decoder", "encoder.embeds"))]
    first = tuple(f"encoder.encoders.{name}.0." for name in origin.modalities)
    assert not [n for n in moved if n.startswith(first)]
    if model.history["chosen"].any():
        assert any(name.startswith("encoder.encoders.clinical.1") for name in moved)


@pytest.mark.parametrize("last", [0, 1])
def test_freeze_leaves_the_last_layers(last):
    mae = tiny.pretrained().build()
    freeze(mae, last)
    trained = {name for name, p in mae.named_parameters() if p.requires_grad}
    assert bool(trained) == bool(last)
    assert all(name.startswith("encoder.trunk") for name in trained)


def test_corrections_are_reported_with_their_place():
    for place, gain in tiny.survival().gains.items():
        assert place.split(" in ")[0] in tiny.survival().modalities
        assert gain > 0


def test_the_progress_of_each_stage_is_told():
    dev, _ = tiny.parts()
    told = []
    recipe = tiny.recipe(omics="fusion", members=2)
    om.finetune(
        om.pretrain(recipe, dev, progress=lambda *w: told.append(w)),
        dev,
        progress=lambda *w: told.append(w),
    )
    assert {label for label, *_ in told} == {
        "pretrain 1/2",
        "pretrain 2/2",
        "finetune 1/2",
        "finetune 2/2",
    }
    assert all(epochs == 3 and 1 <= epoch <= 3 for _, epoch, epochs, _ in told)


def test_too_few_patients_and_no_spec_are_refused():
    dev, _ = tiny.parts()
    with pytest.raises(DataError, match="9 training patients have any modality; 10 are needed"):
        om.pretrain(tiny.recipe(), dev.subset(dev.patients[dev.availability.any(axis=1)][:9]))
    bare = Cohort(dev.obs, {name: dev[name] for name in dev.modalities}, None)
    with pytest.raises(DataError, match="no data spec"):
        om.pretrain(tiny.recipe(), bare)


def test_a_modality_hardly_anybody_has_is_named():
    dev, _ = tiny.parts()
    modalities = {name: dev[name] for name in dev.modalities}
    modalities["protein"] = modalities["protein"][:1].copy()
    with pytest.raises(DataError, match="modality 'protein': 1 training patients have it"):
        om.pretrain(tiny.recipe(), Cohort(dev.obs, modalities, dev.spec))


def test_a_finished_run_leaves_no_resume_files(tmp_path):
    dev, _ = tiny.parts()
    om.finetune(tiny.recipe(omics="fusion"), dev, run=tmp_path / "run")
    assert not (tmp_path / "run" / "resume").exists()
    assert (tmp_path / "run" / "config.yaml").exists()


def test_bf16_trains_to_finite_weights():
    dev, _ = tiny.parts()
    model = om.pretrain(tiny.recipe(precision="bf16-mixed", pretrain={"epochs": 2}), dev)
    assert np.isfinite(model.history["train"]).all()
    assert all(w.isfinite().all() for w in model.networks[0].state_dict().values())
    assert all(w.dtype == torch.float32 for w in model.networks[0].parameters())
