"""The application that the commands join."""

from typing import Any

import typer

app = typer.Typer(pretty_exceptions_enable=False)


def example(command: str) -> dict[str, Any]:
    """Return the settings of a command with its example."""
    return {"epilog": f"Example: omnisurv {command}"}


@app.callback()
def omnisurv() -> None:
    """Multimodal survival analysis with missing data. Not for clinical use."""
