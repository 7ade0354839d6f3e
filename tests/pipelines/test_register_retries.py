"""Where the field cannot follow at first, matches are repeated; elsewhere they are not."""

import numpy as np
import pytest
from running import object_hashes, register
from volumes import make_pair, write_pair

from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.transforms.register.frame import poor_uri
from warpbeam.transforms.storage import displacements, fields
from warpbeam.transforms.storage.run_folder import RunFolder

STEEP = make_pair(amplitude=5.0)
RETRIED = {"retries": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), STEEP)


@pytest.fixture(scope="module")
def retried(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("retried") / "out"
    register(files, output, lattice=RETRIED)
    return output


def forward(output):
    return displacements.load(str(output / "maps" / "forward.zarr")).read()


def errors(output):
    points = np.stack(np.meshgrid(*(np.arange(6, n - 6, 5.0) for n in STEEP.shape), indexing="ij"))
    truth = np.moveaxis(STEEP.target(np.moveaxis(points, 0, -1)), -1, 0)
    limit = np.reshape(STEEP.shape, (3, 1, 1, 1)) - 4
    seen = ((truth > 3) & (truth < limit)).all(axis=0)
    return np.linalg.norm(points + offsets_at(forward(output), points) - truth, axis=0)[seen]


def poor(output):
    return fields.load(poor_uri(RunFolder(str(output)), 2)).read() > 0


def test_a_steep_bend_is_followed_further(files, retried, tmp_path):
    register(files, tmp_path / "out", lattice={"retries": 0})
    assert np.median(errors(retried)) < 0.5 * np.median(errors(tmp_path / "out"))
    assert 0 < poor(retried).mean() < 1


def test_one_chunk_gives_the_same_map_as_many(files, retried, tmp_path):
    whole = register(files, tmp_path / "out", lattice=RETRIED, chunks={"size_px": 1000})
    assert whole.numbers["chunks"] == 1
    np.testing.assert_array_equal(poor(tmp_path / "out"), poor(retried))
    np.testing.assert_allclose(forward(tmp_path / "out").u, forward(retried).u, atol=1e-3)


def test_same_bytes_whatever_the_workers(files, retried, tmp_path):
    register(files, tmp_path / "out", ["--direct_num_workers=1"], lattice=RETRIED)
    assert object_hashes(tmp_path / "out" / "maps") == object_hashes(retried / "maps")


def test_volumes_that_are_alike_are_not_measured_again(tmp_path):
    gentle = make_pair((32, 48, 48), amplitude=0.5, shift=2.0)
    register(write_pair(tmp_path, gentle), tmp_path / "out", lattice=RETRIED)
    assert not poor(tmp_path / "out").any()
    stored = {path.name for path in (tmp_path / "out" / ".ledger" / "work").iterdir()}
    assert "matches_1" in stored
    assert not {"matches_2", "matches_3"} & stored
