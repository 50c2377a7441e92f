"""The documentation builds without a warning, and speaks of what is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import omnisurv as om
from omnisurv.cli import app
from tests import tiny
from tests.commands import blocks

ROOT = Path(__file__).parents[1]


@pytest.mark.slow(seconds=20)
def test_it_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    for page, said in {
        "api.html": "omnisurv.pretrain",
        "_generated/kinds.html": "omnisurv.modalities.mri.MriOptions",
        "_generated/commands.html": "omnisurv finetune",
        "_generated/tutorials/02_impute_missing.html": "know when not to trust it",
    }.items():
        assert said in (tmp_path / page).read_text(), page


def test_links_between_pages_and_files_lead_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_can_be_typed_as_they_stand():
    """Arguments and options exist, and take what they are given; nothing is run."""
    known = get_command(app).commands
    typed = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["omnisurv"] and "&" not in words:
                    assert words[1] in known, f"{page.name}: {line}"
                    known[words[1]].make_context(words[1], words[2:])
                    typed.append(words[1])
    assert {"evaluate", "segment", "simulate", "tune"} <= set(typed)


@pytest.mark.slow(seconds=20)
@pytest.mark.filterwarnings("ignore")
def test_the_snippets_for_other_tools_run():
    """What stands in docs/ecosystem.md, on a small cohort."""
    import pandas as pd

    cohort = tiny.parts()[0].with_endpoint()
    tables = {name: cohort[name].to_df().reindex(cohort.patients) for name in ("rna", "clinical")}
    names = {
        "X": pd.concat(tables, axis=1),
        "outcome": cohort.obs[["time", "event"]].assign(event=cohort.obs["event"] == 1),
        "model": tiny.pretrained(),
        "cohort": cohort,
        "om": om,
    }
    first, second = blocks(ROOT / "docs" / "ecosystem.md", "python")
    smaller = {
        '"pretrain.epochs": 40': '"members": 1, "pretrain.epochs": 1',
        "5.0, 20.0, 80.0": "5.0, 20.0",
    }
    for old, new in smaller.items():
        assert old in first, old
        first = first.replace(old, new)
    exec(compile(second, "ecosystem.md, scverse", "exec"), names)
    assert "leiden" in names["mdata"].obs
    exec(compile(first, "ecosystem.md, scikit-survival", "exec"), names)
    assert len(names["functions"]) == len(cohort)
