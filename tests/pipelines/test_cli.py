"""The command line: quick to answer, and the same as the Python API."""

import json
import subprocess
import sys
import time

import pytest
import yaml
from phantoms import write_mosaic
from running import command, environment, object_hashes

from warpbeam.pipelines import cli

SMALL = ["--set", "volume.shard_2d=[64,64]", "--set", "volume.chunk_2d=[32,32]"]


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; from warpbeam.pipelines.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'apache_beam', 'numpy', 'tensorstore', 'pydantic', 'yaml', 'scipy', 'cv2'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    took = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        took.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
    assert "stitch" in done.stdout
    assert min(took) < 0.4


@pytest.mark.parametrize("job", ["stitch", "fuse"])
def test_explain_names_every_setting(job, capsys):
    from warpbeam.pipelines.config import FuseConfig, StitchConfig
    from warpbeam.pipelines.settings import field_names

    assert cli.main(["explain", job]) == 0
    text = capsys.readouterr().out
    for name in field_names({"stitch": StitchConfig, "fuse": FuseConfig}[job]):
        assert f"  {name}  [" in text


def test_explain_shows_the_defaults_of_the_job(capsys):
    assert cli.main(["explain", "fuse"]) == 0
    text = capsys.readouterr().out
    (line,) = [ln for ln in text.splitlines() if "shading.flatfield" in ln]
    assert line.endswith("default off]")


def test_the_schema_accepts_a_job_and_refuses_a_typo(capsys):
    assert cli.main(["explain", "stitch", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["required"]) == {"tiles", "output"}
    assert schema["additionalProperties"] is False
    section = schema["$defs"]["BlendConfig"]
    assert section["additionalProperties"] is False
    assert "multiband" in section["properties"]["mode"]["enum"]
    assert all(p.get("description") for p in section["properties"].values())


def test_a_job_file_and_options_say_the_same(tmp_path, capsys):
    tiles = write_mosaic(tmp_path / "tiles", rows=1, columns=2, tile=48, step=40)
    job = {
        "tiles": str(tiles),
        "output": str(tmp_path / "never"),
        "blend": {"mode": "mean"},
        "volume": {"shard_2d": [64, 64], "chunk_2d": [32, 32]},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    arguments = [str(tmp_path / "job.yaml"), str(tmp_path / "a"), "--set", "blend.mode=max"]
    assert cli.main(["fuse", *arguments, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "megavoxels" in said
    assert not (tmp_path / "never").exists()
    quick = ["fuse", str(tiles), str(tmp_path / "b"), *SMALL, "--set", "blend.mode=max", "--quiet"]
    assert cli.main([*quick, "--", "--direct_num_workers=1"]) == 0
    volume = "volume.ome.zarr"
    assert object_hashes(tmp_path / "a" / volume) == object_hashes(tmp_path / "b" / volume)
    told = json.loads((tmp_path / "a" / "run.json").read_text())
    assert told["config"]["blend"]["mode"] == "max"
    assert told["versions"]["apache-beam"]


def test_a_failed_key_is_listed_and_the_status_is_1(tmp_path):
    from phantoms import damage

    tiles = write_mosaic(tmp_path / "tiles", rows=1, columns=2)
    damage(tmp_path / "tiles" / "t_0_80.tif")
    done = command("fuse", tiles, tmp_path / "out", *SMALL)
    assert done.returncode == 1
    assert "keys failed; everything else is done" in done.stdout
    assert "t_0_80.tif" in done.stdout
    assert "an image is corrupt" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unforeseen_error_is_one_message(monkeypatch, capsys):
    def broken(options):
        raise RuntimeError("Traceback (most recent call last):\n  File x\nKeyError: 'lost'")

    monkeypatch.setattr(cli, "_run_explain", broken)
    assert cli.main(["explain", "fuse"]) == 1
    said = capsys.readouterr().err
    assert "KeyError: 'lost'" in said
    assert "Traceback" not in said
    assert "to do:" in said


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    def stopped(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run_explain", stopped)
    assert cli.main(["explain", "fuse"]) == 130
    assert "continues" in capsys.readouterr().err


def test_the_plan_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiles = write_mosaic(tmp_path / "tiles", rows=2, columns=2)
    before = object_hashes(tmp_path)
    for job in ("fuse", "stitch"):
        assert cli.main(["plan", job, str(tiles)]) == 0
        said = capsys.readouterr().out
        assert "4 tiles of 96 x 96 uint16" in said
        assert "peak memory of a worker" in said
    assert object_hashes(tmp_path) == before
