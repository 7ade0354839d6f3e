"""Maps that another program made, as an alignment with which `align --apply` draws.

from warpbeam.kernels.maps.sofima import from_sofima
from warpbeam.pipelines.align_import import import_maps
stack = from_sofima(coord_map, stride_zyx=40, start_xyz=(0, 0, 0))  # as `warp_subvolume` takes it
import_maps("imported", "sections", {z: stack.section(z) for z in range(100)})

warpbeam align sections/ drawn/ --apply imported/
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.invert import invert
from warpbeam.kernels.maps.resample import resample
from warpbeam.pipelines import fusing
from warpbeam.pipelines.align_config import ApplyStackConfig
from warpbeam.pipelines.claim import occupied
from warpbeam.transforms.align.frame import Frame, FrameSettings, save_frame
from warpbeam.transforms.align.output import drawn_nodes
from warpbeam.transforms.align.section_maps import (
    forward_uri,
    inverse_uri,
    load_forward,
    load_inverse,
    mark_of,
)
from warpbeam.transforms.canvas import canvas_on, lay_out, volume_spec
from warpbeam.transforms.placement import save_placement
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.displacements import DisplacementField
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import digest
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import TileList
from warpbeam.transforms.storage.tiles.sections import read_sections
from warpbeam.transforms.tiles import PlacedTile, save_sources, sources_of

_UPRIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def import_maps(output: str, sections: str, maps: Mapping[int, CoordinateMap]) -> None:
    """Stores maps as a run of `align` would; its volume, which nothing was drawn into, is empty.

    Args:
        output: folder of the alignment; must be free.
        sections: what the maps lead to, as for `align`.
        maps: per section, from the aligned frame to the pixels of its image; 2-D, all on one
            lattice, which says how large the frame is. NaN where the section shows nothing.

    Raises:
        InputError: the folder is not free, or there is no image of a section.
        ValueError: no map, or maps of other kinds or on several lattices.
    """
    lattice = _lattice_of(maps)
    tiles = _chosen(read_sections(sections), sections, maps)
    run = RunFolder(output)
    mine = {"job": "align", "settings": {"maps": "imported"}, "inputs": {}}
    if store.list_keys(output.rstrip("/") + "/"):
        raise occupied(output, None, mine, got="files")
    store.write_json(run.owner, mine)
    sources = sources_of(tiles, direct=True)
    save_sources(run, sources)
    save_placement(run, [PlacedTile(source, _UPRIGHT) for source in sources])
    frame = _lay_out(run, tiles, lattice)
    written = _store_maps(run, tiles, frame, maps)
    store.write_json(
        run.summary,
        {
            "job": "align",
            "config": {"volume": {"format": run.format}},
            "inputs": tiles.fingerprint(),
            "numbers": {"maps_imported": len(maps)},
            "failures": [],
            "stages": {"invert": written},
        },
    )


def _lattice_of(maps: Mapping[int, CoordinateMap]) -> Lattice:
    lattices = {m.lattice for m in maps.values()}
    if len(lattices) != 1 or any(m.batch or m.ndim != 2 for m in maps.values()):
        raise ValueError(f"2-D maps on one lattice are needed, got {len(lattices)} lattices")
    return lattices.pop()


def _chosen(found: TileList, sections: str, maps: Mapping[int, CoordinateMap]) -> TileList:
    chosen = tuple(tile for tile in found if tile.section in maps)
    if lacking := sorted(set(maps) - {tile.section for tile in chosen}):
        raise InputError(
            "a map belongs to no section",
            where=sections,
            expected="an image of each section that has a map",
            got=f"none of section {lacking[0]}",
            fix="number the maps as the sections are",
        )
    return replace(found, tiles=chosen)


def _lay_out(run: RunFolder, tiles: TileList, lattice: Lattice) -> Frame:
    """The frame, and the empty volume: as far as the nodes of the maps reach."""
    low = [math.ceil(o) for o in lattice.origin]
    high = [math.floor(lattice.along(axis)[-1]) + 1 for axis in range(2)]
    numbers = [tile.section for tile in tiles]
    first, depth = min(numbers), max(numbers) - min(numbers) + 1
    stride = max(1, round(min(lattice.stride)))
    world = Box((0, 0), tuple(max(n) for n in zip(*(t.shape for t in tiles), strict=True)))
    frame = Frame(first, depth, world, FrameSettings(stride, 1, (1,), (1,)))
    save_frame(run, frame)
    config = ApplyStackConfig(sections="", alignment="", output=run.uri)
    settings = fusing.output_settings(config, tiles, flat=False)
    canvas = canvas_on(Box((first, *low), (first + depth, *high)), settings, run.format)
    lay_out(run, canvas, [volume_spec(canvas, settings, run)], ())
    voxel, unit = settings.voxel, settings.unit
    forward = DisplacementField(
        forward_uri(run), frame.lattice, voxel[1:], unit, depth, voxel[0], first
    )
    forward.create()
    replace(forward, uri=inverse_uri(run), lattice=drawn_nodes(run)).create()
    return frame


def _store_maps(
    run: RunFolder, tiles: TileList, frame: Frame, maps: Mapping[int, CoordinateMap]
) -> str:
    """Writes both directions of each map; returns a mark of them all."""
    forward, inverse = load_forward(run), load_inverse(run)
    marks = []
    for tile in tiles:
        m = maps[tile.section]
        precise = m.with_offsets(m.u.astype(np.float64))
        z = frame.z(tile.section)
        inverse.write(resample(precise, inverse.lattice), z)
        forward.write(invert(precise, forward.lattice), z)
        marks.append([tile.section, mark_of(m)])
    return digest(marks)
