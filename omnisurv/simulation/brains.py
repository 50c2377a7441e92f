"""Brains with a glioma, drawn at four millimetres: four sequences and a segmentation.

Coordinates are millimetres from the middle of the brain, x to the left, y to the back, z upward:
the orientation of BraTS files. All that is drawn comes from the generator that is passed in.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from omnisurv.simulation.look import SEQUENCES

Field = NDArray[np.float32]

SHAPE = (48, 48, 40)
VOXEL = 4.0
ORIGIN = (92.0, 108.0, -68.0)
"""Millimetres of the first voxel, as affines count them (right, front and up are positive)."""
NCR, OEDEMA, ENHANCING = 1, 2, 3
"""Labels of BraTS 2023."""
HALF = np.array([66.0, 84.0, 62.0], dtype=np.float32)
"""Half axes of the cerebrum."""

# Signal of tissues, white matter about 1.
TISSUES: dict[str, dict[str, float]] = {
    "t1": {"csf": 0.28, "grey": 0.74, "white": 1.0, "dead": 0.34, "solid": 0.70, "oedema": 0.74},
    "t1ce": {"csf": 0.28, "grey": 0.76, "white": 1.0, "dead": 0.32, "solid": 0.70, "oedema": 0.74},
    "t2": {"csf": 2.3, "grey": 1.3, "white": 0.95, "dead": 2.4, "solid": 1.4, "oedema": 1.75},
    "flair": {
        "csf": 0.35,
        "grey": 1.15,
        "white": 0.95,
        "dead": 0.65,
        "solid": 1.75,
        "oedema": 1.85,
    },
}
GRAIN = {"t1": 1.0, "t1ce": 0.3, "t2": 1.0, "flair": 0.3}
"""How much of the tumour's graininess a sequence shows."""


class Brain(NamedTuple):
    """A scanned patient, whichever sequences were really taken.

    Attributes:
        volumes: int16 (x, y, z) of each sequence, 0 outside the brain, in units of its scanner.
        labels: uint8 (x, y, z): 1 necrotic or not enhancing core, 2 oedema, 3 enhancing tumour.
    """

    volumes: dict[str, NDArray[np.int16]]
    labels: NDArray[np.uint8]


class _Tumour(NamedTuple):
    """Shares (0..1) of each voxel that are dead, enhancing, solid and oedematous."""

    dead: Field
    ring: Field
    solid: Field
    oedema: Field
    middle: Field
    radius: float


def affine() -> NDArray[np.float64]:
    """Return voxel to world coordinates, of all volumes."""
    matrix = np.diag([-VOXEL, -VOXEL, VOXEL, 1.0])
    matrix[:3, 3] = ORIGIN
    return matrix


def render(look: Mapping[str, float], rng: np.random.Generator) -> Brain:
    """Draw the brain of a patient with these traits."""
    mask, depth = _outline(rng)
    tumour = _tumour(look, mask, depth, rng)
    csf, grey = _anatomy(look["ventricles"], tumour, depth, rng)
    grain = _noise(rng, 0.8)
    volumes = {}
    for sequence in SEQUENCES:
        signal = _signal(sequence, look, tumour, csf, grey, grain)
        volumes[sequence] = _scan(signal, mask, rng)
    return Brain(volumes, _labels(tumour, mask))


@cache
def _grid() -> Field:
    """Return x, y, z of all voxels, (3, *SHAPE)."""
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * VOXEL for n in SHAPE]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _noise(rng: np.random.Generator, voxels: float) -> Field:
    """Return a smooth random field with mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), voxels, mode="wrap")
    return field / field.std()


def _soft(distance: Field, width: float = 2.0) -> Field:
    """Return the share of a voxel inside, from its distance (mm) to the edge, inward positive."""
    return expit(distance / width)


def _outline(rng: np.random.Generator) -> tuple[NDArray[np.bool_], Field]:
    """Return the brain's mask, and the depth (mm) below its surface."""
    x, y, z = _grid() * rng.normal(1.0, 0.025, size=(3, 1, 1, 1)).astype(np.float32)
    narrow = 1.0 + 0.25 * expit(-(z + 15.0) / 6.0)  # the base is smaller than the vault
    scaled = [abs(x) * narrow / HALF[0], abs(y) * narrow / HALF[1], abs(z) / HALF[2]]
    cerebrum = 1.0 - sum(s**2.3 for s in scaled) ** (1 / 2.3)
    back = np.sqrt((x / 50.0) ** 2 + ((y - 44.0) / 36.0) ** 2 + ((z + 42.0) / 27.0) ** 2)
    stem = np.sqrt((x / 15.0) ** 2 + ((y - 12.0) / 15.0) ** 2 + ((z + 50.0) / 26.0) ** 2)
    depth = np.maximum(np.maximum(cerebrum * 65.0, (1.0 - back) * 30.0), (1.0 - stem) * 15.0)
    depth += 1.5 * _noise(rng, 1.5)
    return depth > 0.0, depth


def _tumour(
    look: Mapping[str, float], mask: NDArray[np.bool_], depth: Field, rng: np.random.Generator
) -> _Tumour:
    radius = look["tumour_radius"]
    side = rng.choice([-1.0, 1.0])
    middle = np.array(
        [side * rng.uniform(20.0, 38.0), rng.uniform(-42.0, 42.0), rng.uniform(-2.0, 28.0)],
        dtype=np.float32,
    )
    stretch = np.exp(rng.normal(0.0, 0.12, size=3)).astype(np.float32)
    stretch /= stretch.prod() ** (1 / 3)
    offset = (_grid() - middle[:, None, None, None]) / stretch[:, None, None, None]
    distance = np.sqrt((offset**2).sum(axis=0))
    core = radius - distance + 0.14 * radius * _noise(rng, 2.0)
    dead = core - radius * (1.0 - look["necrosis"] ** (1 / 3)) + 0.8 * _noise(rng, 1.2)
    # Oedema spreads along white matter, in fingers, and spares the cortex.
    wide = core + look["oedema"] * (1.0 + 0.35 * _noise(rng, 2.0)).clip(0.2)
    wide = np.minimum(wide, (depth - 5.0) * 0.7)
    # The ring closes as enhancement grows; a dull tumour has a few bright specks.
    patchy = _noise(rng, 1.2) + 4.5 * (look["enhancement"] - 0.42)
    inside = _soft(core)
    ring = inside * (1.0 - _soft(dead)) * _soft(patchy, 0.4)
    solid = inside * (1.0 - _soft(dead)) - ring
    oedema = np.maximum(_soft(wide) - inside, 0.0) * (1.0 - inside)
    return _Tumour(inside * _soft(dead), ring, solid, oedema * mask, middle, radius)


def _anatomy(
    ventricles: float, tumour: _Tumour, depth: Field, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Return the shares of fluid and grey matter, pushed aside by the tumour."""
    offset = _grid() - tumour.middle[:, None, None, None]
    distance = np.sqrt((offset**2).sum(axis=0)).clip(1.0)
    push = 0.45 * tumour.radius * np.exp(-((distance / (2.2 * tumour.radius)) ** 2))
    x, y, z = _grid() - offset * (push / distance)
    apart = abs(x)
    # Lateral ventricles: two bent tubes that part towards the back.
    bend = 9.0 * ventricles + 0.004 * (y + 8.0) ** 2
    tube = np.sqrt((apart - bend) ** 2 + ((z - 10.0 + 0.006 * y**2) / 1.5) ** 2)
    calibre = 6.5 * ventricles * np.sqrt((1.0 - (y / 44.0) ** 2).clip(0.0))
    third = np.sqrt((x / 2.5) ** 2 + ((y - 4.0) / 13.0) ** 2 + ((z + 4.0) / 9.0) ** 2)
    fluid = np.maximum(_soft(calibre - tube, 1.5), _soft((1.0 - third) * 3.0, 1.0))
    folds = _noise(rng, 0.9)
    fissure = _soft(2.2 - apart, 0.8) * ((z > 24.0) | (abs(y) > 58.0)) * (z > -25.0)
    sulci = _soft(4.0 + 3.0 * folds - depth, 1.2) * _soft(folds - 0.2, 0.3)
    csf = np.maximum.reduce([fluid, 0.8 * fissure, 0.85 * sulci])
    nuclei = np.sqrt(((apart - 22.0) / 10.0) ** 2 + ((y - 2.0) / 21.0) ** 2 + (z / 12.0) ** 2)
    cortex = _soft(9.0 + 6.0 * folds - depth)
    grey = np.maximum(cortex, 0.8 * _soft((1.0 - nuclei) * 10.0))
    inside = tumour.dead + tumour.ring + tumour.solid
    return csf * (1.0 - inside), grey * (1.0 - csf)


def _signal(
    sequence: str, look: Mapping[str, float], tumour: _Tumour, csf: Field, grey: Field, grain: Field
) -> Field:
    """Mix the tissues of each voxel as a sequence shows them."""
    tissue = TISSUES[sequence]
    solid = tissue["solid"]
    if sequence == "t2":
        solid += 0.6 * look["fluid"]
    elif sequence == "flair":
        solid -= 0.8 * look["fluid"]
    ring = solid + (0.3 + 1.3 * look["enhancement"] if sequence == "t1ce" else 0.0)
    healthy = csf * tissue["csf"] + grey * tissue["grey"] + (1.0 - csf - grey) * tissue["white"]
    inside = tumour.dead + tumour.ring + tumour.solid
    ill = tumour.dead * tissue["dead"] + tumour.ring * ring + tumour.solid * solid
    signal = healthy * (1.0 - inside - tumour.oedema) + ill + tumour.oedema * tissue["oedema"]
    shown = GRAIN[sequence] * look["texture"] * (inside + 0.5 * tumour.oedema)
    return signal * (1.0 + shown * grain)


def _scan(signal: Field, mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int16]:
    """Add what the scanner adds: noise, uneven coils and a scale of its own."""
    tilt = rng.normal(0.0, 0.06, size=3).astype(np.float32)
    shade = 1.0 + np.tensordot(tilt, _grid() / HALF.max(), axes=1)
    noisy = signal * shade + 0.035 * rng.standard_normal(SHAPE, dtype=np.float32)
    scale = 120.0 * 20.0 ** rng.random()  # from 120 to 2400
    return np.where(mask, (noisy * scale).clip(1.0, 32000.0), 0.0).astype(np.int16)


def _labels(tumour: _Tumour, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    core = tumour.dead + tumour.ring + tumour.solid
    labels = np.where(tumour.oedema > 0.4, OEDEMA, 0)
    labels = np.where(core > 0.5, np.where(tumour.ring > 0.5 * core, ENHANCING, NCR), labels)
    return (labels * mask).astype(np.uint8)
