import json

import ngff_zarr
import numpy as np
import pytest
import zarr

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.transforms.storage import displacements, fields
from warpbeam.transforms.storage.displacements import DisplacementField
from warpbeam.transforms.storage.errors import InputError

LATTICE = Lattice((-20.0, 10.0), (40.0, 20.0), (7, 300))


def some_map(lattice=LATTICE, seed=0):
    u = np.random.default_rng(seed).normal(size=(lattice.ndim, *lattice.shape)).astype(np.float32)
    u[:, 1] = np.nan
    return on_lattice(u, lattice)


def test_a_stack_of_maps_comes_back(tmp_path):
    uri = str(tmp_path / "forward.zarr")
    field = DisplacementField(uri, LATTICE, (4.0, 5.0), "nanometer", sections=3, spacing=40.0)
    field.create()
    field.write(some_map(), 1)
    again = displacements.load(uri)
    assert again == field
    np.testing.assert_allclose(again.read(1).u, some_map().u, rtol=1e-6)
    assert np.isnan(again.read(0).u).all()
    part = again.read(1, Box((2, 250), (5, 280)))
    np.testing.assert_allclose(part.u, some_map().u[:, 2:5, 250:280], rtol=1e-6)
    assert part.origin == (60.0, 5010.0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_another_reader_finds_physical_displacements(tmp_path, ndim):
    lattice = Lattice((5.0,) * ndim, (10.0,) * ndim, (4,) * ndim)
    field = DisplacementField(str(tmp_path / "m"), lattice, (2.0,) * ndim, "micrometer")
    field.create()
    field.write(some_map(lattice))
    group = zarr.open_group(str(tmp_path / "m"), mode="r")
    np.testing.assert_allclose(group["0"][:], some_map(lattice).u * 2.0, rtol=1e-6)
    dataset = group.attrs["ome"]["multiscales"][0]["datasets"][0]
    scale, shift = dataset["coordinateTransformations"][0]["transformations"]
    assert scale["scale"][1:] == [20.0] * ndim
    assert shift["translation"][1:] == [10.0] * ndim


def test_displacements_between_voxels_of_two_sizes_are_physical(tmp_path):
    m, fixed, moving = some_map(), np.array([4.0, 5.0]), np.array([1.0, 2.5])
    uri = str(tmp_path / "m")
    field = DisplacementField(uri, LATTICE, tuple(fixed), "micrometer", target=tuple(moving))
    field.create()
    field.write(m)
    nodes = LATTICE.nodes()
    size, other = (s[:, None, None] for s in (fixed, moving))
    expected = m.absolute * other - nodes * size
    np.testing.assert_allclose(zarr.open_group(uri, mode="r")["0"][:], expected, rtol=1e-6)
    again = displacements.load(uri)
    assert again == field
    np.testing.assert_allclose(again.read().u, m.u, atol=2e-3)
    part = again.read(nodes=Box((2, 250), (5, 280)))
    np.testing.assert_allclose(part.u, m.u[:, 2:5, 250:280], atol=2e-3)


@pytest.mark.parametrize("sections", [None, 4])
def test_metadata_pass_the_schema_of_the_specification(tmp_path, sections):
    field = DisplacementField(str(tmp_path / "m"), LATTICE, (4.0, 4.0), "nanometer", sections)
    field.create()
    node = json.loads((tmp_path / "m" / "zarr.json").read_text())
    ngff_zarr.validate(node["attributes"], version="0.6", model="image")


def test_a_map_on_another_lattice_is_refused(tmp_path):
    field = DisplacementField(str(tmp_path / "m"), LATTICE, (4.0, 4.0))
    field.create()
    with pytest.raises(ValueError, match="does not fit"):
        field.write(some_map(Lattice((0.0, 0.0), (40.0, 20.0), (7, 300))))


def test_a_missing_map_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no coordinate map"):
        displacements.load(str(tmp_path / "nothing"))


def test_a_writer_may_not_cut_a_chunk(tmp_path):
    array = fields.create(str(tmp_path / "f"), (2, 10, 10), (2, 5, 5))
    values = np.ones((2, 5, 5), np.float32)
    array.write(Box((0, 5, 5), (2, 10, 10)), values)
    with pytest.raises(ValueError, match="no union of chunks"):
        array.write(Box((0, 4, 5), (2, 9, 10)), values)
    found = fields.load(str(tmp_path / "f")).read()
    assert np.nansum(found) == 50
    assert np.isnan(found).sum() == 150
