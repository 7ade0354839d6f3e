"""What `segment` on a volume will do and need, and what it measured."""

from __future__ import annotations

import math
from typing import Any

from warpbeam.pipelines import estimate
from warpbeam.pipelines.graph import JobGraph
from warpbeam.pipelines.plan import Plan, StagePlan
from warpbeam.transforms.segment.volume.frame import BlockFrame
from warpbeam.transforms.segment.volume.output import LabelImage
from warpbeam.transforms.storage.ledger import Record
from warpbeam.transforms.storage.tiles import TileList

# Rough figures for one core, after tests/benchmarks/segment_volume.py.
_LABEL_VOXELS_PER_S = 20e6
_BASINS_VOXELS_PER_S = 0.6e6
_JOIN_VOXELS_PER_S = 100e6
_LINK_VOXELS_PER_S = 0.3e6
_RELABEL_VOXELS_PER_S = 15e6
_COPY_BYTES_PER_S = 100e6
_BASIN_BYTES = 60
_LABEL_BYTES = 24
# An object has so many voxels, where nothing is known yet.
_VOXELS_PER_OBJECT = 10_000
# Of pieces, after tests/benchmarks/segment_agglomerate.py.
_PIECES_VOXELS_PER_S = 0.5e6
_EVIDENCE_VOXELS_PER_S = 2e6
_VOXELS_PER_CONTACT = 80
_CONTACTS_PER_S = 50e3
_CONTACT_BYTES = 600
_CONTACTS_PER_SURFACE = 0.12  # voxels of a region's surface; of FIB-25 in regions of 64 and 128
_EVIDENCE_BYTES = 60
_BYTES_PER_PIECE = 400


def plan(
    tiles: TileList, frame: BlockFrame, wanted: LabelImage, *, cut: bool, pieces: bool,
    linked: bool, direct: bool,
) -> Plan:  # fmt: skip
    """The stages, from the shape of the image; `cut`: by a watershed; `pieces`: all of it;
    `linked`: through flow."""
    voxels, size = math.prod(frame.shape), estimate.itemsize(tiles)
    around = math.prod(b + 2 * h for b, h in zip(frame.block, frame.halo, strict=True))
    blocks = len(frame.grid)
    read = blocks * around
    rate, held = _LABEL_VOXELS_PER_S, _LABEL_BYTES
    if cut:
        rate, held = _BASINS_VOXELS_PER_S, _BASIN_BYTES
    if pieces:
        rate, held = _PIECES_VOXELS_PER_S, _EVIDENCE_BYTES
    objects = frame.fan_out**3 * math.prod(frame.block) // _VOXELS_PER_OBJECT
    regions = sum(len(frame.regions(level)) for level in range(1, frame.depth + 1))
    labels = wanted.labels
    stages = [
        estimate.convert(tiles, needed=not direct),
        StagePlan("threshold", 1, min(voxels, 1 << 24) * size, 0, 100_000_000, 1.0),
        StagePlan("label", blocks, read * size, read * 4,
                  around * (2 * size + held), read / rate),
        *(_of_pieces(frame) if pieces else ()),
        StagePlan("join", blocks, 2 * voxels, 0, around * 4,
                  read / _LINK_VOXELS_PER_S if linked else voxels / _JOIN_VOXELS_PER_S),
        StagePlan("union, settle", 2 * regions, 0, 0, _BYTES_PER_PIECE * objects,
                  voxels / _VOXELS_PER_OBJECT / 1e5 + 0.05 * regions),
        StagePlan("relabel", blocks, voxels * 4, voxels * 8 * 4 // 3,
                  math.prod(frame.block) * 32, voxels / _RELABEL_VOXELS_PER_S),
        estimate.pyramid(labels, 8),
    ]  # fmt: skip
    if wanted.source is None:
        every = math.prod(wanted.image.shape) * size
        stages.append(StagePlan("image", wanted.image.levels[0].shards, every, every * 4 // 3,
                                math.prod(wanted.image.shard) * size * 4,
                                every / _COPY_BYTES_PER_S))  # fmt: skip
    what = (
        f"{' x '.join(map(str, frame.shape))} {tiles.dtype} in {blocks} blocks -> {labels.uri}",
    )
    return Plan(tuple(stages), estimate.BASE_MEMORY, what)


def _of_pieces(frame: BlockFrame) -> list[StagePlan]:
    """What their contacts take; one worker holds those of a region."""
    voxels, blocks = math.prod(frame.shape), len(frame.grid)
    regions = sum(len(frame.regions(level)) for level in range(1, frame.depth + 1))
    contacts = voxels // _VOXELS_PER_CONTACT
    most = max(_held(frame, level) for level in range(1, frame.depth + 1))
    return [
        StagePlan("contacts", blocks, voxels * 4, contacts * 32,
                  math.prod(frame.block) * _EVIDENCE_BYTES, voxels / _EVIDENCE_VOXELS_PER_S),
        StagePlan("agglomerate, roots", 2 * regions, contacts * 32, contacts * 4,
                  most * _CONTACT_BYTES, contacts / _CONTACTS_PER_S),
    ]  # fmt: skip


def _held(frame: BlockFrame, level: int) -> int:
    """The contacts that one region of a level holds: of the first all that it has, of the others
    what the regions in it left over, which goes with their surface."""
    size = _sides(frame, level)
    whole = math.prod(size) // _VOXELS_PER_CONTACT
    if level == 1:
        return whole
    inner = _sides(frame, level - 1)
    surface = 2 * sum(math.prod(inner) / n for n in inner)
    regions = math.prod(math.ceil(n / m) for n, m in zip(size, inner, strict=True))
    return min(whole, int(regions * surface * _CONTACTS_PER_SURFACE))


def _sides(frame: BlockFrame, level: int) -> list[int]:
    """Voxels of a region of a level along each axis."""
    blocks = frame.fan_out**level
    return [min(n, b * blocks) for n, b in zip(frame.shape, frame.block, strict=True)]


def numbers(graph: JobGraph, frame: BlockFrame, seconds: float) -> dict[str, Any]:
    """Objects of all regions, and how much of the volume they are."""
    done = {stage.name: [r for _, r in stage.ledger.records()] for stage in graph.stages}
    regions = [r for name, found in done.items() if name.startswith("union_") for r in found]
    relabelled = done["relabel"]
    voxels = sum(r["voxels"] for r in relabelled)
    return {
        **_threshold(done["threshold"]),
        "objects": sum(r["kept"] for r in regions),
        "objects_left_out": sum(r["left_out"] for r in regions),
        "largest_object_voxels": max((r["largest"] for r in regions), default=0),
        "labelled_share": sum(r["labelled"] for r in relabelled) / voxels if voxels else 0.0,
        "blocks": len(relabelled),
        "edges": sum(r["edges"] for r in done["join"]),
        **{
            name: sum(r[name] for r in done["join"])
            for name in ("links", "bridges")
            if "links" in done
        },
        "megavoxels_per_second": math.prod(frame.shape) / 1e6 / seconds,
    }


def _threshold(found: list[Record]) -> dict[str, float]:
    """The grey value that objects are above, where there is one."""
    return {"threshold": found[0]["level"]} if found and "level" in found[0] else {}
