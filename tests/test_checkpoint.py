"""Run folders: what comes back is what was saved, nothing is unpickled, failures are one line."""

import json
import pickle
import resource

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import yaml

import omnisurv as om
from omnisurv.errors import CheckpointError, InputError
from omnisurv.files import atomic, writable


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A survival run that no test may change."""
    return om.save(tiny.survival(), tmp_path_factory.mktemp("runs") / "survival")


@pytest.fixture
def run(saved, tmp_path):
    """A copy of that run to spoil."""
    import shutil

    return shutil.copytree(saved, tmp_path / "run")


def one_line(error):
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 800
    return str(error.value)


@pytest.mark.parametrize("kind", ["survival", "fusion"])
def test_a_survival_model_predicts_the_same_bits_after_loading(kind, tmp_path):
    model = getattr(tiny, kind)()
    again = om.load(om.save(model, tmp_path / "run"))
    _, test = tiny.parts()
    pd.testing.assert_frame_equal(
        model.predict_survival_function(test),
        again.predict_survival_function(test),
        check_exact=True,
    )
    pd.testing.assert_series_equal(model.predict(test), again.predict(test), check_exact=True)
    draws = 2 if model.residuals else 0
    a, b = om.impute(model, test, draws=draws), om.impute(again, test, draws=draws)
    for name in a.values:
        np.testing.assert_array_equal(a.values[name].X, b.values[name].X)
        np.testing.assert_array_equal(a.values[name].layers["low"], b.values[name].layers["low"])
        if draws:
            np.testing.assert_array_equal(a.draws[name], b.draws[name])
    assert again.seen == model.seen
    assert again.recipe == model.recipe
    assert again.strata == model.strata
    assert again.gains == model.gains
    assert again.provenance["data_fingerprint"] == model.provenance["data_fingerprint"]
    pd.testing.assert_frame_equal(again.follow_up, model.follow_up)
    pd.testing.assert_frame_equal(again.history, model.history)


def test_a_pretrained_model_can_be_loaded_and_fine_tuned(tmp_path):
    dev, test = tiny.parts()
    again = om.load(om.save(tiny.pretrained(), tmp_path / "run"))
    assert "imputmae:small" in repr(again)
    risk = om.finetune(again, dev).predict(test)
    pd.testing.assert_series_equal(risk, tiny.survival().predict(test), check_exact=True)


def test_a_model_trained_from_scratch_comes_back(tmp_path):
    """Corrections are not trained by gradient: such a run has no history at all."""
    dev, test = tiny.parts()
    model = om.finetune(tiny.recipe(), dev, run=tmp_path / "run")
    again = om.load(tmp_path / "run")
    assert again.history.empty
    pd.testing.assert_series_equal(model.predict(test), again.predict(test), check_exact=True)


def test_a_run_holds_what_the_design_says(saved):
    files = tiny.names(saved)
    for name in ("config.yaml", "model.safetensors", "history.csv", "provenance.json"):
        assert name in files
    config = yaml.safe_load((saved / "config.yaml").read_text())
    assert config["format"] == 3
    assert config["recipe"]["pretrain"]["lr"] == 2e-3  # resolved, not only what was said
    told = json.loads((saved / "provenance.json").read_text())
    assert {"versions", "seed", "spec_hash", "data_fingerprint", "seen"} <= set(told)
    dev, _ = tiny.parts()
    assert told["seen"]["pretrain"] == sorted(dev.hashed_ids())
    assert not any(patient in (saved / "provenance.json").read_text() for patient in dev.patients)


def test_nothing_is_pickled(saved, monkeypatch):
    suffixes = {path.rsplit(".", 1)[-1] for path in tiny.names(saved)}
    assert suffixes <= {"yaml", "json", "csv", "npz", "safetensors", "md"}
    for path in saved.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as stored:
            assert all(stored[name].dtype != object for name in stored.files)

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    om.load(saved)


def test_saving_twice_writes_the_same_bytes(tmp_path):
    a, b = (om.save(tiny.survival(), tmp_path / name) for name in "ab")
    for name in ("model.safetensors", "config.yaml", "provenance.json", "survival.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()


def spoil_config(run, **changes):
    config = yaml.safe_load((run / "config.yaml").read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for key in parents:
            place = place[key]
        place[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_no_run_there(tmp_path):
    with pytest.raises(CheckpointError) as error:
        om.load(tmp_path / "nowhere")
    assert "is not a finished run" in one_line(error)
    assert "--out folder" in one_line(error)


def test_another_format(run):
    spoil_config(run, format=99)
    with pytest.raises(CheckpointError) as error:
        om.load(run)
    assert "written in format 99, this omnisurv reads 3" in one_line(error)


def test_weights_of_another_recipe(run):
    spoil_config(run, recipe__dim=32)
    with pytest.raises(CheckpointError) as error:
        om.load(run)
    assert "weights do not fit the recipe in its config.yaml" in one_line(error)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recipe__name": "imputmea"}, "Did you mean 'imputmae'"),
        ({"recipe__wdith": 3}, "unknown key 'wdith'"),
        ({"recipe__dim": "wide"}, "key 'dim'"),
    ],
)
def test_a_recipe_this_version_does_not_know(run, change, sentence):
    spoil_config(run, **change)
    with pytest.raises(CheckpointError) as error:
        om.load(run)
    assert "of another recipe or version" in one_line(error)
    assert sentence in one_line(error)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "{:", "\x00\x01"])
def test_a_config_that_is_none(run, text):
    (run / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError) as error:
        om.load(run)
    assert "config.yaml holds no settings" in one_line(error)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "residuals.npz",
        "preprocessing/rna.npz",
        "preprocessing/rna.json",
        "provenance.json",
        "survival.json",
    ],
)
@pytest.mark.parametrize("how", ["cut short", "garbage", "gone"])
def test_a_damaged_file_is_one_line(run, name, how):
    path = run / name
    content = path.read_bytes()
    if how == "gone":
        if name == "residuals.npz":
            pytest.skip("a run without held-out errors has none")
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if how == "cut short" else b"\x93garbage" * 9)
    with pytest.raises(CheckpointError, match="damaged") as error:
        om.load(run)
    assert str(run) in one_line(error)


def test_atomic_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def fail(error):
        with atomic(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(InputError, match=r"cannot write .*metrics\.json: No space left"):
        fail(OSError(28, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    assert path.read_text() == "old"
    assert tiny.names(tmp_path) == ["metrics.json"]
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_disk_that_fills_up_leaves_the_old_run_whole(run):
    """No file may grow beyond a few kB: what a full disk looks like to a program."""
    before = {name: (run / name).read_bytes() for name in tiny.names(run)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*model\.safetensors") as error:
            om.save(tiny.fusion(), run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one_line(error)
    assert (run / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert (run / "config.yaml").read_bytes() == before["config.yaml"]
    assert tiny.names(run) == sorted(before)  # no temporary file is left lying


@pytest.mark.parametrize("place", ["a file in its place", "a file on its way"])
def test_a_folder_that_cannot_be_written_to(tmp_path, place):
    blocked = tmp_path / "blocked"
    blocked.write_text("I am a file")
    run = blocked if place == "a file in its place" else blocked / "run"
    _, test = tiny.parts()
    filled = om.impute(tiny.survival(), test, modalities=["cnv_arm"])
    for save in (
        lambda: om.save(tiny.pretrained(), run),
        lambda: om.save(tiny.survival(), run),
        lambda: filled.save(run),
        lambda: om.pretrain(tiny.recipe(), tiny.parts()[0], run=run),
        lambda: writable(run),
    ):
        with pytest.raises(InputError, match="cannot write to") as error:
            save()
        assert "choose another --out" in one_line(error)
    assert blocked.read_text() == "I am a file"


def test_an_unwritable_place_is_told_before_training_starts(tmp_path):
    (tmp_path / "run").write_text("")
    told = []
    with pytest.raises(InputError):
        om.pretrain(
            tiny.recipe(),
            tiny.parts()[0],
            run=tmp_path / "run",
            progress=lambda *what: told.append(what),
        )
    assert not told
