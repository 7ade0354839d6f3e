"""Every setting of a job, from the models themselves."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from warpbeam.pipelines.align_config import AlignConfig, ApplyStackConfig
from warpbeam.pipelines.config import FuseConfig, JobConfig, StitchConfig
from warpbeam.pipelines.register_config import ApplyConfig, RegisterConfig, RoundsConfig
from warpbeam.pipelines.segment_config import SegmentConfig
from warpbeam.pipelines.volume_config import SegmentVolumeConfig

_MODELS: dict[str, tuple[type[JobConfig], ...]] = {
    "stitch": (StitchConfig,),
    "align": (AlignConfig, ApplyStackConfig),
    "fuse": (FuseConfig,),
    "register": (RegisterConfig, RoundsConfig, ApplyConfig),
    "segment": (SegmentConfig, SegmentVolumeConfig),
}


def text(job: str, *, schema: bool = False) -> str:
    """The settings of a job, for reading or as JSON Schema."""
    models = _MODELS[job]
    if schema:
        found = [model.model_json_schema() for model in models]
        return json.dumps({"anyOf": found} if len(found) > 1 else found[0], indent=1)
    parts = [
        "\n".join([f"{job}: {m.__doc__}", *_lines(m, models[:k])]) for k, m in enumerate(models)
    ]
    return "\n\n\n".join(parts)


def _lines(model: type[BaseModel], told: Sequence[type[BaseModel]]) -> Iterator[str]:
    """The settings of a model, less those that are the same in models that were told already."""
    for name, field in model.model_fields.items():
        others = [other.model_fields[name] for other in told if name in other.model_fields]
        if any(_same(field, other) for other in others):
            continue
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield f"\n{name}: {kind.__doc__}"
            default = field.default if isinstance(field.default, BaseModel) else kind()
            yield from _section(default, f"{name}.")
        else:
            yield from _field(name, field, field.get_default())


def _same(a: FieldInfo, b: FieldInfo) -> bool:
    return (a.annotation, a.default, a.description) == (b.annotation, b.default, b.description)


def _section(values: BaseModel, prefix: str) -> Iterator[str]:
    for name, field in type(values).model_fields.items():
        yield from _field(prefix + name, field, getattr(values, name))


def _field(name: str, field: FieldInfo, default: object) -> Iterator[str]:
    shown = "required" if field.is_required() else f"default {_plain(default)}"
    limits = ", ".join(map(str, field.metadata))
    yield f"  {name}  [{_kind(field)}{'; ' + limits if limits else ''}; {shown}]"
    yield textwrap.fill(
        field.description or "", 96, initial_indent=" " * 6, subsequent_indent=" " * 6
    )
    for model in _models_in(field):
        for inner, one in model.model_fields.items():
            yield from _field(f"{name}[].{inner}", one, one.get_default())


def _models_in(field: FieldInfo) -> list[type[BaseModel]]:
    """The models of which a setting is a list."""
    kinds = get_args(field.annotation)
    return [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]


def _plain(value: object) -> str:
    return "none" if value is None else str(value)


def _kind(field: FieldInfo) -> str:
    kind = field.annotation
    if _models_in(field):
        return "a list"
    words = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    return words.replace("typing.", "").replace("Literal", "").replace("NoneType", "None")
