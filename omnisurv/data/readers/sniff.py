"""Telling scale, feature ids and feature types from the values, or refusing to guess."""

import re
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.errors import DataError

Floats = NDArray[np.float32]
Ids = Literal["ensembl", "symbol", "probe", "entrez", "other"]

_PATTERNS: tuple[tuple[Ids, re.Pattern[str]], ...] = (
    ("ensembl", re.compile(r"^ENS[A-Z]*G\d{11}(\.\d+)?(_PAR_Y)?$")),
    ("probe", re.compile(r"^(cg|ch|rs|nv)[.\d]\w*")),
    ("entrez", re.compile(r"^\d+$")),
    ("symbol", re.compile(r"^\??[A-Za-z][\w.\-/@ ]*(\|\d+)?$|^\?\|\d+$|^\d+-[A-Z][a-z]+$")),
)

LOG_MAX = 25.0
"""log2(x + 1) of a read count stays below this."""
RAW_MAX = 50.0
"""Above this, values are not logged."""
TOIL_FLOOR = np.log2(0.001)
"""Zero on the scale log2(x + 0.001) of Xena's Toil tables."""


def sniff_ids(names: "pd.Index[str]", where: str, *, strict: bool) -> Ids:
    """Return what the feature ids are.

    Raises:
        DataError: (only if ``strict``) they are row numbers, or of several types.
    """
    filled = [name for name in names if name]
    counts: dict[Ids, int] = {"ensembl": 0, "probe": 0, "entrez": 0, "symbol": 0, "other": 0}
    for name in filled:
        counts[_kind_of(name)] += 1
    best = max(counts, key=lambda kind: counts[kind])
    if not strict:
        return best
    if best == "entrez" and _are_row_numbers(filled):
        raise DataError(
            f"{where}: the feature ids are row numbers ({filled[0]}, {filled[1]}, …); write the "
            "table with its gene or probe names"
        )
    if counts[best] < 0.8 * len(filled):
        mix = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
        raise DataError(
            f"{where}: the feature ids are of several types ({mix}); separate them, or say "
            "`ids: ensembl|symbol|probe|entrez|other`"
        )
    return best


def sniff_scale(values: Floats, kind: str, where: str) -> str:
    """Return the scale of a modality of this kind; ``table`` where kinds have none.

    Raises:
        DataError: the values fit more than one.
    """
    if kind == "rna":
        return sniff_expression_scale(values, where)
    return sniff_methylation_scale(values, where) if kind == "dnam" else "table"


def sniff_expression_scale(values: Floats, where: str) -> str:
    """Return counts, linear, log2 or z-score.

    Raises:
        DataError: the values fit more than one.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise DataError(f"{where} has no finite value")
    low, high = float(finite.min()), float(finite.max())
    if low < 0:
        return _signed_scale(finite, low, high, where)
    if bool((finite == np.round(finite)).all()):
        return "counts"
    if high > RAW_MAX:
        return "linear"
    if 1.0 < high <= LOG_MAX:
        return "log2"
    meaning = "logs stay below 25, raw values exceed 50" if high > 1 else "all are within 0 and 1"
    raise DataError(
        f"{where}: the scale is ambiguous, values range from {low:.3g} to {high:.3g} ({meaning}); "
        "say `scale: counts|linear|log2|ln|z-score`"
    )


def sniff_methylation_scale(values: Floats, where: str) -> str:
    """Return beta or m-value; raise DataError if the values are neither."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise DataError(f"{where} has no finite value")
    low, high = float(finite.min()), float(finite.max())
    if low >= -1e-6 and high <= 1 + 1e-6:
        return "beta"
    if low < 0 and max(-low, high) <= 20:
        return "m-value"
    raise DataError(
        f"{where}: the scale is ambiguous, betas lie between 0 and 1 and M-values between about "
        f"-15 and 15, these between {low:.3g} and {high:.3g}; say `scale: beta|m-value`"
    )


def sniff_types(values: Floats) -> list[str]:
    """Return the type of each column: binary, ordinal (few whole numbers), or continuous."""
    return [_column_type(column[np.isfinite(column)]) for column in values.T]


def _column_type(values: NDArray[Any]) -> str:
    distinct = np.unique(values[:100_000])
    if len(distinct) > 10 or (distinct != np.round(distinct)).any():
        return "continuous"
    if set(distinct) <= {0.0, 1.0}:
        return "binary"
    return "ordinal" if np.ptp(distinct) <= 10 else "continuous"


def _signed_scale(finite: Floats, low: float, high: float, where: str) -> str:
    if low < -5 and abs(low - TOIL_FLOOR) < 1e-3:
        return "log2"
    negative = float((finite < 0).mean())
    if negative >= 0.35:
        return "z-score"
    if negative <= 0.2:
        # Batch-adjusted tables dip below zero.
        if high <= LOG_MAX:
            return "log2"
        if high > RAW_MAX:
            return "linear"
    raise DataError(
        f"{where}: the scale is ambiguous, values range from {low:.3g} to {high:.3g} and "
        f"{negative:.0%} are negative; say `scale: counts|linear|log2|ln|z-score`"
    )


def _kind_of(name: str) -> Ids:
    for kind, pattern in _PATTERNS:
        if pattern.match(name):
            return kind
    return "other"


def _are_row_numbers(names: list[str]) -> bool:
    numbers = [int(name) for name in names[:1000] if name.isdigit()]
    return len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
