"""One self-contained HTML page: no script, nothing loaded, readable in print and in the dark."""

import base64
import html
import io
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from omnisurv.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMITS = (
    "Limits: not for clinical use. This page describes research software run on one cohort. "
    "Figures are estimates with the uncertainty stated beside them; imputed values are guesses, "
    "not measurements; nothing here may guide the care of a patient."
)
PACKAGES = ("omnisurv", "torch", "numpy", "pandas", "anndata", "scikit-survival", "lifelines")


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
    """

    title: str
    text: str = ""
    table: pd.DataFrame | None = None
    figure: "Figure | None" = None
    alt: str = ""
    caption: str = ""


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
    page = TEMPLATE.substitute(
        title=html.escape(title),
        style=STYLE,
        lead=_paragraphs(lead, "lead"),
        contents=_contents(sections, names),
        sections="\n".join(map(_render, sections, names)),
        made=_made(command, installed_versions() if versions is None else versions),
        limits=html.escape(LIMITS),
    )
    with atomic(Path(path)) as partial:
        partial.write_text(page, encoding="utf-8")
    return Path(path)


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a figure depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # such as omnisurv itself, run from a checkout
            continue
    return found


def _anchors(sections: Sequence[Section]) -> list[str]:
    """Return a distinct anchor for each section, made of its title."""
    names: list[str] = []
    for number, section in enumerate(sections, start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        names.append(f"s{number}-{slug}" if slug else f"s{number}")
    return names


def _contents(sections: Sequence[Section], names: Sequence[str]) -> str:
    items = (
        f'<li><a href="#{name}">{html.escape(section.title)}</a></li>'
        for section, name in zip(sections, names, strict=True)
    )
    return "\n".join(items)


def _render(section: Section, name: str) -> str:
    parts = [f'<h2 id="{name}-title">{html.escape(section.title)}</h2>', _paragraphs(section.text)]
    if section.figure is not None:
        alt = html.escape(section.alt or section.title)
        parts.append(f'<figure><img src="{_embed(section.figure)}" alt="{alt}"></figure>')
    if section.table is not None:
        parts.append(_table(section.table, section.title))
    parts.append(_paragraphs(section.caption, "caption"))
    body = "\n".join(part for part in parts if part)
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{body}\n</section>'


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
    numeric = [_is_number(shown.iloc[:, at]) for at in range(shown.shape[1])]
    head = "".join(
        f'<th scope="col"{_side(number)}>{html.escape(str(column))}</th>'
        for column, number in zip(shown.columns, numeric, strict=True)
    )
    rows = (
        "<tr>"
        + "".join(
            f"<td{_side(number)}>{_cell(value)}</td>"
            for value, number in zip(row, numeric, strict=True)
        )
        + "</tr>"
        for row in shown.itertuples(index=False, name=None)
    )
    label = html.escape(f"Table: {title}")
    return (
        f'<div class="table" role="region" aria-label="{label}" tabindex="0">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


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


def _side(number: bool) -> str:
    return ' class="number"' if number else ""


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
    number = float(value)
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


STYLE = """
:root { color-scheme: light dark; --ink: #1d1f21; --muted: #5c6166; --line: #d9dcdf;
  --paper: #ffffff; --shade: #f5f6f7; --link: #00598a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e8; --muted: #a3a9ae; --line: #3a3f44; --paper: #17191b;
    --shade: #202326; --link: #7cc4ee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 3rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .5rem; }
p { max-width: 44rem; margin: 0 0 .9rem; }
a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
.lead { font-size: 1.1rem; }
.caption, footer { color: var(--muted); font-size: .875rem; }
nav ol { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1.25rem 0 0;
  padding: .75rem 0; border-block: 1px solid var(--line); font-size: .925rem; }
section { padding: 2.25rem 0 1rem; }
figure { margin: 1rem 0; padding: .75rem; background: #ffffff; border-radius: 6px;
  border: 1px solid var(--line); }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.table { overflow: auto; max-height: 34rem; margin: 1rem 0; border: 1px solid var(--line);
  border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: left; white-space: nowrap; vertical-align: top; }
th { position: sticky; top: 0; background: var(--shade); font-weight: 600; }
tbody tr { border-top: 1px solid var(--line); }
.table .number { text-align: right; }
.none { color: var(--muted); }
pre { background: var(--shade); padding: .75rem 1rem; border-radius: 6px; overflow-x: auto;
  color: var(--ink); }
code { font: .875rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
footer { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.25rem;
  padding-bottom: 3rem; }
footer strong { color: var(--ink); }
@media (max-width: 48rem) {
  figure { overflow-x: auto; }
  figure img { max-width: none; }
}
@media print {
  :root { --ink: #000; --muted: #444; --paper: #fff; --shade: #f2f2f2; --link: #000; }
  body { font-size: 10.5pt; }
  header, main, footer { max-width: none; padding-inline: 0; }
  nav, .skip { display: none; }
  .table { max-height: none; overflow: visible; }
  h2 { break-after: avoid; }
  figure, tr, pre { break-inside: avoid; }
  thead { display: table-header-group; }
  th { position: static; }
}
"""

TEMPLATE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="omnisurv">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<a class="skip" href="#content">Skip to the content</a>
<h1>$title</h1>
$lead
<nav aria-label="Contents"><ol>
$contents
</ol></nav>
</header>
<main id="content">
$sections
</main>
<footer>
<h2>How this page was made</h2>
$made
<p><strong>$limits</strong></p>
</footer>
</body>
</html>
""")
