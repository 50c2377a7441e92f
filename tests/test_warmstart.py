"""Pre-training in two stages: some modalities first, on other patients."""

import pytest
import torch

import omnisurv as om
from omnisurv.errors import DataError, SeenPatientsError
from tests import tiny


@pytest.fixture(scope="module")
def start():
    """Arms and proteins alone, of half of the patients."""
    train, _ = tiny.parts()
    few = train.subset(train.patients[::2])
    return om.pretrain(tiny.recipe(), few.drop_modalities(["rna", "dnam", "clinical"]))


@pytest.fixture(scope="module")
def later():
    train, _ = tiny.parts()
    return train.subset(train.patients[1::2])


def untrained(start, cohort, **settings):
    """Pre-train with steps too small to change a weight."""
    still = tiny.recipe(pretrain={"epochs": 1, "lr": 1e-12, "weight_decay": 0.0}, **settings)
    return om.pretrain(still, cohort, start=start)


def test_shared_modalities_keep_tokenisers_and_weights(start, later):
    model = untrained(start, later)
    assert set(model.modalities) == set(later.modalities)
    for name in start.modalities:
        assert model.tokenisers[name] is start.tokenisers[name]
    before, after = start.mae(0).state_dict(), model.mae(0).state_dict()
    copied = [k for k in before if "trust" not in k and not k.endswith("coder.modality")]
    assert copied
    for key in copied:
        torch.testing.assert_close(after[key], before[key], rtol=0, atol=1e-6)
    place = list(model.modalities).index
    for row, name in enumerate(start.modalities):
        mine = after["encoder.modality"][place(name)]
        torch.testing.assert_close(mine, before["encoder.modality"][row], rtol=0, atol=1e-6)


def test_what_the_first_stage_saw_stays_seen(start, later):
    model = untrained(start, later)
    assert set(model.seen) == {"pretrain before", "pretrain"}
    first = tiny.parts()[0]
    with pytest.raises(SeenPatientsError, match="seen in pretrain before"):
        model.require_unseen(first.subset(first.patients[:1]))


def test_nothing_in_common_is_told(start, later):
    others = later.drop_modalities(list(start.modalities))
    with pytest.raises(DataError, match=r"the model to start from knows .* nothing in common"):
        om.pretrain(tiny.recipe(), others, start=start)


def test_another_size_is_told(start, later):
    with pytest.raises(DataError, match=r"another size .* same recipe and --set"):
        untrained(start, later, dim=32)
