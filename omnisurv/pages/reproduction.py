"""How a run can be made again: settings, commands, versions, hashes."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from omnisurv.card import split_hash
from omnisurv.recipe import Recipe, get_recipe
from omnisurv.report import Section, installed_versions
from omnisurv.runs import read_split
from omnisurv.tuning.space import flatten

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.runs import Data


def settings_section(model: "FittedModel") -> Section:
    """Return the settings of a model beside those of its recipe."""
    settings = flatten(model.config()["recipe"])
    usual = _usual(model.config()["recipe"])
    table = pd.DataFrame(
        [(name, _text(value), _text(usual.get(name))) for name, value in settings.items()],
        columns=["setting", "value", f"{model.recipe.title} has"],
    )
    return Section(
        "Settings",
        f"{len(model.networks)} network{'s' * (len(model.networks) > 1)}. The last column is what "
        "the recipe has if nothing is set.",
        table=table,
    )


def again_section(run: Path, model: "FittedModel", data: "Data | None") -> Section:
    """Return the commands, versions and hashes with which the run can be made again."""
    told, split = model.provenance, read_split(run)
    rows = {
        "spec": told.get("spec"),
        "spec file, SHA-256": split.get("spec_sha256"),
        "data fingerprint": told.get("data_fingerprint"),
        "training patients' fingerprint": split.get("fingerprint"),
        "split": split_hash(split),
        "weights, SHA-256": hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest(),
        "seed": told.get("seed"),
        "python": told.get("python"),
        **told.get("versions", {}),
    }
    now = installed_versions()
    table = pd.DataFrame(
        [(k, str(v), now.get(k)) for k, v in rows.items() if v is not None],
        columns=["what", "when it was trained", "now"],
    )
    same = "" if data is None or not split else _same_spec(data, split)
    return Section(
        "How to reproduce",
        f"On the same files and versions the same numbers come out. {same}".strip(),
        table=table,
        code="\n".join(_commands(run)),
    )


def _same_spec(data: "Data", split: Mapping[str, Any]) -> str:
    if data.told()["spec_sha256"] == split.get("spec_sha256"):
        return "The spec that this page was made with is the one that the run was trained on."
    return "This page was made with another spec, or an edited one, than the run was trained on."


def _commands(run: Path) -> list[str]:
    """Return the commands that make the run again, from what its folder says."""
    told = read_split(run)
    evaluated = command_line("evaluate", run, told.get("spec", "SPEC"))
    return [*_training_commands(run), evaluated, command_line("report", run)]


def _training_commands(run: Path) -> list[str]:
    """Return the command that trained a run, after that of the run it began with."""
    told, config = read_split(run), yaml.safe_load((run / "config.yaml").read_text())
    spec, source = told.get("spec", "SPEC"), told.get("source")
    usual, settings = _usual(config["recipe"]), flatten(config["recipe"])
    task = [] if config["task"] == "pretrain" else ["--task", told.get("task") or config["task"]]
    before: list[str] = []
    if source is None:
        stage = "finetune" if task else "pretrain"
        words = [stage, spec, "--recipe", _title(config["recipe"]), *task]
    elif config["task"] == "pretrain":
        words = ["pretrain", spec, "--recipe", _title(config["recipe"]), "--start", source]
    else:
        words = ["finetune", source, *task]
        if (Path(source) / "config.yaml").is_file():
            first = yaml.safe_load((Path(source) / "config.yaml").read_text())
            before, usual = _training_commands(Path(source)), flatten(first["recipe"])
    words += _set(settings, usual)
    return [*before, command_line(*words, "--out", run)]


def set_words(recipe: Recipe) -> list[str]:
    """Return the ``--set`` of a command for all in which a recipe differs from its preset."""
    settings = json.loads(recipe.model_dump_json())
    return _set(flatten(settings), _usual(settings))


def command_line(*words: Any) -> str:
    """Return a command of omnisurv as it is typed."""
    return "omnisurv " + shlex.join(str(word) for word in words)


def _set(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    changed = {name: value for name, value in settings.items() if value != usual.get(name)}
    return [w for n, value in changed.items() for w in ("--set", f"{n}={json.dumps(value)}")]


def _title(recipe: Mapping[str, Any]) -> str:
    preset = recipe["preset"]
    return recipe["name"] if preset == "paper" else f"{recipe['name']}:{preset}"


def _usual(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a recipe has if nothing is set, by dotted name."""
    return flatten(json.loads(get_recipe(_title(recipe)).model_dump_json()))


def _text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("\n...")
