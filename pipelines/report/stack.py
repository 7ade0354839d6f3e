"""An aligned stack: what happened to each section, and what it looks like before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.pipelines.report import charts, pictures
from warpbeam.pipelines.report.page import Group, Part, Picture, Table
from warpbeam.pipelines.report.reading import Row, Run
from warpbeam.transforms.align.frame import clean_uri, flow_uri, load_frame
from warpbeam.transforms.align.section_maps import load_forward
from warpbeam.transforms.canvas import Canvas
from warpbeam.transforms.storage import fields, store, tables, volume
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.tiles import TileReader

Array = np.ndarray[Any, Any]

_FINE = ("start", "regular")
_MOST_ROWS = 40
_SHOWN = 3  # sections of which flow and deformation are drawn
_ARROWS = 40  # on a side
_SLICE_PX = 700
_SLICE_SECTIONS = 200


def rows(run: Run) -> list[Row]:
    """`sections.parquet`; empty before there is one."""
    return list(tables.read(run.folder.table("sections")))


def curves_part(run: Run) -> Part | None:
    """Drift, residual and known share of each section, and a table of those that need a look."""
    table = rows(run)
    if not table:
        return None
    z = [row["section"] for row in table]
    made, (drift, residual, known) = charts.figure(10.5, 2.6, 3)
    for name, colour in (("shift_y_px", charts.BLUE), ("shift_x_px", charts.ORANGE)):
        drift.plot(z, _numbers(table, name), color=colour, lw=1, label=name[6])
    charts.label(drift, x="section", y="moved, px", title="Drift")
    charts.legend(drift)
    residual.plot(z, _numbers(table, "residual_px"), color=charts.BLUE, lw=1)
    charts.label(residual, x="section", y="px", title="Flow about the mesh")
    residual.set_ylim(bottom=0)
    known.plot(z, 100 * _numbers(table, "known"), color=charts.GREEN, lw=1)
    charts.label(known, x="section", y="% of the nodes", title="Nodes with flow")
    known.set_ylim(0, 102)
    caption = (
        "How far each section was moved, how much its flow scatters about its mesh (one "
        "standard deviation on one axis), and on which share of it there is flow to an earlier one."
    )
    odd = [row for row in table if row["status"] not in _FINE]
    return Part(
        "sections",
        "Sections",
        _words(odd),
        [Group([Picture(charts.png(made), caption)])],
        [_table(odd)] if odd else [],
    )


def _numbers(table: Sequence[Row], name: str) -> Array:
    return np.array([np.nan if row[name] is None else row[name] for row in table], float)


def _words(odd: Sequence[Row]) -> str:
    if not odd:
        return "Every section was solved against earlier ones."
    return f"{len(odd)} sections need a look."


def _table(odd: Sequence[Row]) -> Table:
    head = ("section", "what", "aligned to", "nodes with flow", "file")
    shown = [
        (
            row["section"],
            row["status"],
            ", ".join(map(str, row["references"])) or "none",
            "" if row["known"] is None else f"{100 * row['known']:.0f} %",
            (row["file"] or "").rsplit("/", 1)[-1],
        )
        for row in odd[:_MOST_ROWS]
    ]
    return Table(head, shown)


def _chosen(run: Run) -> list[int]:
    """Sections spread over the stack that have flow."""
    there = [row["section"] for row in rows(run) if row["known"]]
    count = min(_SHOWN, len(there))
    return [there[(2 * i + 1) * len(there) // (2 * count)] for i in range(count)]


def flow_part(run: Run) -> Part | None:
    """Cleaned flow as arrows over the peak ratio, for a few sections."""
    chosen = _chosen(run)
    if not chosen or not store.exists(clean_uri(run.folder)):
        return None
    frame = load_frame(run.folder)
    stored, cleaned = fields.load(flow_uri(run.folder)), fields.load(clean_uri(run.folder))
    gaps = len(frame.settings.gaps) + len(frame.settings.bridges)
    made, axes = charts.figure(10.5, 3.6, len(chosen))
    for section, each in zip(chosen, axes, strict=True):
        z = frame.z(section)
        raw = stored.read(frame.flow(0, 0, z))[0, 0, :, 0]
        vectors = cleaned.read(frame.nodes(z, (gaps, 2)))[0, :, 0]
        _draw_flow(each, frame.lattice.nodes(), raw[3], vectors)
        charts.label(each, title=f"section {section}")
    caption = (
        "Displacement to the section before, less its median, where it is trusted; behind it the "
        "ratio of the best to the second-best place of each patch (dark: ambiguous, below 1.3; "
        "white: no vector was measured)."
    )
    return Part("flow", "Flow", "", [Group([Picture(charts.png(made), caption)])])


def _draw_flow(axes: Any, nodes: Array, ratio: Array, vectors: Array) -> None:
    y, x = nodes
    extent = (x.min(), x.max(), y.max(), y.min())
    axes.imshow(
        np.log10(np.clip(ratio, 1, 10)), extent=extent, cmap="Greys_r", vmin=0, vmax=1.3, alpha=0.7
    )
    step = max(1, max(vectors.shape[1:]) // _ARROWS)
    part = (slice(None, None, step),) * 2
    known = np.isfinite(vectors[0])
    if known.any():
        v, u = (c - np.median(c[known]) for c in vectors)
        axes.quiver(x[part], y[part], u[part], v[part], color=charts.RED, angles="xy", width=0.003)
    axes.set_aspect("equal")


def deformation_part(run: Run) -> Part | None:
    """Where the maps stretch, shrink or fold."""
    chosen = _chosen(run)
    if not chosen:
        return None
    frame, forward = load_frame(run.folder), load_forward(run.folder)
    made, axes = charts.figure(10.5, 3.6, len(chosen))
    for section, each in zip(chosen, axes, strict=True):
        m = forward.read(frame.z(section))
        change = 100 * (jacobian(m) - 1)
        y, x = m.lattice.nodes()
        image = each.imshow(
            change, extent=(x.min(), x.max(), y.max(), y.min()), cmap="PuOr", vmin=-10, vmax=10
        )
        charts.label(each, title=f"section {section}: {change.min():.1f} to {change.max():.1f} %")
    made.colorbar(image, ax=axes, shrink=0.8, label="change of area, %")
    caption = "Change of area by the map of a section; below -100 % it would fold."
    return Part("deformation", "Deformation", "", [Group([Picture(charts.png(made), caption)])])


def slices_part(run: Run) -> Part | None:
    """The same cut through the stack before and after, and neighbours over one another."""
    spec = volume.stored_spec(run.folder.volume)
    if spec is None or run.canvas is None:
        return None
    level = volume.open_volume(run.folder.volume).level(0)
    _, _, depth, height, width = level.shape
    z0 = max((depth - _SLICE_SECTIONS) // 2, 0)
    z1 = min(z0 + _SLICE_SECTIONS, depth)
    side = min(_SLICE_PX, width)
    y, x0 = height // 2, (width - side) // 2
    after = level.read(Box((0, 0, z0, y, x0), (1, 1, z1, y + 1, x0 + side)))[0, 0, :, 0]
    before = _raw_rows(run, run.canvas, range(z0, z1), y, x0, side)
    window = pictures.stretch(after)
    tall = max(1, min(4, 240 // max(z1 - z0, 1)))
    cuts = [
        Picture(pictures.png(np.repeat(pictures.grey(part, window), tall, 0)), words, raw=True)
        for part, words in ((before, "before: the files as they are"), (after, "after"))
    ]
    title = f"Cut along z at y = {y} (sections {run.canvas.origin[0] + z0} and on, downwards)"
    return Part(
        "slices", "Before and after", "", [Group(cuts, title), *_overlays(run, level, side)]
    )


def _raw_rows(run: Run, canvas: Canvas, planes: range, y: int, x0: int, side: int) -> Array:
    """The same row of output pixels from each file, not moved; 0 where there is none."""
    first, oy, ox = canvas.origin
    placed = {p.source.key.section: p for p in run.placed}
    reader = TileReader(run.folder)
    out = np.zeros((len(planes), side), np.float32)
    for i, z in enumerate(planes):
        found = placed.get(first + z)
        if found is None:
            continue
        wanted = Box((y + oy, x0 + ox), (y + oy + 1, x0 + ox + side))
        inside = wanted & Box.of_shape(found.source.shape)
        if inside:
            with contextlib.suppress(InputError):  # a section that failed stays black
                out[i, inside.slices_in(wanted)[1]] = reader.pixels(found.source, 0, inside)[0]
    return out


def _overlays(run: Run, level: volume.Level, side: int) -> list[Group]:
    """Two neighbours in the middle of the stack, one in red and one in cyan."""
    _, _, depth, height, width = level.shape
    if depth < 2:
        return []
    z, side = depth // 2, min(side, height, width)
    y0, x0 = (height - side) // 2, (width - side) // 2
    after = level.read(Box((0, 0, z - 1, y0, x0), (1, 1, z + 1, y0 + side, x0 + side)))[0, 0]
    window = pictures.stretch(after)
    red, cyan = (pictures.grey(part, window) for part in after)
    shown = np.stack([red, cyan, cyan], axis=-1)
    first = run.canvas.origin[0] if run.canvas else 0
    title = f"Sections {first + z - 1} (red) and {first + z} (cyan) of the result"
    return [Group([Picture(pictures.png(shown), "Grey where they agree.")], title)]
