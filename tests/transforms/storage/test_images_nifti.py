import nibabel
import numpy as np
import pytest

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import CorruptImageError, ImageRef, probe, read

VALUES = np.random.default_rng(0).integers(0, 4000, (11, 24, 35), dtype=np.uint16)


def write(path, values, *, unit="mm", zooms=(0.5, 0.25, 2.0), kind=nibabel.Nifti1Image):
    """`values` (.., z, y, x) with the zooms of x, y, z."""
    image = kind(values.transpose(), np.diag([*zooms, 1.0]))
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return ImageRef(str(path))


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_voxels_and_their_sizes(tmp_path, name, kind):
    ref = write(tmp_path / name, VALUES, kind=kind)
    info = probe(ref)
    assert (info.shape, info.dtype, info.channels, info.times) == (VALUES.shape, "uint16", 1, 1)
    np.testing.assert_allclose(info.voxel_um, (2000.0, 250.0, 500.0))
    np.testing.assert_array_equal(read(ref), VALUES)
    box = Box((2, 5, 7), (9, 6, 30))
    np.testing.assert_array_equal(read(ref, box), VALUES[box.slices])
    assert info.random_access == (name == "v.nii")


def test_times_and_components(tmp_path):
    """x, y, z, t and a vector: its components are channels."""
    values = np.stack([np.stack([VALUES + 10 * t + c for t in range(3)]) for c in range(2)])
    ref = write(tmp_path / "v.nii.gz", values)
    info = probe(ref)
    assert (info.channels, info.times) == (2, 3)
    found = read(ImageRef(ref.file, channel=1, time=2))
    np.testing.assert_array_equal(found, VALUES + 21)


def test_scaled_values_are_those_that_are_meant(tmp_path):
    image = nibabel.Nifti1Image(VALUES.transpose(), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    image.to_filename(tmp_path / "v.nii")
    ref = ImageRef(str(tmp_path / "v.nii"))
    assert probe(ref).dtype == "float32"
    np.testing.assert_allclose(read(ref), 0.5 * VALUES + 3)
    assert probe(write(tmp_path / "u.nii", VALUES, unit="unknown")).voxel_um is None


def test_other_files_and_broken_ones(tmp_path):
    (tmp_path / "text.nii").write_text("hello" * 100)
    with pytest.raises(InputError, match="cannot be read"):
        probe(ImageRef(str(tmp_path / "text.nii")))
    with pytest.raises(InputError, match="does not exist"):
        probe(ImageRef(str(tmp_path / "none.nii.gz")))
    whole = tmp_path / "v.nii.gz"
    ref = write(whole, VALUES)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises((CorruptImageError, InputError)):
        read(ref)


def test_a_bucket_holds_one_too(tmp_path):
    import fsspec

    ref = write(tmp_path / "v.nii.gz", VALUES)
    filesystem, _ = fsspec.core.url_to_fs("memory://nifti/v.nii.gz")
    filesystem.put_file(ref.file, "/nifti/v.nii.gz")
    np.testing.assert_array_equal(read(ImageRef("memory://nifti/v.nii.gz")), VALUES)
