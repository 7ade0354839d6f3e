"""Settings from YAML files and `--set section.field=value`, read into a job's configuration.

What is not known is an error that names the nearest field. Names and patterns need no quotes: of
all that is no text to YAML 1.1, plain numbers, `true`, `false` and `null` count alone. (A name
that is a decimal fraction, such as 2024.10, does need them.)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from warpbeam.pipelines.config import JobConfig
from warpbeam.transforms.storage.errors import InputError

Config = TypeVar("Config", bound=JobConfig)

_TAG = "tag:yaml.org,2002:"
_SPELLINGS = {
    _TAG + "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    _TAG + "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    _TAG + "float": (
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class _Loader(yaml.SafeLoader):
    """`off`, `2024-01-31`, `007` and `12:30` are text."""


_Loader.yaml_implicit_resolvers = {
    first: [found for found in every if found[0] not in (*_SPELLINGS, _TAG + "timestamp")]
    for first, every in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, (_pattern, _firsts) in _SPELLINGS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"({_pattern})$"), list(_firsts))


def load(model: type[Config], path: str | None, given: dict[str, Any]) -> Config:
    """A job's configuration from a YAML file and settings given beside it.

    Args:
        model: the job's model.
        path: YAML file, or None.
        given: dotted name -> value; wins over the file.

    Raises:
        InputError: the file is missing or no YAML, or a setting is unknown or out of range.
    """
    values = read_yaml(path) if path else {}
    for name, value in given.items():
        _put(values, name, value, model)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(error, model, path) from None


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """`section.field=value` texts; values are read as YAML, and what is none is text."""
    found = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark:
            raise InputError(
                "a setting has no value",
                where=f"--set {text}",
                expected="section.field=value",
                got=text,
                fix="write it as in --set blend.mode=cosine",
            )
        found[name.strip()] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text.strip()


def read_yaml(path: str) -> dict[str, Any]:
    """What stands in a job file.

    Raises:
        InputError: it is not there, or holds no settings.
    """
    try:
        values = yaml.load(Path(path).read_text(), _Loader)
    except FileNotFoundError:
        raise InputError(
            "there is no job file",
            where=path,
            expected="a YAML file with the settings of the job",
            got="nothing",
            fix="correct the path, or give the tiles and the output on the command line",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            "the job file is not YAML",
            where=path,
            expected="lines such as 'blend: {mode: linear}'",
            got=str(error),
            fix="correct the file",
        ) from None
    if not isinstance(values, dict):
        raise InputError(
            "the job file holds no settings",
            where=path,
            expected="a mapping from names to values",
            got=type(values).__name__,
            fix="begin with 'tiles: …' and 'output: …'",
        )
    return values


def _put(values: dict[str, Any], name: str, value: Any, model: type[JobConfig]) -> None:
    *sections, field = name.split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise _unknown(name, model)
    place[field] = value


def field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting of a model by its dotted name."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from field_names(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _unknown(name: str, model: type[JobConfig]) -> InputError:
    known = list(field_names(model))
    leaves = {k.rsplit(".", 1)[-1]: k for k in known}
    near = difflib.get_close_matches(name, known, 1, 0.7)
    near = near or [
        leaves[n] for n in difflib.get_close_matches(name.rsplit(".", 1)[-1], leaves, 1, 0.75)
    ]
    return InputError(
        "a setting is not known",
        where=name,
        expected=f"{near[0]}?" if near else "one of the settings of this job",
        got=name,
        fix=_see(model),
    )


def _see(model: type[JobConfig]) -> str:
    command = model.command or model.__name__.removesuffix("Config").lower()
    return f"see `warpbeam explain {command}`"


def _explain(error: ValidationError, model: type[JobConfig], path: str | None) -> InputError:
    """The first thing that pydantic found, in our four parts."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(name, model)
    return InputError(
        "a setting is missing" if first["type"] == "missing" else "a setting has a bad value",
        where=f"{name or model.__name__} in {path or 'the command line'}",
        expected=first["msg"].removeprefix("Value error, "),
        got=_given(first["input"], name) if first["type"] != "missing" else "nothing",
        fix=_see(model),
    )


def _given(value: object, name: str) -> str:
    """A bad value; of settings that do not go together their message says enough."""
    return repr(value) if name else "these settings together"
