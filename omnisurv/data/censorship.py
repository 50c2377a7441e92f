"""What an event column means, and whether it is coded as censorship (1 = censored).

Words (Dead, LIVING, 1:DECEASED) say what they mean; bare codes (1, 0, True, False) do not and are
questioned where they look inverted. ``event_values`` in the spec ends the question.
"""

import re
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from omnisurv.data.audit import some
from omnisurv.data.spec import Endpoint
from omnisurv.data.tables import find_column, has_column, one_per_patient
from omnisurv.errors import DataError

Series: TypeAlias = "pd.Series[Any]"

WORDS = {
    **dict.fromkeys(("dead", "deceased", "died", "death", "event"), 1.0),
    **dict.fromkeys(("alive", "living", "censored", "no event"), 0.0),
}
CODES = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "t"), 1.0),
    **dict.fromkeys(("0", "0.0", "false", "no", "f"), 0.0),
}
STATUS_COLUMNS = ("vital_status", "OS_STATUS", "vitalstatus", "status")

LATER = 0.6
"""Share of event/no-event pairs in which the event's time is longer, from which bare codes are
questioned: 0.2 to 0.55 in TCGA cohorts, 1 minus that if they are coded as censorship."""
MUCH_LATER = 0.75
MANY = 0.3
"""Event rate from which ``LATER`` counts; rare events can honestly come late."""


def read_events(
    table: pd.DataFrame, name: str, values: dict[str, Any] | None, where: str
) -> tuple["pd.Series[float]", bool]:
    """Return events and whether they are bare codes, which do not say what they mean."""
    column = find_column(table, name, where)
    text = table[column].map(lambda v: str(v).strip().lower(), na_action="ignore")
    known = _meanings(text, values)
    unknown = text.dropna()[text.dropna().map(known).isna()]
    if len(unknown):
        raise DataError(
            f"{where}: column '{column}' has values that are neither event nor no event: "
            f"{some(sorted(map(str, unknown.unique())))}; say what they mean: "
            "`event_values: {…: 1, …: 0}`"
        )
    event = text.map(known).astype(float)
    bare = values is None and not (set(text.dropna()) - set(CODES))
    return one_per_patient(event.rename(column), where), bare


def _meanings(text: Series, values: dict[str, Any] | None) -> dict[str, float]:
    if values is not None:
        given = {key: float(event) for key, event in values.items()}
        # 1 in the spec is 1.0 in a table with gaps.
        return {**{f"{key}.0": v for key, v in given.items() if key.isdigit()}, **given}
    # cBioPortal: 1:DECEASED, 0:LIVING, 1:Recurred/Progressed
    prefixed = {v: float(v[0]) for v in set(text.dropna()) if re.match(r"[01]:", v)}
    return {**WORDS, **CODES, **prefixed}


def question_times(
    frame: pd.DataFrame, endpoint: Endpoint, table: pd.DataFrame, labels: pd.DataFrame
) -> str | None:
    """Question bare codes that fit the times and classes better as censorship.

    There are two signs. (1) Patients with an event were followed longer than the others in 60 % or
    more of pairs (75 % where events are rarer than 30 %: they can honestly come late). (2) The
    rate of *non-events* differs between the classes of a label far more than that of events does,
    by twice the z-score: censoring hardly depends on the disease, death does. A sign that chance
    hardly gives (Mann-Whitney z of 3 or more; class z-scores 6 apart) is an error; a fainter one
    (any z; 4 apart) is returned.

    On random subsets of the hospitals of TCGA glioma, correct codes were refused in under 1 %.

    Raises:
        DataError: the codes look inverted.
    """
    if endpoint.event is None or endpoint.event_values is not None:
        return None
    bare = read_events(table, endpoint.event, None, endpoint.table)[1]
    if not bare or _agrees_with_status(frame["event"], endpoint.event, table):
        return None
    usable = frame[(frame["time"] > 0) & frame["event"].notna()]
    signs = [_sign_of_times(usable), *(_sign_of_classes(usable, labels[n]) for n in labels)]
    sentence = "; ".join(said for _, said in signs if said)
    if not sentence:
        return None
    question = ask_back(endpoint.event, endpoint.table, sentence)
    if any(certain for certain, _ in signs):
        raise DataError(question)
    return question


def question_name(column: str, where: str) -> None:
    """Raise DataError if the column is called something like censorship."""
    if "cens" in column.lower():
        raise DataError(ask_back(column, where, "by its name, 1 means censored"))


def question_status(
    event: "pd.Series[float]", column: str, table: pd.DataFrame, where: str
) -> None:
    """Raise DataError if the codes contradict the vital status in words."""
    status = _status(table, column)
    if status is None:
        return
    both = event.notna() & status.reindex(event.index).notna()
    disagree = float((event[both] != status.reindex(event.index)[both]).mean()) if both.any() else 0
    if disagree > 0.5:
        reason = f"it contradicts column '{status.name}' in {disagree:.0%} of patients"
        raise DataError(ask_back(column, where, reason))


def _agrees_with_status(event: "pd.Series[float]", column: str, table: pd.DataFrame) -> bool:
    status = _status(table, column)
    return status is not None and status.reindex(event.index).notna().sum() > 0.5 * len(event)


def _status(table: pd.DataFrame, other_than: str) -> "pd.Series[float] | None":
    """Return the vital status where the table says it in words."""
    for name in STATUS_COLUMNS:
        column = has_column(table, name)
        if column is None or column == other_than:
            continue
        text = table[column].map(lambda v: str(v).strip().lower(), na_action="ignore")
        event = text.map({k: v for k, v in _meanings(text, None).items() if k not in CODES})
        if event.notna().any():
            return event.groupby(level=0).max().rename(column)
    return None


def ask_back(column: str, where: str, reason: str) -> str:
    """Return the question whether a column is coded as censorship."""
    return (
        f"{where}: column '{column}' looks like censorship (1 = censored): {reason}; say "
        "`event_values: {0: 1, 1: 0}` if it is, `event_values: {1: 1, 0: 0}` if 1 is the event"
    )


def _sign_of_times(usable: pd.DataFrame) -> tuple[bool, str]:
    """Return whether the sign is certain and what it says, empty if there is none."""
    later, z = _compare_times(usable)
    if later < (LATER if usable["event"].mean() >= MANY else MUCH_LATER):
        return False, ""
    number = int(usable["event"].sum())
    said = f"its {number} patients with 1 were followed longer than those with 0 in {later:.0%}"
    return z >= 3, f"{said} of pairs"


def _sign_of_classes(usable: pd.DataFrame, label: Series) -> tuple[bool, str]:
    event_z, other_z = _class_differences(usable, label.reindex(usable.index))
    apart = other_z - event_z
    if _compare_times(usable)[0] < 0.5 or other_z <= 2 * event_z or apart < 4:
        return False, ""
    scores = f"z {other_z:.0f} > {event_z:.0f}"
    return apart >= 6, f"0 depends on {label.name} far more than 1 does ({scores})"


def _compare_times(usable: pd.DataFrame) -> tuple[float, float]:
    """Return the share of event/no-event pairs in which the event's time is longer, and its z."""
    ranks = usable["time"].rank()
    event = usable["event"] == 1
    n, m = int(event.sum()), int((~event).sum())
    if not n or not m:
        return 0.5, 0.0
    share = float((ranks[event].sum() - n * (n + 1) / 2) / (n * m))
    return share, (share - 0.5) / np.sqrt((n + m + 1) / (12 * n * m))


def _class_differences(usable: pd.DataFrame, label: Series) -> tuple[float, float]:
    """Return the z-scores between the classes' rates of events and of non-events.

    The two largest classes are compared; a rate is a count per patient-day.
    """
    classes = label.value_counts().index[:2]
    if len(classes) < 2:
        return 0.0, 0.0
    days = np.array([usable["time"][label == c].sum() for c in classes])
    scores = []
    for value in (1.0, 0.0):
        counts = np.array([((usable["event"] == value) & (label == c)).sum() for c in classes])
        if (counts == 0).any() or (days == 0).any():
            return 0.0, 0.0
        ratio = np.log(counts[0] / days[0]) - np.log(counts[1] / days[1])
        scores.append(abs(ratio) / np.sqrt((1 / counts).sum()))
    return scores[0], scores[1]
