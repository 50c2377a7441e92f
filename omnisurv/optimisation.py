"""The training loop: one readable function on lightning.fabric, resumable to the bit."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from omnisurv.errors import CheckpointError
from omnisurv.files import atomic
from omnisurv.recipe import Stage
from omnisurv.shapes import Int, Tensor


class Objective(Protocol):
    """What a stage minimises."""

    def step(
        self, network: nn.Module, rows: Int[Tensor, " b"], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss on some training patients, and its parts for the history."""

    def validate(self, network: nn.Module) -> float:
        """Return the score on held-out patients, lower is better."""


@dataclass
class State:
    """Where a training stands at the end of an epoch."""

    epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    origin: str = ""
    """Digest of settings and untrained weights; another one is another training."""


@dataclass(frozen=True)
class Loop:
    """How to run a training: numerics, and where to leave off and resume."""

    precision: str
    seed: int
    checkpoint: Path | None = None
    progress: Callable[[str, int, int, str], None] | None = None
    """Called with (label, epoch, epochs, text) after each epoch."""
    label: str = "train"
    watch: Callable[[nn.Module, int], None] | None = None
    """Called with (network, epoch) after each validation; what it raises ends the training."""


def optimise(
    network: nn.Module,
    objective: Objective,
    patients: int,
    stage: Stage,
    loop: Loop,
    pretrained: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Train the network; on return it holds the weights that were best on held-out patients.

    The untrained network counts as epoch 0. A killed run resumes from ``loop.checkpoint`` and
    ends with the same bits on the same machine. It is written after every epoch; of a
    large network less often, so that it takes no more than a tenth of the time.
    ``pretrained`` is the part of the network that learns at ``stage.encoder_rate`` alone.

    Returns:
        The history: one row an epoch with ``train``, its parts, ``validation`` and ``seconds``.

    Raises:
        CheckpointError: ``loop.checkpoint`` is of a training with other settings or weights.
    """
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="auto", devices=1, precision=loop.precision)
    optimiser = torch.optim.AdamW(_groups(network, stage, pretrained), lr=stage.lr, fused=True)
    model, wrapped = fabric.setup(network, optimiser)
    generator = torch.Generator().manual_seed(loop.seed)
    state = State(origin=_origin(network, patients, stage, loop))
    pace = _Pace()
    with _own_random_numbers(loop.seed):
        if loop.checkpoint is not None and loop.checkpoint.exists():
            state = _read(loop.checkpoint, state.origin, network, optimiser, generator)
        else:
            _judge(state, network, objective)
        while state.epoch < stage.epochs and not _stale(state, stage):
            start, parts = time.perf_counter(), []
            model.train()
            order = torch.randperm(patients, generator=generator)
            batches = order.split(stage.batch)
            for index, rows in enumerate(batches):
                _set_lr(optimiser, stage, state.epoch + index / len(batches))
                # Under autocast rather than through Fabric's wrapper, which would copy the batch.
                with fabric.autocast():
                    loss, part = objective.step(network, rows, generator)
                fabric.backward(loss)
                fabric.clip_gradients(model, wrapped, max_norm=stage.clip)
                wrapped.step()
                wrapped.zero_grad()
                parts.append({"train": float(loss.detach()), **part})
            state.epoch += 1
            row = {"epoch": state.epoch, **_mean(parts), "seconds": time.perf_counter() - start}
            if state.epoch % stage.every == 0 or state.epoch == stage.epochs:
                row["validation"] = _judge(state, network, objective)
            state.history.append(row)
            if loop.checkpoint is not None and pace.due():
                with pace.writing():
                    _write(loop.checkpoint, state, network, optimiser, generator)
            if loop.progress is not None:
                loop.progress(loop.label, state.epoch, stage.epochs, f"loss {row['train']:.3f}")
            if loop.watch is not None and "validation" in row:
                loop.watch(network.eval(), state.epoch)
    _load_weights(network, state.best_weights)
    network.cpu().eval()
    for row in state.history:
        row["chosen"] = row["epoch"] == state.best_epoch
    return state.history


QUICK = 0.05
"""Seconds that writing a checkpoint may take after every epoch."""


class _Pace:
    """When to write a checkpoint: of a large network not after every short epoch."""

    def __init__(self) -> None:
        self._took, self._last = 0.0, time.perf_counter()

    def due(self) -> bool:
        """Return whether writing is quick, or takes a tenth of the time since the last one."""
        since = time.perf_counter() - self._last
        return self._took < QUICK or since >= 10.0 * self._took

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure how long writing takes."""
        start = time.perf_counter()
        yield
        self._last = time.perf_counter()
        self._took = self._last - start


def _judge(state: State, network: nn.Module, objective: Objective) -> float:
    """Validate, and keep the weights if they are the best so far."""
    network.eval()
    with torch.no_grad():
        score = objective.validate(network)
    if score < state.best:
        state.best, state.best_epoch = score, state.epoch
        state.best_weights = {k: v.detach().clone() for k, v in network.state_dict().items()}
    return score


def _stale(state: State, stage: Stage) -> bool:
    return stage.patience is not None and state.epoch - state.best_epoch >= stage.patience


def _set_lr(optimiser: torch.optim.Optimizer, stage: Stage, epoch: float) -> None:
    """Linear warm-up, then cosine to ``min_lr``."""
    if epoch < stage.warmup:
        lr = stage.lr * (epoch + 0.1) / (stage.warmup + 0.1)
    else:
        done = (epoch - stage.warmup) / max(stage.epochs - stage.warmup, 1)
        lr = stage.min_lr + 0.5 * (stage.lr - stage.min_lr) * (1 + math.cos(math.pi * done))
    for group in optimiser.param_groups:
        group["lr"] = lr * group["rate"]


def _groups(network: nn.Module, stage: Stage, pretrained: nn.Module | None) -> list[dict[str, Any]]:
    """Decay weights of two or more axes; not biases, norms, tokens (MAE, App. A).

    ``rate`` is the share of the learning rate that a group has.
    """
    before = set() if pretrained is None else set(pretrained.parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for weight in network.parameters():
        if weight.requires_grad:
            rate = stage.encoder_rate if weight in before else 1.0
            decay = stage.weight_decay if weight.ndim >= 2 else 0.0
            groups.setdefault((rate, decay), []).append(weight)
    return [
        {"params": weights, "rate": rate, "weight_decay": decay}
        for (rate, decay), weights in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


def _mean(parts: list[dict[str, float]]) -> dict[str, float]:
    """Average over the steps; a part that a step did not score does not count there."""
    names = {name: None for part in parts for name in part}
    return {
        name: sum(values) / len(values)
        for name in names
        if (values := [part[name] for part in parts if name in part])
    }


@contextmanager
def _own_random_numbers(seed: int) -> Iterator[None]:
    """Seed torch's global generator (dropout draws from it) and give the caller's back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    if weights:
        network.load_state_dict(weights)


def _origin(network: nn.Module, patients: int, stage: Stage, loop: Loop) -> str:
    digest = hashlib.sha256(
        f"{stage.model_dump_json()} {patients} {loop.seed} {loop.precision}".encode()
    )
    for name, weight in network.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(
    path: Path,
    state: State,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    from safetensors.torch import save

    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in state.best_weights.items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in slots.items()}
    tensors["generator"] = generator.get_state()
    tensors["global_generator"] = torch.get_rng_state()
    told = {k: getattr(state, k) for k in ("epoch", "best", "best_epoch", "origin")}
    metadata = {"state": json.dumps({**told, "history": state.history})}
    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def _read(
    path: Path,
    origin: str,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> State:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        told = json.loads(stored.metadata()["state"])
    if told["origin"] != origin:
        raise CheckpointError(
            f"{path} is of a training that was stopped with other settings, patients or starting "
            "weights; choose another --out, or delete that file to start again"
        )
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimiser": {}}
    for key, value in tensors.items():
        head, _, rest = key.partition(".")
        if head in parts:
            parts[head][rest] = value
    network.load_state_dict(parts["network"])
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in parts["optimiser"].items():
        index, name = key.split(".")
        slots.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})
    generator.set_state(tensors["generator"])
    torch.set_rng_state(tensors["global_generator"])
    return State(best_weights=parts["best"], **told)
