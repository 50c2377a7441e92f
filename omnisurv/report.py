"""One self-contained HTML page: it can load nothing, and is readable in print and in the dark."""

import base64
import hashlib
import html
import io
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from omnisurv.files import atomic, writable
from omnisurv.slider import Stack, render_stack

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMITS = (
    "This page is not for clinical use. It describes research software run on one cohort. "
    "Figures are estimates with the uncertainty stated beside them; imputed values are guesses, "
    "not measurements; nothing here may guide the care of a patient."
)
LONG = 60
"""Letters of a cell from which its column is broken into lines."""
PACKAGES = ("omnisurv", "torch", "numpy", "pandas", "anndata", "scikit-survival", "lifelines")


@dataclass(frozen=True, eq=False)
class Fold:
    """Sections behind a line that opens them.

    Attributes:
        summary: the line.
        sections: what it opens, in order; they have no folds of their own.
    """

    summary: str
    sections: "Sequence[Section]"


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: plain text; a blank line starts a new paragraph.
        table: shown with numbers aligned; ``ci_low`` and ``ci_high`` become one column.
        figure: a matplotlib figure.
        alt: what the figure shows, for those who cannot see it; the title if not given.
        caption: below the figure and the table.
        stack: pictures with a slider.
        code: lines to copy, such as commands.
        folds: below all that, closed but in print.
    """

    title: str
    text: str = ""
    table: pd.DataFrame | None = None
    figure: "Figure | None" = None
    alt: str = ""
    caption: str = ""
    stack: Stack | None = None
    code: str = ""
    folds: Sequence[Fold] = ()


def write_report(
    path: "Path | str",
    *,
    title: str,
    sections: Sequence[Section],
    lead: str = "",
    command: str = "",
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write the page and return its path.

    Args:
        path: the HTML file.
        title: its heading.
        sections: its parts, in order.
        lead: what a reader in a hurry should know.
        command: the command that made it, so that it can be made again.
        versions: names and versions of the software; what is installed if not given.
    """
    names = _anchors(sections)
    script = _template("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = Template(_template("page.html")).substitute(
        title=html.escape(title),
        style=_template("page.css"),
        script=script,
        digest=digest,
        lead=_paragraphs(lead, "lead"),
        contents=_contents(sections, names),
        sections="\n".join(map(_render, sections, names)),
        made=_made(command, installed_versions() if versions is None else versions),
        limits=html.escape(LIMITS),
    )
    with atomic(Path(path)) as partial:
        partial.write_text(page, encoding="utf-8")
    return Path(path)


def write_page(
    folder: str | Path, title: str, sections: Sequence[Section], lead: str, command: str
) -> Path:
    """Write ``report.html`` and each figure as ``figures/NAME.svg``; return the page."""
    from omnisurv.plots import style

    folder = writable(Path(folder))
    figures = writable(folder / "figures")
    for section in sections:
        if section.figure is not None:
            name = "".join(c if c.isalnum() else "_" for c in section.title.lower())
            with atomic(figures / f"{name}.svg") as path, style():
                section.figure.savefig(path, format="svg", metadata={"Date": None})
    path = folder / "report.html"
    return write_report(path, title=title, sections=sections, lead=lead, command=command)


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a figure depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # such as omnisurv itself, run from a checkout
            continue
    return found


def _template(name: str) -> str:
    return (files("omnisurv") / "template" / name).read_text(encoding="utf-8")


def _anchors(sections: Sequence[Section], start: str = "s") -> list[str]:
    """Return a distinct anchor for each section, made of its title."""
    names: list[str] = []
    for number, section in enumerate(sections, start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        names.append(f"{start}{number}-{slug}" if slug else f"{start}{number}")
    return names


def _contents(sections: Sequence[Section], names: Sequence[str]) -> str:
    items = (
        f'<li><a href="#{name}">{html.escape(section.title)}</a></li>'
        for section, name in zip(sections, names, strict=True)
    )
    return "\n".join([*items, '<li><a href="#limits">Limits</a></li>'])


def _render(section: Section, name: str, heading: str = "h2") -> str:
    title = f'<{heading} id="{name}-title">{html.escape(section.title)}</{heading}>'
    parts = [title, _paragraphs(section.text)]
    if section.figure is not None:
        alt = html.escape(section.alt or section.title)
        image = f'<img src="{_embed(section.figure)}" alt="{alt}">'
        label = html.escape(f"Figure: {section.title}")
        parts.append(f'<figure class="wide" aria-label="{label}">{image}</figure>')
    if section.stack is not None:
        parts.append(render_stack(section.stack, name))
    if section.table is not None:
        parts.append(_table(section.table, section.title))
    if section.code:
        parts.append(f"<pre><code>{html.escape(section.code)}</code></pre>")
    parts.append(_paragraphs(section.caption, "caption"))
    number = name.split("-")[0]
    parts += [_fold(fold, f"{number}f{at}") for at, fold in enumerate(section.folds, start=1)]
    body = "\n".join(part for part in parts if part)
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{body}\n</section>'


def _fold(fold: Fold, name: str) -> str:
    names = _anchors(fold.sections, f"{name}s")
    inside = (_render(*pair, "h3") for pair in zip(fold.sections, names, strict=True))
    summary = html.escape(fold.summary)
    return "\n".join([f'<details id="{name}"><summary>{summary}</summary>', *inside, "</details>"])


def _paragraphs(text: str, kind: str = "") -> str:
    opening = f'<p class="{kind}">' if kind else "<p>"
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return "\n".join(f"{opening}{html.escape(part)}</p>" for part in parts)


def _embed(figure: "Figure") -> str:
    """Return the figure as a data address: SVG with its letters drawn, the same every time."""
    from omnisurv.plots import style

    drawn = io.BytesIO()
    with style():
        figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.getvalue()).decode("ascii")


def _table(table: pd.DataFrame, title: str) -> str:
    shown = _join_intervals(table)
    looks = [_look(shown.iloc[:, at]) for at in range(shown.shape[1])]
    head = "".join(
        f'<th scope="col"{look}>{html.escape(str(column))}</th>'
        for column, look in zip(shown.columns, looks, strict=True)
    )
    # What is named in words in front is the head of its row.
    named = bool(looks) and "number" not in looks[0]
    rows = (
        "<tr>"
        + "".join(
            f'<th scope="row"{look}>{_cell(value)}</th>'
            if named and not at
            else f"<td{look}>{_cell(value)}</td>"
            for at, (value, look) in enumerate(zip(row, looks, strict=True))
        )
        + "</tr>"
        for row in shown.itertuples(index=False, name=None)
    )
    label = html.escape(f"Table: {title}")
    return (
        f'<div class="table" role="region" aria-label="{label}" tabindex="0">\n<table>\n'
        f'<caption class="unseen">{html.escape(title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _look(column: "pd.Series[Any]") -> str:
    """Return the class of a column's cells: numbers to the right, long texts in lines."""
    if _is_number(column):
        return ' class="number"'
    longest = max((len(value) for value in column if isinstance(value, str)), default=0)
    return ' class="long"' if longest > LONG else ""


def _is_number(column: "pd.Series[Any]") -> bool:
    numeric = pd.api.types.is_numeric_dtype(column.dtype)
    return bool(numeric and not pd.api.types.is_bool_dtype(column.dtype))


def _join_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Put ``ci_low`` and ``ci_high`` into one column, where the first of them stood."""
    if not {"ci_low", "ci_high"} <= set(table.columns):
        return table
    joined = [
        None if pd.isna(low) or pd.isna(high) else f"{_number(low)} – {_number(high)}"
        for low, high in zip(table["ci_low"], table["ci_high"], strict=True)
    ]
    place = list(table.columns).index("ci_low")
    rest = table.drop(columns=["ci_low", "ci_high"])
    rest.insert(min(place, rest.shape[1]), "95% CI", joined)
    return rest


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return html.escape(value)
    if value is None or pd.isna(value):
        return '<span class="none" title="not available">–</span>'
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, float, np.number)):
        return html.escape(_number(value))
    return html.escape(str(value))


def _number(value: Any) -> str:
    """Write a number to three decimals, or three digits where it is very small or large."""
    number = float(value) + 0.0  # no minus before zero
    if not math.isfinite(number):
        return str(number)
    if isinstance(value, (int, np.integer)):
        return f"{int(number):,}"
    if number != 0 and not 1e-3 <= abs(number) < 1e5:
        return f"{number:.2e}"
    return f"{number:,.3f}" if abs(number) < 100 else f"{number:,.1f}"


def _made(command: str, versions: Mapping[str, str]) -> str:
    parts = []
    if command:
        parts.append(f"<pre><code>{html.escape(command)}</code></pre>")
    listed = (f"{html.escape(name)} {html.escape(number)}" for name, number in versions.items())
    parts.append(f"<p>{', '.join(listed)}</p>")
    return "\n".join(parts)
