"""The demo, as it is run: real tiles, real numbers."""

import dataclasses
import re

import numpy as np
import pytest
import tifffile

from warpbeam.pipelines import cli, demo
from warpbeam.pipelines.report.reading import read_run


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Folder, exit code and printed lines of the demo."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("sys.stdout.write", lines.append, raising=False)
        code = cli.main(["demo", str(folder)])
    return folder, code, "".join(lines)


def numbers(line, text):
    found = re.search(rf"^{line}\s\s+(.*)$", text, re.M)
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", found[1])]


def test_demo_stitches_the_tiles(shown):
    folder, code, text = shown
    assert code == 0
    assert numbers("tiles", text) == [8, 2]
    assert numbers("links kept", text) == [8, 8]
    before, after = numbers("seam error", text)
    assert 2 < before < 8
    assert after < 0.1
    assert numbers("worst seam", text)[1] < 0.2
    correlation = numbers("seam correlation", text)
    assert correlation[0] < 0.7 < 0.8 < correlation[1]
    assert numbers("speed", text)[0] > 0
    assert (folder / "report.html").stat().st_size < 3_000_000
    assert str(folder / "report.html") in text


def test_demo_agrees_with_the_published_solution(shown):
    folder, _, text = shown
    median, most = numbers("published solution", text)[:2]
    assert median < 0.8
    assert most < 3.5
    # The stage itself is farther from it, so that the number can tell.
    done = read_run(folder)
    at_stage = tuple(p._replace(matrix=p.source.stage) for p in done.placed)
    stage = dataclasses.replace(done, placed=at_stage)
    assert np.median(demo.distances(stage)) > 1.3 * median


def test_demo_is_not_done_twice(shown, capsys):
    folder, _, text = shown
    before = (folder / "run.json").stat().st_mtime_ns
    assert cli.main(["demo", str(folder)]) == 0
    again = capsys.readouterr().out
    first, rest = again.split("\n", 1)
    assert "already holds this demo" in first
    assert rest == text
    assert (folder / "run.json").stat().st_mtime_ns == before


def test_demo_does_not_touch_other_files(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert cli.main(["demo", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    for part in ("the output exists", "where:", "expected:", "got:", "to do:"):
        assert part in said
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_tiles_ship_small_and_with_their_licence():
    files = list(demo.TILES.iterdir())
    assert sum(f.stat().st_size for f in files) < 10e6
    assert "Howard Hughes Medical Institute" in (demo.TILES / "LICENSE").read_text()
    images = sorted(f for f in files if f.suffix == ".tif")
    assert len(images) == 8
    assert {tifffile.imread(f).shape for f in images} == {(1040, 1376)}
