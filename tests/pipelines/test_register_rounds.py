import json

import numpy as np
import pytest
import tifffile
import yaml
from running import REGISTERED, markers, object_hashes
from running import register as register_pair
from volumes import draw, make_pair, write_pair

from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.pipelines import cli, report
from warpbeam.transforms.storage import displacements

PAIR = make_pair((32, 56, 64))
# How far the moving volume of a round is from that of the pair, voxels.
ROUNDS = {"second": (0, 0, 0), "third": (1, -3, 2)}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job file with two rounds whose fixed volume is the same."""
    folder = tmp_path_factory.mktemp("rounds")
    fixed, moving = draw(PAIR)
    tifffile.imwrite(folder / "fixed.tif", fixed, photometric="minisblack")
    for name, shift in ROUNDS.items():
        moved = np.roll(moving, shift, (0, 1, 2))
        tifffile.imwrite(folder / f"{name}.tif", moved, photometric="minisblack")
    settings = {
        "fixed": str(folder / "fixed.tif"),
        "rounds": {name: str(folder / f"{name}.tif") for name in ROUNDS},
        "output": str(folder / "out"),
        **REGISTERED,
    }
    path = folder / "rounds.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(settings))))
    return path


@pytest.fixture(scope="module")
def output(job):
    assert cli.main(["register", str(job), "--quiet"]) == 0
    return job.parent / "out"


@pytest.mark.parametrize("name", ROUNDS)
def test_every_round_lies_on_the_fixed_volume(output, name):
    points = np.stack(np.meshgrid(*(np.arange(10, n - 10, 6.0) for n in PAIR.shape), indexing="ij"))
    found = displacements.load(str(output / name / "maps" / "forward.zarr")).read()
    truth = np.moveaxis(PAIR.target(np.moveaxis(points, 0, -1)), -1, 0)
    wanted = truth + np.reshape(ROUNDS[name], (3, 1, 1, 1))
    apart = np.linalg.norm(points + offsets_at(found, points) - wanted, axis=0)
    assert np.median(apart) < 0.15


def test_a_round_is_what_it_is_by_itself(job, output, tmp_path):
    files = job.parent / "fixed.tif", job.parent / "third.tif"
    register_pair(files, tmp_path / "alone")
    assert object_hashes(tmp_path / "alone" / "maps") == object_hashes(output / "third" / "maps")


def test_one_round_is_done_again_by_itself(job, output):
    before = markers(output / "second")
    assert cli.main(["register", str(job), "--quiet", "--overwrite", "--set", "chosen=[third]",
                     "--set", "lattice.bending_px=80"]) == 0  # fmt: skip
    assert markers(output / "second") == before
    settings = json.loads((output / "third" / "run.json").read_text())["config"]["lattice"]
    assert settings["bending_px"] == 80


def test_the_report_has_a_row_per_round(output):
    page = (output / report.write(str(output))).read_text()
    for name in ROUNDS:
        assert f"{name}/report.html" in page
        assert (output / name / "report.html").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [("chosen=[fourth]", "none of the rounds"), ("moving=a.tif", "those under rounds"),
     ("rounds={../up: a.tif}", "folder"), ("rounds.second=nowhere.tif", "does not exist")],
)  # fmt: skip
def test_rounds_that_make_no_sense_are_refused(job, tmp_path, capsys, setting, message):
    place = f"output={tmp_path / 'out'}"
    assert cli.main(["register", str(job), "--quiet", "--set", place, "--set", setting]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_round_that_cannot_be_laid_on_the_fixed_one_leaves_the_others_alone(tmp_path, capsys):
    fixed, moving = write_pair(tmp_path, make_pair((28, 48, 56), shift=2.0))
    noise = np.random.default_rng(5).integers(0, 900, (28, 48, 56), np.uint16)
    tifffile.imwrite(tmp_path / "noise.tif", noise, photometric="minisblack")
    rounds = f"rounds={{bad: {tmp_path / 'noise.tif'}, good: {moving}}}"
    (tmp_path / "job.yaml").write_text(f"fixed: {fixed}\nrounds: {{x: y}}\noutput: {tmp_path}/out")
    assert cli.main(["register", str(tmp_path / "job.yaml"), "--quiet", "--set", rounds]) == 1
    assert "bad: coarse" in capsys.readouterr().out
    assert (tmp_path / "out" / "good" / "volume.ome.zarr").exists()
