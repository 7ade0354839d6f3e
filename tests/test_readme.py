"""Every command of the README is run, in its order, on a small mosaic."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from phantoms import (
    Waves,
    grid_positions,
    matrix_columns,
    shifted,
    to_uint16,
    write_list,
    write_tiff,
)
from plates import write_plate
from stacks import make_stack, write_stack
from volumes import make_pair, write_pair

from warpbeam.pipelines import cli
from warpbeam.pipelines.options import pipeline_options

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands():
    lines = "\n".join(blocks("sh")).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("warpbeam ")]


def make_tiles(folder):
    """Four tiles with rough positions in tiles.csv, and true matrices in matrices.csv."""
    truth, rng = Waves.random(3), np.random.default_rng(4)
    rough, known = [], []
    for y, x in grid_positions(2, 2, 150):
        at = np.array([y, x]) + rng.uniform(-3, 3, 2)
        name = f"t_{y}_{x}.tif"
        image = truth.image((192, 192), shifted(*at)) + rng.normal(0, 20, (192, 192))
        write_tiff(folder / name, to_uint16(image))
        rough.append({"file": name, "y": y, "x": x})
        known.append({"file": name, **matrix_columns(shifted(*at))})
    write_list(folder / "tiles.csv", rough)
    write_list(folder / "matrices.csv", known)


def test_the_readme_has_commands_to_run():
    assert len(commands()) >= 8


def test_the_commands_and_the_python_example_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_tiles(tmp_path)
    write_stack(tmp_path / "sections", make_stack(4, (224, 240)))
    write_pair(tmp_path, make_pair((24, 48, 48)))
    (tmp_path / "labels.tif").write_bytes((tmp_path / "moving.tif").read_bytes())
    (tmp_path / "points.csv").write_text("z,y,x\n12,24,24\n")
    (tmp_path / "synapses.csv").write_text("z,y,x\n2,100,120\n")
    write_plate(tmp_path / "plate", times=2)
    for file in (tmp_path / "plate").iterdir():
        file.rename(tmp_path / file.name)
    (text,) = blocks("yaml")
    (tmp_path / "job.yaml").write_text(text)
    for command in commands():
        assert cli.main(shlex.split(command)[1:]) == 0, command
    (example,) = blocks("python")
    exec(example, {})
    kept, residual = map(float, capsys.readouterr().out.strip().splitlines()[-1].split())
    assert kept >= 4
    assert residual < 0.1


def test_the_yaml_example_is_complete():
    (text,) = blocks("yaml")
    assert {"tiles", "output"} <= set(yaml.safe_load(text))


def test_the_make_targets_exist():
    wanted = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.M)
    makefile = (ROOT / "Makefile").read_text()
    assert wanted == ["demo", "test"]
    for target in wanted:
        assert re.search(rf"^{target}:", makefile, re.M)


@pytest.mark.parametrize("line", re.findall(r"^    (warpbeam .* -- .*)$", README, re.M))
def test_the_options_for_clusters_are_known(line):
    ours, _, beams = line.partition(" -- ")
    cli._parser().parse_args(shlex.split(ours)[1:])
    assert pipeline_options(shlex.split(beams), 0) is not None


def test_the_pictures_exist():
    names = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert names
    assert all((ROOT / name).is_file() for name in names)
