"""`device` items and the devices that come with cgc."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cgc.diagnostics import Diagnostic, Diagnostics, InputError
from cgc.elaborate.devices import device_names, load_device, read_devices
from cgc.ir.graph import NOWHERE
from cgc.program import Device
from cgc.syntax.parser import parse

LINES = {
    "grid": "8 x 4",
    "memory": "48 KiB",
    "clock": "1.1 GHz",
    "multiply_adds": "4 per cycle",
    "read": "16 B per cycle",
    "write": "8 B per cycle",
    "link": "4 B per cycle",
    "hop": "1 cycles",
    "colors": "24",
    "off_wafer": "1.2 Tb/s",
}
SMALL = Device(
    name="small",
    columns=8,
    rows=4,
    memory=49152,
    clock=1.1e9,
    multiply_adds=4.0,
    read=16.0,
    write=8.0,
    link=4.0,
    hop=1.0,
    colors=24,
    off_wafer=1.5e11,
)


def source(name: str = "small", **changes: str) -> str:
    lines = {key: value for key, value in {**LINES, **changes}.items() if value}
    return f"device {name} {{\n" + "".join(f"    {key} = {value}\n" for key, value in lines.items()) + "}\n"


def read(text: str) -> Device:
    found = Diagnostics()
    (device,) = read_devices(parse(text, "test.cg").items, found)
    assert not len(found)
    return device


def faults(text: str) -> tuple[Diagnostic, ...]:
    found = Diagnostics()
    read_devices(parse(text, "test.cg").items, found)
    assert all(fault.hint for fault in found.sorted())
    return found.sorted()


def loading(name: str) -> Diagnostic:
    with pytest.raises(InputError) as caught:
        load_device(name)
    return caught.value.diagnostics[0]


def test_a_device_is_read_in_base_units() -> None:
    assert read(source()) == SMALL
    assert SMALL.cores == 32


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ({"memory": "2 MiB"}, {"memory": 2**21}),
        ({"memory": "48 KB"}, {"memory": 48000}),
        ({"memory": "1 GB"}, {"memory": 10**9}),
        ({"clock": "850 MHz"}, {"clock": 850e6}),
        ({"clock": "850_000 kHz"}, {"clock": 850e6}),
        ({"off_wafer": "1.2 TB/s"}, {"off_wafer": 1.2e12}),
        ({"off_wafer": "8 Gb/s"}, {"off_wafer": 1e9}),
        ({"off_wafer": "9 PB/s"}, {"off_wafer": 9e15}),
        ({"off_wafer": "8 b/s"}, {"off_wafer": 1.0}),
        ({"power": "15 kW"}, {"power": 15000.0}),
        ({"power": "200 W"}, {"power": 200.0}),
        ({"code": "2 KiB"}, {"code": 2048}),
        ({"task": "80 cycles"}, {"task": 80.0}),
        ({"loop": "0 cycles", "vector": "2.5 cycles"}, {"loop": 0.0, "vector": 2.5}),
        ({"shift": "2 cycles", "ramp": "1 cycle", "relay": "3 cycles"}, {"shift": 2.0, "ramp": 1.0, "relay": 3.0}),
        ({"queue": "4"}, {"queue": 4}),
    ],
)
def test_units(line: dict[str, str], changed: dict[str, float]) -> None:
    assert read(source(**line)) == replace(SMALL, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "code", "hint"),
    [
        ({"memroy": "48 KiB"}, "CG0501", "memory"),
        ({"memory": "48"}, "CG0502", "`KiB`"),
        ({"memory": "0 B"}, "CG0502", "at least 1"),
        ({"memory": "1e17 GB"}, "CG0502", "at least 1"),
        ({"memory": "48 kHz"}, "CG0502", "memory = 48 KiB"),
        ({"clock": "1.1"}, "CG0502", "`GHz`"),
        ({"clock": "-1 GHz"}, "CG0502", "above 0"),
        ({"read": "16B per cycle"}, "CG0502", "`16 B`"),
        ({"read": "16 per cycle"}, "CG0502", "`B per cycle`"),
        ({"task": "-1 cycles"}, "CG0502", "at least 0"),
        ({"relay": "0 cycles"}, "CG0502", "above 0"),
        ({"ramp": "2"}, "CG0502", "`cycles`"),
        ({"code": "0 B"}, "CG0502", "at least 1"),
        ({"code": "48 KiB"}, "CG0502", "less than `memory`"),
        ({"colors": "2.5"}, "CG0502", "whole"),
        ({"queue": "0"}, "CG0502", "at least 1"),
        ({"queue": "1.5"}, "CG0502", "whole"),
        ({"colors": '"many"'}, "CG0502", "colors = 24"),
        ({"grid": "32"}, "CG0502", "750 x 994"),
        ({"grid": "8 by 4"}, "CG0502", "750 x 994"),
        ({"grid": "0 x 4"}, "CG0502", "at least 1"),
        ({"grid": "8 x 1e9"}, "CG0502", "16384"),
        ({"grid": "8 x 1e200"}, "CG0502", "1e+18"),
    ],
)
def test_faults(changes: dict[str, str], code: str, hint: str) -> None:
    (fault,) = faults(source(**changes))
    assert fault.code == code
    assert hint in fault.hint


def test_what_is_missing_is_listed() -> None:
    (fault,) = faults(source(clock="", hop="", grid=""))
    assert fault.code == "CG0503"
    assert fault.message == "device `small` does not say its `grid`, `clock` and `hop`"
    assert "grid = 750 x 994" in fault.hint


def test_two_devices_of_one_name() -> None:
    (fault,) = faults(source() + source() + source("other"))
    assert fault.code == "CG0506"


def test_devices_that_come_with_cgc() -> None:
    assert {"wse1", "wse2", "wse3"} <= set(device_names())
    for name in device_names():
        device = load_device(name)
        assert device.name == name
        assert device.location != NOWHERE
    assert load_device("wse2").columns * load_device("wse2").rows == 750 * 994


def test_devices_from_files(tmp_path: Path) -> None:
    (tmp_path / "one.cg").write_text(source())
    (tmp_path / "two.cg").write_text(source() + source("other", grid="2 x 2"))
    (tmp_path / "none.cg").write_text("# nothing\n")
    (tmp_path / "bad.cg").write_text(source(clock="fast"))
    assert load_device(str(tmp_path / "one.cg")) == SMALL
    assert load_device(f"{tmp_path}/two.cg:other").cores == 4
    assert "two.cg:small" in loading(f"{tmp_path}/two.cg").hint
    assert "did you mean `other`?" in loading(f"{tmp_path}/two.cg:othr").hint
    assert loading(f"{tmp_path}/none.cg").code == "CG0508"
    assert loading(f"{tmp_path}/bad.cg").code == "CG0502"
    assert loading(f"{tmp_path}/absent.cg").code == "CG0001"


def test_an_unknown_name_suggests_a_near_one() -> None:
    fault = loading("wse22")
    assert fault.code == "CG0508"
    assert fault.hint == "did you mean `wse2`?"
    assert "`wse2`" in loading("../../etc/passwd").hint
