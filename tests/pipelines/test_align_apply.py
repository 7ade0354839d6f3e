import json

import cv2
import numpy as np
import pytest
import tifffile
from running import align, markers, object_hashes, pixels
from stacks import make_stack, write_stack

from warpbeam.pipelines import align_apply, cli
from warpbeam.pipelines.align_config import ApplyStackConfig
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.errors import InputError


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("align_apply")
    write_stack(folder / "sections", make_stack(4, (160, 176)))
    align(folder / "sections", folder / "aligned")
    return folder


def apply(folder, sections, output, **settings):
    config = ApplyStackConfig(
        alignment=str(folder / "aligned"), sections=str(sections), output=str(output),
        run={"report": False, "workers": 2}, **settings,
    )  # fmt: skip
    return align_apply.run(config)


def sections_of(folder):
    return sorted((folder / "sections").iterdir())


def test_the_same_sections_are_drawn_as_the_alignment_drew_them(aligned, tmp_path):
    outcome = apply(aligned, aligned / "sections", tmp_path / "again")
    assert outcome.exit_code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "again"), pixels(aligned / "aligned"))


def test_labels_keep_their_numbers_and_go_where_their_section_goes(aligned, tmp_path):
    """Numbers beyond 32 bits, of what is bright and of what is dark."""
    labels = tmp_path / "labels"
    labels.mkdir()
    ids = (1 << 40) + np.arange(30, dtype=np.uint64)
    for path in sections_of(aligned):
        bright = tifffile.imread(path) > 128
        made = np.where(bright, ids[3], ids[7])
        tifffile.imwrite(labels / path.name, made, photometric="minisblack")
    status = cli.main(
        ["align", str(labels), str(tmp_path / "out"), "--quiet", "--apply",
         str(aligned / "aligned"), "--set", "render.interpolation=nearest"]
    )  # fmt: skip
    assert status == 0
    drawn, grey = pixels(tmp_path / "out"), pixels(aligned / "aligned")
    assert drawn.dtype == np.uint64
    assert set(np.unique(drawn)) <= {0, int(ids[3]), int(ids[7])}
    seen = (drawn > 0) & (np.abs(grey.astype(int) - 128) > 40)
    assert seen.sum() > 1000
    assert ((drawn == ids[3]) == (grey > 128))[seen].mean() > 0.99
    assert volume.stored_spec(str(tmp_path / "out" / "volume.ome.zarr")).method == "mode"


@pytest.mark.parametrize("scale", [2, 0.5])
def test_sections_of_another_resolution_go_to_the_same_place(aligned, tmp_path, scale):
    """Smooth ones, enlarged or reduced, are drawn as what was aligned, enlarged or reduced."""
    smooth, other = tmp_path / "smooth", tmp_path / "other"
    for folder in (smooth, other):
        folder.mkdir()
    for path in sections_of(aligned):
        image = cv2.GaussianBlur(tifffile.imread(path), (0, 0), 6)
        tifffile.imwrite(smooth / path.name, image)
        tifffile.imwrite(other / path.name, resized(image, scale))
    apply(aligned, smooth, tmp_path / "same")
    outcome = apply(aligned, other, tmp_path / "out", scale=scale)
    assert outcome.exit_code == 0
    drawn, same = pixels(tmp_path / "out")[0, 0], pixels(tmp_path / "same")[0, 0]
    wanted = np.stack([resized(plane, scale) for plane in same])
    assert drawn.shape[0] == wanted.shape[0]
    inside = np.stack([_inside(plane > 0) for plane in wanted])
    shared = tuple(slice(min(a, b)) for a, b in zip(drawn.shape, wanted.shape, strict=True))
    wrong = np.abs(drawn[shared].astype(float) - wanted[shared])[inside[shared]]
    assert inside.mean() > 0.7
    assert np.quantile(wrong, 0.999) <= 1  # rounded three times on the way
    assert wrong.max() <= 2
    assert wrong.mean() < 0.2
    whole, part = (
        volume.stored_spec(str(tmp_path / n / "volume.ome.zarr")) for n in ("same", "out")
    )
    assert part.voxel == (whole.voxel[0], *(v / scale for v in whole.voxel[1:]))
    for axis in (1, 2):  # the corner of the volume lies where it lay
        corners = [(s.origin[axis] - 0.5) * s.voxel[axis] for s in (whole, part)]
        assert corners[0] == pytest.approx(corners[1], abs=1e-9)


def resized(image, scale):
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)


def _inside(seen):
    """Away from the border of a section."""
    size = np.ones((9, 9), np.uint8)
    return cv2.erode(np.pad(seen, 1).astype(np.uint8), size)[1:-1, 1:-1] > 0


def test_points_go_where_the_pixels_under_them_go(aligned, tmp_path):
    """A bright dot on black in every section is drawn where its point is moved to."""
    spots, rows = tmp_path / "spots", ["name,z,y,x"]
    spots.mkdir()
    y, x = np.mgrid[:160, :176]
    for number, path in enumerate(sections_of(aligned)):
        at = (60.0 + 7 * number, 80.5 - 9 * number)
        dot = 200 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 18)
        tifffile.imwrite(spots / path.name, dot.astype(np.float32), photometric="minisblack")
        section = int("".join(c for c in path.stem if c.isdigit()))
        rows.append(f"p{number},{section},{at[0]},{at[1]}")
    (tmp_path / "points.csv").write_text(
        "\n".join(rows) + "\nfar,999,5,5\nout,0,-4000,5\nlost,,,\n"
    )
    apply(aligned, spots, tmp_path / "drawn")
    moved = tmp_path / "moved.csv"
    status = cli.main(
        ["align", str(tmp_path / "points.csv"), str(moved), "--apply", str(aligned / "aligned")]
    )
    assert status == 1  # three of them have no place
    drawn = pixels(tmp_path / "drawn").astype(float)
    lines = [line.split(",") for line in moved.read_text().splitlines()[1:]]
    assert [line[0] for line in lines] == ["p0", "p1", "p2", "p3", "far", "out", "lost"]
    assert all(line[1:] == ["", "", ""] for line in lines[4:])
    for _, *place in lines[:4]:
        z, *wanted = map(float, place)
        plane = drawn[0, 0, int(z)]
        centre = [(plane * axis).sum() / plane.sum() for axis in np.indices(plane.shape)]
        np.testing.assert_allclose(wanted, centre, atol=0.15)


def test_points_of_finer_images_go_to_the_finer_volume(aligned, tmp_path, capsys):
    """The centre of pixel i of an image four times as fine lies at (i + 1/2) / 4 - 1/2."""
    coarse = np.array([[60.0, 80.5], [75.0, 99.25]])
    for name, points in (("coarse", coarse), ("fine", (coarse + 0.5) * 4 - 0.5)):
        rows = [f"1,{y},{x}" for y, x in points.tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["z,y,x", *rows]) + "\n")
    run, moved = str(aligned / "aligned"), {}
    for name, more in (("coarse", []), ("fine", ["--set", "scale=4"])):
        paths = [str(tmp_path / f"{name}.csv"), str(tmp_path / f"{name}_moved.csv")]
        assert cli.main(["align", *paths, "--apply", run, *more]) == 0
        lines = (tmp_path / f"{name}_moved.csv").read_text().splitlines()[1:]
        moved[name] = np.array([list(map(float, line.split(","))) for line in lines])
    np.testing.assert_allclose(moved["fine"][:, 1:], (moved["coarse"][:, 1:] + 0.5) * 4 - 0.5)
    np.testing.assert_array_equal(moved["fine"][:, 0], moved["coarse"][:, 0])
    paths = [str(tmp_path / "coarse.csv"), str(tmp_path / "m.csv")]
    assert cli.main(["align", *paths, "--apply", run, "--set", "render.background=3"]) == 2
    assert "a setting is not for points" in capsys.readouterr().err


def test_precomputed_volumes_of_all_resolutions_have_one_corner(aligned, tmp_path):
    offsets = {}
    for scale in (1, 2):
        other = tmp_path / f"sections_{scale}"
        other.mkdir()
        for path in sections_of(aligned):
            tifffile.imwrite(other / path.name, resized(tifffile.imread(path), scale))
        volume_settings = {"format": "precomputed", "pyramid": False}
        apply(aligned, other, tmp_path / str(scale), scale=scale, volume=volume_settings)
        info = json.loads(next((tmp_path / str(scale)).rglob("info")).read_text())
        offsets[scale] = np.array(info["scales"][0]["voxel_offset"])
    assert offsets[1][:2].any()
    np.testing.assert_array_equal(offsets[2][:2], 2 * offsets[1][:2])


def test_points_need_their_columns_and_a_file_to_go_to(aligned, tmp_path, capsys):
    (tmp_path / "bad.csv").write_text("z,y\n1,2\n")
    run = str(aligned / "aligned")
    assert cli.main(["align", str(tmp_path / "bad.csv"), "m.csv", "--apply", run]) == 2
    assert "columns z, y and x" in capsys.readouterr().err
    (tmp_path / "odd.csv").write_text("z,y,x\n0,1,2\n0,one,2\n")
    assert cli.main(["align", str(tmp_path / "odd.csv"), "m.csv", "--apply", run]) == 2
    assert "odd.csv, row 2" in capsys.readouterr().err
    assert cli.main(["align", str(tmp_path / "bad.csv"), "--apply", run]) == 2
    assert "warpbeam align POINTS.csv MOVED.csv --apply RUN" in capsys.readouterr().err


def test_labels_are_not_blended(aligned, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    for path in sections_of(aligned):
        tifffile.imwrite(
            labels / path.name, tifffile.imread(path).astype(np.uint64), photometric="minisblack"
        )
    with pytest.raises(InputError, match="labels cannot be blended"):
        apply(aligned, labels, tmp_path / "out")


def test_running_again_does_nothing(aligned, tmp_path):
    apply(aligned, aligned / "sections", tmp_path / "out")
    before = markers(tmp_path / "out"), object_hashes(tmp_path / "out" / "volume.ome.zarr")
    apply(aligned, aligned / "sections", tmp_path / "out")
    assert (
        markers(tmp_path / "out"),
        object_hashes(tmp_path / "out" / "volume.ome.zarr"),
    ) == before


def test_sections_that_were_not_aligned_are_refused(aligned, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for i, path in enumerate(sections_of(aligned)):
        tifffile.imwrite(other / f"s{i + 50}.tif", tifffile.imread(path))
    with pytest.raises(InputError, match="of which none were aligned"):
        apply(aligned, other, tmp_path / "out")
    for i, path in enumerate(sections_of(aligned)):
        tifffile.imwrite(other / f"s{i + 2}.tif", tifffile.imread(path))
    with pytest.raises(InputError, match="other numbers than those that were aligned"):
        apply(aligned, other, tmp_path / "out")
    for path in other.iterdir():
        path.unlink()
    for path in sections_of(aligned):
        tifffile.imwrite(other / path.name, tifffile.imread(path)[:-3])
    with pytest.raises(InputError, match="not in the frame"):
        apply(aligned, other, tmp_path / "out")
    with pytest.raises(InputError, match="expected: 320 x 352 px"):
        apply(aligned, aligned / "sections", tmp_path / "out", scale=2)
    with pytest.raises(InputError, match="no finished alignment"):
        apply(tmp_path, aligned / "sections", tmp_path / "out")
    assert not (tmp_path / "out").exists()
