"""`fuse`: tiles whose matrices are known -> one volume.

warpbeam fuse tiles.csv fused/
warpbeam fuse job.yaml --set blend.mode=cosine -- --runner=FlinkRunner --parallelism=64

from warpbeam.pipelines import fuse
from warpbeam.pipelines.config import FuseConfig
fuse.run(FuseConfig(tiles="tiles.csv", output="fused"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.pipelines import fusing
from warpbeam.pipelines.config import FuseConfig
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.job import Outcome
from warpbeam.pipelines.list_job import TileJob
from warpbeam.pipelines.plan import Plan
from warpbeam.transforms.placement import save_placement
from warpbeam.transforms.tiles import PlacedTile


class FuseJob(TileJob[FuseConfig]):
    """The job `fuse`."""

    name = "fuse"
    model = FuseConfig

    def prepare(self) -> None:
        save_placement(self.run_folder, [PlacedTile(s, s.stage) for s in self.sources])

    def build(self, graph: JobGraph) -> None:
        fusing.add_convert(graph, self.run_folder, self.tiles, self.sources)
        fusing.add_flatfield(graph, self.run_folder, self.config, self.tiles)
        fusing.add_gain(graph, self.run_folder, self.config, self.tiles)
        fusing.add_fusion(graph, self.run_folder, self.config, self.tiles, placed=True)

    def plan(self) -> Plan:
        return fusing.plan(self.run_folder, self.config, self.tiles, self.sources)

    def numbers(self, graph: JobGraph, seconds: float) -> dict[str, Any]:
        return fusing.numbers(graph, self.run_folder, seconds)


def run(
    config: FuseConfig,
    flags: Sequence[str] = (),
    *,
    stages: Sequence[str] | None = None,
    overwrite: bool = False,
    watch: Callable[[], Any] | None = None,
) -> Outcome:
    """Runs or continues the job; see `Job.execute`."""
    job = FuseJob(config)
    return job.execute(flags, stages=stages, overwrite=overwrite, watch=watch)
