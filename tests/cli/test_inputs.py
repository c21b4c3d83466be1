"""How the shapes of inputs are read from the command line."""

import pytest

from tvm_cdmpp.cli.inputs import parse_input_shapes
from tvm_cdmpp.errors import ConfigError


def test_input_shapes() -> None:
    assert parse_input_shapes(["data:1x3x224x224", "a:b:7"]) == {
        "data": (1, 3, 224, 224),
        "a:b": (7,),
    }


@pytest.mark.parametrize("text", ["1x3", "data:", "data:1x", "data:1x-3", "data:0x3", ":1"])
def test_wrong_input_shapes(text: str) -> None:
    with pytest.raises(ConfigError, match="takes NAME:SIZExSIZE"):
        parse_input_shapes([text])


def test_input_given_twice() -> None:
    with pytest.raises(ConfigError, match="'a' twice"):
        parse_input_shapes(["a:1", "a:2"])
