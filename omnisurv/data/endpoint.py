"""Time and event of each patient, from whatever the table calls them.

A patient is usable for survival if time > 0 and the event is known; all others stand in the audit
and are kept for pre-training. ``censorship`` asks back where bare codes look inverted.
"""

from typing import Any, TypeAlias

import pandas as pd

from omnisurv.data.audit import some
from omnisurv.data.censorship import ask_back, question_name, question_status, read_events
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.spec import Endpoint
from omnisurv.data.tables import (
    find_column,
    has_column,
    index_by_patient,
    one_per_patient,
    primary_rows,
    to_number,
)
from omnisurv.errors import DataError

Series: TypeAlias = "pd.Series[Any]"

DAYS = {"days": 1.0, "months": 30.4375, "years": 365.25}


def read_endpoint(endpoint: Endpoint, context: ReadContext) -> pd.DataFrame:
    """Return ``time`` in days and ``event`` of every patient of the table.

    Raises:
        DataError: a value that is neither, contradictions, censorship codes, no event at all.
    """
    where = endpoint.table
    table = index_by_patient(context.table(where), context.patients, where, endpoint.id)
    if endpoint.time is not None and endpoint.event is not None:
        _require_unit(endpoint.time, endpoint.unit, where)
        time = _times(table, endpoint.time, where)
        event, bare = read_events(table, endpoint.event, endpoint.event_values, where)
        if bare:
            question_name(endpoint.event, where)
            question_status(event, endpoint.event, table, where)
    else:
        time, event = _from_dates(endpoint, table, context)
    frame = pd.DataFrame({"time": time * DAYS[endpoint.unit], "event": event})
    _require_plausible(frame["time"], endpoint, where)
    _list_unusable(frame, context, where)
    usable = frame[(frame["time"] > 0) & frame["event"].notna()]
    if not len(usable):
        raise DataError(f"{where}: no patient has both a positive time and a known event")
    if not (usable["event"] == 1).any():
        column = endpoint.event or endpoint.status or endpoint.death
        raise DataError(
            f"{where}: none of {len(usable)} patients has an event in column '{column}'; check "
            "the column, or say what its values mean: `event_values: {…: 1, …: 0}`"
        )
    return frame


def _times(table: pd.DataFrame, name: str, where: str) -> "pd.Series[float]":
    column = find_column(table, name, where)
    return one_per_patient(to_number(table[column], where), where)


def _from_dates(
    endpoint: Endpoint, table: pd.DataFrame, context: ReadContext
) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Return time and event from the columns of death, follow-up and status."""
    where = endpoint.table
    primary = primary_rows(table, context.audit, where)
    assert endpoint.death is not None
    _require_unit(endpoint.death, endpoint.unit, where)
    death = _times(primary, endpoint.death, where)
    follow_up = _last_contact(endpoint, table, context).reindex(death.index)
    if endpoint.status is None:
        event = death.notna().astype(float)
    else:
        event, bare = read_events(primary, endpoint.status, endpoint.event_values, where)
        if bare:
            question_name(endpoint.status, where)
    odd = death.index[(event == 0) & death.notna()]
    for patient in odd:
        context.note(
            "warning",
            "alive with a date of death: contradictory, no endpoint",
            file=where,
            patient=str(patient),
        )
    if len(odd) > max(5, 0.5 * death.notna().sum()):
        reason = f"{len(odd)} patients with 0 have a time of death"
        raise DataError(ask_back(str(endpoint.status), where, reason))
    event = event.mask((event == 0) & death.notna())
    return death.where(event == 1, follow_up).where(event.notna()), event


def _last_contact(
    endpoint: Endpoint, table: pd.DataFrame, context: ReadContext
) -> "pd.Series[float]":
    """Return the latest of all follow-up columns and rows, of one table or two."""
    tables = [(table, endpoint.table)]
    if endpoint.follow_up_table is not None:
        name = endpoint.follow_up_table
        tables.append((index_by_patient(context.table(name), context.patients, name), name))
    contacts = []
    for column in endpoint.follow_up or ():
        holders = [(t, name, c) for t, name in tables if (c := has_column(t, column)) is not None]
        if not holders:
            find_column(table, column, endpoint.table)  # says what there is
        contacts += [to_number(t[c], name) for t, name, c in holders]
    return pd.concat(contacts).groupby(level=0).max()


def _require_unit(column: str, unit: str, where: str) -> None:
    for said in DAYS:
        if said[:-1] in column.lower() and said != unit:
            raise DataError(
                f"{where}: column '{column}' speaks of {said}, endpoint.unit of {unit}; say "
                f"`unit: {said}`"
            )


def _require_plausible(time: "pd.Series[float]", endpoint: Endpoint, where: str) -> None:
    longest = float(time.max()) if time.notna().any() else 0.0
    if longest > 100 * DAYS["years"]:
        raise DataError(
            f"{where}: the longest time is {longest / DAYS['years']:.0f} years in unit "
            f"'{endpoint.unit}'; check endpoint.unit"
        )


def _list_unusable(frame: pd.DataFrame, context: ReadContext, where: str) -> None:
    time, event = frame["time"], frame["event"]
    for reason, who in (
        ("time and event are unknown", time.isna() & event.isna()),
        ("time is unknown", time.isna() & event.notna()),
        ("event is unknown", time.notna() & event.isna()),
        ("time is not positive", (time <= 0) & event.notna()),
    ):
        for patient in frame.index[who]:
            detail = f" ({time[patient]:g} days)" if "positive" in reason else ""
            context.note(
                "dropped",
                f"{reason}{detail}: no survival endpoint, kept for pre-training",
                file=where,
                patient=str(patient),
            )
    missing = frame.index[~((time > 0) & event.notna())]
    if len(missing):
        context.note(
            "warning",
            f"{len(missing)} of {len(frame)} patients have no usable endpoint (time must be > 0 "
            f"and the event known): {some(missing)}",
            file=where,
        )
