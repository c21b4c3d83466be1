"""Settings from files: what is left out is the default, and what is wrong is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from tvm_cdmpp.errors import ConfigError
from tvm_cdmpp.models.additive import AdditiveConfig
from tvm_cdmpp.train.config import TrainConfig
from tvm_cdmpp.train.setting import read_setting


def test_what_is_left_out_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"network": {"width": 64}, "config": {"average": 0}, "more": 1}))
    assert read_setting(file) == (AdditiveConfig(width=64), TrainConfig(average=0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a JSON file"),
        ([], "JSON object with 'network' or 'config'"),
        ({"trials": []}, "JSON object with 'network' or 'config'"),
        ({"network": 3}, "expected fields of AdditiveConfig by name; got 3"),
        ({"network": {"wide": 64}}, "unknown field 'wide' of AdditiveConfig; known are width"),
        ({"network": {"width": 64.5}}, "'width' must be of type int; got 64.5"),
        ({"network": {"width": True}}, "'width' must be of type int; got True"),
        ({"network": {"width": 65}}, "width must be a multiple"),
        ({"config": {"ranking": "best"}}, "ranking must be one of pairwise, listmle"),
    ],
)
def test_what_is_wrong_is_named(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        read_setting(file)
