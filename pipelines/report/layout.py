"""Where the tiles lie: outlines at the solved positions, over the fused image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.pipelines.report import charts, pictures
from warpbeam.pipelines.report.page import Group, Part, Picture
from warpbeam.pipelines.report.reading import Row, Run, outline
from warpbeam.transforms.keys import MontageKey, TileKey
from warpbeam.transforms.storage import volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_MONTAGES = 4
_MOST_TILES = 5000
_MOST_NAMED = 60
_BACKGROUND_PX = 600
_WIDTH_IN = 4.8


def part(run: Run) -> Part | None:
    """A map per montage, those with trouble first; None before the tiles are placed."""
    if not run.placed:
        return None
    chosen = run.worst_first()[:_MOST_MONTAGES]
    scale = _largest_residual(run)
    maps = [Picture(draw(run, key, scale)) for key in sorted(chosen)]
    text = "Outlines of the tiles where they were placed; y points down. "
    if run.links:
        text += (
            "Blue lines are links that were kept, the wider and darker the larger their residual; "
            "dashed red ones were rejected. Orange tiles are islands, hatched tiles failed."
        )
    if len(run.montages) > len(chosen):
        text += f" {len(chosen)} of {len(run.montages)} montages are shown, the worst ones."
    return Part("layout", "Layout", text, [Group(maps)])


def _largest_residual(run: Run) -> float:
    kept = [r["residual_px"] for r in run.links if r["kept"] and r["residual_px"] is not None]
    return max(kept, default=0.0)


def draw(run: Run, key: MontageKey, largest_px: float) -> bytes:
    """One montage as a PNG.

    Args:
        run: the run.
        key: the montage.
        largest_px: residual of the widest line.
    """
    tiles = run.on_middle_plane(run.montages[key])[:_MOST_TILES]
    shapes = {p.source.key: outline(p) for p in tiles}
    every = np.concatenate(list(shapes.values()))
    low, high = every.min(axis=0), every.max(axis=0)
    height, width = high - low
    tall = min(max(height / width, 0.3), 1.6)
    made, (axes,) = charts.figure(_WIDTH_IN, _WIDTH_IN * tall + 0.5)
    _background(axes, run, key)
    _tiles(axes, run, shapes)
    _links(axes, run.links_of.get(key, []), shapes, largest_px)
    margin = 0.02 * max(height, width)
    axes.set_xlim(low[1] - margin, high[1] + margin)
    axes.set_ylim(high[0] + margin, low[0] - margin)
    axes.set_aspect("equal")
    shown = "" if len(tiles) == len(run.montages[key]) else f" of {len(run.montages[key])}"
    charts.label(
        axes, x="x, px", y="y, px",
        title=f"{run.montage_name(key)}: {len(tiles)}{shown} tiles",
    )  # fmt: skip
    return charts.png(made)


def _background(axes: Axes, run: Run, key: MontageKey) -> None:
    if run.canvas is None or volume.stored_spec(run.folder.volume) is None:
        return
    canvas = run.canvas
    z = canvas.shape[2] // 2 if canvas.ndim == 3 else canvas.sections.index(key.section)
    index = (canvas.times.index(key.time), 0, z)
    plane = pictures.read_plane(run.folder.volume, index, _BACKGROUND_PX)
    image = pictures.grey(plane.values, pictures.stretch(plane.values))
    # Faded to pale grey, so that the lines on it can be seen.
    axes.imshow(
        image, cmap="gray", vmin=-600, vmax=255, extent=plane.extent(canvas.origin),
        interpolation="antialiased",
    )  # fmt: skip


def _tiles(axes: Axes, run: Run, shapes: dict[TileKey, np.ndarray[Any, Any]]) -> None:
    from matplotlib.patches import Polygon

    for key, corners in shapes.items():
        island, failed = key in run.islands, key in run.failed_tiles
        axes.add_patch(
            Polygon(
                corners[:, ::-1],
                facecolor=(*_rgb(charts.ORANGE), 0.35) if island else "none",
                edgecolor=charts.ORANGE if island else charts.GREY if failed else charts.INK,
                hatch="////" if failed else None,
                linewidth=1.6 if island else 0.8,
            )
        )
        if len(shapes) <= _MOST_NAMED:
            y, x = corners.mean(axis=0)
            axes.annotate(
                key.tile, (x, y), (5, 5), textcoords="offset points", fontsize=7, color=charts.INK,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5},
                zorder=5,
            )  # fmt: skip


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _links(
    axes: Axes, rows: list[Row], shapes: dict[TileKey, np.ndarray[Any, Any]], largest_px: float
) -> None:
    from matplotlib.collections import LineCollection

    for kept in (True, False):
        lines, widths = [], []
        for row in rows:
            ends = [TileKey(row["time"], row["section"], row[n]) for n in ("tile_a", "tile_b")]
            if row["kept"] != kept or not all(end in shapes for end in ends):
                continue
            lines.append([shapes[end].mean(axis=0)[::-1] for end in ends])
            share = (row["residual_px"] or 0.0) / largest_px if largest_px else 0.0
            widths.append(0.8 + 2.2 * share if kept else 1.4)
        colours = [_shade(w) for w in widths] if kept else charts.RED
        axes.add_collection(
            LineCollection(
                lines, colors=colours, linewidths=widths, linestyles="-" if kept else "--",
                zorder=4 if kept else 4.5,
            )
        )  # fmt: skip


def _shade(width: float) -> tuple[float, ...]:
    """From the blue of the palette to a dark one."""
    share = (width - 0.8) / 2.2
    return tuple(c * (1 - 0.6 * share) for c in _rgb(charts.BLUE))
