"""Time and event, units, unusable patients, and columns coded as censorship."""

import numpy as np
import pandas as pd
import pytest

from omnisurv.data.censorship import question_times
from omnisurv.data.endpoint import read_endpoint
from omnisurv.data.spec import Endpoint
from omnisurv.data.tables import index_by_patient
from omnisurv.errors import DataError

A, B, C, D = "TCGA-02-0001", "TCGA-02-0002", "TCGA-06-0003", "TCGA-06-0004"


def endpoint(**keys: object) -> Endpoint:
    return Endpoint(**{"table": "c.tsv", "time": "time", "event": "event", **keys})


def read(context, **keys) -> pd.DataFrame:
    return read_endpoint(endpoint(**keys), context)


@pytest.mark.parametrize(
    ("dead", "alive"),
    [
        ("1", "0"),
        ("1.0", "0.0"),
        ("1:DECEASED", "0:LIVING"),
        ("Dead", "Alive"),
        ("DECEASED", "LIVING"),
        ("True", "False"),
        ("yes", "no"),
        ("1:Recurred/Progressed", "0:x"),
    ],
)
def test_every_way_to_say_dead_and_alive(write, context, dead, alive) -> None:
    write("c.tsv", f"patient|time|event\n{A}|10|{dead}\n{B}|20|{alive}\n{C}|30|{dead}")
    assert read(context)["event"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(("unit", "days"), [("days", 10), ("months", 304.375), ("years", 3652.5)])
def test_units(write, context, unit, days) -> None:
    write("c.tsv", f"patient|time|event\n{A}|10|1\n{B}|20|0")
    assert read(context, unit=unit)["time"].iloc[0] == days


def test_a_unit_that_contradicts_the_column_is_an_error(write, context) -> None:
    write("c.tsv", f"PATIENT_ID|OS_MONTHS|OS_STATUS\n{A}|10|1:DECEASED\n{B}|20|0:LIVING")
    with pytest.raises(DataError, match=r"'OS_MONTHS' speaks of months.*say `unit: months`"):
        read(context, time="OS_MONTHS", event="OS_STATUS")
    frame = read(context, time="OS_MONTHS", event="OS_STATUS", unit="months")
    assert frame["time"].iloc[1] == 20 * 30.4375


def test_impossible_follow_up_is_an_error(write, context) -> None:
    write("c.tsv", f"patient|time|event\n{A}|1000|1\n{B}|20|0")
    with pytest.raises(DataError, match="the longest time is 1000 years in unit 'years'"):
        read(context, unit="years")


def test_unusable_patients_are_listed_and_kept(write, context, audit) -> None:
    write("c.tsv", f"patient|time|event\n{A}|0|1\n{B}|-64|0\n{C}|NA|1\n{D}|20|NA\nTCGA-06-0005|9|1")
    assert len(read(context)) == 5
    for reason in (
        "time is not positive (0 days)",
        "time is not positive (-64 days)",
        "time is unknown",
        "event is unknown",
        "4 of 5 patients have no usable",
    ):
        assert reason in audit()


def test_death_follow_up_and_status(write, context, audit) -> None:
    """GDC's columns, one row per treatment, the latest contact counts."""
    write(
        "c.tsv",
        "cases.submitter_id|demographic.vital_status|demographic.days_to_death|"
        f"diagnoses.days_to_last_follow_up\n{A}|Dead|100|400\n{A}|Dead|100|'--\n"
        f"{B}|Alive|'--|50\n{B}|Alive|'--|70\n{C}|Dead|'--|30\n{D}|Alive|80|90",
    )
    frame = read(
        context,
        time=None,
        event=None,
        death="days_to_death",
        follow_up="days_to_last_follow_up",
        status="vital_status",
    )
    assert frame.loc[A].tolist() == [100, 1]
    assert frame.loc[B].tolist() == [70, 0]
    assert np.isnan(frame.loc[C, "time"])  # dead without a date: nobody knows when
    assert frame.loc[D].isna().all()  # alive with a date of death
    assert "alive with a date of death" in audit()
    assert "time is unknown" in audit()


def test_follow_ups_of_a_second_table(write, context) -> None:
    write(
        "c.tsv",
        f"case_submitter_id|vital_status|days_to_death|days_to_last_follow_up\n"
        f"{A}|Alive|'--|'--\n{B}|Dead|9|'--",
    )
    write("f.tsv", f"cases.submitter_id|follow_ups.days_to_follow_up\n{A}|10\n{A}|500\n{A}|-3")
    frame = read(
        context,
        time=None,
        event=None,
        death="days_to_death",
        status="vital_status",
        follow_up=["days_to_last_follow_up", "days_to_follow_up"],
        follow_up_table="f.tsv",
    )
    assert frame.loc[A].tolist() == [500, 0]


def test_xena_repeats_patients_per_sample(write, context) -> None:
    write("c.tsv", f"sample|OS|_PATIENT|OS.time\n{A}-01|1|{A}|10\n{A}-11|1|{A}|10\n{B}-01|0|{B}|5")
    assert len(read(context, time="OS.time", event="OS")) == 2


def test_contradicting_rows_are_named(write, context) -> None:
    write("c.tsv", f"patient|time|event\n{A}|10|1\n{A}|12|1\n{B}|5|0")
    with pytest.raises(DataError, match=f"'time' has several values for {A}: 10.0, 12.0; keep one"):
        read(context)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (f"{A}|10|0\n{B}|20|0", "none of 2 patients has an event in column 'event'"),
        (f"{A}|10|1\n{B}|20|2", "neither event nor no event: 2; say what they mean: `event_val"),
        (f"{A}|x1|1\n{B}|20|0", f"column 'time' has 'x1' for {A} where a number is needed"),
        (f"{A}|0|1\n{B}|NA|0", "no patient has both a positive time and a known event"),
    ],
)
def test_what_cannot_be_an_endpoint_is_said(write, context, rows, sentence) -> None:
    write("c.tsv", f"patient|time|event\n{rows}")
    with pytest.raises(DataError, match=sentence):
        read(context)


def test_event_values_say_what_codes_mean(write, context) -> None:
    write("c.tsv", f"patient|time|event\n{A}|10|2\n{B}|20|1\n{C}|20|1.0")
    assert read(context, event_values={2: 1, 1: 0})["event"].tolist() == [1, 0, 0]


def test_yaml_booleans_are_taken_as_written(write, context) -> None:
    write("c.tsv", f"patient|time|event\n{A}|10|yes\n{B}|20|no")
    assert read(context, event_values={True: 0, False: 1})["event"].tolist() == [0, 1]


# ---------------------------------------------------------------- censorship


def test_a_column_called_censorship_is_questioned(write, context) -> None:
    write("c.tsv", f"patient|time|censorship\n{A}|10|1\n{B}|20|0")
    with pytest.raises(
        DataError,
        match=r"'censorship' looks like censorship \(1 = censored\): by "
        r"its name.*say `event_values: \{0: 1, 1: 0\}`",
    ):
        read(context, event="censorship")
    frame = read(context, event="censorship", event_values={0: 1, 1: 0})
    assert frame["event"].tolist() == [0, 1]


def test_a_column_that_contradicts_the_status_is_questioned(write, context) -> None:
    write("c.tsv", f"patient|time|event|vital_status\n{A}|10|1|Alive\n{B}|20|0|Dead\n{C}|3|1|Alive")
    with pytest.raises(DataError, match="it contradicts column 'vital_status' in 100% of patients"):
        read(context)


def test_inverted_status_with_times_of_death_is_questioned(write, context) -> None:
    rows = "\n".join(f"TCGA-02-{i:04d}|{i % 2}|{'' if i % 2 else 100 + i}|50" for i in range(30))
    write("c.tsv", f"patient|status|death|last\n{rows}")
    with pytest.raises(DataError, match="15 patients with 0 have a time of death"):
        read(context, time=None, event=None, death="death", follow_up="last", status="status")


def ask(survival, context, labels: pd.DataFrame, **keys) -> str | None:
    given = endpoint(table="clinical.tsv", **keys)
    frame = read_endpoint(given, context)
    table = index_by_patient(context.table("clinical.tsv"), context.patients, "clinical.tsv")
    return question_times(frame, given, table, labels)


def flip(path) -> pd.DataFrame:
    table = pd.read_csv(path, sep="\t")
    table["event"] = 1 - table["event"]
    table.to_csv(path, sep="\t", index=False)
    return table.set_index("patient")


def test_inverted_codes_are_questioned_by_times_and_classes(survival, context) -> None:
    table = flip(survival(200))
    with pytest.raises(
        DataError, match=r"patients with 1 were followed longer|0 depends on subtype"
    ):
        ask(survival, context, table[["subtype"]])


def test_a_faint_sign_is_a_warning(survival, context) -> None:
    table = flip(survival(30))
    said = ask(survival, context, table[["subtype"]])
    assert said is not None
    assert "looks like censorship" in said


def test_honest_codes_are_not_questioned(survival, context) -> None:
    path = survival(200)
    assert None is ask(survival, context, pd.read_csv(path, sep="\t", index_col=0)[["subtype"]])


def test_saying_what_codes_mean_ends_the_question(survival, context) -> None:
    table = flip(survival(200))
    ask(survival, context, table[["subtype"]], event_values={1: 1, 0: 0})
