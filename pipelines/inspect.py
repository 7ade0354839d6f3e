"""`inspect`: what a volume is, how much of it is stored, and whether viewers will open it.

    warpbeam inspect out/
    warpbeam inspect gs://bucket/volume.ome.zarr

Reads metadata and lists keys, never voxels.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from warpbeam.transforms.storage.describe import Description, FoundLevel, describe
from warpbeam.transforms.storage.lint import lint
from warpbeam.transforms.storage.store import join, list_keys, local_path

_METADATA_FILES = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json", "info")


def inspect(uri: str) -> dict[str, Any]:
    """Describes the volume at `uri`, or the one in a run's output folder.

    Returns:
        Plain JSON values: uri, format, version, axes, unit, channels, levels (path, shape,
        dtype, chunk, shard, scale, translation, stored_bytes, objects, objects_expected),
        findings of the viewer lint, the word of each validator, and `valid`.

    Raises:
        InputError: there is no volume.
    """
    found = describe(uri)
    findings = lint(found)
    validators = _validators(found)
    return {
        "uri": found.uri,
        "format": found.format,
        "version": found.version,
        "axes": list(found.levels[0].axes) if found.levels else [],
        "unit": found.levels[0].unit if found.levels else None,
        "channels": [
            {"label": c.get("label"), "color": c.get("color"), "window": c.get("window")}
            for c in found.ome.get("omero", {}).get("channels", ())
        ],
        "levels": [_level(found, level) for level in found.levels],
        "findings": [vars(finding) for finding in findings],
        "validators": validators,
        "valid": not findings and not any(v.startswith("invalid") for v in validators.values()),
    }


def _level(found: Description, level: FoundLevel) -> dict[str, Any]:
    stored = _stored(join(found.uri, level.path) if level.path else found.uri)
    return {
        "path": level.path,
        "shape": list(level.shape),
        "dtype": level.dtype,
        "chunk": list(level.chunk),
        "shard": list(level.shard),
        "scale": list(level.scale) if level.scale else None,
        "translation": list(level.translation) if level.translation else None,
        **stored,
        "objects_expected": math.prod(
            math.ceil(n / s) for n, s in zip(level.shape, level.shard, strict=True)
        ),
        "error": level.error or None,
    }


def _stored(uri: str) -> dict[str, Any]:
    keys = [k for k in list_keys(uri) if k.rpartition("/")[2] not in _METADATA_FILES]
    path = local_path(uri)
    # Key-value stores list names alone; sizes come from the file system where there is one.
    size = sum((path / key).stat().st_size for key in keys) if path is not None else None
    return {"objects": len(keys), "stored_bytes": size}


def _validators(found: Description) -> dict[str, str]:
    """The word of each validator that is installed, on local OME-Zarr images."""
    if not found.multiscale:
        return {}
    checks: dict[str, tuple[str, Callable[[str], None]]] = {
        "ome-zarr-models": ("ome_zarr_models", _ask_ome_zarr_models),
        "ngff-zarr": ("ngff_zarr", _ask_ngff_zarr),
    }
    path = local_path(found.uri)
    words = {}
    for name, (module, check) in checks.items():
        if find_spec(module) is None:
            words[name] = "not installed"
        elif path is None:
            words[name] = "reads local volumes only"
        else:
            words[name] = _word(check, str(path))
    return words


def _word(check: Callable[[str], None], path: str) -> str:
    try:
        check(path)
    except ImportError as error:
        return f"not installed: {error}"
    # Validators raise what their schema libraries raise; each of these is a verdict.
    except Exception as error:
        return f"invalid: {' '.join(str(error).split())[:300]}"
    return "valid"


def _ask_ome_zarr_models(path: str) -> None:
    import ome_zarr_models
    import zarr

    ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))


def _ask_ngff_zarr(path: str) -> None:
    import ngff_zarr

    ngff_zarr.from_ngff_zarr(path, validate=True)


def run(uri: str) -> int:
    """Writes what `inspect` finds to standard output.

    Returns:
        The exit code: 0, or 1 for a volume that viewers will not open.

    Raises:
        InputError: there is no volume.
    """
    report = inspect(uri)
    sys.stdout.write(render(report) + "\n")
    return 0 if report["valid"] else 1


def render(report: dict[str, Any]) -> str:
    """`inspect`'s answer as text, a line per level."""
    version = f", OME-NGFF {report['version']}" if report["version"] else ""
    lines = [report["uri"], f"  {report['format']}{version}, axes {' '.join(report['axes'])}"]
    lines += [
        f"  channel {c['label']}: colour {c['color']}, window {_window(c['window'])}"
        for c in report["channels"]
    ]
    lines += [_level_line(level, report["unit"]) for level in report["levels"]]
    lines += [f"  {name}: {word}" for name, word in report["validators"].items()]
    for finding in report["findings"]:
        lines.append(f"  {finding['rule']} at {finding['where']}: {finding['message']}")
        lines.append(f"    to do: {finding['fix']}")
    lines.append("  opens in viewers" if report["valid"] else "  NOT valid, see above")
    return "\n".join(lines)


def _window(window: dict[str, Any] | None) -> str:
    return f"{window.get('start')} to {window.get('end')}" if window else "not given"


def _level_line(level: dict[str, Any], unit: str | None) -> str:
    if level["error"]:
        return f"  level {level['path']}: {level['error']}"
    size = level["stored_bytes"]
    parts = [
        f"level {level['path'] or '/'}: {_times(level['shape'])} {level['dtype']}",
        f"chunk {_times(level['chunk'])}",
        f"shard {_times(level['shard'])}",
    ]
    if level["scale"]:
        parts.append(f"voxel {_times(level['scale'])} {unit or ''}".rstrip())
    if level["translation"]:
        parts.append(f"at {' '.join(f'{v:g}' for v in level['translation'])}")
    parts.append(f"{level['objects']} of {level['objects_expected']} objects")
    if size is not None:
        parts.append(f"{size / 1e6:.3g} MB")
    return "  " + ", ".join(parts)


def _times(values: list[float]) -> str:
    return " x ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
