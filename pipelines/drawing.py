"""The stages that `register` and `apply` share: a moving volume and its map in, a volume out."""

from __future__ import annotations

import functools
from dataclasses import asdict

from warpbeam.pipelines import fusing
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.register_config import DrawConfig
from warpbeam.transforms.canvas import OutputSettings
from warpbeam.transforms.register import output, render
from warpbeam.transforms.storage.run_folder import RunFolder


def add_drawing(
    graph: JobGraph,
    run: RunFolder,
    shape: tuple[int, ...],
    wanted: OutputSettings,
    draw: DrawConfig,
    *,
    uri: str,
    after: str,
    mark: str = "",
) -> None:
    """Canvas, drawn shards, the same as a TIFF where that is wanted, and the levels above them.

    Args:
        shape: of the fixed volume.
        uri: of the map that draws it.
        after: the stage behind which the map is there.
        mark: changes whenever a map that no stage of this graph makes was made anew.
    """
    method = pyramid_method(draw.interpolation)
    before = graph.ledger(after)
    graph.map(
        "canvas", [asdict(wanted), shape, method, mark],
        functools.partial(output.one_canvas, before),
        output.LayOutRegistered(run, shape, wanted, method), critical=True,
    )  # fmt: skip
    drawing = render.DrawSettings(draw.interpolation, draw.background)
    graph.map(
        "render", asdict(drawing), functools.partial(render.list_shards, run, before),
        render.DrawShard(run, drawing, uri),
    )  # fmt: skip
    graph.map(
        "tiff", None, functools.partial(output.one_tiff, graph.ledger("render")),
        output.StoreTiff(run), needed=draw.tiff,
    )  # fmt: skip
    levels = output.registered_spec(shape, wanted, run, method).group_starts[1:]
    fusing.add_levels(graph, {"pyramid": run.volume}, levels, after="render")


def pyramid_method(interpolation: str) -> str:
    """Labels have no mean."""
    return "mode" if interpolation == "nearest" else "mean"
