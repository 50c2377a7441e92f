"""Which sample stands for a patient: the type first, then the order of duplicates."""

from collections import Counter
from collections.abc import Iterable, Sequence

from omnisurv.data.audit import some
from omnisurv.data.barcodes import SAMPLE_TYPES, Analyte, Sample, parse_barcode, rank_samples
from omnisurv.data.readers.context import ReadContext
from omnisurv.errors import DataError


def name_samples(
    names: Iterable[object], context: ReadContext
) -> tuple[dict[str, list[Sample]], list[str]]:
    """Return each patient's samples, numbered as they stand, and the names that are no sample."""
    by_patient: dict[str, list[Sample]] = {}
    strange: list[str] = []
    for position, name in enumerate(names):
        patient = context.patients.patient(name)
        if patient is None:
            strange.append(str(name))
            continue
        barcode = parse_barcode(name)
        sample = Sample(str(name), barcode, barcode.type if barcode else "", position=position)
        by_patient.setdefault(patient, []).append(sample)
    return by_patient, strange


def keep_types(
    by_patient: dict[str, list[Sample]],
    types: Sequence[str] | None,
    context: ReadContext,
    file: str,
) -> dict[str, list[Sample]]:
    """Return the samples of the accepted types; names without a type pass.

    Raises:
        DataError: no sample is left.
    """
    kept: dict[str, list[Sample]] = {}
    found: Counter[str] = Counter()
    for patient, samples in by_patient.items():
        accepted = types or context.sample_types(patient)
        for sample in samples:
            found[sample.type] += 1
            if not sample.type or sample.type in accepted:
                kept.setdefault(patient, []).append(sample)
                continue
            context.note(
                "dropped",
                f"sample type {_say(sample.type)} is not {' or '.join(map(_say, accepted))}",
                file=sample.file or file,
                patient=patient,
                sample=sample.name,
            )
    if found and not kept:
        counts = ", ".join(f"{n} × {_say(code)}" for code, n in sorted(found.items()))
        raise DataError(
            f"{file}: no sample is of an accepted type (found {counts}); say which to take: "
            f"`sample_types: ['{found.most_common(1)[0][0]}']`"
        )
    return kept


def rank(
    by_patient: dict[str, list[Sample]],
    types: Sequence[str] | None,
    analyte: Analyte,
    context: ReadContext,
) -> dict[str, list[Sample]]:
    """Return each patient's samples, best first."""
    return {
        patient: rank_samples(samples, types or context.sample_types(patient), analyte)
        for patient, samples in sorted(by_patient.items())
    }


def note_choice(
    patient: str, chosen: Sample, others: Sequence[Sample], context: ReadContext, file: str
) -> None:
    """Write to the audit which sample was kept and which duplicates were not."""
    context.note(
        "kept",
        _praise(chosen, others),
        file=chosen.file or file,
        patient=patient,
        sample=chosen.name,
    )
    for other in others:
        why = "FFPE" if other.ffpe else "lower in the order of analyte, portion and plate"
        context.note(
            "dropped",
            f"duplicate of {chosen.name}: {why}",
            file=other.file or file,
            patient=patient,
            sample=other.name,
        )


def note_strange(strange: Sequence[str], context: ReadContext, file: str) -> None:
    """Write to the audit which names belong to no patient."""
    if strange:
        context.note(
            "dropped",
            f"{len(strange)} names are no '{context.patients.id}' ids: {some(list(strange))}",
            file=file,
        )


def _praise(chosen: Sample, others: Sequence[Sample]) -> str:
    if chosen.ffpe:
        return "FFPE, but the patient has no other sample"
    return f"best of {len(others) + 1} samples" if others else "only sample"


def _say(code: str) -> str:
    return f"{code} ({SAMPLE_TYPES[code]})" if code in SAMPLE_TYPES else code or "unknown"
