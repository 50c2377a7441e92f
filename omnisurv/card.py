"""The model card of a run: ``README.md`` with the front matter that model hubs read.

It is made from what the run folder holds. It has counts and never ids; counts below five are not
told, as few patients could be guessed from them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from omnisurv.files import atomic

FEWEST = 5
"""Patients that a count must have to be told."""
LIMITS = """\
- Not for clinical use: this is research software, and nothing here may guide the care of a patient.
- Figures hold for patients like those above. On another hospital's, judge it anew:
  `omnisurv evaluate RUN SPEC`.
- Imputed values are guesses with an interval, not measurements. A modality that was rare in
  training is imputed, and used, with little to go by.
- The run folder has hashed ids of the patients each stage saw, and the follow-up times of those
  it was fine-tuned on. Hashes of guessable ids can be guessed: share the weights of patients whose
  data are under controlled access only as their access agreement says.
"""


def write_card(run: Path) -> Path:
    """Write ``README.md`` from what a finished run holds, and return it."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    provenance = _read(run / "provenance.json")
    metrics = _read(run / "metrics.json")
    front = yaml.safe_dump(_front_matter(config, provenance, metrics), sort_keys=False)
    sections = {
        "What it saw": _seen(provenance),
        "Figures": _figures(metrics),
        "Limits": LIMITS,
        "Use": _use(config["task"]),
        "Settings": _settings(config),
        "Where it comes from": _origin(run, provenance),
    }
    body = "\n".join(f"## {title}\n\n{text.strip()}\n" for title, text in sections.items() if text)
    with atomic(run / "README.md") as path:
        path.write_text(f"---\n{front}---\n\n# {_title(config)}\n\n{body}", encoding="utf-8")
    return run / "README.md"


def _title(config: Mapping[str, Any]) -> str:
    recipe = config["recipe"]
    preset = "" if recipe["preset"] == "paper" else f":{recipe['preset']}"
    done = "pre-trained" if config["task"] == "pretrain" else f"for {config['task']}"
    return f"{recipe['name']}{preset}, {done}, on {' + '.join(config['modalities'])}"


def _front_matter(
    config: Mapping[str, Any], provenance: Mapping[str, Any], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    tags = ["omnisurv", config["recipe"]["name"], config["task"], "multimodal", "missing-data"]
    front: dict[str, Any] = {"library_name": "omnisurv", "tags": tags}
    found = [
        {"type": row["metric"], "value": round(row["value"], 4)}
        for row in _own_rows(metrics)
        if row["group"] == "all"
    ]
    if found:
        result = {
            "task": {"type": config["task"]},
            "dataset": {"type": "private", "name": provenance.get("spec") or "unnamed"},
            "metrics": found,
        }
        front["model-index"] = [{"name": _title(config), "results": [result]}]
    return front


def _seen(provenance: Mapping[str, Any]) -> str:
    """Return a table of patients, events and patients with each modality, by stage."""
    counts = provenance.get("stages", {})
    stages = {stage: {"patients": len(ids)} for stage, ids in provenance.get("seen", {}).items()}
    stages = {stage: {**told, **_flat(counts.get(stage, {}))} for stage, told in stages.items()}
    columns = list(dict.fromkeys(name for told in stages.values() for name in told))
    rows = [[stage, *(_count(told.get(c)) for c in columns)] for stage, told in stages.items()]
    if not rows:
        return ""
    return _table(["stage", *columns], rows) + f"\nCounts below {FEWEST} are not told.\n"


def _flat(counts: Mapping[str, Any]) -> dict[str, int]:
    told = {name: counts[name] for name in ("patients", "events") if name in counts}
    return {**told, **{f"with {m}": n for m, n in counts.get("modalities", {}).items()}}


def _figures(metrics: Mapping[str, Any]) -> str:
    """Return the figures with all modalities, of the model and what it was compared with."""
    rows = [row for row in _whole(metrics) if row["n"] is not None and row["n"] >= FEWEST]
    if not rows:
        return (
            "It has not been judged in this folder. `omnisurv evaluate RUN SPEC` writes figures "
            "on patients that no stage has seen, beside baselines, and adds them here."
        )
    named = "modality" if "modality" in rows[0] else "group"
    cells = [
        [row["model"], row[named], row["metric"], _number(row["value"]), _interval(row),
         _count(row["n"]), _count(row["events"])]
        for row in rows
    ]  # fmt: skip
    table = _table(["model", named, "metric", "value", "95 % CI", "patients", "events"], cells)
    notes = "".join(f"- {note}\n" for note in metrics.get("notes", []))
    return f"{table}\n{notes}"


def _whole(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows to show: of imputation all modalities, else all modalities together."""
    rows: list[dict[str, Any]] = metrics.get("rows", [])
    if rows and "modality" in rows[0]:
        return [row for row in rows if row["group"] == "all"]
    return [row for row in rows if row["subset"] == "all"]


def _own_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the model itself, which stands first."""
    rows = _whole(metrics)
    return [
        row
        for row in rows
        if row["model"] == rows[0]["model"]
        and "modality" not in row
        and row["value"] is not None
        and (row["n"] or 0) >= FEWEST
    ]


def _use(task: str) -> str:
    lines = ["import omnisurv as om", "", 'model = om.load("RUN")']
    lines += ['cohort = om.Cohort.from_spec("SPEC.yaml")']
    if task == "survival":
        lines += ["risk = model.predict(cohort)  # higher = worse; any modality may be missing"]
        lines += ["S = model.predict_survival_function(cohort)  # days × patients"]
    lines += ["filled = om.impute(model, cohort)"]
    return "```python\n" + "\n".join(lines) + "\n```"


def _settings(config: Mapping[str, Any]) -> str:
    told = {name: config[name] for name in ("members", "recipe", "modalities")}
    return f"```yaml\n{yaml.safe_dump(told, sort_keys=False)}```"


def _origin(run: Path, provenance: Mapping[str, Any]) -> str:
    """Return versions and hashes: enough to know the same data and split again."""
    told = {
        "spec": f"{provenance.get('spec')} ({provenance.get('spec_hash')})",
        "data": provenance.get("data_fingerprint"),
        "split": split_hash(_read(run / "splits.json")),
        "seed": provenance.get("seed"),
        "python": provenance.get("python"),
        **provenance.get("versions", {}),
    }
    return _table(["what", "which"], [[k, str(v)] for k, v in told.items() if v is not None])


def split_hash(splits: Mapping[str, Any]) -> str | None:
    """Return a hash of who was trained on and who was held out."""
    if not splits:
        return None
    parts = [",".join(sorted(splits.get(part, []))) for part in ("train", "held_out")]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def _count(number: float | None) -> str:
    if number is None:
        return "–"
    return f"< {FEWEST}" if 0 < number < FEWEST else str(int(number))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["ci_low"] is None or row["ci_high"] is None:
        return "–"
    return f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"


def _table(names: list[str], rows: list[list[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _read(file: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return told
