import json
import shutil

import cv2
import numpy as np
import ome_zarr_models
import pytest
import tifffile
from running import align, markers, object_hashes, pixels
from scipy import ndimage
from stacks import make_stack, residuals, write_stack

from warpbeam.kernels.maps.points import warp_points
from warpbeam.kernels.maps.sofima import to_sofima
from warpbeam.transforms.align import frame
from warpbeam.transforms.align.section_maps import load_maps
from warpbeam.transforms.canvas import load_canvas
from warpbeam.transforms.storage import displacements, tables
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder

POINTS = np.stack(np.meshgrid(np.arange(30, 131, 20), np.arange(30, 147, 20), indexing="ij"), -1)
POINTS = POINTS.reshape(-1, 2).astype(float)


@pytest.fixture(scope="module")
def stack():
    return make_stack()


@pytest.fixture(scope="module")
def folder(stack, tmp_path_factory):
    return write_stack(tmp_path_factory.mktemp("stack"), stack)


@pytest.fixture(scope="module")
def aligned(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("aligned") / "out"
    return output, align(folder, output)


def forward(output, depth=8):
    """Where the points of each section go, in the frame of its own pixels."""
    field = displacements.load(str(output / "maps" / "forward.zarr"))
    matrices = _matrices(output)
    moved = []
    for z in range(depth):
        world = POINTS + matrices[z]
        moved.append(warp_points(field.read(z), world))
    return moved


def _matrices(output):
    import json

    found = json.loads((output / "transforms.json").read_text())
    return [np.array(entry["matrix"])[:2, 2] for entry in found.values()]


def rows(output):
    return {row["section"]: row for row in tables.read(str(output / "sections.parquet"))}


def test_neighbours_agree_with_the_truth(stack, aligned):
    output, outcome = aligned
    apart = residuals(stack, forward(output), POINTS)
    assert np.median(apart) < 0.15
    assert np.quantile(apart, 0.95) < 0.5
    assert outcome.numbers["skipped_sections"] == []
    assert {row["status"] for row in rows(output).values()} == {"start", "regular"}


def test_the_table_tells_how_far_a_section_was_moved_in_all(aligned):
    output, _ = aligned
    middle = np.array([[80.0, 90.0]])
    nearest = np.argmin(np.abs(POINTS - middle).sum(axis=1))
    for z, moved in enumerate(forward(output)):
        told = [rows(output)[z][f"shift_{axis}_px"] for axis in "yx"]
        np.testing.assert_allclose(told, (moved - POINTS)[nearest], atol=1)


def test_the_volume_shows_one_truth_in_all_sections(stack, aligned):
    output, _ = aligned
    volume = pixels(output)[0, 0].astype(float)
    seen = (volume > 0).all(axis=0)
    assert seen.mean() > 0.6
    inner = [v[seen] for v in volume]
    before = [stack.section(z, _content()) for z in range(8)]
    for a, b, p, q in zip(inner[:-1], inner[1:], before[:-1], before[1:], strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.98
        assert np.corrcoef(a, b)[0, 1] > np.corrcoef(p.ravel(), q.ravel())[0, 1]


def _content():
    from stacks import content

    return content()


def test_the_inverse_map_undoes_the_forward_map(aligned):
    output, _ = aligned
    inverse = displacements.load(str(output / "maps" / "inverse.zarr"))
    for z, moved in enumerate(forward(output)):
        back = warp_points(inverse.read(z), moved)
        np.testing.assert_allclose(back, POINTS + _matrices(output)[z], atol=0.15)


def test_maps_and_volume_lie_in_one_frame(aligned):
    """Their metadata place the nodes of the inverse maps around the voxels of the volume."""
    output, _ = aligned
    volume = json.loads((output / "volume.ome.zarr" / "zarr.json").read_text())
    inverse = json.loads((output / "maps" / "inverse.zarr" / "zarr.json").read_text())
    parts = [
        group["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        for group in (volume, inverse)
    ]
    start = parts[0][1]["translation"][2:]
    scale, translation = parts[1][0]["transformations"]
    first, step = translation["translation"][1:], scale["scale"][1:]
    assert first[0] == start[0]
    for a, b, length in zip(first[1:], start[1:], step[1:], strict=True):
        assert a <= b < a + length


def test_the_maps_of_a_section_lead_from_its_pixels_and_back(stack, aligned):
    output, _ = aligned
    origin = np.array(load_canvas(RunFolder(str(output))).origin[1:])
    drawn = pixels(output)[0, 0].astype(float)
    for z, moved in enumerate(forward(output)):
        there, back = load_maps(str(output), z)
        np.testing.assert_allclose(warp_points(there, POINTS), moved, atol=0.15)
        np.testing.assert_allclose(warp_points(back, moved), POINTS, atol=0.15)
        assert there.lattice.origin == (0.0, 0.0)
        voxels = np.rint(moved - origin).astype(int)
        pixel = warp_points(back, voxels + origin)
        shown = ndimage.map_coordinates(stack.section(z, _content()), pixel.T, order=1)
        np.testing.assert_allclose(drawn[z][tuple(voxels.T)], shown, atol=2)
        coord_map, start = to_sofima(back)
        assert coord_map.shape == (2, 1, *back.lattice.shape)
        np.testing.assert_allclose(start[::-1], np.divide(back.origin, back.stride))
    with pytest.raises(InputError, match="a section was not aligned"):
        load_maps(str(output), 99)


def test_the_volume_is_valid_ome_zarr(aligned):
    output, _ = aligned
    ome_zarr_models.open_ome_zarr(_group(output))


def _group(output):
    import zarr

    return zarr.open_group(str(output / "volume.ome.zarr"), mode="r")


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        (["--direct_num_workers=1"], {}),
        ([], {"volume": {"shard_3d": (8, 32, 64), "chunk_3d": (8, 32, 32)}}),
    ],
)
def test_same_voxels_whatever_the_workers_and_shards(folder, aligned, tmp_path, flags, changed):
    output, _ = aligned
    align(folder, tmp_path / "other", flags, **changed)
    np.testing.assert_array_equal(pixels(tmp_path / "other"), pixels(output))


def test_running_again_does_nothing(folder, aligned):
    output, first = aligned
    before, marks = object_hashes(output / "volume.ome.zarr"), markers(output)
    again = align(folder, output)
    assert markers(output) == marks
    assert object_hashes(output / "volume.ome.zarr") == before
    assert again.numbers["residual_median_px"] == first.numbers["residual_median_px"]


@pytest.mark.parametrize(
    ("block", "count", "most"), [(3, 3, 1e-3), (2, 4, 0.05)], ids=["exact", "nearly"]
)
def test_blocks_are_one_chain(folder, aligned, tmp_path, block, count, most):
    """Two turns make three blocks exact."""
    output, _ = aligned
    align(folder, tmp_path / "blocks", mesh={"block_sections": block})
    assert len(markers(tmp_path / "blocks", "chain")) == count
    for a, b in zip(forward(output), forward(tmp_path / "blocks"), strict=True):
        assert np.abs(a - b).max() < most


def test_a_range_of_sections_alone(folder, aligned, tmp_path):
    """Its sections lie to one another as in the whole stack, but that its first one is not bent."""
    output, _ = aligned
    outcome = align(folder, tmp_path / "out", first_section=2, last_section=5)
    assert outcome.numbers["sections"] == 4
    assert [row["section"] for row in tables.read(str(tmp_path / "out" / "sections.parquet"))] == [
        2, 3, 4, 5
    ]  # fmt: skip
    whole = forward(output)
    part = displacements.load(str(tmp_path / "out" / "maps" / "forward.zarr"))
    matrices = _matrices(tmp_path / "out")
    found = [warp_points(part.read(z), POINTS + matrices[z]) for z in range(4)]
    for z in (1, 2, 3):
        between = (found[z] - found[0]) - (whole[2 + z] - whole[2])
        assert np.median(np.abs(between)) < 0.1


def test_a_range_needs_two_sections(folder, tmp_path):
    with pytest.raises(InputError, match="a range within 0 to 7"):
        align(folder, tmp_path / "out", first_section=7)


def test_a_blank_section_is_bridged_and_listed(stack, tmp_path):
    write_stack(tmp_path / "in", stack, blank=(3,))
    outcome = align(tmp_path / "in", tmp_path / "out")
    assert outcome.numbers["skipped_sections"] == [3]
    assert rows(tmp_path / "out")[3]["status"] == "bridged"
    moved = forward(tmp_path / "out")
    errors = [m - POINTS - stack.displacement(z, POINTS) for z, m in enumerate(moved)]
    assert np.median(np.linalg.norm(errors[4] - errors[2], axis=1)) < 0.4


def test_dirt_on_the_camera_is_left_out(stack, tmp_path):
    """It stays where it is in every section, with a grey value of its own."""
    write_stack(tmp_path / "in", stack)
    rng, dirt = np.random.default_rng(0), np.zeros((160, 176), bool)
    dirt[30:130, 30:150] = rng.random((100, 120)) < 0.5
    for path in sorted((tmp_path / "in").iterdir()):
        image = np.minimum(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 250)
        image[dirt] = 255
        cv2.imwrite(str(path), image)
    given = {"rough": {"model": "none"}}
    align(tmp_path / "in", tmp_path / "misled", **given)
    align(tmp_path / "in", tmp_path / "out", flow={"exclude": [{"above": 254}]}, **given)
    misled, right = (
        np.median(residuals(stack, forward(tmp_path / name), POINTS)) for name in ("misled", "out")
    )
    assert right < 0.3
    assert misled > 2 * right


def test_a_section_that_is_repaired_leaves_no_trace(tmp_path):
    """Blocks begin elsewhere then; what was done for the old ones must not count."""
    stack, given = make_stack(6), {"rough": {"model": "none"}}
    write_stack(tmp_path / "in", stack, blank=(0,))
    first = align(tmp_path / "in", tmp_path / "out", **given)
    assert first.numbers["skipped_sections"] == [0]
    write_stack(tmp_path / "in", stack)
    align(tmp_path / "in", tmp_path / "out", **given)
    align(tmp_path / "in", tmp_path / "fresh", **given)
    np.testing.assert_array_equal(pixels(tmp_path / "out"), pixels(tmp_path / "fresh"))


def test_a_missing_section_leaves_a_gap(stack, tmp_path):
    write_stack(tmp_path / "in", stack)
    (tmp_path / "in" / "sec_004.tif").unlink()
    outcome = align(tmp_path / "in", tmp_path / "out")
    assert outcome.numbers["missing_sections"] == [4]
    volume = pixels(tmp_path / "out")
    assert volume.shape[2] == 8
    assert not volume[0, 0, 4].any()
    assert volume[0, 0, 5].any()


def test_a_corrupt_section_fails_alone(stack, tmp_path):
    write_stack(tmp_path / "in", stack)
    path = tmp_path / "in" / "sec_005.tif"
    data = path.read_bytes()
    path.write_bytes(data[:2000] + b"\xff" * 400 + data[2400:])
    outcome = align(tmp_path / "in", tmp_path / "out", expect=1)
    assert {f.stage for f in outcome.failures} <= {"rough", "flow", "clean"}
    assert all(f.key[0] == 5 for f in outcome.failures)
    assert rows(tmp_path / "out")[5]["status"] == "unreadable"
    assert pixels(tmp_path / "out")[0, 0, 6].any()


def test_a_section_that_cannot_be_converted_is_unreadable(stack, tmp_path):
    write_stack(tmp_path / "in", stack)
    for path in sorted((tmp_path / "in").glob("*.tif")):
        cv2.imwrite(str(path.with_suffix(".png")), tifffile.imread(path))
        path.unlink()
    path = tmp_path / "in" / "sec_005.png"
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + b"\xff" * 400 + data[middle + 400 :])
    outcome = align(tmp_path / "in", tmp_path / "out", expect=1)
    assert [(f.stage, f.key[1]) for f in outcome.failures] == [("convert", 5)]
    assert rows(tmp_path / "out")[5]["status"] == "unreadable"


def test_stages_run_alone(folder, tmp_path):
    align(folder, tmp_path / "out", stages=["convert", "rough", "place", "frame", "flow"])
    assert not (tmp_path / "out" / "maps").exists()
    align(folder, tmp_path / "out", mesh={"block_sections": 50})
    assert pixels(tmp_path / "out").any()


def test_a_volume_gives_the_same_as_its_sections(stack, folder, aligned, tmp_path):
    import zarr

    output, _ = aligned
    images = [tifffile.imread(p) for p in sorted(folder.glob("*.tif"))]
    array = zarr.create_array(
        tmp_path / "in.zarr", shape=(8, 160, 176), chunks=(1, 64, 64), dtype="uint8"
    )
    array[:] = np.stack(images)
    align(tmp_path / "in.zarr", tmp_path / "out")
    np.testing.assert_array_equal(pixels(tmp_path / "out"), pixels(output))


def test_one_of_several_times(stack, folder, aligned, tmp_path):
    output, _ = aligned
    images = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in sorted(folder.iterdir())]
    later = np.stack([np.zeros_like(np.stack(images)), np.stack(images)])
    tifffile.imwrite(tmp_path / "in.ome.tif", later, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match="one of 0, 1"):
        align(tmp_path / "in.ome.tif", tmp_path / "out")
    with pytest.raises(InputError, match="no section was recorded at this time"):
        align(tmp_path / "in.ome.tif", tmp_path / "out", time=2)
    align(tmp_path / "in.ome.tif", tmp_path / "out", time=1)
    np.testing.assert_array_equal(pixels(tmp_path / "out"), pixels(output))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow": {"channel": 3}}, "no such channel"),
        ({"flow": {"exclude": [{"channel": 1, "values": [2]}]}}, "no such channel"),
        ({"flow": {"patch_px": 400}}, "larger than a section"),
        ({"run": {"worker_memory_gb": 0.1}}, "more memory"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        align(folder, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_blank_sections_only_are_an_error_and_no_result(tmp_path):
    write_stack(tmp_path / "in", make_stack(3), blank=(0, 1, 2))
    outcome = align(tmp_path / "in", tmp_path / "out", expect=1)
    assert outcome.stopped
    assert "no section resembles" in outcome.failures[0].cause


def test_what_an_earlier_layout_left_behind_is_done_again(tmp_path, monkeypatch):
    """Its arrays are not those of today: one is not there at all."""
    sections = write_stack(tmp_path / "sections", make_stack(3))
    with monkeypatch.context() as earlier:
        earlier.setattr(frame, "LAYOUT", frame.LAYOUT - 1)
        align(sections, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / ".ledger" / "align" / "cut.zarr")
    repaired = sorted(sections.iterdir())[1]
    tifffile.imwrite(repaired, tifffile.imread(repaired), compression="zlib", rowsperstrip=16)
    align(sections, tmp_path / "run")
    align(sections, tmp_path / "fresh")
    volumes = [object_hashes(tmp_path / name / "volume.ome.zarr") for name in ("run", "fresh")]
    assert volumes[0] == volumes[1]


def test_a_section_that_is_skipped_is_bridged_over_one_gap_alone(folder, stack, tmp_path):
    """Where neighbours alone are compared, flow over the skipped one is measured for it."""
    flow = {"gaps": (1,), "bridges": (2, 3)}
    outcome = align(folder, tmp_path / "out", mesh={"skip": (3,)}, flow=flow)
    table = rows(tmp_path / "out")
    assert table[4]["references"] == [2]
    assert {row["status"] for row in table.values()} == {"start", "regular"}
    assert outcome.numbers["skipped_sections"] == []
    assert np.median(residuals(stack, forward(tmp_path / "out"), POINTS)) < 0.15
