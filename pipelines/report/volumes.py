"""A registered pair: one over the other before and after, the deformation, and the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_affine
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.kernels.warp.image import needed, warp_image
from warpbeam.kernels.warp.source import Source
from warpbeam.pipelines.report import charts, pictures
from warpbeam.pipelines.report.page import Group, Part, Picture, Table
from warpbeam.pipelines.report.reading import Row, Run
from warpbeam.transforms.register.coarse import load_coarse
from warpbeam.transforms.register.frame import FIXED, MOVING, forward_uri
from warpbeam.transforms.storage import displacements, store, tables
from warpbeam.transforms.tiles import TileReader, TileSource, load_sources

Array = np.ndarray[Any, Any]

_SIDE = 512
_SQUARES = 8  # of the checkerboard, on the longer side
_MOST_ROWS = 40
_ARROWS = 32


def overlays_part(run: Run) -> Part | None:
    """Middle planes: fixed in red over moving in cyan, and a checkerboard, before and after."""
    if not store.exists(forward_uri(run.folder)):
        return None
    sources = list(load_sources(run.folder))
    config = run.summary["config"]["volumes"]
    channels = config["fixed_channel"], config["moving_channel"]
    reader, coarse = TileReader(run.folder), load_coarse(run.folder)
    stored = displacements.load(forward_uri(run.folder))
    groups = []
    for axis, name in ((0, "z"), (1, "y")):
        box = _middle(sources[FIXED].shape, axis)
        fixed = reader.pixels(sources[FIXED], channels[FIXED], box).squeeze(axis)
        lattice = Lattice.covering(box, stored.lattice.stride)
        before = from_affine(coarse.physical, lattice)
        planes = [
            _drawn(reader, sources[MOVING], channels[MOVING], m, box).squeeze(axis)
            for m in (before, stored.read())
        ]
        shown = [pictures.grey(part, pictures.stretch(part)) for part in (fixed, *planes)]
        groups += _pair(shown, f"Plane {name} = {box.start[axis]}")
    return Part("overlays", "Before and after", "", groups)


def _middle(shape: tuple[int, ...], axis: int) -> Box:
    """One plane through the middle, cut to its middle where it is large."""
    side = [1 if a == axis else min(n, _SIDE) for a, n in enumerate(shape)]
    return Box.of_shape(side, [(n - s) // 2 for n, s in zip(shape, side, strict=True)])


def _drawn(
    reader: TileReader, moving: TileSource, channel: int, m: CoordinateMap, box: Box
) -> Array:
    extent = Box.of_shape(moving.shape)
    window = needed(m, box, extent)
    if not window:
        return np.zeros(box.shape, np.float32)
    pixels = reader.pixels(moving, channel, window).astype(np.float32)
    return warp_image(Source(pixels, window, extent), m, box)


def _pair(shown: list[Array], title: str) -> list[Group]:
    fixed, *others = shown
    found = []
    for how, words in ((_red_cyan, "fixed in red, moving in cyan"), (_checked, "checkerboard")):
        made = [
            Picture(pictures.png(how(fixed, other)), f"{when}: {words}", raw=True)
            for when, other in zip(("before", "after"), others, strict=True)
        ]
        found.append(Group(made, title))
    return found


def _red_cyan(fixed: Array, other: Array) -> Array:
    return np.stack([fixed, other, other], axis=-1)


def _checked(fixed: Array, other: Array) -> Array:
    square = max(max(fixed.shape) // _SQUARES, 1)
    y, x = np.indices(fixed.shape) // square
    return np.where((y + x) % 2 == 0, fixed, other)


def deformation_part(run: Run) -> Part | None:
    """The map less its linear part, and where it stretches or shrinks."""
    if not store.exists(forward_uri(run.folder)):
        return None
    m = displacements.load(forward_uri(run.folder)).read()
    linear = load_coarse(run.folder).matrix
    bends = m.u - from_affine(linear, m.lattice).u
    volume = jacobian(m) / np.linalg.det(linear[:3, :3])
    z = m.lattice.shape[0] // 2
    made, (arrows, change) = charts.figure(10.5, 4.2, 2)
    _draw_arrows(arrows, m, bends, z)
    y, x = (m.lattice.along(a) for a in (1, 2))
    image = change.imshow(
        100 * (volume[min(z, len(volume) - 1)] - 1), extent=(x[0], x[-1], y[-1], y[0]),
        cmap="PuOr", vmin=-30, vmax=30,
    )  # fmt: skip
    least, most = 100 * (volume.min() - 1), 100 * (volume.max() - 1)
    charts.label(change, title=f"{least:.1f} to {most:.1f} %")
    made.colorbar(image, ax=change, shrink=0.8, label="change of volume, %")
    caption = (
        f"Left: the displacement beside the linear map in plane z = {m.lattice.along(0)[z]:.0f}, "
        f"{np.linalg.norm(bends, axis=0).max():.1f} voxels at most. Right: change of volume "
        "beside the linear map; below -100 % it would fold."
    )
    return Part("deformation", "Deformation", "", [Group([Picture(charts.png(made), caption)])])


def _draw_arrows(axes: Any, m: CoordinateMap, bends: Array, z: int) -> None:
    nodes = m.lattice.nodes()[:, z]
    step = max(1, max(nodes.shape[1:]) // _ARROWS)
    part = (slice(None, None, step),) * 2
    y, x = nodes[1][part], nodes[2][part]
    v, u = bends[1, z][part], bends[2, z][part]
    axes.quiver(x, y, u, v, color=charts.BLUE, angles="xy", width=0.003)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    charts.label(axes, x="x, voxels", y="y, voxels", title="Displacement")


def chunks_part(run: Run) -> Part | None:
    """What a last look at each chunk found, the worst first."""
    rows = list(tables.read(run.folder.table("chunks")))
    if not rows:
        return None
    made, (left, alike) = charts.figure(10.5, 2.6, 2)
    left.hist(_numbers(rows, "left_median_px"), bins=30, color=charts.BLUE)
    charts.label(left, x="voxels", y="chunks", title="What is left, median of a chunk")
    alike.hist(_numbers(rows, "ncc"), bins=30, color=charts.GREEN)
    charts.label(alike, x="correlation", y="chunks", title="Local correlation, median of a chunk")
    caption = (
        "After the last pass every chunk was compared once more through the final map: how far "
        "a match would still move it, and how alike the volumes are. Correlation is no measure of "
        "accuracy: it depends on noise and stain. The ceiling is what noise alone leaves of it; "
        "held out is the distance of matches from a field that was solved without them."
    )
    worst = sorted(rows, key=lambda r: -(r["left_median_px"] or np.inf))[:_MOST_ROWS]
    return Part(
        "chunks", "Chunks", "", [Group([Picture(charts.png(made), caption)])], [_table(worst)]
    )


def _numbers(rows: Sequence[Row], name: str) -> Array:
    return np.array([row[name] for row in rows if row[name] is not None], float)


def _table(rows: Sequence[Row]) -> Table:
    head = (
        "chunk",
        "first voxel (z, y, x)",
        "nodes seen",
        "left, px",
        "95 %",
        "held out, px",
        "NCC",
        "ceiling",
        "smallest J",
        "there and back, px",
    )
    shown = [
        (
            row["chunk"] + (" (poor)" if row["poor"] else ""),
            f"{row['z']:.0f}, {row['y']:.0f}, {row['x']:.0f}",
            f"{100 * row['known']:.0f} %",
            _text(row["left_median_px"]),
            _text(row["left_p95_px"]),
            _text(row["held_out_px"]),
            _text(row["ncc"]),
            _text(row["ncc_ceiling"]),
            f"{row['jacobian_least']:.2f}",
            _text(row["inverse_error_px"]),
        )
        for row in rows
    ]
    return Table(head, shown)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
