"""What became of every file, column and sample that was read, and why."""

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

COLUMNS = ("modality", "file", "column", "patient", "sample", "status", "reason")
Status = Literal["kept", "dropped", "warning"]


@dataclass
class AuditLog:
    """Rows of the audit, in the order in which things were read."""

    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(
        self,
        status: Status,
        reason: str,
        *,
        modality: str = "",
        file: str = "",
        column: str = "",
        patient: str = "",
        sample: str = "",
    ) -> None:
        """Note what was kept, dropped or is doubtful."""
        self.rows.append((modality, file, column, patient, sample, status, reason))

    def frame(self) -> pd.DataFrame:
        """Return the audit as a table of texts."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS), dtype=str)


def warnings_of(audit: pd.DataFrame) -> list[str]:
    """Return the doubtful things as sentences, each once."""
    doubtful = audit[audit["status"] == "warning"]
    sentences = [
        ": ".join(part for part in (modality, file, reason) if part)
        for modality, file, reason in zip(
            doubtful["modality"], doubtful["file"], doubtful["reason"], strict=True
        )
    ]
    return list(dict.fromkeys(sentences))


def some(names: "list[str] | pd.Index", limit: int = 5) -> str:
    """Return the first few names and how many more there are."""
    shown = ", ".join(str(name) for name in list(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
