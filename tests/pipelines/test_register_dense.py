"""Overlapping chunks by an engine from elsewhere, blended."""

import importlib.util

import numpy as np
import pytest
from running import object_hashes, register
from volumes import make_pair, write_pair

from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.pipelines import cli
from warpbeam.transforms.storage import displacements

PAIR = make_pair((28, 48, 56), amplitude=1.0, shift=2.0)
MODULES = {"ants": "ants", "greedy": "picsl_greedy"}
SETTINGS = {
    "ants": {"engine": "ants", "ants": {"accuracy": "low", "overlap_px": 8}},
    "greedy": {"engine": "greedy", "greedy": {"overlap_px": 8}},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), PAIR)


@pytest.mark.parametrize(("engine", "most"), [("ants", 0.5), ("greedy", 0.3)])
def test_the_map_is_the_truth(files, tmp_path, engine, most):
    pytest.importorskip(MODULES[engine])
    outcome = register(files, tmp_path / "out", **SETTINGS[engine])
    points = np.stack(np.meshgrid(*(np.arange(8, n - 8, 5.0) for n in PAIR.shape), indexing="ij"))
    truth = np.moveaxis(PAIR.target(np.moveaxis(points, 0, -1)), -1, 0)
    found = displacements.load(str(tmp_path / "out" / "maps" / "forward.zarr")).read()
    apart = np.linalg.norm(points + offsets_at(found, points) - truth, axis=0)
    assert outcome.numbers["chunks"] > 1
    assert outcome.numbers["left_out"] == 0
    assert outcome.numbers["disagreement_median_px"] < 0.5
    assert np.median(apart) < most


def test_greedy_gives_the_same_bytes_whatever_the_workers(files, tmp_path):
    pytest.importorskip("picsl_greedy")
    for workers in (1, 2):
        register(files, tmp_path / f"{workers}", [f"--direct_num_workers={workers}"],
                 **SETTINGS["greedy"])  # fmt: skip
    first, second = (object_hashes(tmp_path / f"{workers}" / "maps") for workers in (1, 2))
    assert first == second


@pytest.mark.parametrize("engine", ["ants", "greedy"])
def test_an_engine_that_is_not_installed_is_refused_before_any_work(
    files, tmp_path, monkeypatch, capsys, engine
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status = cli.main(
        [
            "register",
            *map(str, files),
            str(tmp_path / "out"),
            "--quiet",
            "--set",
            f"engine={engine}",
        ]
    )
    said = capsys.readouterr().err
    assert status == 2
    assert "not installed" in said
    assert f"pip install warpbeam[{engine}]" in said
    assert not (tmp_path / "out").exists()
