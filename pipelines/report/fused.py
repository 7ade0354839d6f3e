"""The result: planes of the fused volume, and how many tiles lie where."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from warpbeam.pipelines.report import charts, pictures
from warpbeam.pipelines.report.page import Group, Part, Picture
from warpbeam.pipelines.report.reading import Run, outline
from warpbeam.transforms.canvas import Canvas
from warpbeam.transforms.keys import MontageKey
from warpbeam.transforms.storage import volume
from warpbeam.transforms.tiles import PlacedTile

_MOST_PLANES = 4
_MOST_CHANNELS = 4
# All planes together: a report stays small enough to be sent by mail.
_PIXELS = 800_000
_LONGEST_PX = 1000
_COVERAGE_PX = 400


def planes(canvas: Canvas) -> list[tuple[int, int]]:
    """Up to four `(t, z)` of the volume, spread evenly; the middle one of a single block."""
    times, depth = canvas.shape[0], canvas.shape[2]
    every = times * depth
    if canvas.ndim == 3 and times == 1:
        chosen = [(i * 2 + 1) * depth // 6 for i in range(min(3, depth))]
    else:
        count = min(every, _MOST_PLANES)
        chosen = [round(i * (every - 1) / max(count - 1, 1)) for i in range(count)]
    return [divmod(i, depth) for i in chosen]


def part(run: Run) -> Part | None:
    """Planes of the volume, a row per channel; None where there is no volume."""
    spec = volume.stored_spec(run.folder.volume)
    if spec is None or run.canvas is None:
        return None
    shown = planes(run.canvas)
    channels = spec.channel_names[:_MOST_CHANNELS]
    count = len(shown) * len(channels)
    longest = min(_LONGEST_PX, round((_PIXELS / count) ** 0.5))
    given = pictures.windows(spec)
    groups, whole = [], True
    for c, name in enumerate(channels):
        found = [pictures.read_plane(spec.uri, (t, c, z), longest) for t, z in shown]
        together = np.concatenate([p.values.ravel() for p in found])
        window = given[c] if given else pictures.stretch(together)
        whole = whole and all(p.whole for p in found)
        groups.append(
            Group(
                [
                    Picture(pictures.png(pictures.grey(p.values, window)), where(run.canvas, t, z))
                    for p, (t, z) in zip(found, shown, strict=True)
                ],
                name if len(channels) > 1 else "",
                f"Black is {window[0]:.4g} and white {window[1]:.4g}.",
            )
        )
    return Part("result", "Result", _text(run, spec.channel_names, whole), groups)


def _text(run: Run, channels: tuple[str, ...], whole: bool) -> str:
    canvas = run.canvas
    if canvas is None:
        return ""
    t, c, z, y, x = canvas.shape
    said = [f"{t} × {c} × {z} × {y} × {x} voxels (t, c, z, y, x), reduced for this page."]
    if t * z > len(planes(canvas)):
        said.append(f"{len(planes(canvas))} of {t * z} planes are shown.")
    if c > _MOST_CHANNELS:
        said.append(f"{_MOST_CHANNELS} of {len(channels)} channels are shown.")
    if not whole:
        said.append("The volume has no pyramid: only its middle is shown.")
    return " ".join(said)


def where(canvas: Canvas, t: int, z: int) -> str:
    """A plane in words."""
    time = f"time {canvas.times[t]}, " if len(canvas.times) > 1 else ""
    return time + (f"section {canvas.sections[z]}" if canvas.ndim == 2 else f"z = {z}")


def coverage_part(run: Run) -> Part | None:
    """How many tiles lie on each voxel; None before there is a canvas."""
    canvas = run.canvas
    if canvas is None or not run.placed:
        return None
    shown = planes(canvas)
    stored = volume.stored_spec(run.folder.coverage) is not None
    maps = [Picture(_coverage_map(run, canvas, plane, stored=stored)) for plane in shown]
    share = run.numbers.get("covered_fraction")
    text = f"{100 * share:.2f} % of the canvas is covered. " if share is not None else ""
    text += "Counted by voxel." if stored else "Drawn from the outlines of the tiles."
    if run.failed_shards:
        text += f" Hatched: {len(run.failed_shards)} blocks that could not be fused."
    return Part("coverage", "Coverage", text, [Group(maps)])


def _coverage_map(run: Run, canvas: Canvas, plane: tuple[int, int], *, stored: bool) -> bytes:
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Rectangle

    t, z = plane
    if stored:
        read = pictures.read_plane(run.folder.coverage, (t, 0, z), _COVERAGE_PX)
        counts, extent = read.values, read.extent(canvas.origin)
    else:
        counts = count_outlines(run, canvas, t, z)
        y, x = (o - 0.5 for o in canvas.origin[-2:])
        extent = (x, x + canvas.shape[4], y + canvas.shape[3], y)
    height, width = canvas.shape[3:]
    made, (axes,) = charts.figure(4.8, 4.0 * min(max(height / width, 0.3), 1.6) + 0.5)
    colours = ListedColormap(["#ffffff", "#dbe7f1", "#8fbbdc", "#3f8abf", "#00497a"])
    shown = axes.imshow(
        counts, cmap=colours, norm=BoundaryNorm(np.arange(6) - 0.5, 5), extent=extent,
        interpolation="nearest",
    )  # fmt: skip
    bar = made.colorbar(shown, ax=axes, shrink=0.6, ticks=range(5))
    bar.ax.set_yticklabels(["0", "1", "2", "3", "4+"], fontsize=8)
    bar.set_label("tiles", fontsize=8.5)
    for block in run.failed_shards:
        box = canvas.grid.box(block)
        if box.start[0] == t and box.start[2] <= z < box.stop[2]:
            corner = [o + s - 0.5 for o, s in zip(canvas.origin[-2:], box.start[3:], strict=True)]
            axes.add_patch(
                Rectangle(
                    (corner[1], corner[0]), box.shape[4], box.shape[3],
                    facecolor="none", edgecolor=charts.RED, hatch="////",
                )
            )  # fmt: skip
    charts.label(axes, x="x, px", y="y, px", title=where(canvas, t, z))
    return charts.png(made)


def count_outlines(run: Run, canvas: Canvas, t: int, z: int) -> np.ndarray[Any, Any]:
    """Tiles per pixel of a small image of one plane, from the outlines; 4 stands for more."""
    step = max(1.0, max(canvas.shape[3:]) / _COVERAGE_PX)
    shape = tuple(max(1, round(n / step)) for n in canvas.shape[3:])
    counts = np.zeros(shape, np.uint8)
    for placed in _tiles_of(run, canvas, t, z):
        if placed.source.key in run.failed_tiles:
            continue
        # Pixel i of this image covers the voxels from i * step to (i + 1) * step.
        corners = (outline(placed) - np.array(canvas.origin[-2:]) + 0.5) / step - 0.5
        mask = np.zeros(shape, np.uint8)
        fixed = np.rint(corners[:, ::-1] * 256).astype(np.int32)
        cv2.fillConvexPoly(mask, fixed, 1, lineType=cv2.LINE_8, shift=8)
        counts += mask
        np.minimum(counts, 4, out=counts)
    return counts


def _tiles_of(run: Run, canvas: Canvas, t: int, z: int) -> list[PlacedTile]:
    if canvas.ndim == 2:
        return run.montages.get(MontageKey(canvas.times[t], canvas.sections[z]), [])
    tiles = [p for k, group in run.montages.items() if k.time == canvas.times[t] for p in group]
    return run.on_plane(tiles, z)
