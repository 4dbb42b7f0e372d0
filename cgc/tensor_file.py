"""Files of named tensors in the safetensors format: reading their headers and views of their data, and writing them.

The format: eight bytes with the length of the header (little-endian), the header (JSON: dtype, shape and place of each
tensor), then the data, row-major and little-endian, without gaps.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from cgc.diagnostics import ELSEWHERE, Diagnostic, InputError, capped
from cgc.input_file import open_input

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the format's own library."""
LARGEST_INDEX = 100_000_000
PICKLED = ("bin", "pt", "pth", "ckpt")
"""Endings of files that PyTorch writes by itself."""

_PICKLE = (b"PK\x03\x04", b"\x80\x02")
"""How files begin that PyTorch writes by itself: an archive, or before 1.6 a pickle."""
_SHARD = re.compile(r"-\d+-of-\d+$")
"""How the names of the parts of a checkpoint end."""

# bf16 has no NumPy type: its bits are read as integers and widened
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BITS = {
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "BOOL": 8},
    **{f"{kind}{bits}": bits for kind in "IU" for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: where its data starts, and what it is. `dtype` is the format's name (`F32`, `BF16`)."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def is_float(self) -> bool:
        """Tell whether `read` can give it as float32."""
        return self.dtype in _NUMPY

    @property
    def size(self) -> int:
        """Bytes of the data, of a dtype that `is_float`."""
        return math.prod(self.shape) * _BITS[self.dtype] // 8

    def read(self) -> Array:
        """Return the tensor as float32 (a view of the file where it is stored so), mapped from the file."""
        import numpy as np

        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, np.float32)
        data = np.memmap(self.path, _NUMPY[self.dtype], "r", self.start, self.shape)
        if self.dtype == "BF16":
            return (data.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(data).astype(np.float32, copy=False)


def _invalid(path: Path, why: str, hint: str = "fetch or write it anew") -> InputError:
    return InputError([Diagnostic("CG0701", f"`{path}` is not a safetensors file: {why}", hint=hint)])


def _no_index(path: Path, why: str, hint: str = "fetch it anew, or give the `.safetensors` file itself") -> InputError:
    return InputError([Diagnostic("CG0701", f"`{path}` is not an index of shards: {why}", hint=hint)])


def _unreadable(path: Path, error: OSError | ValueError) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hint = "give a `.safetensors` file, its index of shards, or a folder with one of them"
    return InputError([Diagnostic("CG0701", f"cannot read `{path}`: {reason}", hint=hint)])


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a checkpoint by name: a `.safetensors` file, an index of shards, or a folder with either.

    Raises:
        InputError: CG0701 the file cannot be read or is not in the format; CG0706 an index names a file elsewhere.
    """
    if path.is_dir():
        path = _in_folder(path)
    if path.name.endswith(".json"):
        return _read_index(path)
    return _read_file(path)


def _in_folder(folder: Path) -> Path:
    names = ("model.safetensors.index.json", "model.safetensors")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1 and not _SHARD.search(others[0].stem):
        return others[0]
    pickled = sorted(path for path in folder.glob("*model*") if path.suffix.removeprefix(".") in PICKLED)
    hint = "give the folder of a checkpoint in the safetensors format, or the file itself"
    if any(_SHARD.search(path.stem) for path in others):
        hint = f"it has parts of a checkpoint: fetch the index that belongs to them, `{names[0]}`"
    elif others:
        hint = f"give one of its files: {capped(path.name for path in others)}"
    elif pickled:
        hint = _conversion(pickled[0])
    text = f"the folder `{folder}` has no `{names[1]}` and no `{names[0]}`"
    raise InputError([Diagnostic("CG0701", text, hint=hint)])


def _conversion(path: Path) -> str:
    """Say how a file that PyTorch pickled becomes one in the format; tied tensors share memory there."""
    loaded = f"torch.load('{path.name}', weights_only=True)"
    tensors = f"{{k: v.clone().contiguous() for k, v in {loaded}.items()}}"
    return f"with `from safetensors.torch import save_file`: `save_file({tensors}, 'model.safetensors')`"


def _read_index(path: Path) -> dict[str, StoredTensor]:
    try:
        with open_input(path) as file:
            data = file.read(LARGEST_INDEX + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if len(data) > LARGEST_INDEX:
        raise _no_index(path, f"it is larger than {LARGEST_INDEX:,} bytes")
    index = _json(data)
    if index is None:
        raise _no_index(path, *_pointer(data) or ("it is no JSON object",))
    files = index.get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        hint = "an index says by `weight_map` which file has each tensor; give the `.safetensors` file itself otherwise"
        raise _no_index(path, "it has no `weight_map`", hint)
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(set(files.values())):
        # an index comes from outside, and must not make us read files that it has no business with
        if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
            text = f"`{path}` names the file `{name!a}`, which is not one beside it"
            raise InputError([Diagnostic("CG0706", text, hint="shards lie in the folder of their index")])
        shard = _read_file(path.parent / name)
        tensors.update({tensor: stored for tensor, stored in shard.items() if files.get(tensor) == name})
    absent = [tensor for tensor in files if tensor not in tensors]
    if absent:
        file = files[absent[0]]
        text = f"`{path}` says that `{absent[0]}` is in `{file}`, which has no such tensor"
        raise InputError(
            [Diagnostic("CG0701", text, hint="fetch the shards anew: index and files are not of one checkpoint")]
        )
    return tensors


def _json(data: bytes) -> dict[str, Any] | None:
    """Return a JSON object, None where it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _pointer(data: bytes) -> tuple[str, str] | None:
    """Say what is wrong with a file that begins so, and how it is mended, where it only says which file it is."""
    if not data.startswith(b"version https://git-lfs."):
        return None
    return "it is a pointer of Git LFS, which stands for the file", "fetch the file itself: `git lfs pull`"


def _read_file(path: Path) -> dict[str, StoredTensor]:
    try:
        with open_input(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if size < 8 or length > min(size - 8, LARGEST_HEADER):
                if pointer := _pointer(start + file.read(64)):
                    raise _invalid(path, *pointer)
                if start.startswith(_PICKLE) or path.suffix.removeprefix(".") in PICKLED:
                    raise _invalid(path, "it looks like one that PyTorch pickled", _conversion(path))
                raise _invalid(path, "it has no header")
            header = _json(file.read(length))
            if header is None:
                raise _invalid(path, "its header is no JSON object")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    header.pop("__metadata__", None)
    tensors = {name: _stored(path, name, entry, 8 + length, size) for name, entry in header.items()}
    _refuse_overlaps(path, header, tensors)
    unclaimed = (
        size - 8 - length - sum(end - begin for begin, end in (header[name]["data_offsets"] for name in tensors))
    )
    if unclaimed:
        raise _invalid(path, f"{unclaimed} bytes of its data belong to no tensor")
    return tensors


def _refuse_overlaps(path: Path, header: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """Raise InputError (CG0701) where two tensors share bytes: a header that was made up, or damaged."""
    places = sorted((*header[name]["data_offsets"], name) for name in tensors)
    for (_, end, first), (begin, last, second) in pairwise(place for place in places if place[0] < place[1]):
        if begin < end:
            raise _invalid(path, f"the data of {second!a} ({begin} to {last}) overlaps that of {first!a} (to {end})")


def _stored(path: Path, name: str, entry: object, start: int, size: int) -> StoredTensor:
    """Return one tensor of a header, its place checked against the size of the file."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise _invalid(path, f"the header's entry of {name!a} is malformed")
    begin, end = offsets
    # dtypes this reader does not know are no fault until somebody wants the tensor
    bits = _BITS.get(dtype)
    if begin > end or start + end > size or (bits is not None and math.prod(shape) * bits != (end - begin) * 8):
        raise _invalid(
            path, f"the data of {name!a} does not fit its shape or the file", "was it downloaded completely?"
        )
    return StoredTensor(path, dtype, tuple(shape), start + begin)


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


WRITTEN = ("F32", "BF16", "F16")
"""Types that tensors can be written in."""


def write_tensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, Array]], dtype: str = "F32"
) -> None:
    """Write tensors to a safetensors file, in the order of `shapes`, one in memory at a time; `dtype` is one of
    `WRITTEN`.

    The file appears under its name only when it is complete.

    Raises:
        InputError: CG0004, it cannot be written.
        ValueError: `tensors` are not those that `shapes` announces.
    """
    import numpy as np

    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(_header(shapes, dtype))
            for (name, shape), (given, array) in zip(shapes.items(), tensors, strict=True):
                if name != given or shape != array.shape:
                    raise ValueError(f"{given} {array.shape} where {name} {shape} was announced")
                file.write(_stored_as(np.ascontiguousarray(array, "<f4"), dtype).data)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            [Diagnostic("CG0004", f"cannot write `{path}`: {error.strerror or error}", hint=ELSEWHERE)]
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _stored_as(array: Array, dtype: str) -> Array:
    """Return float32 numbers in another type, rounded to the nearest, ties to even."""
    import numpy as np

    match dtype:
        case "F16":
            with np.errstate(over="ignore"):
                return array.astype("<f2")
        case "BF16":
            bits = array.view(np.uint32)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            # adding could turn a NaN into an infinity
            return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype("<u2")
        case _:
            return array


def size_of(shape: tuple[int, ...], dtype: str) -> int:
    """Return how many bytes a tensor takes in a file."""
    return math.prod(shape) * _BITS[dtype] // 8


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for (name, shape), (begin, end) in zip(shapes.items(), _offsets(shapes.values(), dtype), strict=True):
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _offsets(shapes: Iterable[tuple[int, ...]], dtype: str) -> Iterator[tuple[int, int]]:
    begin = 0
    for shape in shapes:
        end = begin + size_of(shape, dtype)
        yield begin, end
        begin = end
