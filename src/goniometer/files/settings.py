"""Settings from YAML: plain keys and values, and one sentence for what is wrong in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from goniometer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import yaml


class Settings(BaseModel):
    """Settings that are frozen, and refuse a key that they do not know and a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# Of a description, which people write by hand.
_MOST_BYTES = 10**7

Kind = TypeVar("Kind", bound=Settings)


def read_yaml(path: Path, kind: str) -> dict[str, Any]:
    """The keys and values of a file. Raises :class:`InputError` if it holds none; ``kind`` is what it should be."""
    import yaml

    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise InputError(f"'{path}' is no {kind}: it is larger than {_MOST_BYTES} bytes")
        settings = _loaded(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise InputError(f"'{path}' is no {kind}: it must hold keys and values, as the packaged ones do")
    return settings


def _loaded(text: str) -> Any:
    """YAML as it is, without keys that stand twice or differ in merged mappings: YAML would take one without a word."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
        _check_keys(node)
        loader.flatten_mapping(node)
        return dict(loader.construct_mapping(node, deep=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return yaml.load(text, Loader)


def _check_keys(node: yaml.MappingNode) -> None:
    """Raise an error of YAML for a doubled key, here or in a merged mapping, and for merged mappings that contradict.

    A key of the mapping itself in the place of a merged one (``<<``) is what merging is for.
    """
    import yaml

    def refuse(key: yaml.Node, what: str) -> NoReturn:
        raise yaml.constructor.ConstructorError(
            problem=f"the key '{key.value}' {what} in line {key.start_mark.line + 1}"
        )

    own: set[str] = set()
    merged: dict[str, str] = {}
    contradicting: list[yaml.ScalarNode] = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value in own:
            refuse(key, "stands twice, the second time")
        own.add(key.value)
        if key.tag != "tag:yaml.org,2002:merge":
            continue
        for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(each, yaml.MappingNode):
                continue  # YAML refuses it
            _check_keys(each)
            for name, inner in each.value:
                said = yaml.serialize(inner)
                if isinstance(name, yaml.ScalarNode) and merged.setdefault(name.value, said) != said:
                    contradicting.append(name)
    for name in contradicting:
        if name.value not in own:
            refuse(name, "has another value in a mapping that is merged as well,")


def validated(model: type[Kind], settings: dict[str, Any], what: str) -> Kind:
    """Settings as what they describe. Raises :class:`InputError` that names the first key at fault."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{what}: {_first(model, error)}") from error


def _first(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "as a whole"
    if first["type"] == "extra_forbidden":
        owner = _owner(model, [str(part) for part in first["loc"][:-1]])
        hint = did_you_mean(str(first["loc"][-1]), list(owner.model_fields))
        return f"there is no key '{where}'; there are {', '.join(owner.model_fields)}{hint}"
    return f"'{where}': {first['msg'].removeprefix('Value error, ')}"


def _owner(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The settings at a path of keys."""
    for key in path:
        model = next(_models(model.model_fields[key].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
