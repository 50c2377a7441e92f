"""Where the label maps of a cohort lie, as a YAML file says it, and what they ask of its MRI."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SerializeAsAny, model_validator

from omnisurv.config import Settings, parse
from omnisurv.data.regions import Edition
from omnisurv.data.sources import Source
from omnisurv.errors import SpecError, did_you_mean
from omnisurv.registry import modalities as kinds

if TYPE_CHECKING:
    from omnisurv.data.spec import ModalitySpec

CUBE = ("crop", "size", "spacing", "resample")
"""Options that all sequences share, for a label map lies on one cube."""
ALONE = {
    "brain": "each sequence would have a box of its own",
    "tumour": "the box would tell where the tumour is",
}


class Segmentation(Settings):
    """Label maps of brain tumours."""

    source: SerializeAsAny[Source]
    labels: Literal["auto", Edition] = "auto"
    """Edition of the labels (``brats21``: 2017 to 2021); by default they tell it themselves."""

    @model_validator(mode="before")
    @classmethod
    def _source_of_format(cls, values: Any) -> Any:
        return with_label_source(values, "segmentation") if isinstance(values, Mapping) else values


def with_label_source(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Parse the source first, as its format has it, so that an error speaks of its keys.

    Raises:
        SpecError: the format is missing or unknown, or its keys are wrong.
    """
    source = values.get("source")
    if not isinstance(source, Mapping):
        return values
    formats: Mapping[str, type[Source]] = kinds.get("mri").label_formats
    name = str(source.get("format", ""))
    if name not in formats:
        what = f"unknown format '{name}'" if name else "key 'format' is missing"
        raise SpecError(f"{where}.source: {what}.{did_you_mean(name, formats)}")
    return {**values, "source": parse(formats[name], source, f"{where}.source")}


def shared_cube(modalities: "Mapping[str, ModalitySpec]", where: str) -> dict[str, Any]:
    """Return how all MRI sequences are cut, by the names of ``CUBE``.

    Raises:
        SpecError: there are none, they are not cut alike, or not around the volume's middle.
    """
    found = {
        name: kinds.get(part.kind).Options(**part.options)
        for name, part in modalities.items()
        if part.kind == "mri"
    }
    if not found:
        raise SpecError(f"{where}: segmentation needs MRI sequences, and the spec has none")
    for name, options in found.items():
        if options.crop != "centre":
            raise SpecError(
                f"{where}: modalities.{name}: segmentation needs `crop: centre`, not "
                f"`{options.crop}`: {ALONE[options.crop]}"
            )
    first, cube = next((name, one.model_dump(include=set(CUBE))) for name, one in found.items())
    for name, options in found.items():
        for key, value in cube.items():
            other = getattr(options, key)
            if other != value:
                raise SpecError(
                    f"{where}: modalities.{name}: segmentation needs sequences that are cut "
                    f"alike, but `{key}: {other}` is not `{key}: {value}` of {first}"
                )
    return cube
