"""MRI sequences: options, convolutions of patches, and volumes written back."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnisurv.data.images import FilledImages, Images
from omnisurv.data.readers import ReadContext
from omnisurv.data.readers.brats import BratsSource
from omnisurv.data.spec import DataSpec, PatientRule
from omnisurv.data.store import Entry, Store
from omnisurv.errors import SpecError
from omnisurv.layers import PatchConv, PatchDeconv, initialise
from omnisurv.modalities.mri import Mri, MriOptions


def spec(**keys):
    source = {"format": "brats", "path": "mri", "sequence": "t1ce", **keys.pop("source", {})}
    return DataSpec.parse(
        {"name": "c", "modalities": {"t1ce": {"kind": "mri", "source": source, **keys}}}
    )


# Options.


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"size": 70}, "size 70 is no multiple of patch 16; the nearest sizes are 64 and 80"),
        ({"size": 8}, "size 8 is no multiple of patch 16; the nearest size is 16"),
        ({"spacing": 0}, "key 'spacing'"),
        ({"crop": "skull"}, "key 'crop': Input should be 'tumour', 'brain' or 'centre'"),
        ({"tile": 2}, "unknown key 'tile'"),
        ({"source": {"sequence": "t1cee"}}, "unknown sequence. Did you mean 't1ce'?"),
        ({"source": {"format": "bratz"}}, "unknown format 'bratz'. Did you mean 'brats'?"),
    ],
)
def test_wrong_options_are_refused_with_one_line(keys, sentence):
    with pytest.raises(SpecError) as error:
        spec(**keys)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_defaults_and_aliases():
    modality = spec(source={"sequence": "T1Gd"}).modalities["t1ce"]
    assert modality.source.sequence == "t1ce"
    assert (MriOptions().size, MriOptions().patch, MriOptions().crop) == (64, 16, "brain")


def test_shipped_spec_has_four_sequences():
    path = Path(__file__).parents[2] / "data_specs" / "brats.yaml"
    modalities = DataSpec.load(path).modalities
    found = {name: m.source.sequence for name, m in modalities.items() if m.kind == "mri"}
    assert found == {"t1": "t1", "t1ce": "t1ce", "t2": "t2", "flair": "flair"}


# Convolutions.


def test_patch_conv_is_two_convolutions():
    generator = torch.Generator().manual_seed(0)
    layer = PatchConv(patch=16, axes=3, channels=1, dim=24)
    x = torch.randn(3, 16**3, generator=generator)
    found = layer(x, torch.tensor([0, 1, 5]))
    first, second = layer.first.values, layer.second
    hidden = F.conv3d(
        x.view(3, 1, 16, 16, 16),
        first.weight[0].T.reshape(16, 1, 4, 4, 4),
        first.bias[0],
        stride=4,
    )
    kernel = second.weight[0].T.reshape(24, 4, 4, 4, 16).permute(0, 4, 1, 2, 3)
    wanted = F.conv3d(F.gelu(hidden), kernel, second.bias[0], stride=4)
    torch.testing.assert_close(found, wanted.flatten(1), rtol=1e-4, atol=1e-5)


def test_patch_conv_of_tiles_has_channels_last():
    layer = PatchConv(patch=4, axes=2, channels=3, dim=5)
    x = torch.randn(2, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    found = layer(x.flatten(1), torch.tensor([0, 1]))
    kernel = layer.first.values.weight[0].T.reshape(16, 2, 2, 3).permute(0, 3, 1, 2)
    hidden = F.gelu(F.conv2d(x.permute(0, 3, 1, 2), kernel, stride=2))
    second = layer.second.weight[0].T.reshape(5, 2, 2, 16).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.conv2d(hidden, second, stride=2).flatten(1))


def test_a_side_that_is_no_square_takes_one_convolution():
    layer = PatchConv(patch=8, axes=3, channels=1, dim=6)
    x = torch.randn(2, 8**3, generator=torch.Generator().manual_seed(0))
    assert layer.second is None
    wanted = x @ layer.first.values.weight[0]
    torch.testing.assert_close(layer(x, torch.tensor([0, 1])), wanted)
    assert PatchDeconv(8, 3, 1, 6)(torch.ones(2, 6), torch.tensor([0, 1])).shape == (2, 512)


def test_patch_deconv_is_two_transposed_convolutions():
    layer = PatchDeconv(patch=4, axes=3, channels=2, dim=6)
    with torch.no_grad():
        layer.last.bias += torch.arange(16.0)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    found = layer(x, torch.tensor([0, 1, 2])).view(3, 4, 4, 4, 2)
    first = layer.first.weight[0].reshape(6, 2, 2, 2, 16).permute(0, 4, 1, 2, 3)
    hidden = F.gelu(F.conv_transpose3d(x.view(3, 6, 1, 1, 1), first, stride=2))
    last = layer.last.weight[0].reshape(16, 2, 2, 2, 2).permute(0, 4, 1, 2, 3)
    wanted = F.conv_transpose3d(hidden, last, stride=2)
    bias = torch.arange(16.0).reshape(2, 2, 2, 2).permute(3, 0, 1, 2).repeat(1, 2, 2, 2)
    torch.testing.assert_close(found, (wanted + bias).permute(0, 2, 3, 4, 1))


def test_holes_enter_as_a_second_channel_that_starts_silent():
    layer = PatchConv(patch=4, axes=3, channels=1, dim=6)
    initialise(layer)  # what a recipe does to the whole network must not wake it
    x = torch.zeros(1, 64)
    holes = x.masked_fill(torch.arange(64) < 9, torch.nan)
    inside = torch.tensor([0])
    torch.testing.assert_close(layer(holes, inside), layer(x, inside))
    layer(holes, inside).sum().backward()
    assert layer.first.holes.weight.grad.abs().sum() > 0
    with torch.no_grad():
        layer.first.holes.weight += 1
    assert not torch.allclose(layer(holes, inside), layer(x, inside))


@pytest.mark.parametrize("patch", [4, 8])
def test_no_patch_at_all_is_no_error(patch):
    nothing = torch.zeros(0, dtype=torch.long)
    assert PatchConv(patch, 3, 1, 6)(torch.zeros(0, patch**3), nothing).shape == (0, 6)
    assert PatchDeconv(patch, 3, 1, 6)(torch.zeros(0, 6), nothing).shape == (0, patch**3)


def test_predictions_start_near_zero():
    generator = torch.Generator().manual_seed(0)
    modality, data = Mri.example(np.random.default_rng(0))
    predict = modality.predict(modality.fit(data), 32, shared=True)
    states = torch.randn(50, 32, generator=generator)
    found = predict(states, torch.zeros(50, dtype=torch.long))
    assert found.shape == (50, 64)
    assert 0 < found.std() < 0.2


@pytest.mark.parametrize("shared", [True, False])
def test_convolutions_are_shared_and_linear_maps_are_not(shared):
    modality, data = Mri.example(np.random.default_rng(0))
    tokeniser = modality.fit(data)
    embed = modality.embed(tokeniser, 8, shared=shared)
    patch = torch.from_numpy(tokeniser.tokenise(data)[5, 2]).repeat(2, 1)
    one, other = embed(patch, torch.tensor([0, 7]))
    assert torch.allclose(one, other) == shared


# Example.


def test_example_has_holes_and_structure():
    modality, data = Mri.example(np.random.default_rng(0))
    tokeniser = modality.fit(data)
    patches = tokeniser.tokenise(data)
    assert patches.shape == (24, 8, 64)
    assert np.isnan(patches).sum() == 2 * 2 * 64
    assert np.nanstd(patches) == pytest.approx(1.0, abs=0.15)
    flat = patches[2:].reshape(22, -1)
    spread = np.linalg.svd(flat - flat.mean(0), compute_uv=False) ** 2
    assert spread[:3].sum() > 0.7 * spread.sum()


# Writing.


def scan(path: Path, data, affine, **header) -> nib.Nifti1Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, 1)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return nib.load(path)


def read(tmp_path: Path, **options) -> tuple[Mri, Images]:
    modality = Mri("t1ce", MriOptions(**{"size": 8, "patch": 4, **options}))
    context = ReadContext(tmp_path, PatientRule(id="column"), store=Store(tmp_path / "store"))
    source = BratsSource(format="brats", path="mri", sequence="t1ce")
    return modality, modality.read(source, context)


def filled(modality: Mri, images: Images, **other) -> FilledImages:
    """What a model would hand back of measured pictures: through patches and back."""
    patients = list(images.obs_names)
    tokeniser = modality.fit(images)
    values = tokeniser.untokenise(tokeniser.tokenise(images), patients)
    told = {
        "patients": patients,
        "images": images,
        "values": np.nan_to_num(values, nan=9.0),  # what lies outside the volume was imputed
        "half": np.full(values.shape[1:], 0.5, np.float32),
        "imputed": np.zeros(len(patients), dtype=bool),
        "like": [None] * len(patients),
        "level": 0.9,
        "run": "runs/a",
    }
    return FilledImages(**{**told, **other})


def volume(shape=(8, 8, 8), dtype=np.int16, low=1):
    data = np.zeros(shape, dtype)
    inner = data[1:-1, 1:-1, 1:-1]
    inner[:] = np.random.default_rng(0).integers(low, 200, inner.shape)
    return data


LPS = np.array([[-1.0, 0, 0, 7], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
SIDEWAYS = np.array([[0, 0, 3, -4], [-1.5, 0, 0, 9], [0, 1, 0, 5], [0, 0, 0, 1.0]])
OBLIQUE = np.array([[0.98, -0.17, 0, 3], [0.17, 0.98, 0, -8], [0, 0, 2, 1], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [np.eye(4), LPS, SIDEWAYS, OBLIQUE])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_measured_volumes_are_written_as_they_were(tmp_path, affine, dtype):
    low = -200 if dtype == np.int16 else 1
    data = volume((8, 6, 7), dtype, low)
    header = {"descrip": "SRI24", "cal_max": 150, "xyzt_units": 10}
    original = scan(tmp_path / "mri/P1/P1_t1ce.nii.gz", data, affine, **header)
    modality, images = read(tmp_path)
    assert np.isnan(images.array(0)).any()
    (path,) = modality.write(filled(modality, images), tmp_path)
    assert path == tmp_path / "P1_t1ce.nii.gz"
    back = nib.load(path)
    values = np.asanyarray(back.dataobj)
    assert values.dtype == original.get_data_dtype() == dtype
    if dtype == np.float32:
        np.testing.assert_allclose(values, data, rtol=1e-6, atol=1e-5)
        np.testing.assert_array_equal(values == 0, data == 0)
    else:
        np.testing.assert_array_equal(values, data)
    np.testing.assert_array_equal(back.affine, original.affine)
    for key in ("descrip", "cal_max", "xyzt_units", "sform_code", "qform_code", "pixdim"):
        np.testing.assert_array_equal(back.header[key], original.header[key])


def test_outside_the_cube_is_zero(tmp_path):
    data = volume((12, 12, 12)) + 1
    scan(tmp_path / "mri/P1_t1ce.nii.gz", data, LPS)
    modality, images = read(tmp_path, size=4)
    values = np.asanyarray(nib.load(modality.write(filled(modality, images), tmp_path)[0]).dataobj)
    cube = (slice(4, 8),) * 3
    np.testing.assert_array_equal(values[cube], data[cube])
    assert np.count_nonzero(values) == 4**3


def test_scaled_whole_numbers_are_written_as_what_they_mean(tmp_path):
    data = volume()
    image = nib.Nifti1Image(data * 0.25, np.eye(4))
    image.set_data_dtype(np.int16)
    (tmp_path / "mri").mkdir()
    nib.save(image, tmp_path / "mri/P1_t1ce.nii.gz")
    modality, images = read(tmp_path)
    back = nib.load(modality.write(filled(modality, images), tmp_path)[0])
    np.testing.assert_allclose(back.get_fdata(), data * 0.25, rtol=2e-4, atol=1e-3)
    assert back.get_data_dtype() == np.float32


def test_nifti_2_stays_nifti_2(tmp_path):
    (tmp_path / "mri").mkdir()
    nib.save(nib.Nifti2Image(volume(), LPS), tmp_path / "mri/P1_t1ce.nii.gz")
    modality, images = read(tmp_path)
    back = nib.load(modality.write(filled(modality, images), tmp_path)[0])
    assert isinstance(back, nib.Nifti2Image)
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), volume())


def test_writing_twice_gives_equal_files(tmp_path):
    scan(tmp_path / "mri/P1_t1ce.nii.gz", volume(), LPS)
    modality, images = read(tmp_path)
    first = modality.write(filled(modality, images), tmp_path)[0].read_bytes()
    assert modality.write(filled(modality, images), tmp_path)[0].read_bytes() == first


def test_imputed_volumes_lie_on_the_grid_of_another_sequence(tmp_path):
    original = scan(tmp_path / "mri/P1_t1ce.nii.gz", volume((8, 10, 12)), LPS, cal_max=150)
    modality, images = read(tmp_path)
    assert images.meta(0)["start"] == [0, 1, 2]
    cube = np.random.default_rng(1).normal(size=(1, 1, 8, 8, 8, 1)).astype(np.float32)
    half = np.full((1, 8, 8, 8, 1), 0.5, np.float32)
    half[0, 0] = np.inf
    other = Mri("flair", modality.options)
    told = {"values": cube, "half": half, "imputed": np.array([True]), "run": "runs/b"}
    what = replace(filled(modality, images, **told, like=[images.meta(0)]), images=None)
    paths = other.write(what, tmp_path)
    assert [path.name for path in paths] == [
        "P1_flair_imputed.nii.gz",
        "P1_flair_imputed_halfwidth.nii.gz",
    ]
    image, width = (nib.load(path) for path in paths)
    for one in (image, width):
        np.testing.assert_array_equal(one.affine, original.affine)
        assert one.shape == original.shape
        assert one.get_data_dtype() == np.float32
        assert one.header["cal_max"] == 0
    assert image.header["descrip"].item() == b"imputed by omnisurv runs/b"
    assert width.header["descrip"].item() == b"90% half-width, imputed by omnisurv runs/b"
    canonical = np.asanyarray(image.dataobj)[::-1, ::-1]  # back from LPS
    np.testing.assert_array_equal(canonical[:, 1:9, 2:10], cube[0, 0, ..., 0])
    assert np.count_nonzero(canonical) == 8**3
    canonical = np.asanyarray(width.dataobj)[::-1, ::-1]
    assert np.isnan(canonical[0]).all()  # not known
    assert np.isnan(canonical[:, 0]).all()  # outside the cube
    assert (canonical[1:, 1:9, 2:10] == 0.5).all()


def test_imputed_volumes_of_who_has_no_other_sequence_stand_alone(tmp_path):
    modality, images = Mri.example(np.random.default_rng(0))
    images = images[:1]
    what = filled(modality, images, imputed=np.array([True]), run="r" * 99, patients=["a/../b"])
    paths = modality.write(what, tmp_path)
    assert [path.name for path in paths] == [
        "a_.._b_t1_imputed.nii.gz",
        "a_.._b_t1_imputed_halfwidth.nii.gz",
    ]
    image = nib.load(paths[0])
    assert image.shape == (8, 8, 8)
    np.testing.assert_array_equal(image.header.get_zooms(), [1, 1, 1])
    np.testing.assert_array_equal(image.affine @ [3.5, 3.5, 3.5, 1], [0, 0, 0, 1])
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), what.values[0, 0, ..., 0])
    assert image.header["descrip"].item() == (b"imputed by omnisurv " + b"r" * 60)


def test_a_cube_of_another_size_is_put_at_the_same_centre(tmp_path):
    entry = Mri.example(np.random.default_rng(0))[1].entries[5]
    images = Images([Entry("P1", entry.array, entry.meta)], "z-score")
    modality = Mri("t2", MriOptions(size=4, patch=4))
    cube = np.ones((1, 1, 4, 4, 4, 1), np.float32)
    told = {"values": cube, "half": cube[0], "imputed": np.array([True]), "patients": ["P1"]}
    whole = Mri("t1", MriOptions(size=8, patch=4))
    what = filled(whole, images, **told, like=[entry.meta])
    values = np.asanyarray(nib.load(modality.write(what, tmp_path)[0]).dataobj)
    assert (values[2:6, 2:6, 2:6] == 1).all()
    assert values.sum() == 4**3


def test_nothing_is_decoded_anew_for_labels_that_do_not_matter(tmp_path):
    scan(tmp_path / "mri/P1/P1_t1ce.nii.gz", volume(), LPS)
    scan(tmp_path / "mri/P1/P1_seg.nii.gz", (volume() > 150).astype(np.uint8), LPS)
    keys = [read(tmp_path, labels=labels)[1].entries[0].key for labels in ("auto", "brats23")]
    assert keys[0] == keys[1]
    assert read(tmp_path, crop="tumour")[1].entries[0].key != keys[0]


# A patient of TCGA.


@pytest.mark.realdata
@pytest.mark.parametrize("sequence", ["t1", "t1ce", "t2", "flair"])
def test_a_real_patient_is_read_and_written_back(real_data, tmp_path, sequence):
    file = {"t1": "t1", "t1ce": "t1c", "t2": "t2", "flair": "fla"}[sequence]
    modality = Mri(sequence, MriOptions(crop="tumour", size=64, patch=16))
    context = ReadContext(real_data, PatientRule(id="tcga"), store=Store(tmp_path))
    source = BratsSource(format="brats", path="mri", sequence=sequence)
    images = modality.read(source, context)
    assert list(images.obs_names) == ["TCGA-DU-7294"]
    meta = images.meta(0)
    assert meta["file"] == f"TCGA-DU-7294_{file}_bet.nii.gz"
    assert (meta["box"], meta["note"]) == ("tumour", "")
    assert np.isfinite(images.array(0)).all()
    (path,) = modality.write(filled(modality, images), tmp_path)
    original = nib.load(real_data / "mri" / "TCGA-DU-7294" / meta["file"])
    back = nib.load(path)
    np.testing.assert_array_equal(back.affine, original.affine)
    assert (back.shape, back.get_data_dtype()) == (original.shape, original.get_data_dtype())
    values, wanted = np.asanyarray(back.dataobj), np.asanyarray(original.dataobj)
    x, y, z = meta["start"]
    # The file is LPS: the cube counts from the other end of x and y.
    cube = (slice(240 - x - 64, 240 - x), slice(240 - y - 64, 240 - y), slice(z, z + 64))
    np.testing.assert_array_equal(values[cube], wanted[cube])
    assert np.count_nonzero(values) == np.count_nonzero(wanted[cube]) > 100_000
    labels = nib.load(real_data / "mri" / "TCGA-DU-7294" / "seg_fusion_mav.nii.gz")
    assert np.count_nonzero(np.asanyarray(labels.dataobj)[cube]) == np.count_nonzero(labels.dataobj)
