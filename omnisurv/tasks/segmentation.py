"""Label maps of brain tumours from any subset of sequences, on the patient's own grid."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from omnisurv.checkpoint import FittedModel
from omnisurv.data.audit import some
from omnisurv.data.images import Images
from omnisurv.data.readers.volumes import whole
from omnisurv.data.regions import BACKGROUND, CORE, ENHANCING, OEDEMA, OUTSIDE, REGIONS
from omnisurv.data.store import Entry
from omnisurv.errors import DataError, did_you_mean
from omnisurv.heads.segmentation import overlap_loss
from omnisurv.pictures import PictureTokeniser
from omnisurv.registry import fitted
from omnisurv.shapes import Float, Tensor
from omnisurv.task import Labelled, TaskModel
from omnisurv.tasks.labelmaps import Labels, StoredLabels
from omnisurv.tasks.moves import moved
from omnisurv.windows import probabilities, slide, tokenise

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

AT_ONCE = 16
"""Subsets whose probabilities of a whole volume are held at a time."""


@dataclass(frozen=True)
class Segmented:
    """What was found in one patient.

    Attributes:
        entry: one of the patient's sequences, which tells the grid.
        whole: whether the whole volume was segmented, not the cube alone.
        outside: True where a cube reaches beyond the volume.
        probability: of the regions (r, x, y, z), by the sequences they were told from.
    """

    entry: Entry
    whole: bool
    outside: NDArray[np.bool_]
    probability: dict[frozenset[str], Float[Tensor, "r x y z"]]

    def labels(self, subset: frozenset[str]) -> NDArray[np.uint8]:
        """Return common labels, on canonical axes: the innermost region more likely than not."""
        inside = dict(zip(REGIONS, (self.probability[subset] > 0.5).numpy(), strict=True))
        labels = np.full(self.outside.shape, BACKGROUND, np.uint8)
        for region, label in (("WT", OEDEMA), ("TC", CORE), ("ET", ENHANCING)):
            labels[inside[region]] = label
        labels[self.outside] = OUTSIDE
        return labels


@fitted.register("segmentation")
@dataclass(repr=False)
class SegmentationModel(TaskModel):
    """A fitted segmentation model: one network for all subsets of sequences."""

    task: ClassVar[str] = "segmentation"
    chunk: ClassVar[int] = 4

    @classmethod
    def usable(cls, cohort: "Cohort", task: str) -> "Cohort":
        """Return the patients with a label map and a sequence; raise DataError if none has."""
        maps = cohort.label_maps
        if maps is None:
            raise DataError(
                "the cohort has no label maps to learn from; add `segmentation:` with their "
                "`source:` to the spec"
            )
        names = sequences_of(cohort)
        seen = cohort.availability[names].any(axis=1) & cohort.patients.isin(maps.obs_names)
        if not seen.any():
            raise DataError(
                f"{len(maps)} patients have a label map, and none of them an MRI sequence "
                f"({', '.join(names) or 'the cohort has none'}): there is nothing to learn"
            )
        return cohort.subset(cohort.patients[seen])

    @classmethod
    def begin(cls, origin: FittedModel, cohort: "Cohort", task: str) -> Self:
        """Return a model without networks.

        Raises:
            DataError: the recipe has no head, the cohort has a sequence that the pre-trained
                model does not know, or says another patch, or the model knows cubes in one place
                alone.
        """
        origin.recipe.require_head(cls.task)
        known = [name for name, t in origin.tokenisers.items() if _is_volume(t)]
        for name in sequences_of(cohort):
            if name not in known:
                raise DataError(
                    f"the pre-trained model has not seen the sequence '{name}'."
                    f"{did_you_mean(name, known)} Name it so in the spec, or add it: "
                    "`omnisurv pretrain SPEC --start RUN`"
                )
            _require_same_patch(origin, cohort, name)
            if origin.tokenisers[name].center.size > 1:  # type: ignore[attr-defined]
                raise DataError(
                    f"modality '{name}' counts from a mean volume, which fits no window but the "
                    "middle one; say `center: false` in the spec, and pre-train again"
                )
        parts = origin.recipe, origin.modalities, origin.tokenisers
        return cls(*parts, [], residuals=origin.residuals)

    @property
    def outputs(self) -> int:
        """Number of regions."""
        return len(REGIONS)

    @property
    def sequences(self) -> dict[str, PictureTokeniser]:
        """Tokenisers of the sequences."""
        return {
            n: t
            for n, t in self.tokenisers.items()
            if isinstance(t, PictureTokeniser) and _is_volume(t)
        }

    @property
    def size(self) -> int:
        """Side of the cubes that the networks take."""
        return next(iter(self.sequences.values())).space[0]

    def target(self, cohort: "Cohort") -> StoredLabels:
        """Return the label maps, not read yet."""
        maps = cohort.label_maps
        assert maps is not None
        places = torch.from_numpy(maps.obs_names.get_indexer(cohort.patients))
        return StoredLabels(maps, places, self.size)

    def augment(self, part: Labelled, generator: torch.Generator) -> Labelled:
        """Move and turn over each patient's cube, so that it is found wherever a window lies."""
        return moved(part, generator)

    def loss(self, outputs: Float[Tensor, "b r x y z"], target: Labels) -> Float[Tensor, ""]:
        """Return cross-entropy and soft Dice of each region."""
        return overlap_loss(outputs, target.values)

    def without_sequences(
        self, cohort: "Cohort", modalities: Collection[str] | None = None
    ) -> list[str]:
        """Return the patients who have none of the sequences to look at."""
        self.require_known(modalities or ())
        wanted = [
            name
            for name in self.sequences
            if name in cohort and (modalities is None or name in modalities)
        ]
        has = cohort.availability[wanted].any(axis=1)
        return [str(patient) for patient in cohort.patients[~has]]

    def predict(self, cohort: "Cohort", modalities: Collection[str] | None = None) -> Images:
        """Return a label map of each patient, from what each has of ``modalities``.

        They are common labels (``omnisurv.data.regions``) of the whole volume on canonical axes,
        or of the cube where the raw files are gone; ``save_labels`` writes them.

        Raises:
            DataError: a patient has none of the sequences, or the model does not know one.
        """
        return Images(
            [
                Entry(found.entry.patient, found.labels(subset), found.entry.meta)
                for found in self.segment(cohort, [modalities])
                for subset in found.probability
            ],
            "labels",
        )

    def predict_probability(
        self, cohort: "Cohort", modalities: Collection[str] | None = None
    ) -> Images:
        """Return the probabilities (region, x, y, z) of each patient, as ``predict`` does."""
        return Images(
            [
                Entry(found.entry.patient, probability.numpy(), found.entry.meta)
                for found in self.segment(cohort, [modalities])
                for probability in found.probability.values()
            ],
            "probability",
        )

    def segment(
        self, cohort: "Cohort", subsets: Sequence[Collection[str] | None] = (None,)
    ) -> Iterator[Segmented]:
        """Yield what is found in each patient from each subset, one patient at a time.

        Every volume is read once and every window cut once, however many subsets there are.
        What is found is filed under the modalities of a subset that the patient has, so that
        subsets that are the same to the patient are looked at once.

        Args:
            cohort: patients; the label maps are not looked at.
            subsets: modalities to look at; None for all. Those of which a patient has no sequence
                are left out.

        Raises:
            DataError: a patient has no sequence of any subset.
        """
        alike = [set(self.without_sequences(cohort, subset)) for subset in subsets]
        lacking = sorted(set.intersection(*alike))
        if lacking:
            raise DataError(
                f"{len(lacking)} patients have no MRI sequence to look at: {some(lacking)}; "
                f"the model knows {', '.join(self.sequences)}. Leave them out"
            )
        with _on_accelerator(self.networks) as device:
            for patient in cohort.patients:
                alone = cohort.subset([patient])
                seen = [self.seen_of(alone, subset) for subset in subsets]
                chosen = dict.fromkeys(one for one in seen if not one.isdisjoint(self.sequences))
                yield self._segment_one(alone, list(chosen), device)

    def seen_of(self, alone: "Cohort", subset: Collection[str] | None) -> frozenset[str]:
        """Return which modalities of a subset the one patient of a cohort has."""
        has = alone.availability.iloc[0]
        names = [name for name in self.modalities if name in has.index and has[name]]
        return frozenset(name for name in names if subset is None or name in subset)

    def _segment_one(
        self, alone: "Cohort", subsets: list[frozenset[str]], device: torch.device
    ) -> Segmented:
        entry, is_whole, volumes = self._read(alone)
        tables = [name for name in self.modalities if name not in self.sequences]
        others = self.batch(alone, tables).load()
        networks: Any = self.networks
        found: dict[frozenset[str], Tensor] = {}
        for start in range(0, len(subsets), AT_ONCE):
            chosen = subsets[start : start + AT_ONCE]

            def predict(window: Tensor, chosen: list[frozenset[str]] = chosen) -> Tensor:
                batch = tokenise(window, self.sequences, others)
                return probabilities(networks, batch, chosen)

            parts = slide(volumes.to(device), self.size, predict).cpu().split(len(REGIONS))
            found |= dict(zip(chosen, parts, strict=True))
        outside = np.zeros(volumes.shape[1:], bool)
        if not is_whole:
            outside = (~volumes.isfinite().any(0)).numpy()
        return Segmented(entry, is_whole, outside, found)

    def _read(self, alone: "Cohort") -> tuple[Entry, bool, Float[Tensor, "m x y z"]]:
        """Return a patient's sequences: whole volumes, or the cubes if a raw file is gone."""
        entries = {
            name: entry
            for name in self.sequences
            if name in alone and len(alone[name]) and (entry := alone[name].entries[0])
        }
        scans: dict[str, Any] = {name: whole(entry) for name, entry in entries.items()}
        is_whole = all(scan is not None for scan in scans.values())
        if not is_whole:
            scans = {name: np.array(entry.open()) for name, entry in entries.items()}
        first = next(iter(entries.values()))
        for name, entry in entries.items():
            moved = not is_whole and entry.meta.get("start") != first.meta.get("start")
            if moved or scans[name].shape != next(iter(scans.values())).shape:
                raise DataError(
                    f"{first.patient}: {name} does not lie where the other sequences do; say "
                    "`crop: centre`, and `resample: true` where grids differ"
                )
        shape = next(iter(scans.values())).shape
        nothing = np.full(shape, np.nan, np.float32)
        volumes = np.stack([scans.get(name, nothing) for name in self.sequences])
        return first, is_whole, torch.from_numpy(volumes)


def sequences_of(cohort: "Cohort") -> list[str]:
    """Return the MRI sequences of a cohort."""
    return [
        name
        for name in cohort.modalities
        if isinstance(data := cohort[name], Images) and data.uns["scale"] == "z-score"
    ]


def _is_volume(tokeniser: Any) -> bool:
    return isinstance(tokeniser, PictureTokeniser) and len(tokeniser.space) == 3


def _require_same_patch(origin: FittedModel, cohort: "Cohort", name: str) -> None:
    """Raise DataError if the spec says another patch than the model was pre-trained with."""
    spec = cohort.spec.modalities.get(name) if cohort.spec is not None else None
    patch = spec.options.get("patch") if spec is not None else None
    own = origin.modalities[name].options.patch  # type: ignore[attr-defined]
    if patch is not None and patch != own:
        raise DataError(
            f"modality '{name}': the spec says `patch: {patch}`, the model was pre-trained with "
            f"patches of {own}; say `patch: {own}`, or pre-train again"
        )


@contextmanager
def _on_accelerator(networks: Sequence[Any]) -> Iterator[torch.device]:
    """Lend the networks to an accelerator, where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for network in networks:
        network.to(device).eval()
    try:
        yield device
    finally:
        for network in networks:
            network.to("cpu")
