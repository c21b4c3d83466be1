"""Devices as JSON: what is written is read back, and what is wrong is named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_cdmpp.devices.jsonform import dump_devices, parse_devices
from tvm_cdmpp.devices.spec import KINDS, OPTIONAL_FIGURES, RANGES, REQUIRED_FIGURES, DeviceSpec
from tvm_cdmpp.errors import ConfigError

INTEGERS = ("cores", "simd_bytes")
FIGURES: dict[str, Any] = {
    "cores": 4, "clock_hz": 3e9, "simd_bytes": 32, "fused_multiply_adds_per_cycle": 2,
    "l1_bytes": 32768, "l2_bytes": 262144, "l3_bytes": 8388608, "bandwidth_bytes_per_s": 4e10,
}  # fmt: skip


def document(**changes: Any) -> dict[str, Any]:
    """Make a file of one device; a change to None removes a field."""
    device = {"name": "my-cpu", "kind": "cpu", "figures": {"data sheet": FIGURES}, **changes}
    return {"format": 1, "devices": [{k: v for k, v in device.items() if v is not None}]}


def with_figures(**changes: Any) -> dict[str, Any]:
    return document(figures={"data sheet": {**FIGURES, **changes}})


def without_figure(name: str) -> dict[str, Any]:
    return document(figures={"s": {k: v for k, v in FIGURES.items() if k != name}})


words = st.from_regex(r"[a-z0-9][a-z0-9.+]{0,5}(-[a-z0-9.+]{1,5}){0,2}", fullmatch=True)


def values(figure: str) -> st.SearchStrategy[float]:
    least, most, _ = RANGES[figure]
    integers = st.integers(int(least), int(most))
    return integers if figure in INTEGERS else st.one_of(integers, st.floats(least, most))


def make_device(figures: dict[str, Any], unknown: set[str], **rest: Any) -> DeviceSpec:
    known = {name: value for name, value in figures.items() if name not in unknown}
    return DeviceSpec(**rest, **known, sources={name: f"source {len(name)}" for name in known})


devices = st.builds(
    make_device,
    figures=st.fixed_dictionaries(
        {name: values(name) for name in (*REQUIRED_FIGURES, *OPTIONAL_FIGURES)}
    ),
    unknown=st.sets(st.sampled_from(OPTIONAL_FIGURES)),
    name=words,
    kind=st.sampled_from(KINDS),
    aliases=st.lists(st.text(max_size=8), max_size=2).map(tuple),
    note=st.text(max_size=20),
)


@given(st.lists(devices, max_size=3).map(tuple))
def test_round_trip(written: tuple[DeviceSpec, ...]) -> None:
    read = parse_devices(dump_devices(written), "file")
    assert read == written
    for before, after in zip(written, read, strict=True):
        assert (before.aliases, before.note) == (after.aliases, after.note)
        assert before.sources == after.sources


def test_figures_without_a_source_are_written_as_such() -> None:
    (device,) = parse_devices(dump_devices([DeviceSpec(name="x", kind="cpu")]), "file")
    assert set(device.sources) == set(REQUIRED_FIGURES)
    assert set(device.sources.values()) == {"not stated"}


def test_a_minimal_file() -> None:
    (device,) = parse_devices(json.dumps(document()), "file")
    assert device == DeviceSpec(name="my-cpu", kind="cpu", **FIGURES)
    assert device.float16_flops is None
    assert parse_devices(json.dumps(with_figures(float16_flops=None)), "file") == (device,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "file is not usable as JSON"),
        (b"\xff", "file is not usable as JSON"),
        pytest.param("[" * 100_000, "file is not usable as JSON: it is nested too", id="deep"),
        ('{"format": 1, "format": 1}', "the key 'format' comes twice"),
        ([], 'file must be an object with "format": 1'),
        ({"format": 2, "devices": []}, "got 2 for the format"),
        ({"format": 1}, "devices is missing; got format"),
        ({"format": 1, "devices": {}}, "devices must be a list; got {}"),
        ({"format": 1, "devices": [], "more": 1}, "must be one of format, devices; got more"),
        ({"format": 1, "devices": [3]}, "file, device 1 must be an object; got 3"),
        (document(name="My CPU"), 'device 1: name must be lower-case words.*got "My CPU"'),
        (document(name=None), "name must be .*got null"),
        (document(kind=None), r"device 1 \('my-cpu'\): kind is missing"),
        (document(kind="GPU"), 'kind must be one of cpu, gpu, accelerator; got "GPU"'),
        (document(kind=["cpu"]), "kind must be one of cpu"),
        (document(alias=["x"]), r"got alias \(did you mean aliases\?\)"),
        (document(aliases="x"), 'aliases must be a list of strings; got "x"'),
        (document(note=3), "note must be a string; got 3"),
        (document(figures=FIGURES), "figures must be an object of objects"),
        (document(figures={" ": FIGURES}), "stand under a source; got an empty one"),
        (document(figures={"a": FIGURES, "b": {"cores": 4}}),
         "cores must be given once; got it from 'a' and from 'b'"),
        (without_figure("l2_bytes"), r"\('my-cpu'\): l2_bytes must be given under figures"),
        (with_figures(clock=3), r"got clock \(did you mean clock_hz\?\)"),
        (with_figures(clock_hz="3 GHz"), 'clock_hz must be a number; got "3 GHz"'),
        (with_figures(clock_hz=None), "clock_hz must be a number; got null"),
        (with_figures(clock_hz=True), "clock_hz must be a number; got true"),
        (with_figures(clock_hz=0), "clock_hz .* must be 10000000 to .* Hz .*; got 0"),
        (with_figures(clock_hz=float("nan")), "clock_hz of device 'my-cpu' must be .* are .*; got"),
        (with_figures(int8_ops=float("inf")), "int8_ops of device 'my-cpu' must be .* are .*; got"),
        (with_figures(cores=2.5), "cores must be an integer; got 2.5"),
        (with_figures(simd_bytes=2), "simd_bytes .* 4 to 65536 bytes .*; got 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(content: Any, message: str) -> None:
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    with pytest.raises(ConfigError, match=message) as raised:
        parse_devices(text, "file")
    assert str(raised.value).startswith("file")
