"""Options that several commands share, and the small parsers behind them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from miar.errors import ConfigError

StoreOption = Annotated[str, typer.Option("--store", "-s", help="Folder of the feature store.")]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Folder of the feature store.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Pipeline configuration (YAML); default: the built-in one."),
]
SnapshotOption = Annotated[str | None, typer.Option("--snapshot", help="Id or name of a snapshot.")]


def parse_pairs(pairs: Iterable[str], option: str) -> dict[str, str]:
    """``["a=b"]`` -> ``{"a": "b"}``.

    Raises:
        ConfigError: a pair without a name, an ``=`` or a value.
    """
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} takes NAME=VALUE, not '{pair}'")
        parsed[name] = value
    return parsed


def parse_settings(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """As :func:`parse_pairs`, with values read as YAML: numbers, true and false, lists.

    Raises:
        ConfigError: as :func:`parse_pairs`, or a value that is not YAML.
    """
    return {name: _value(name, value, option) for name, value in parse_pairs(pairs, option).items()}


def _value(name: str, value: str, option: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{option} {name}: '{value}' is neither a number, a word nor a list such as [1, 2]"
        ) from error


def parse_modalities(text: str | None) -> list[Any] | None:
    """``"text,audio"`` -> modalities; ``None`` stays ``None``.

    Raises:
        ConfigError: a name that is no modality.
    """
    from miar.features.contract import Modality

    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(Modality))
    if unknown or not names:
        raise ConfigError(f"--only takes {', '.join(Modality)}, not '{', '.join(unknown) or text}'")
    return [Modality(name) for name in names]


def split_list(values: Iterable[str] | None) -> list[str] | None:
    """Repeated and comma-separated options alike: ``["a,b", "c"]`` -> ``["a", "b", "c"]``; nothing -> ``None``."""
    names = [name.strip() for value in values or () for name in value.split(",") if name.strip()]
    return names or None
