"""`data.py` and `tokenizer.py` of the project: tokens as the public tokenizer makes them, batches as promised."""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cgc_torch.project.template import template
from emitted_projects import TEXT

SHARED = Path(__file__).parents[3] / "shared" / "data"
GPT2 = SHARED / "gpt2"
needs_gpt2 = pytest.mark.skipif(not GPT2.is_dir(), reason="needs ../shared/data/gpt2")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("emitted")
    for name in ("data.py", "tokenizer.py"):
        (folder / name).write_text(template(name))
    sys.path.insert(0, str(folder))
    try:
        yield {name: importlib.import_module(name) for name in ("tokenizer", "data")}
    finally:
        sys.path.remove(str(folder))
        for name in ("tokenizer", "data"):
            del sys.modules[name]


@pytest.fixture
def data(modules: dict[str, ModuleType]) -> Any:
    return modules["data"]


@pytest.fixture(scope="module")
def bpe(modules: dict[str, Any]) -> Any:
    return modules["tokenizer"].Bpe(GPT2 / "vocab.bpe", GPT2 / "encoder.json")


@pytest.fixture(scope="module")
def public() -> Any:
    import transformers

    return transformers.GPT2Tokenizer(
        vocab=str(GPT2 / "encoder.json"), merges=str(GPT2 / "vocab.bpe"), add_prefix_space=False
    )


HARD = [
    "",
    " ",
    "a",
    "\n\n  \n a\t\tb  c   ",
    "I'll don't we've they're it's I'm he'd 'S 'LL x'y ''s",
    "naïve café — “quoted”… 日本語 한국어 العربية हिन्दी",
    "½ ² Ⅷ ١٢٣ 一二三 x² 10³ 3.14e-7",
    "👩‍👩‍👧 🏳️‍🌈 e\u0301 \u200b\ufeff\u00a0\u2003x\u3000y",
    "snake_case __dunder__ a-b/c\\d #!? ((())) --- ...",
    "\r\n\x0b\x0c\x1c\x85\u2028 \x00\x7f",
    "Zürich's 'tis  o'clock \u01c5\u02b0\u16ee",
]


@needs_gpt2
@pytest.mark.parametrize("text", HARD)
def test_gpt2_tokens(text: str, bpe: Any, public: Any) -> None:
    tokens = bpe.encode(text)
    assert tokens == public.encode(text)
    assert bpe.decode(tokens) == text


@needs_gpt2
def test_gpt2_tokens_of_a_book_and_of_noise(bpe: Any, public: Any) -> None:
    book = (SHARED / "tinyshakespeare.txt").read_text()[:60_000]
    assert bpe.encode(book) == public.encode(book)
    assert bpe.decode(bpe.encode(book)) == book
    draw = random.Random(0)
    signs = "aZ 019'\n\t.,_-éßΩж漢字ひ٣½🙂\u00a0\u0301s t l"
    for _ in range(300):
        text = "".join(draw.choice(signs) for _ in range(draw.randrange(40)))
        assert bpe.encode(text) == public.encode(text), repr(text)


@needs_gpt2
def test_texts_may_be_read_in_pieces(data: Any, bpe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 97 characters give the tokens of the whole text, and the end of the text one more."""
    text = (SHARED / "tinyshakespeare.txt").read_text()[:5_000] + "".join(HARD) + "x" * 300 + "\n\n \n" + " " * 200
    (tmp_path / "a.txt").write_text(text, newline="")

    class Pieces:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def read(self, _: int) -> str:
            return str(self._file.read(97))

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Pieces(opened(self, *a, **k)))
    tokens = [token for piece in data.encoded(tmp_path / "a.txt", bpe) for token in piece]
    monkeypatch.undo()
    assert tokens == [*bpe.encode((tmp_path / "a.txt").open(newline="").read()), 50256]


@needs_gpt2
def test_large_vocabularies_take_more_bits(data: Any, bpe: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    assert data.prepare([tmp_path / "a.txt"], bpe, tmp_path / "16").dtype == "uint16"
    bpe.size, small = 70_000, bpe.size
    try:
        contents = data.prepare([tmp_path / "a.txt"], bpe, tmp_path / "32")
    finally:
        bpe.size = small
    assert contents.dtype == "uint32"
    whole = np.concatenate([*map(np.asarray, data.load(tmp_path / "32", 70_000).__dict__.values())][:2])
    assert whole.tolist() == [*bpe.encode(TEXT), 50256]


@pytest.fixture
def folder(data: Any, tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(TEXT)
    data.prepare([tmp_path / "a.txt"], data.Bytes(), tmp_path / "data")
    return tmp_path / "data"


def test_bytes_and_the_last_tenth(data: Any, folder: Path) -> None:
    corpus = data.load(folder, 256)
    raw = TEXT.encode()
    assert bytes(corpus.train.astype(np.uint8)) + bytes(corpus.validation.astype(np.uint8)) == raw
    assert len(corpus.validation) == len(raw) // 10
    assert corpus.train.dtype == np.uint16


def test_an_epoch_sees_every_sequence_once(data: Any, folder: Path) -> None:
    tokens = data.load(folder, 256).train
    sequences = data.Shuffled(np.arange(len(tokens), dtype=np.uint32), 16, seed=3)
    seen = [int(sequences.batch(range(n, n + 1))[0][0, 0]) for n in range(sequences.count)]
    assert len(set(seen)) == sequences.count
    assert len({start % 16 for start in seen}) == 1, "they do not overlap"
    assert max(seen) + 16 < len(tokens)
    assert seen != sorted(seen)
    after = [int(sequences.batch(range(n, n + 1))[0][0, 0]) for n in range(sequences.count, 2 * sequences.count)]
    assert after != seen, "every epoch has its own order"


def test_sequences_follow_from_their_number(data: Any, folder: Path) -> None:
    """In any order, by any object, also where a batch reaches into the next epoch; targets are the next tokens."""
    tokens = data.load(folder, 256).train
    one, other = data.Shuffled(tokens, 16, seed=3), data.Shuffled(tokens, 16, seed=3)
    places = [range(5, 9), range(one.count - 2, one.count + 2), range(0, 4), range(3 * one.count, 3 * one.count + 1)]
    made = [one.batch(place) for place in places]
    for place, (x, y) in reversed(list(zip(places, made, strict=True))):
        again, following = other.batch(place)
        assert x.equal(again)
        assert y.equal(following)
        assert x[:, 1:].equal(y[:, :-1])
    whole = one.batch(range(8))[0]
    parts = [one.batch(range(first, first + 2))[0] for first in (0, 2, 4, 6)]
    assert whole.tolist() == [row for part in parts for row in part.tolist()]
    assert not data.Shuffled(tokens, 16, seed=4).batch(range(8))[0].equal(whole)


def test_validation_goes_over_all_or_is_spread(data: Any) -> None:
    tokens = np.arange(1001, dtype=np.uint16)
    every = data.InOrder(tokens, 10)
    assert every.count == 100
    assert every.batch(range(100))[0][:, 0].tolist() == list(range(0, 1000, 10))
    some = data.InOrder(tokens, 10, 4)
    assert some.batch(range(4))[0][:, 0].tolist() == [0, 250, 500, 750]


def test_what_cannot_be_trained_on_is_said(data: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match="holds no tokens"):
        data.load(tmp_path / "nowhere", 256)
    with pytest.raises(data.DataError, match="up to 256, the model up to 61"):
        data.load(folder, 61)
    with pytest.raises(data.DataError, match="too few"):
        data.Shuffled(np.zeros(20, np.uint16), 16, 0)
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(data.DataError, match="is no text"):
        data.prepare([tmp_path / "latin.txt"], data.Bytes(), tmp_path / "b")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(data.DataError, match="no text in"):
        data.prepare([tmp_path / "empty.txt"], data.Bytes(), tmp_path / "b")
    assert not list((tmp_path / "b").iterdir()), "nothing half-written is left"
    (folder / "tokens.bin").write_bytes(b"\0\0")
    with pytest.raises(data.DataError, match=r"is not the file of"):
        data.load(folder, 256)
    (folder / "tokens.json").write_text(json.dumps({"tokenizer": "bytes"}))
    with pytest.raises(data.DataError, match="holds no tokens"):
        data.load(folder, 256)


def _small_vocabulary(folder: Path) -> tuple[Path, Path]:
    """Write the files of a byte-pair encoding that knows a, b and ab."""
    (folder / "vocab.bpe").write_text("#version: 0.2\na b\n")
    (folder / "encoder.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    return folder / "vocab.bpe", folder / "encoder.json"


def test_a_letter_without_a_token_is_said(modules: dict[str, Any], tmp_path: Path) -> None:
    bpe = modules["tokenizer"].Bpe(*_small_vocabulary(tmp_path))
    assert bpe.encode("abba") == [2, 1, 0]
    with pytest.raises(ValueError, match="no token for 'c'"):
        bpe.encode("abc")


def test_the_vocabulary_may_lie_in_the_folder_of_tokens(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it does when a folder's tokens are made anew."""
    (tmp_path / "text.txt").write_text("abba" * 20)
    files = _small_vocabulary(tmp_path)
    monkeypatch.setattr(sys, "argv", ["data.py", str(tmp_path / "text.txt"), "--out", str(tmp_path), "--bpe", *files])
    monkeypatch.setattr(sys, "argv", [str(word) for word in sys.argv])
    data.main()
    assert "to train on" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_folder_that_names_no_tokenizer(modules: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(ValueError, match="names no tokenizer"):
        modules["tokenizer"].load_tokenizer(tmp_path)
