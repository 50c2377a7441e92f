"""Dice and HD95 against loops over voxels, and the rules of empty regions."""

import itertools
import math

import numpy as np
import pytest

from omnisurv.metrics.segmentation import LOST, dice, hd95


def blob(seed, shape=(7, 8, 6), share=0.3):
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    mask[1:6, 1:6, 1:5] = rng.random((5, 5, 4)) < share
    return mask


def looped_dice(found, truth):
    both = each = 0
    for place in np.ndindex(found.shape):
        both += found[place] and truth[place]
        each += int(found[place]) + int(truth[place])
    return 2 * both / each


def surface(mask):
    """Voxels of which a neighbour by a face is not in the mask."""
    edge = []
    for place in zip(*np.nonzero(mask), strict=True):
        for axis, step in itertools.product(range(3), (-1, 1)):
            near = list(place)
            near[axis] += step
            inside = 0 <= near[axis] < mask.shape[axis]
            if not inside or not mask[tuple(near)]:
                edge.append(place)
                break
    return edge


def looped_hd95(found, truth, spacing):
    ends = []
    for a, b in ((found, truth), (truth, found)):
        nearest = [
            min(
                math.sqrt(sum(((i - j) * s) ** 2 for i, j, s in zip(p, q, spacing, strict=True)))
                for q in surface(b)
            )
            for p in surface(a)
        ]
        ends.append(np.percentile(nearest, 95))
    return max(ends)


@pytest.mark.parametrize("seed", range(4))
def test_dice_and_hd95_are_those_of_loops(seed):
    found, truth = blob(seed), blob(seed + 100, share=0.5)
    assert dice(found, truth) == pytest.approx(looped_dice(found, truth))
    for spacing in ((1.0, 1.0, 1.0), (1.0, 2.0, 4.5)):
        wanted = looped_hd95(found, truth, spacing)
        assert hd95(found, truth, spacing) == pytest.approx(wanted, rel=1e-5)
        assert hd95(truth, found, spacing) == pytest.approx(wanted, rel=1e-5)


def test_a_cube_moved_by_two_voxels():
    truth = np.zeros((12, 12, 12), bool)
    truth[2:6, 2:6, 2:6] = True
    found = np.roll(truth, 2, axis=0)
    assert dice(found, truth) == 0.5
    assert hd95(found, truth, (3.0, 1.0, 1.0)) == pytest.approx(6.0)
    assert (dice(truth, truth), hd95(truth, truth, (1, 1, 1))) == (1.0, 0.0)


def test_regions_at_the_border_of_the_volume():
    truth = np.zeros((5, 5, 5), bool)
    truth[0] = True
    found = np.zeros((5, 5, 5), bool)
    found[4] = True
    assert hd95(found, truth, (2.0, 1.0, 1.0)) == pytest.approx(8.0)


NOTHING, SOME = np.zeros((4, 4, 4), bool), np.eye(4, dtype=bool)[None].repeat(4, 0)


@pytest.mark.parametrize(
    ("found", "truth", "rule", "wanted"),
    [
        (NOTHING, NOTHING, "brats", (1.0, 0.0)),
        (SOME, NOTHING, "brats", (0.0, 373.13)),
        (NOTHING, SOME, "brats", (0.0, 373.13)),
        (NOTHING, NOTHING, "nan", (math.nan, math.nan)),
        (SOME, NOTHING, "nan", (math.nan, math.nan)),
        (NOTHING, SOME, "nan", (0.0, math.nan)),
        (SOME, SOME, "nan", (1.0, 0.0)),
    ],
)
def test_what_is_said_of_empty_regions(found, truth, rule, wanted):
    got = dice(found, truth, rule), hd95(found, truth, (1.0, 1.0, 1.0), rule)
    np.testing.assert_equal(got, wanted)


def test_the_distance_of_what_is_lost_is_the_diagonal_of_brats():
    assert pytest.approx(math.dist((0, 0, 0), (240, 240, 155)), abs=0.005) == LOST


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hd95_is_monais():
    from monai.metrics import compute_hausdorff_distance

    found, truth = blob(1), blob(2, share=0.6)
    masks = (mask[None, None].astype(np.float32) for mask in (found, truth))
    wanted = compute_hausdorff_distance(
        *masks, include_background=True, percentile=95, spacing=[1.0, 1.5, 3.0]
    )
    assert hd95(found, truth, (1.0, 1.5, 3.0)) == pytest.approx(float(wanted), rel=1e-5)
