"""How the documentation is built: ``sphinx-build -W docs docs/_build``."""

import shutil
from pathlib import Path

from omnisurv import __version__

HERE = Path(__file__).parent

project = "omnisurv"
author = "The omnisurv developers"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.autodoc_pydantic",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "omnisurv"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# The notebooks are executed by the tests; here they are shown as they were saved.
nb_execution_mode = "off"

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
autodoc_pydantic_model_show_json = False
autodoc_pydantic_model_show_config_summary = False
autodoc_pydantic_model_show_validator_summary = False
autodoc_pydantic_model_show_validator_members = False
autodoc_pydantic_model_show_field_summary = False
autodoc_pydantic_field_list_validators = False
autodoc_pydantic_model_member_order = "bysource"


def _shown(model: type) -> str:
    """Return what makes Sphinx show the fields of a model."""
    name = f"{model.__module__}.{model.__qualname__}"
    return f"```{{eval-rst}}\n.. autopydantic_model:: {name}\n```"


def _generate() -> None:
    """Write the pages that follow from the code: tutorials, kinds, commands."""
    import typer
    from typer.cli import get_docs_for_click

    from omnisurv.cli import app
    from omnisurv.registry import modalities

    written = HERE / "_generated"
    shutil.rmtree(written, ignore_errors=True)
    (written / "tutorials").mkdir(parents=True)
    for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        shutil.copy(notebook, written / "tutorials")

    kinds = ["# Kinds of modalities", "Beside `kind` and `source`, the options of the kind."]
    sources = {}
    for name, kind in modalities:
        sources |= kind.formats
        formats = ", ".join(f"`{known}`" for known in kind.formats)
        kinds += [f"## {name}", f"{kind.summary}. Read from {formats}.", _shown(kind.Options)]
    kinds += ["## Formats", "What `source` takes, by its `format`."]
    kinds += [_shown(source) for source in sources.values()]
    (written / "kinds.md").write_text("\n\n".join(kinds) + "\n")

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="omnisurv")
    told = get_docs_for_click(obj=command, ctx=context, name="omnisurv")
    told = told.replace("# `omnisurv`\n", "# Commands\n", 1)
    (written / "commands.md").write_text(told)


_generate()
