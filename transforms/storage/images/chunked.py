"""Zarr v2 and v3 and N5 arrays, and the finest level of an OME-Zarr, through TensorStore."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.images.ome_xml import MICROMETRES
from warpbeam.transforms.storage.images.ref import ImageInfo, corrupt, output_dtype, unreadable
from warpbeam.transforms.storage.images.source import is_folder, is_remote, local_path
from warpbeam.transforms.storage.n5 import voxel_um

Array = np.ndarray[Any, np.dtype[Any]]
METADATA = {"zarr.json": "zarr3", ".zarray": "zarr", "attributes.json": "n5"}
LONG_UNITS = {"meter": 1e6, "millimeter": 1e3, "micrometer": 1.0, "nanometer": 1e-3}
BROKEN = ("DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "OUT_OF_RANGE")


class ChunkedImage:
    """An array in a chunked store; its axes come from its metadata, else from its rank."""

    def __init__(self, file: str) -> None:
        import tensorstore as ts

        self._file = file
        if "|" not in file and not is_folder(file):
            raise FileNotFoundError(file)
        try:
            spec, axes, scale = _spec(file)
            array = ts.open(spec, read=True, context=store.write_context()).result()
        except ValueError as cause:
            raise unreadable(file, cause) from cause
        if spec.get("driver") == "n5":  # N5 counts its axes from the fastest one
            array = array.T
        self._axes = axes or tuple("tczyx"[-array.rank :] if array.rank != 4 else "czyx")
        self._array = array
        self.info = self._describe(scale)

    def close(self) -> None:
        """TensorStore holds no file open between reads."""

    def read(self, channel: int, time: int, box: Box) -> Array:
        """A zyx box (z 0 for one plane), with a last axis of samples."""
        place: dict[str, int | slice] = {"t": time, "c": channel}
        place |= dict(zip("zyx", box.slices, strict=True))
        part = self._array[tuple(place[a] for a in self._axes)]
        try:
            data = part.read().result()
        except ValueError as cause:
            if any(code in str(cause) for code in BROKEN):
                raise corrupt(self._file, cause) from cause
            raise
        cube: Array = data.reshape(*box.shape, 1)
        return cube

    def _describe(self, scale: tuple[float, ...] | None) -> ImageInfo:
        array, axes = self._array, self._axes
        if len(axes) != array.rank or set(axes) - set("tczyx") or axes[-2:] != ("y", "x"):
            raise unreadable(self._file, f"axes {axes} of an array of shape {array.shape}")
        if any(array.domain.origin):
            raise unreadable(self._file, f"its origin is {array.domain.origin}, not 0")
        length = dict(zip(axes, array.shape, strict=True))
        chunk = array.chunk_layout.read_chunk.shape or array.shape
        block = dict(zip(axes, chunk, strict=True))
        step = dict(zip(axes[-len(scale) :], scale, strict=True)) if scale else {}
        kept = "zyx" if length.get("z", 1) > 1 else "yx"
        return ImageInfo(
            shape=tuple(length[a] for a in kept),
            dtype=output_dtype(np.dtype(array.dtype.numpy_dtype), self._file),
            channels=length.get("c", 1),
            times=length.get("t", 1),
            voxel_um=tuple(step[a] for a in kept) if step else None,
            chunk=tuple(min(block[a] or length[a], length[a]) for a in kept),
        )


def _spec(file: str) -> tuple[dict[str, Any], tuple[str, ...], tuple[float, ...] | None]:
    """The TensorStore spec, and axes and voxel sizes as of `_level`."""
    import tensorstore as ts

    if "|" in file:
        return ts.Spec(file).to_json(), (), None
    root = _kvstore(file)
    path, axes, scale = _level(root)
    place = root.spec().to_json()
    place["path"] = f"{place['path']}{path}/" if path else place["path"]
    array = ts.KvStore.open(place, context=store.write_context()).result()
    for name, driver in METADATA.items():
        if (found := _json(array, name)) is not None:
            axes = axes or _dimension_names(found)
            return {"driver": driver, "kvstore": place}, axes, scale
    raise ValueError(f"there is none of {', '.join(METADATA)} in it")


def _kvstore(file: str) -> Any:
    import tensorstore as ts

    spec: Any = file.rstrip("/") + "/"  # what is read over http, say
    if not is_remote(file) or file.partition("://")[0] in store.SCHEMES:
        spec = store.kvstore_spec(file if is_remote(file) else local_path(file))
    return ts.KvStore.open(spec, context=store.write_context()).result()


def _json(place: Any, name: str) -> dict[str, Any] | None:
    found = place.read(name).result()
    if found.state != "value":
        return None
    try:
        return dict(json.loads(found.value))
    except (ValueError, TypeError) as cause:
        raise ValueError(f"{name} is not a JSON object: {cause}") from cause


def _level(root: Any) -> tuple[str, tuple[str, ...], tuple[float, ...] | None]:
    """Path of the finest level of a multiscale group, nothing for a plain array; its axes and the
    sizes of voxels along the last of them, in um, where the metadata say them."""
    group = _json(root, "zarr.json") or {}
    attributes = group.get("attributes", {}) if group else _json(root, ".zattrs") or {}
    attributes = attributes.get("ome", attributes)
    if multiscales := attributes.get("multiscales"):
        return _ngff_level(multiscales[0])
    n5 = _json(root, "attributes.json")
    if n5 is None:
        return "", (), None
    if "dimensions" in n5:
        return "", (), voxel_um(n5, {})
    return "s0", (), voxel_um(_json(root, "s0/attributes.json") or {}, n5)


def _ngff_level(image: dict[str, Any]) -> tuple[str, tuple[str, ...], tuple[float, ...] | None]:
    axes = image["axes"]
    names = tuple(a["name"] if isinstance(a, dict) else str(a) for a in axes)
    units = [a.get("unit", "") if isinstance(a, dict) else "" for a in axes]
    level = image["datasets"][0]
    steps = [t["scale"] for t in level.get("coordinateTransformations", ()) if t["type"] == "scale"]
    factors = [LONG_UNITS.get(u, MICROMETRES.get(u)) for u in units]
    known = all(f is not None for f, n in zip(factors, names, strict=True) if n in "zyx")
    if not steps or not known:
        return level["path"], names, None
    scale = tuple(s * (f or 1.0) for s, f in zip(steps[0], factors, strict=True))
    return level["path"], names, scale


def _dimension_names(metadata: dict[str, Any]) -> tuple[str, ...]:
    names = metadata.get("dimension_names") or ()
    return tuple(names) if names and all(n in tuple("tczyx") for n in names) else ()


def is_store(file: str) -> bool:
    """Whether the name is that of a chunked array rather than of an image file."""
    tail = file.rstrip("/").lower()
    return "|" in file or tail.endswith((".zarr", ".n5")) or ".zarr/" in tail or ".n5/" in tail
