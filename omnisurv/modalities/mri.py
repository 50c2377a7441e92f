"""MRI: one sequence of a brain, cut to a cube of z-scores."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from omnisurv.config import Settings
from omnisurv.data.images import FilledImages, Images
from omnisurv.data.readers.brats import BratsFolder, BratsSource
from omnisurv.data.readers.nifti import Grid, save_volume
from omnisurv.data.readers.nnunet import NnunetFolder, NnunetSource
from omnisurv.data.readers.scans import NiftiSource, NiftiTable
from omnisurv.data.readers.stored import StoredSource
from omnisurv.data.readers.volumes import measured, place_of, put_back
from omnisurv.data.regions import Edition
from omnisurv.data.sources import Source
from omnisurv.data.store import Entry
from omnisurv.layers import PatchConv, PatchDeconv, PatchEmbed, PatchLinear
from omnisurv.modality import Modality, State, Tokeniser
from omnisurv.pictures import PictureTokeniser
from omnisurv.registry import modalities

if TYPE_CHECKING:
    from omnisurv.data.readers import ReadContext


ENDS = ("", "_halfwidth")
"""What the names of an imputed volume and of its interval end with."""


SHRUNK_BY = 5.0
"""Patients with a mean volume of 0 that are added to the training patients."""


class MriOptions(Settings):
    """Options of an MRI sequence."""

    crop: Literal["tumour", "brain", "centre"] = "brain"
    """What the cube is put around: the centroid of the label map (impuTMAE), the middle of the
    brain's bounding box, or the middle of the volume, which is the same for all sequences of a
    patient (BM-MAE; what ``segmentation`` needs). It is shifted to lie inside the volume. A brain
    larger than the cube is cut off, it is not shrunk: say ``size: 128``, or a coarser
    ``spacing``."""
    size: int = Field(default=64, ge=1)
    """Side of the cube in voxels."""
    patch: int = Field(default=16, ge=1)
    """Side of a patch, which divides the cube's."""
    spacing: float | None = Field(default=None, gt=0)
    """Side of a voxel in mm that volumes are resampled to; None keeps the file's grid."""
    resample: bool = False
    """Bring the sequences of a patient that lie on other grids onto that of the first one."""
    center: bool = True
    """Count values from the mean volume of the training patients, not from the brain's mean."""
    labels: Literal["auto", Edition, "any"] = "auto"
    """Edition of the label maps of ``crop: tumour`` (``brats21``: 2017 to 2021). All above 0 is
    tumour, but values that the edition does not have are refused; ``any`` takes them."""

    @model_validator(mode="after")
    def _patch_divides_size(self) -> "MriOptions":
        rest = self.size % self.patch
        if rest:
            below, above = self.size - rest, self.size - rest + self.patch
            near = f"sizes are {below} and {above}" if below else f"size is {above}"
            raise ValueError(
                f"size {self.size} is no multiple of patch {self.patch}; the nearest {near}"
            )
        return self


@modalities.register("mri")
class Mri(Modality):
    """A sequence: T1, T1 with contrast, T2, FLAIR or any other; each is a modality of its own.

    Values are z-scores over the brain (all voxels that are not 0) of that sequence alone, so
    nothing of a sequence that is missing enters another one. The background is 0, what lies
    outside the volume is NaN.
    """

    kind = "mri"
    summary = "MRI sequences as cubes of z-scores"
    Options = MriOptions
    formats: ClassVar = {
        "brats": BratsSource,
        "nifti": NiftiSource,
        "nnunet": NnunetSource,
        "store": StoredSource,
    }
    label_formats: ClassVar = {
        "brats": BratsFolder,
        "nifti": NiftiTable,
        "nnunet": NnunetFolder,
        "store": StoredSource,
    }
    """From what label maps are read."""
    least: ClassVar = 1
    options: MriOptions

    def read(self, source: Source, context: "ReadContext") -> Images:
        """Read a folder of BraTS's or nnU-Net's, the files that a table lists, or decoded ones."""
        from omnisurv.data.readers import read_brats, read_nifti, read_nnunet, read_stored

        options = self.options.model_dump(exclude={"patch", "center"})
        if isinstance(source, StoredSource):
            return read_stored(source, context, options)
        if options["crop"] != "tumour":
            options.pop("labels")  # nothing is decoded anew where it makes no difference
        if isinstance(source, BratsSource):
            return read_brats(source, context, options)
        if isinstance(source, NnunetSource):
            return read_nnunet(source, context, options)
        assert isinstance(source, NiftiSource)
        return read_nifti(source, context, options)

    def fit(self, train: Images) -> PictureTokeniser:
        """Learn the mean volume of training patients, from which each one's departures count.

        It is shrunk towards 0, the mean over the brain, by a few patients' worth. With ``center:
        false`` there is nothing to learn.
        """
        if not self.options.center:
            return self._tokeniser(np.zeros(1))
        side = self.options.size
        total, count = np.zeros((side,) * 3), np.zeros((side,) * 3)
        for row in range(len(train)):
            volume = np.asarray(train.array(row), dtype=float)
            there = np.isfinite(volume)
            total[there] += volume[there]
            count += there
        return self._tokeniser((total / (count + SHRUNK_BY))[..., None])

    def _tokeniser(self, center: NDArray[Any]) -> PictureTokeniser:
        return PictureTokeniser(
            blocks=1,
            space=(self.options.size,) * 3,
            patch=self.options.patch,
            channels=1,
            center=center,
            spread=np.ones(1),
            unit="z-score",
        )

    def restore(self, state: State) -> PictureTokeniser:
        """Rebuild a fitted tokeniser."""
        return PictureTokeniser.restore(state)

    def embed(self, tokeniser: Tokeniser, dim: int, *, shared: bool) -> nn.Module:
        """Return the map from patches to tokens.

        Shared, it is two convolutions, as in the papers: voxels mean the same wherever a patch
        lies. Hundreds of patients with one tumour in the middle of each cube do better with a
        linear map for each place.
        """
        if shared:
            return PatchConv(*_shape(tokeniser), dim)
        return PatchEmbed(tokeniser.length, tokeniser.width, dim, shared=False)

    def predict(self, tokeniser: Tokeniser, dim: int, *, shared: bool) -> nn.Module:
        """Return the map from decoder states to patches, of the same form as ``embed``'s."""
        if shared:
            return PatchDeconv(*_shape(tokeniser), dim)
        return PatchLinear(tokeniser.length, dim, tokeniser.width, shared=False, gain=0.1)

    def write(self, filled: FilledImages, folder: Path) -> list[Path]:
        """Write a NIfTI file for each patient; return the files.

        Measured sequences have the numbers, grid and header of their file inside the cube and 0
        outside; if they were resampled, the grid is the new one. Imputed ones are z-scores on
        the grid of another sequence of the patient, or in a cube by itself, with the half-width
        of their interval beside (NaN where it is not known).
        """
        paths = []
        for row, patient in enumerate(filled.patients):
            name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', patient)}_{self.name}"
            cube = filled.values[row, 0, ..., 0]
            if filled.imputed[row]:
                paths += self._write_imputed(filled, row, cube, folder / f"{name}_imputed")
            else:
                entry = None if filled.images is None else filled.images.of(patient)
                assert entry is not None
                values = measured(cube, entry.meta)
                paths.append(save_volume(folder / f"{name}.nii.gz", values, entry.meta))
        return paths

    def _write_imputed(
        self, filled: FilledImages, row: int, cube: NDArray[np.float32], target: Path
    ) -> list[Path]:
        like = filled.like[row]
        meta = self._cube_alone(len(cube)) if like is None else like
        half = filled.half[0, ..., 0]
        half = np.where(np.isfinite(half), half, np.float32(np.nan))
        says = f"imputed by omnisurv {filled.run}"
        image, interval = (target.with_name(f"{target.name}{end}.nii.gz") for end in ENDS)
        save_volume(image, put_back(cube, meta), meta, says)
        says = f"{filled.level:.0%} half-width, {says}"
        save_volume(interval, put_back(half, meta, outside=np.nan), meta, says)
        return [image, interval]

    def _cube_alone(self, size: int) -> Mapping[str, Any]:
        """Return where a cube lies of which nobody knows: its middle at the origin."""
        voxel = self.options.spacing or 1.0
        affine = np.diag([voxel, voxel, voxel, 1.0])
        affine[:3, 3] = -voxel * (size - 1) / 2
        return place_of(Grid((size,) * 3, affine), (0, 0, 0), size)

    @classmethod
    def example(cls, generator: np.random.Generator) -> tuple["Mri", Images]:
        """Return 24 patients of 8³ voxels with three factors; two volumes are two planes short."""
        factor = generator.normal(size=(24, 3)) @ generator.normal(size=(3, 8**3)) / 3**0.5
        values = 0.9 * factor + 0.4 * generator.normal(size=factor.shape)
        cubes = values.reshape(24, 8, 8, 8).astype(np.float32)
        entries = []
        for row, cube in enumerate(cubes):
            short = 2 if row < 2 else 0
            cube[8 - short :] = np.nan
            place = place_of(Grid((8 - short, 8, 8), np.eye(4)), (0, 0, 0), 8)
            told = {"mean": 100.0, "sd": 20.0, "sequence": "t1", "dtype": "float32", "header": ""}
            meta = {**place, **told, "file": f"{row}.nii.gz", "box": "brain", "note": ""}
            entries.append(Entry(f"TCGA-00-{row:04d}", cube, meta))
        return cls("t1", MriOptions(size=8, patch=4)), Images(entries, "z-score")


def _shape(tokeniser: Tokeniser) -> tuple[int, int, int]:
    """Return side, axes and channels of a patch."""
    assert isinstance(tokeniser, PictureTokeniser)
    return tokeniser.patch, len(tokeniser.space), tokeniser.channels
