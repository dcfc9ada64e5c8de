from dataclasses import dataclass

import pytest
from pydantic import BaseModel, ConfigDict

from miar.errors import ConfigError
from miar.validation import validated


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner = Inner()
    many: list[Inner] = []


@dataclass
class Plain:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    width: int = 8

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ConfigError("width must be even")


def test_what_is_right_becomes_the_object():
    assert validated(Outer, {"inner": {"size": 2}}, "file").inner.size == 2
    assert validated(Plain, {"width": 4}, "model") == Plain(4)


@pytest.mark.parametrize(
    ("kind", "tree", "says"),
    [
        (Outer, {"innr": {}}, "file: innr: there is no such setting; did you mean 'inner'. there are: inner, many"),
        (Outer, {"inner": {"sise": 1}}, "file: inner.sise: .* did you mean 'size'"),
        (Outer, {"many": [{}, {"x": 1}]}, "file: many.1.x: .* there are: size"),
        (Outer, {"inner": {"size": "big"}}, "file: inner.size: Input should be a valid integer"),
        (Outer, 3, "file: top level: "),
        (Plain, {"wdth": 4}, "file: wdth: .* did you mean 'width'"),
        (Plain, {"width": 3}, "file: width must be even"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(kind, tree, says):
    with pytest.raises(ConfigError, match=says) as caught:
        validated(kind, tree, "file")
    assert "\n" not in str(caught.value)
