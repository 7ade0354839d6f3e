import csv

import numpy as np
import pytest
import tifffile
from running import pixels, register
from volumes import content, make_pair, write_pair

from warpbeam.pipelines import apply, cli
from warpbeam.pipelines.register_config import ApplyConfig
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.errors import InputError

PAIR = make_pair((32, 48, 48), amplitude=0.5, shift=2.0)


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apply")
    register(write_pair(folder, PAIR), folder / "out")
    return folder


def labels():
    """Labels of the truth's sign, in the frame of the moving volume."""
    grid = np.stack(np.meshgrid(*map(np.arange, PAIR.shape), indexing="ij"), -1).astype(float)
    return (1000 * (1 + (content(3).at(grid) > 1000))).astype(np.uint16), grid


def test_labels_stay_labels_and_follow_the_map(registered, tmp_path):
    made, grid = labels()
    tifffile.imwrite(tmp_path / "labels.tif", made, photometric="minisblack")
    wanted = 1000 * (1 + (content(3).at(PAIR.target(grid)) > 1000))
    status = cli.main(
        ["register", str(tmp_path / "labels.tif"), str(tmp_path / "moved"), "--quiet", "--apply",
         str(registered / "out"), "--set", "draw.interpolation=nearest"]
    )  # fmt: skip
    assert status == 0
    drawn = pixels(tmp_path / "moved")[0, 0]
    inner = (slice(5, -5),) * 3
    assert set(np.unique(drawn)) <= {0, 1000, 2000}
    assert (drawn == wanted)[inner][drawn[inner] > 0].mean() > 0.95
    assert volume.stored_spec(str(tmp_path / "moved" / "volume.ome.zarr")).method == "mode"


def test_the_same_volume_is_drawn_as_the_registration_drew_it(registered, tmp_path):
    config = ApplyConfig(
        registration=str(registered / "out"), moving=str(registered / "moving.tif"),
        output=str(tmp_path / "again"), run={"report": False},
    )  # fmt: skip
    assert apply.run(config).exit_code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "again"), pixels(registered / "out"))


def test_points_go_where_the_truth_has_them(registered, tmp_path):
    fixed = np.array([[12.0, 20.0, 20.0], [16.0, 30.5, 25.0], [20.0, 24.0, 30.0]])
    write_points(tmp_path / "points.csv", [*PAIR.target(fixed), [500.0, 0.0, 0.0]])
    arguments = [str(tmp_path / "points.csv"), str(tmp_path / "moved.csv")]
    status = cli.main(["register", *arguments, "--apply", str(registered / "out")])
    with (tmp_path / "moved.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = np.array([[float(r[a]) for a in "zyx"] for r in rows[:3]])
    assert status == 1  # one point has no place
    assert rows[3]["z"] == ""
    assert [r["name"] for r in rows] == ["p0", "p1", "p2", "p3"]
    assert np.linalg.norm(found - fixed, axis=1).max() < 0.5


def write_points(path, points):
    lines = [f"p{i},{z},{y},{x}" for i, (z, y, x) in enumerate(points)]
    path.write_text("\n".join(["name,z,y,x", *lines]) + "\n")


def test_what_does_not_fit_is_refused(registered, tmp_path):
    tifffile.imwrite(tmp_path / "small.tif", np.ones((8, 9, 10), np.uint8))
    config = ApplyConfig(registration=str(registered / "out"), moving=str(tmp_path / "small.tif"),
                         output=str(tmp_path / "bad"))  # fmt: skip
    with pytest.raises(InputError, match="not in the frame"):
        apply.run(config)
    with pytest.raises(InputError, match="no finished registration"):
        apply.move_points(str(tmp_path), "points.csv", "moved.csv")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no points"):
        apply.move_points(str(registered / "out"), str(tmp_path / "bad.csv"), "moved.csv")
    (tmp_path / "there.csv").write_text("mine")
    write_points(tmp_path / "good.csv", [(8, 9, 10)])
    for target in ("there.csv", "good.csv"):
        with pytest.raises(InputError, match="the file for the moved points exists"):
            apply.move_points(
                str(registered / "out"), str(tmp_path / "good.csv"), str(tmp_path / target)
            )
    assert (tmp_path / "there.csv").read_text() == "mine"
