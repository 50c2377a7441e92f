"""The documentation builds without a warning, and speaks of what is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
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
