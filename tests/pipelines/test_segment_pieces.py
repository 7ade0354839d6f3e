"""`segment` of a volume full of cells: cut into pieces, which are joined again."""

import json

import numpy as np
import pytest
from neurites import neurites
from pydantic import ValidationError
from running import _run, markers, object_hashes
from scipy import ndimage, spatial
from solids import write_image

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.agglomerate import Contacts, added, contacts
from warpbeam.kernels.segment.metrics import agreement
from warpbeam.kernels.segment.sheets import traces, weights
from warpbeam.pipelines import segment_volume, volume_plan
from warpbeam.pipelines.segment_volume import SegmentVolumeJob
from warpbeam.pipelines.volume_config import SegmentVolumeConfig
from warpbeam.transforms.segment.volume.frame import BlockFrame, table_uri
from warpbeam.transforms.storage import tables, volume

SHAPE = (40, 60, 64)
SETTINGS = {
    "volume": {"chunk_3d": (8, 16, 16), "shard_3d": (16, 32, 32), "pyramid": False},
    "pieces": {"enabled": True},
}


@pytest.fixture(scope="module")
def cells():
    """Grey values of cells that fill a volume, dark membranes between them, and their numbers."""
    rng = np.random.default_rng(3)
    at = np.stack(np.mgrid[tuple(map(slice, SHAPE))], axis=-1).reshape(-1, 3)
    _, truth = spatial.cKDTree(rng.uniform(0, SHAPE, (25, 3))).query(at)
    truth = truth.reshape(SHAPE).astype(np.int64) + 1
    membrane = ndimage.maximum_filter(truth, 3) != ndimage.minimum_filter(truth, 3)
    grey = 160 - 100 * ndimage.gaussian_filter(membrane.astype(float), 1.0)
    grey += rng.normal(0, 12, SHAPE)
    return np.clip(grey, 0, 255).astype(np.uint8), truth


@pytest.fixture(scope="module")
def image(cells, tmp_path_factory):
    return write_image(tmp_path_factory.mktemp("image") / "image.ome.zarr", cells[0])


def segment(image, output, flags=(), **changed):
    settings = {**SETTINGS, **changed}
    return _run(segment_volume.run, SegmentVolumeConfig, image, output, flags, settings)


def labels_of(run):
    level = volume.open_volume(str(run / "volume.ome.zarr" / "labels" / "objects")).level(0)
    return level.read(Box.of_shape(level.shape))[0, 0].astype(np.int64)


@pytest.fixture(scope="module")
def found(image, tmp_path_factory):
    run = tmp_path_factory.mktemp("pieces") / "run"
    return run, segment(image, run)


def test_cells_are_found(cells, found):
    run, outcome = found
    labels = labels_of(run)
    assert agreement(cells[1], labels).rand_error < 0.05
    assert (labels > 0).all()
    assert outcome.numbers["objects"] == len(np.unique(labels))
    rows = tables.read(str(run / "objects.parquet"))
    sizes = {row["id"]: row["voxels"] for row in rows}
    assert sizes == dict(zip(*(a.tolist() for a in np.unique(labels, return_counts=True)),
                             strict=True))  # fmt: skip


@pytest.mark.parametrize("shard", [(40, 64, 64), (8, 48, 16)])
def test_any_blocks_find_them(cells, image, tmp_path, shard):
    segment(image, tmp_path / "run", volume={**SETTINGS["volume"], "shard_3d": shard})
    assert agreement(cells[1], labels_of(tmp_path / "run")).rand_error < 0.08


FINE = {"chunk_3d": (8, 16, 16), "shard_3d": (8, 16, 16), "pyramid": False}  # 5 x 4 x 4 blocks


def test_regions_of_any_size_join_the_same_pieces(image, tmp_path):
    """By average linkage alone, whole regions and small ones, up to three levels, agree."""
    pieces = {"enabled": True, "enclosed": 0.0, "threshold": 0.4}
    for fan_out in (2, 3, 16):
        segment(
            image, tmp_path / str(fan_out), volume=FINE, pieces=pieces, labels={"fan_out": fan_out}
        )
    whole = labels_of(tmp_path / "16")
    assert 25 <= len(np.unique(whole)) < 300
    for fan_out in (2, 3):
        np.testing.assert_array_equal(labels_of(tmp_path / str(fan_out)), whole)


def test_small_regions_find_cells_too(cells, image, tmp_path):
    """With what is enclosed the order matters a little; cells are found all the same."""
    run = tmp_path / "run"
    outcome = segment(image, run, volume=FINE, labels={"fan_out": 2})
    assert outcome.exit_code == 0
    assert agreement(cells[1], labels_of(run)).rand_error < 0.08
    levels = [
        [json.loads(path.read_text()) for path in (run / ".ledger/done").glob(f"{stage}/*/*")]
        for stage in ("agglomerate_1", "agglomerate_2", "agglomerate_3")
    ]
    assert [len(records) for records in levels] == [12, 2, 1]
    left = [sum(record["left"] for record in records) for records in levels]
    assert left[0] > left[1] > 0
    assert left[2] == 0


def test_contacts_of_blocks_are_those_of_the_whole(cells, image, found):
    job = SegmentVolumeJob(SegmentVolumeConfig(image=str(image), output=str(found[0]), **SETTINGS))
    frame, blocks = job.frame, list(job.frame.grid.indices())
    ids = np.zeros(SHAPE, np.uint64)
    for index in blocks:
        box = frame.grid.box(index)
        own = frame.labels(job.run_folder).read(frame.slot(index, box))[0, 0].astype(np.uint64)
        ids[box.slices] = own + np.uint64(frame.number(index) << 32)
    everything = traces(cells[0], (1.5,) * 3, dark=True)
    whole = contacts(ids, weights([everything]).evidence(everything))
    uris = (table_uri(job.run_folder, "contacts", 0, index) for index in blocks)
    together = added([Contacts(**tables.read_columns(uri)) for uri in uris])
    for name in ("a", "b", "faces"):
        np.testing.assert_array_equal(getattr(together, name), getattr(whole, name))
    np.testing.assert_allclose(together.total, whole.total, rtol=1e-4, atol=1e-3)


def test_bright_sheets_are_dark_ones_of_the_negative(cells, found, tmp_path):
    negative = write_image(tmp_path / "negative.ome.zarr", 255 - cells[0])
    segment(negative, tmp_path / "run", pieces={"enabled": True, "sheets": "bright"})
    assert agreement(labels_of(found[0]), labels_of(tmp_path / "run")).rand_error < 1e-3


def test_workers_do_not_matter_and_a_second_run_does_nothing(image, found, tmp_path):
    run, _ = found
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    segment(image, tmp_path / "two", flags)
    hashes = object_hashes(run / "volume.ome.zarr")
    assert object_hashes(tmp_path / "two" / "volume.ome.zarr") == hashes
    before = markers(run)
    segment(image, run)
    assert (markers(run), object_hashes(run / "volume.ome.zarr")) == (before, hashes)


@pytest.mark.parametrize("shard", [(2, 160, 160), (3, 80, 96)])
def test_pieces_of_sections_are_joined_and_linked(tmp_path, shard):
    stack = neurites("elastic", depth=6, size=160, count=45, seed=1)
    image = write_image(tmp_path / "image.ome.zarr", stack.images, (30.0, 4.0, 4.0))
    outcome = segment(
        image, tmp_path / "run", link={"enabled": True},
        volume={**SETTINGS["volume"], "chunk_3d": (1, 80, 16), "shard_3d": shard},
    )  # fmt: skip
    assert agreement(stack.truth, labels_of(tmp_path / "run")).rand_error < 0.08
    assert outcome.numbers["links"] > 50


def test_a_blank_volume_is_one_object(tmp_path):
    image = write_image(tmp_path / "image.ome.zarr", np.full((16, 32, 32), 7, np.uint8))
    outcome = segment(image, tmp_path / "run")
    assert outcome.numbers["objects"] == 1


def test_two_ways_at_once_are_refused(image, tmp_path):
    with pytest.raises(ValidationError, match="choose one"):
        segment(image, tmp_path / "run", watershed={"enabled": True})


def test_the_plan_names_what_one_worker_holds(image, tmp_path):
    config = SegmentVolumeConfig(image=str(image), output=str(tmp_path / "run"), **SETTINGS)
    stages = {stage.name: stage for stage in SegmentVolumeJob(config).plan().stages}
    assert stages["agglomerate, roots"].units == 2
    assert stages["contacts"].units == 12


def test_what_a_region_holds_goes_with_its_surface_above_the_first_level():
    frame = BlockFrame((4096,) * 3, (64, 512, 512), (32, 64, 64), (0, 0, 0), 4)
    held = [volume_plan._held(frame, level) for level in (1, 2)]
    assert held[0] == 256 * 2048 * 2048 // 80
    surface = 2 * (2048 * 2048 + 2 * 256 * 2048)
    assert held[1] == pytest.approx(16 // 4 * 2 * 2 * surface * 0.12, rel=1e-6)
    small = BlockFrame((64,) * 3, (8,) * 3, (8,) * 3, (0, 0, 0), 2)
    assert max(volume_plan._held(small, level) for level in (1, 2, 3)) <= 64**3 // 80
