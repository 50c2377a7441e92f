"""What omnisurv exports, what importing it costs, and that README and CI say the same."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import omnisurv as om

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "scanpy", "sksurv", "matplotlib", "pycox", "lightning", "anndata", "pandas")
NAMES = [
    "Cohort", "DataSpec", "SurvivalEstimator", "attributions", "consistency", "cross_validate",
    "embed", "evaluate", "finetune", "get_recipe", "impute", "load", "modality_value", "pretrain",
    "save", "simulate", "tune", "value_of_measuring",
]  # fmt: skip


def test_exported_names():
    assert sorted(om.__all__) == NAMES
    assert set(NAMES) <= set(dir(om))


@pytest.mark.parametrize("name", NAMES)
def test_everything_exported_is_there_and_documented(name):
    thing = getattr(om, name)
    assert callable(thing)
    assert inspect.getdoc(thing)


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'predict_the_future'"):
        om.predict_the_future  # noqa: B018


@pytest.mark.parametrize("statement", ["import omnisurv", "import omnisurv.cli"])
def test_importing_is_light(statement):
    code = f"import sys; {statement}; print([n for n in {HEAVY} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def readme_commands():
    """Return the README's two commands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Two commands")[1].split("\n## ")[0]
    return [line for block in re.findall(r"```sh\n(.*?)```", section, re.S)
            for line in block.strip().splitlines()]  # fmt: skip


def test_ci_runs_the_commands_of_the_readme():
    commands = readme_commands()
    assert len(commands) == 2
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in commands:
        assert command in script


def test_ci_names_no_machine():
    for name in (".ci/run", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "constraints.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(work|home|root|mnt)/", text), name


def test_every_dependency_is_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["imaging"], *extras["wsi"], *extras["cluster"]]
    wanted += [name for name in extras["dev"] if not name.startswith("omnisurv[")]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines if "==" in line}
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in pinned, name
    assert "torch==2.13.0" in lines


def test_readme_uses_names_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"\bom\.(\w+)", text)):
        assert hasattr(om, name), name
    for spec in set(re.findall(r"data_specs/\w+\.yaml", text)):
        assert (ROOT / spec).exists(), spec
    for command in set(re.findall(r"^omnisurv (\w+)", text, re.M)):
        assert command in {c.name or c.callback.__name__ for c in _commands()}


def _commands():
    from omnisurv.cli import app

    return app.registered_commands
