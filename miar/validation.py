"""From a tree of settings (YAML, command line, a deployment's parameters) to a typed object; one line on a mistake."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from miar.errors import ConfigError, UserError

Settings = TypeVar("Settings")

_NO_MAPPING = {"model_type", "dict_type", "dataclass_type", "model_attributes_type"}
_UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}


def validated(kind: type[Settings], tree: Any, origin: str) -> Settings:
    """``tree`` as a ``kind`` (a pydantic model or a dataclass).

    Raises:
        ConfigError: the first problem, with ``origin`` and its key; an unknown key is answered with those there are.
    """
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        what = "expected settings here, as `name: value`" if first["type"] in _NO_MAPPING else first["msg"]
        if first["type"] in _UNKNOWN_KEY:
            what = _no_such_key(str(first["loc"][-1]), _known_keys(adapter.json_schema(), first["loc"][:-1]))
        raise ConfigError(f"{origin}: {where}: {what}") from error
    except UserError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _no_such_key(key: str, known: Sequence[str]) -> str:
    meant = get_close_matches(key, known, n=1)
    hint = f"did you mean '{meant[0]}'? " if meant else ""
    return f"there is no such setting; {hint}there are: {', '.join(known)}"


def _known_keys(schema: dict[str, Any], path: Sequence[int | str]) -> list[str]:
    """The keys that a JSON schema allows at a path of keys, list positions and tags of a union."""

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        return schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node

    node = schema
    for part in path:
        node = resolved(node)
        if part in node.get("properties", {}):
            node = node["properties"][part]
        elif part in (tags := node.get("discriminator", {}).get("mapping", {})):
            node = {"$ref": tags[part]}
        else:
            node = node.get("items", {})
    return sorted(resolved(node).get("properties", {}))
