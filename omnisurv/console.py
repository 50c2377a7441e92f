"""What a terminal shows: tables, progress, and errors as one line."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress

HEADLINES = ("c_harrell", "auc", "dice_mean", "r2")
"""What is printed of an evaluation: of survival, a label, segmentation, imputation."""
PIPE_WIDTH = 160
"""Columns where there is no terminal to ask."""


def printer(*, stderr: bool = False) -> Console:
    """Return a console on today's standard output (or error)."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def say(*lines: str) -> None:
    """Print lines as they are, never wrapped when piped."""
    console = printer()
    for line in lines:
        console.print(line, markup=False, soft_wrap=not sys.stdout.isatty())


def complain(sentence: str) -> None:
    """Print one line on standard error."""
    printer(stderr=True).print(" ".join(sentence.split()), markup=False, soft_wrap=True)


def show(frame: "pd.DataFrame", title: str = "", digits: int = 3) -> None:
    """Print a table; numbers to the right, missing ones as a dash."""
    if title:
        say(title)
    table = Table(box=None, pad_edge=False)
    for column in frame.columns:
        numeric = frame[column].dtype.kind in "iuf"
        table.add_column(str(column), justify="right" if numeric else "left", overflow="fold")
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(_cell(value, digits) for value in row))
    printer().print(table)


def show_scores(table: "pd.DataFrame") -> None:
    """Print the first of ``HEADLINES`` that there is, with intervals, models × groups."""
    from omnisurv.metrics.names import NAMES

    metric = next(name for name in HEADLINES if (table["metric"] == name).any())
    first, second = ("subset", "model") if metric == "r2" else ("model", "subset")
    rows = table[table["metric"] == metric].copy()
    rows["value"] = [
        f"{value:.3f} ({low:.3f} – {high:.3f})"
        for value, low, high in zip(rows["value"], rows["ci_low"], rows["ci_high"], strict=True)
    ]
    rows["group"] = rows["group"].replace("all", "pooled")
    wide = rows.pivot_table(
        index=[first, second], columns="group", values="value", aggfunc="first", sort=False
    )
    show(wide.reset_index().fillna("–"), title=f"{NAMES[metric]} (95 % interval)")


def _cell(value: Any, digits: int) -> str:
    from rich.markup import escape

    if isinstance(value, float):
        return "–" if value != value else f"{value:.{digits}f}"
    return escape(str(value))


@contextmanager
def working(text: str, *, quiet: bool = False) -> Iterator[None]:
    """Show that something takes its time; nothing where there is no terminal."""
    with _bars(quiet) as bars:
        bars.add_task(text, total=None, text="")
        yield


@contextmanager
def reading(*, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Give a function of (files done, files in all) that draws how fast files are decoded."""
    with _bars(quiet) as bars:
        bars.add_task("read", total=None, text="")
        begun, first = 0.0, 0

        def advance(done: int, total: int) -> None:
            nonlocal begun, first
            if len(bars.tasks) == 1 or bars.tasks[-1].finished:  # the next modality
                bars.add_task("decode", total=total, completed=done, text="")
                begun, first = time.monotonic(), done
            pace = pace_of(done - first, total - done, time.monotonic() - begun)
            text = f"{done}/{total} files{pace}"
            bars.update(bars.tasks[-1].id, completed=done, total=total, text=text)

        yield advance


def pace_of(done: int, left: int, seconds: float) -> str:
    """Return files per second and the time left, in words; nothing before the first file."""
    if not done or seconds <= 0:
        return ""
    whole = round(left * seconds / done)
    hours, minutes = divmod(whole // 60, 60)
    rate = done / seconds
    shown = f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
    return f", {shown} files/s, {hours}:{minutes:02}:{whole % 60:02} left"


@contextmanager
def training(*, quiet: bool = False) -> Iterator[Callable[[str, int, int, str], None]]:
    """Give a function of (label, epoch, epochs, text) that draws a bar for each label."""
    with _bars(quiet) as bars:
        tasks: dict[str, Any] = {}

        def advance(label: str, done: int, total: int, text: str) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total, text="")
            bars.update(tasks[label], completed=done, total=total, text=text)

        yield advance


def _bars(quiet: bool) -> "Progress":
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns: Sequence[Any] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    console = printer(stderr=True)
    return Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    )
