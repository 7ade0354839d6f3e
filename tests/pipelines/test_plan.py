"""The plan: what will be done, and what does not fit."""

import pytest
from phantoms import write_mosaic
from running import SMALL, fuse, stitch

from warpbeam.pipelines.config import FuseConfig, StitchConfig
from warpbeam.pipelines.fuse import FuseJob
from warpbeam.pipelines.plan import Plan, StagePlan
from warpbeam.pipelines.stitch import StitchJob
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Ledger


def stage(name, memory, seconds=1.0):
    return StagePlan(name, 3, 10**6, 2 * 10**6, memory, seconds)


def test_the_largest_stage_decides():
    plan = Plan((stage("a", 10**8), stage("b", 9 * 10**8)), 3 * 10**8, ("x",))
    assert plan.memory == 12 * 10**8
    assert plan.core_hours == pytest.approx(2 / 3600)
    plan.refuse_if_too_large(1.2)
    with pytest.raises(InputError, match="stage b"):
        plan.refuse_if_too_large(1.19)


def test_the_table_says_it_all():
    text = Plan((stage("convert", 10**8),), 3 * 10**8, ("9 tiles",)).text(4, 0.07)
    assert text.startswith("9 tiles\n")
    for part in ("convert", "400", "4 workers", "peak memory of a worker 400 MB"):
        assert part in text


def planned_units(job):
    return {s.name: s.units for s in job.plan().stages}


def done_units(job, run):
    return {
        s.name: len(Ledger(str(run), s.name, s.ledger.config_hash).done())
        for s in job.graph().stages
    }


@pytest.mark.parametrize("strips", [16, 96], ids=["read in parts", "converted"])
def test_the_plan_of_fuse_is_what_happens(tmp_path, strips):
    tiles = write_mosaic(tmp_path / "tiles", rowsperstrip=strips)
    job = FuseJob(FuseConfig(tiles=str(tiles), output=str(tmp_path / "run"), volume=SMALL))
    planned = planned_units(job)
    fuse(tiles, tmp_path / "run")
    done = done_units(job, tmp_path / "run")
    assert planned["convert"] == done["convert"] == (0 if strips == 16 else 9)
    assert planned["fuse"] == done["fuse"] == 16
    assert planned["pyramid"] == sum(n for name, n in done.items() if name.startswith("pyramid"))


def test_the_plan_of_stitch_counts_the_links(tmp_path):
    tiles = write_mosaic(tmp_path / "tiles", rows=2, columns=3)
    job = StitchJob(StitchConfig(tiles=str(tiles), output=str(tmp_path / "run"), volume=SMALL))
    planned = planned_units(job)
    outcome = stitch(tiles, tmp_path / "run")
    done = done_units(job, tmp_path / "run")
    assert outcome.numbers["links"] == 7
    assert planned["link"] == done["link"]
    assert planned["null"] == done["null"]
    assert planned["solve"] == done["solve"] == 1


def test_the_plan_of_elastic_stitch_counts_overlaps_and_montages(tmp_path):
    tiles = write_mosaic(tmp_path / "tiles", rows=2, columns=2, tile=160, step=100)
    settings = {"elastic": {"enabled": True, "patch_px": 24}}
    config = StitchConfig(tiles=str(tiles), output=str(tmp_path / "run"), volume=SMALL, **settings)
    planned = planned_units(job := StitchJob(config))
    stitch(tiles, tmp_path / "run", **settings)
    done = done_units(job, tmp_path / "run")
    assert planned["flow"] == 6  # every link, believed or not; corners too
    assert planned["mesh"] == done["mesh"] == 1
    assert planned["maps"] == done["maps"] == 1


def test_memory_grows_with_the_shard(tmp_path):
    tiles = write_mosaic(tmp_path / "tiles", rows=1, columns=40, tile=128, step=120)
    peaks = []
    for shard in ((64, 64), (64, 1024), (64, 4096)):
        volume = {"chunk_2d": (64, 64), "shard_2d": shard}
        config = FuseConfig(tiles=str(tiles), output=str(tmp_path / "run"), volume=volume)
        peaks.append(FuseJob(config).plan().memory)
    assert peaks == sorted(set(peaks))
