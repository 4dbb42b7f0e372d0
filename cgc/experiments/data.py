"""Bytes of a text as training data: windows drawn by seed, the last tenth held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cgc.diagnostics import Diagnostic, InputError
from cgc.input_file import open_input

Array: TypeAlias = "np.ndarray[Any, Any]"

SMALLEST = 1024
"""Bytes that a text has at least."""


def read_bytes(path: Path, vocab: int) -> Array:
    """Return the bytes of a file as tokens, i64[length].

    Raises:
        InputError: it cannot be read, is too short, or has bytes outside of the model's vocabulary (CG0006).
    """
    try:
        with open_input(path) as file:
            data = np.frombuffer(file.read(), np.uint8)
    except OSError as error:
        raise _fault(f"cannot read `{path}`: {error.strerror}", "give a text file with `--data FILE`") from error
    if len(data) < SMALLEST:
        raise _fault(f"`{path}` has {len(data)} bytes, too few to learn from", f"at least {SMALLEST} are needed")
    if int(data.max()) >= vocab:
        text = f"`{path}` has the byte {int(data.max())}, and the model a vocabulary of {vocab}"
        raise _fault(text, "a model of bytes has `vocab=256`; try `--set vocab=256`")
    return data.astype(np.int64)


def _fault(text: str, hint: str) -> InputError:
    return InputError([Diagnostic("CG0006", text, (), hint)])


def split(tokens: Array) -> tuple[Array, Array]:
    """Return the part to train on and the part held out, the last tenth."""
    cut = len(tokens) * 9 // 10
    return tokens[:cut], tokens[cut:]


def windows(tokens: Array, batch: int, seq: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Return `batch` random windows and the tokens that follow each place, both i64[batch, seq]."""
    starts = random.integers(0, len(tokens) - seq, batch)
    places = starts[:, None] + np.arange(seq)
    return tokens[places], tokens[places + 1]
