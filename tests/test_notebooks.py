"""The notebooks: each runs from top to bottom, on small cohorts here, and agrees with its text."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.md"))
QUICK = '{"members": 1, "dim": 16, "decoder_dim": 16, "pretrain": {"epochs": 2}}'
PARAMETERS = {
    "01_tcga_glioma_cohort": f"""
spec, root = write(om.simulate(220, seed=1, genes=40, cpgs=30, proteins=12), "glioma"), None
settings = {QUICK}""",
    "02_impute_missing": f'''
spec, root = write(om.simulate(160, seed=2, genes=40, cpgs=30, proteins=12), "cohort"), None
settings = {QUICK}
wanted = "dnam"''',
    "03_brats_missing_sequences": """
spec, root = write_brats(simulate_brats(20, seed=3), "brats"), None
one = {"epochs": 1, "warmup": 0}
settings = {"dim": 48, "trunk": 1, "features": 4}
settings |= dict.fromkeys(["pretrain", "segmentation", "finetune", "classification"], one)""",
    "04_optuna_tuning": f"""
spec, root = write(om.simulate(120, seed=4, genes=40, cpgs=30, proteins=12), "cohort"), None
settings = {QUICK}
trials = 2""",
    "05_bring_your_own_cohort": f"settings = {QUICK}",
}
"""What stands in the cell tagged ``parameters``, so that a notebook takes seconds."""


def read(name, ending):
    import jupytext

    return jupytext.read(NOTEBOOKS / f"{name}.{ending}")


def run(notebook, folder):
    """Execute a notebook in a folder; the first cell that fails is the test's failure."""
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_every_notebook_is_tried():
    assert set(NAMES) == set(PARAMETERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_and_its_text_agree(name):
    pytest.importorskip("jupytext")
    text, saved = read(name, "md"), read(name, "ipynb")
    assert [c.source for c in text.cells] == [c.source for c in saved.cells]
    assert all(c.get("execution_count") for c in saved.cells if c.cell_type == "code"), "not run"
    assert "site-packages" not in (NOTEBOOKS / f"{name}.ipynb").read_text(), "clear the warnings"


@pytest.mark.slow(seconds=25)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, tmp_path):
    pytest.importorskip("nbclient")
    notebook = read(name, "md")
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    cells[0].source = PARAMETERS[name]
    outputs = run(notebook, tmp_path)
    assert not [o for o in outputs if o.output_type == "error"]
    assert [o for o in outputs if "text/html" in o.get("data", {})], "no table was shown"
    figures = sum("figure" in cell.source.splitlines()[-1:] for cell in notebook.cells)
    assert sum("image/png" in o.get("data", {}) for o in outputs) == figures


@pytest.mark.slow(seconds=50)
@pytest.mark.realdata
def test_the_first_notebook_runs_on_the_real_tables(tmp_path, real_data):
    notebook = read("01_tcga_glioma_cohort", "md")
    spec = NOTEBOOKS.parent / "data_specs" / "tcga_glioma_matrices.yaml"
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            root = str(real_data / "tcga_glioma")
            cell.source = f"spec, root = {str(spec)!r}, {root!r}\nsettings = {QUICK}"
    assert run(notebook, tmp_path)
