"""The data file: where tensors lie, what is written, and that nothing is read or copied more than it must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cgc_onnx.parameters.layout import Layout, declare
from cgc_onnx.parameters.weights import LINE, PAGE, Stored, check_weights, plan, write_weights

from cgc.ir.dims import Dim
from cgc.ir.graph import Init, Param, Value
from cgc.ir.types import DType, TensorType
from cgc.target import TargetError

LAYERS, WIDTH, HEADS, HEAD = Dim("layers", 3), Dim("width", 4), Dim("heads", 2), Dim("head", 5)
Array = np.ndarray[Any, Any]


def _param(name: str, *dims: Dim, dtype: DType = "f32") -> Param:
    return Param(Value(name, TensorType(dims, dtype)), Init("normal"))


W = _param("h.q.w", LAYERS, WIDTH, HEADS, HEAD)
LAYOUT = Layout((1,), (1, 2))


class Lazy(Mapping[str, Array]):
    """Arrays made when asked for, which remembers what was asked."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.asked: list[str] = []
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        self.asked.append(name)
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _read(path: Path, entry: Stored, dtype: str = "<f4") -> Array:
    data = path.read_bytes()[entry.offset : entry.offset + entry.size]
    return np.frombuffer(data, dtype).reshape([size for dim in entry.dims if isinstance(size := dim.size, int)])


def test_one_tensor_a_layer_in_the_shape_of_the_matrix() -> None:
    entries = plan([(W, declare(W.value, LAYOUT))])
    assert [entry.name for entry in entries] == ["h.0.q.w", "h.1.q.w", "h.2.q.w"]
    assert [entry.index for entry in entries] == [(0,), (1,), (2,)]
    assert [dim.size for dim in entries[0].dims] == [4, 10]
    assert [entry.offset for entry in entries] == [0, 192, 384]
    assert all(entry.offset % LINE == 0 and entry.size == 160 for entry in entries)


def test_large_tensors_start_on_a_page() -> None:
    small, large = _param("small", HEAD), _param("large", Dim("n", 1 << 18))
    entries = plan([(param, declare(param.value, Layout((), (1,)))) for param in (small, large, small)])
    assert [entry.offset for entry in entries] == [0, PAGE, PAGE + (1 << 20)]


@pytest.mark.parametrize("kind", ["as it is", "transposed", "double precision", "every second row"])
def test_what_is_written_is_what_was_given(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array: Array = rng.standard_normal((3, 4, 2, 5)).astype(np.float32)
    match kind:
        case "transposed":
            array = np.asfortranarray(array)
        case "double precision":
            array = array.astype(np.float64)
        case "every second row":
            array = rng.standard_normal((3, 8, 2, 5)).astype(np.float32)[:, ::2]
        case _:
            pass
    entries = plan([(W, declare(W.value, LAYOUT))])
    path = tmp_path / "data"
    write_weights(path, entries, [W], {"h.q.w": array})
    for layer, entry in enumerate(entries):
        np.testing.assert_array_equal(_read(path, entry), array[layer].reshape(4, 10).astype(np.float32))


def test_scalars_and_brain_floats(tmp_path: Path) -> None:
    scalar, brain = _param("scalar", dtype="f64"), _param("brain", HEAD, dtype="bf16")
    entries = plan([(scalar, declare(scalar.value, Layout((), ()))), (brain, declare(brain.value, Layout((), (1,))))])
    path = tmp_path / "data"
    arrays: dict[str, Array] = {
        "scalar": np.float32(1.5) * np.ones(()),
        "brain": np.array([1, -2, 0.5, 3, 0], np.float32),
    }
    write_weights(path, entries, [scalar, brain], arrays)
    assert _read(path, entries[0], "<f8") == 1.5
    bits = _read(path, entries[1], "<u2").astype(np.uint32) << 16
    np.testing.assert_array_equal(bits.view(np.float32), arrays["brain"])


def test_each_parameter_is_read_once_and_only_to_be_written(tmp_path: Path) -> None:
    bias = _param("b", HEAD)
    weights = Lazy({"b": np.zeros(5, np.float32), "h.q.w": np.zeros((3, 4, 2, 5), np.float32), "more": np.zeros(1)})
    check_weights([W, bias], weights)
    assert weights.asked == []
    entries = plan([(W, declare(W.value, LAYOUT)), (bias, declare(bias.value, Layout((), (1,))))])
    write_weights(tmp_path / "data", entries, [W, bias], weights)
    assert weights.asked == ["h.q.w", "b"]


def test_missing_and_misshapen_weights_are_faults_of_the_input(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"no `h\.q\.w`"):
        check_weights([W], {})
    entries = plan([(W, declare(W.value, LAYOUT))])
    with pytest.raises(TargetError, match=r"`h\.q\.w` has shape \(3, 4, 10\), not \(3, 4, 2, 5\)"):
        write_weights(tmp_path / "data", entries, [W], {"h.q.w": np.zeros((3, 4, 10), np.float32)})
