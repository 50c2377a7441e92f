"""The training loop: the best held-out weights come back, and a killed run ends the same."""

import json
import math
import random
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch import nn

import omnisurv as om
from omnisurv import optimisation
from omnisurv.errors import CheckpointError, InputError
from omnisurv.optimisation import Loop, _set_lr, optimise
from omnisurv.recipe import Stage
from tests.processes import CONTEXT, start


class Scripted:
    """A regression whose held-out scores are given beforehand."""

    def __init__(self, scores, scale=1.0, noise=False):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(20, 3, generator=generator)
        self.y = scale * (self.x @ torch.tensor([[1.0], [2.0], [3.0]]) + 1.0)
        self.scores, self.noise, self.weights = list(scores), noise, []

    def step(self, network, rows, generator):
        x = self.x[rows]
        if self.noise:
            x = x + torch.rand(x.shape, generator=generator) + torch.rand_like(x)
        loss = (network(x) - self.y[rows]).square().mean()
        return loss, {"error": float(loss.detach())}

    def validate(self, network):
        state = network.state_dict()
        self.weights.append({k: v.clone() for k, v in state.items()})
        return self.scores[len(self.weights) - 1]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def stage(epochs, **settings):
    return Stage(**{"epochs": epochs, "batch": 8, "lr": 0.1, "weight_decay": 0.01, **settings})


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_the_best_held_out_weights_are_returned():
    objective = Scripted([5.0, 4.0, 1.0, 3.0, 2.0])
    net = network()
    history = optimise(net, objective, 20, stage(4), Loop("32-true", 0))
    assert same(net.state_dict(), objective.weights[2])
    assert not same(net.state_dict(), objective.weights[4])
    assert [row["validation"] for row in history] == [4.0, 1.0, 3.0, 2.0]
    assert [row["chosen"] for row in history] == [False, True, False, False]
    assert not net.training


def test_the_untrained_network_counts_as_epoch_zero():
    objective = Scripted([1.0, 4.0, 3.0, 2.0])
    net = network()
    history = optimise(net, objective, 20, stage(3), Loop("32-true", 0))
    assert same(net.state_dict(), objective.weights[0])
    assert not any(row["chosen"] for row in history)


def test_early_stopping_waits_for_its_patience():
    objective = Scripted([5.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    history = optimise(network(), objective, 20, stage(9, patience=3), Loop("32-true", 0))
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[0]["chosen"]


def test_validation_every_few_epochs_and_always_at_the_end():
    history = optimise(
        network(), Scripted([9.0, 3.0, 2.0, 1.0]), 20, stage(5, every=2), Loop("32-true", 0)
    )
    assert [row.get("validation") for row in history] == [None, 3.0, None, 2.0, 1.0]


def rate(settings, epoch):
    optimiser = torch.optim.SGD([{"params": nn.Linear(1, 1).parameters(), "rate": 1.0}], lr=123.0)
    _set_lr(optimiser, settings, epoch)
    return optimiser.param_groups[0]["lr"]


def test_warm_up_is_linear_then_the_rate_falls_as_a_cosine():
    s = stage(12, lr=1.0, min_lr=0.1, warmup=4)
    assert 0 < rate(s, 0) < 0.05
    steps = np.diff([rate(s, e) for e in (0, 1, 2, 3)])
    np.testing.assert_allclose(steps, steps[0])
    assert rate(s, 4) == pytest.approx(1.0)
    assert rate(s, 8) == pytest.approx(0.55)  # half way: the mean of both ends
    assert rate(s, 6) == pytest.approx(0.1 + 0.45 * (1 + np.cos(np.pi / 4)))
    assert rate(s, 12) == pytest.approx(0.1)


def test_without_warm_up_the_rate_starts_at_its_top():
    assert rate(stage(10, lr=0.5), 0) == 0.5


def test_gradients_are_clipped_and_biases_are_not_decayed(monkeypatch):
    norms, groups = [], []
    original = torch.optim.AdamW.step

    def record(self, *args, **kwargs):
        parameters = [p for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.stack([p.grad.square().sum() for p in parameters]).sum().sqrt()))
        groups.append({p.ndim: g["weight_decay"] for g in self.param_groups for p in g["params"]})
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    settings = stage(2, clip=0.5)
    optimise(network(), Scripted([1.0] * 3, scale=100.0), 20, settings, Loop("32-true", 0))
    np.testing.assert_allclose(norms, 0.5, rtol=1e-4)
    assert groups[0] == {2: 0.01, 1: 0.0}


def test_what_was_pretrained_learns_at_its_share_of_the_rate():
    """AdamW's first step is as long as the rate, whatever the gradient."""
    settings = stage(1, batch=20, lr=0.01, weight_decay=0.0, encoder_rate=0.1)
    whole = nn.Sequential(network(), nn.Linear(1, 1))
    before = {name: weight.clone() for name, weight in whole.state_dict().items()}
    optimise(whole, Scripted([2.0, 1.0]), 20, settings, Loop("32-true", 0), whole[0])
    for name, weight in whole.state_dict().items():
        step = 0.001 if name.startswith("0.") else 0.01
        np.testing.assert_allclose((weight - before[name]).abs(), step, rtol=1e-3)


def test_frozen_weights_do_not_move():
    net = network()
    net.bias.requires_grad_(False)
    before = net.bias.clone()
    optimise(net, Scripted([3.0, 2.0, 1.0]), 20, stage(2), Loop("32-true", 0))
    assert torch.equal(net.bias, before)


def test_the_callers_random_numbers_are_left_alone():
    net = network()
    torch.manual_seed(7)
    state, numbers, other = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    optimise(net, Scripted([3.0, 2.0], noise=True), 20, stage(1), Loop("32-true", 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert random.getstate() == other


def test_trainings_leave_the_callers_random_numbers_alone():
    dev, _ = tiny.parts()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    om.finetune(om.pretrain(tiny.recipe(pretrain={"epochs": 1}), dev), dev)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_decides_and_nothing_else_does():
    def run(seed, callers_seed):
        net = network()
        torch.manual_seed(callers_seed)
        optimise(net, Scripted([3.0, 2.0, 1.0], noise=True), 20, stage(2), Loop("32-true", seed))
        return net.state_dict()

    assert same(run(1, 10), run(1, 20))
    assert not same(run(1, 10), run(2, 10))


class Killed(Exception):
    pass


def interrupted(path, epochs, stop):
    """Train; stop short after ``stop`` epochs; return weights and history."""

    def progress(label, epoch, total, text):
        if epoch == stop:
            raise Killed

    objective = Scripted([9.0, 2.0, 3.0, 1.0, 4.0, 5.0], noise=True)
    net = network()
    loop = Loop("32-true", 0, path, progress)
    if path.exists():
        told = json.loads(_metadata(path)["state"])
        objective.weights = [{}] * (told["epoch"] + 1)  # scores already given
    history = optimise(net, objective, 20, stage(epochs), loop)
    return net.state_dict(), [{k: v for k, v in r.items() if k != "seconds"} for r in history]


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        return stored.metadata()


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_an_interrupted_loop_ends_with_the_same_bits(tmp_path, stop):
    whole, history = interrupted(tmp_path / "a.safetensors", 5, stop=99)
    with pytest.raises(Killed):
        interrupted(tmp_path / "b.safetensors", 5, stop)
    again, history_again = interrupted(tmp_path / "b.safetensors", 5, stop=99)
    assert same(whole, again)
    assert history == history_again


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(Killed):
        interrupted(path, 5, stop=2)
    with pytest.raises(CheckpointError, match="other settings, patients or starting weights"):
        optimise(network(seed=1), Scripted([1.0] * 9), 20, stage(5), Loop("32-true", 0, path))
    with pytest.raises(CheckpointError, match="choose another --out"):
        optimise(network(), Scripted([1.0] * 9), 20, stage(6), Loop("32-true", 0, path))


def test_a_full_disk_while_training_is_one_line(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    loop = Loop("32-true", 0, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"cannot write .*a\.safetensors: No space left") as caught:
        optimise(network(), Scripted([1.0] * 3), 20, stage(2), loop)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def train(folder, progress=None):
    """Pre-train, then fine-tune the fusion head by gradient."""
    dev, _ = tiny.parts(100, 3)
    recipe = tiny.recipe(
        omics="fusion", dropout=0.1, pretrain={"epochs": 12}, finetune={"epochs": 30}
    )
    model = om.pretrain(recipe, dev, run=f"{folder}/pretrain", progress=progress)
    om.finetune(model, dev, run=f"{folder}/finetune", progress=progress)


def train_telling(folder, said):
    """Train in this process, saying each epoch once its checkpoint is written."""
    optimisation.QUICK = math.inf  # a checkpoint after every epoch, however slow the disk is
    torch.set_num_threads(1)
    train(folder, lambda label, epoch, *_: said.send(f"{label} {epoch}"))


def kill_after(folder, line):
    """Kill -9 the process as soon as it has said ``line``; it goes on computing meanwhile."""
    heard, said = CONTEXT.Pipe(duplex=False)
    process = start(train_telling, folder, said)
    said.close()
    told = [heard.recv()]
    while told[-1] != line:
        told.append(heard.recv())
    process.kill()
    process.join(timeout=60)
    heard.close()
    assert process.exitcode == -signal.SIGKILL
    return told


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow(seconds=25)
@pytest.mark.usefixtures("one_thread")
def test_a_run_killed_twice_ends_with_the_same_bits(tmp_path):
    """Once in pre-training, once in fine-tuning, beside a run that nobody disturbed."""
    train(tmp_path / "whole")
    kill_after(tmp_path / "killed", "pretrain 4")
    unfinished = tmp_path / "killed" / "pretrain"
    assert list((unfinished / "resume").glob("*.safetensors"))
    with pytest.raises(CheckpointError, match="run the same command again to resume"):
        om.load(unfinished)
    assert "pretrain 4" not in kill_after(tmp_path / "killed", "finetune 9")
    told = []
    train(tmp_path / "killed", lambda label, epoch, *_: told.append(f"{label} {epoch}"))
    assert told[-1] == "finetune 30"
    assert "finetune 9" not in told  # it went on from there, not from the start
    for stage_name in ("pretrain", "finetune"):
        whole, killed = tmp_path / "whole" / stage_name, tmp_path / "killed" / stage_name
        assert tiny.names(killed) == tiny.names(whole)
        name = "model.safetensors"
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
        a, b = (pd.read_csv(run / "history.csv") for run in (whole, killed))
        pd.testing.assert_frame_equal(
            a.drop(columns="seconds"), b.drop(columns="seconds"), check_exact=True
        )
        with np.load(whole / "residuals.npz") as x, np.load(killed / "residuals.npz") as y:
            assert all(np.array_equal(x[key], y[key], equal_nan=True) for key in x.files)
