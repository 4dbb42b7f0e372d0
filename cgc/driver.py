"""The stages of a compilation by name: what the command line and the Python API both call."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cgc.diagnostics import ELSEWHERE, Diagnostic, InputError, Label, Location
from cgc.elaborate.files import Checked, elaborate_file
from cgc.elaborate.values import Scalar
from cgc.ir.graph import Graph
from cgc.ir.verify import verify
from cgc.program import Program
from cgc.syntax.build import number_value
from cgc.syntax.parser import read_source
from cgc.target import (
    Artifact,
    Compilation,
    CompileOptions,
    Target,
    TargetError,
    load_target,
    target_names,
    text_artifact,
)

if TYPE_CHECKING:
    from cgc.passes.kv_cache import Cache

PASSES = ("elaborate", "inline", "unroll", "dead_code")
"""The graph as elaborated, and after each pass that keeps what it computes."""
DUMPS = (*PASSES, "autodiff", "kv_cache", "last_position")
"""What `--dump-after` takes."""
ALSO_CALLED = {"seed": "weights", "last_logits": "kv_cache"}
"""Options that a target takes if it takes another."""


class UsageError(Exception):
    """The command was used wrongly: exit status 2."""


@dataclass(slots=True)
class Timings:
    """Seconds by stage, in the order the stages ended."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; stages of one name add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


Strictness: TypeAlias = Literal["all", "usual", "none"]
"""Which faults of scaling count: all; all but those of the library's `sp`, which is meant not to scale; none."""


def check(
    path: str,
    overrides: Mapping[str, Scalar] | None = None,
    timings: Timings | None = None,
    scaling: Strictness = "all",
) -> Checked:
    """Check a file; its models are parametrized as their `mup` item says.

    Raises:
        InputError: with every fault found.
        UsageError: an override names no size of any model in the file.
    """
    timings = timings or Timings()
    with timings.stage("read"):
        text = read_source(Path(path), path)
    with timings.stage("parse and elaborate"):
        try:
            checked = elaborate_file(text, path, overrides)
        except InputError as error:
            raise _as_usage(error, overrides or {}) from error
    if all(program.scaling is None for program in checked.programs):
        return checked
    with timings.stage("parametrize"):
        return parametrize_checked(checked, scaling)


def parametrize_checked(checked: Checked, scaling: Strictness) -> Checked:
    """Parametrize the models of a file (InputError as `check`)."""
    from cgc.parametrize.model import parametrized

    found: list[Diagnostic] = []
    programs: list[Program] = []
    for program in checked.programs:
        made, faults = parametrized(program)
        programs.append(made)
        table = program.scaling.table if program.scaling is not None else None
        meant = table is not None and table.library and table.name == "sp"
        if made.parametrization is None or scaling == "all" or (scaling == "usual" and not meant):
            found += faults
    if found:
        raise InputError(found, checked.sources)
    return replace(checked, programs=tuple(programs))


def _as_usage(error: InputError, overrides: Mapping[str, Scalar]) -> Exception:
    """An unknown size in `--set` is a fault of the command, not of the file."""
    for diagnostic in error.diagnostics:
        for name in overrides:
            if diagnostic.code == "CG0402" and f"has no `{name}`" in diagnostic.message:
                return UsageError(f"--set {name}: {diagnostic.message}; {diagnostic.hint}")
    return error


def select(checked: Checked, path: str, model: str | None = None) -> Program:
    """Return the program to compile: the one called `model`, or the only one, or the last instance in the file.

    Raises:
        InputError: the file has no model with all its sizes (CG0406).
        UsageError: there is no model of that name.
    """
    names = [program.name for program in checked.programs]
    if model is not None:
        if model not in names:
            near = get_close_matches(model, names, 1, 0.5)
            raise UsageError(
                f"there is no model `{model}` in {path}" + (f"; did you mean `{near[0]}`?" if near else "")
            )
        return checked.programs[names.index(model)]
    if not names:
        hint = "add `model name = family(…)`, or give the sizes with `--set`"
        text = "the file has no model with all its sizes"
        raise InputError([Diagnostic("CG0406", text, (Label(Location(path, 0, 0, 0, 0)),), hint)], checked.sources)
    if len(names) > 1:
        hint = f"choose one with `--model`: {', '.join(names)}"
        text = "the file has several models"
        raise InputError([Diagnostic("CG0406", text, (Label(Location(path, 0, 0, 0, 0)),), hint)], checked.sources)
    return checked.programs[0]


def load_program(
    path: str,
    overrides: Mapping[str, Scalar] | None = None,
    model: str | None = None,
    timings: Timings | None = None,
    scaling: Strictness = "usual",
) -> Program:
    """Check a file and return its program (errors as `check` and `select`)."""
    return select(check(path, overrides, timings, scaling), path, model)


def after_pass(graph: Graph, name: str) -> Graph:
    """Return the graph after the pass called `name` (one of `DUMPS`), verified.

    Raises:
        UsageError: there is no such pass, or it does not work on this model.
    """
    match name:
        case "elaborate":
            return graph
        case "inline":
            from cgc.passes.inline import inline

            return verify(inline(graph))
        case "unroll":
            from cgc.passes.unroll import unroll

            return verify(unroll(graph))
        case "dead_code":
            from cgc.passes.dead_code import eliminate_dead_code

            return verify(eliminate_dead_code(graph))
        case "autodiff":
            return _differentiated(graph)
        case "kv_cache" | "last_position":
            return _decoding(graph, name)
        case _:
            raise UsageError(f"there is no pass `{name}`; there are {', '.join(DUMPS)}")


def _differentiated(graph: Graph) -> Graph:
    from cgc.passes.loss import NotALanguageModel
    from cgc.training import gradient_graph

    try:
        return verify(gradient_graph(graph))
    except NotALanguageModel as error:
        raise UsageError(f"--dump-after autodiff: {error}; a loss is made for language models") from error


def _decoding(graph: Graph, name: str) -> Graph:
    from cgc.passes.kv_cache import NoCache, with_kv_cache
    from cgc.passes.last_position import at_last_position

    try:
        cached = with_kv_cache(graph)
    except NoCache as error:
        raise UsageError(f"--dump-after {name}: {error}") from error
    after = cached.graph if name == "kv_cache" else at_last_position(cached.graph, cached.tokens, graph.outputs)
    return verify(after)


def parse_overrides(settings: tuple[str, ...]) -> dict[str, Scalar]:
    """Parse `layers=4` and the like; a value is a number, `true`, `false`, or a word.

    Raises:
        UsageError: a setting has another form.
    """
    overrides: dict[str, Scalar] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier() or not value:
            raise UsageError(f"--set {setting}: write `--set name=value`, as in `--set layers=4`")
        overrides[name] = _scalar(value)
    return overrides


def _scalar(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    unsigned = text[1:] if text[0] in "+-" else text
    if not (text[0].isdigit() or text[0] in "-+."):
        return text
    try:
        value = number_value(unsigned)
    except (ValueError, ArithmeticError, IndexError) as error:
        raise UsageError(f"`{text}` is not a number") from error
    if value == math.inf:
        raise UsageError(f"`{text}` is too large")
    return -value if text[0] == "-" else value


def write_artifacts(artifacts: tuple[Artifact, ...], folder: Path) -> list[Path]:
    """Write every artifact to a temporary name in `folder`, then rename all; nothing half-written is ever seen, and no
    folder made where one cannot be written.

    Raises:
        InputError: the folder or a file cannot be written (CG0004).
    """
    written: list[tuple[Path, Path]] = []
    made: list[Path] = []
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for artifact in artifacts:
            temporary = folder / f".{artifact.name}.{os.getpid()}.part"
            written.append((temporary, folder / artifact.name))
            artifact.write(temporary)
        folders = [final for _, final in written if final.is_dir()]
        if folders:
            raise InputError([Diagnostic("CG0004", f"cannot write `{folders[0]}`: it is a folder", hint=ELSEWHERE)])
        for temporary, final in written:
            temporary.replace(final)
        made = []
    except OSError as error:
        text = f"cannot write to `{folder}`: {error.strerror or error}"
        raise InputError([Diagnostic("CG0004", text, hint=ELSEWHERE)]) from error
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)
        for each in made:
            with suppress(OSError):
                each.rmdir()
    return [final for _, final in written]


@dataclass(frozen=True, slots=True)
class Request:
    """What `cgc compile` was asked beside file and target. `weights` is a checkpoint's path, or arrays by parameter
    path; `seed` draws them where none are given.

    `kv_cache` asks for the model as it decodes: past keys and values in, present ones out, `last_logits` for one that
    gives only the logits of the next token. `mode`, `run`, `wafers` and `recompute` are for a wafer, as in
    `CompileOptions`.
    """

    device: str | None = None
    batch: int | None = None
    seq: int | None = None
    weights: str | Mapping[str, Any] | None = None
    seed: int | None = None
    flat: bool = False
    kv_cache: bool = False
    last_logits: bool = False
    mode: str | None = None
    run: str | None = None
    wafers: int | None = None
    recompute: bool = False
    copy_weights: bool = False
    opset: int | None = None
    runtime: str | None = None
    unpadded: bool = False
    precision: str | None = None
    quantize: str | None = None
    block: int | None = None


def compile_program(
    program: Program, target_name: str, folder: Path, request: Request, timings: Timings
) -> tuple[Compilation, list[Path]]:
    """Compile for a target and write the result; returns it, and the files written.

    Raises:
        InputError: the target cannot compile this, weights do not fit, or the folder cannot be written.
        UsageError: there is no such target, or it is not installed completely.
    """
    target = find_target(target_name)
    _refuse_ignored(target, request)
    if request.copy_weights and (request.weights is None or request.quantize is not None):
        raise UsageError("--copy-weights: there is a checkpoint to copy with `--weights` and without `--quantize`")
    if request.unpadded and not request.kv_cache:
        raise UsageError("--unpadded: only a model that decodes (`--kv-cache`) reads padded batches")
    if request.last_logits and not request.kv_cache:
        raise UsageError("--last-logits: only a model that decodes (`--kv-cache`) can do without the others")
    weights = _weights(program, request)
    caches: tuple[Cache, ...] = ()
    if request.kv_cache:
        from cgc.decoding import decoding, only_last_logits

        with timings.stage("make a KV cache"):
            step = decoding(program)
            if request.last_logits:
                step = only_last_logits(step, padded=not request.unpadded)
            program, caches = step.program, step.caches
    options = CompileOptions(
        batch=request.batch,
        seq=request.seq,
        device=request.device,
        flat=request.flat,
        weights=weights,
        mode=request.mode,
        run=None if request.run == "auto" else request.run,
        wafers=request.wafers or 1,
        recompute=request.recompute,
        copy_weights=request.copy_weights,
        caches=caches,
        opset=request.opset,
        runtime=request.runtime,
        unpadded=request.unpadded,
        precision=request.precision,
        quantize=request.quantize,
        block=request.block,
    )
    try:
        with timings.stage(f"lower to {target_name}"):
            compilation = target.compile(program, options)
        with timings.stage("write"):
            return compilation, write_artifacts(compilation.artifacts, folder)
    except TargetError as error:
        raise InputError([Diagnostic(error.code, str(error), (), error.hint)]) from error
    except ImportError as error:
        raise _missing(target_name, error) from error


def _refuse_ignored(target: Target, options: Request) -> None:
    """Refuse options that a target would ignore (UsageError)."""
    for option in fields(options):
        name = ALSO_CALLED.get(option.name, option.name)
        if name in target.takes or getattr(options, option.name) == option.default:
            continue
        others = [f"`{other.name}`" for other in _installed() if name in other.takes]
        has = f"; {' and '.join(others)} {'has' if len(others) == 1 else 'have'}" if others else ""
        raise UsageError(f"--{option.name.replace('_', '-')}: the target `{target.name}` has no use for it{has}")


def _installed() -> Iterator[Target]:
    """Yield the targets whose libraries are there."""
    for name in target_names():
        try:
            yield load_target(name)
        except ImportError:
            continue


def _missing(target: str, error: ImportError) -> UsageError:
    return UsageError(f"target `{target}` needs `{error.name}`, which is not installed; `pip install 'cgc[{target}]'`")


def find_target(name: str) -> Target:
    """Return the target called `name` (UsageError where there is none)."""
    try:
        return load_target(name)
    except KeyError as error:
        near = get_close_matches(name, target_names(), 1, 0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(target_names())}"
        raise UsageError(f"there is no target `{name}`; {hint}") from error
    except ImportError as error:
        raise _missing(name, error) from error


def _weights(program: Program, request: Request) -> Mapping[str, Any] | None:
    if request.weights is not None and request.seed is not None:
        raise UsageError("give `--weights` or `--seed`, not both")
    if isinstance(request.weights, str):
        from cgc.checkpoints import read_checkpoint_file

        return read_checkpoint_file(Path(request.weights), program)
    if request.seed is not None:
        from cgc.weights import initialize

        return initialize(program.graph, request.seed)
    return request.weights


def format_source(path: str, write: bool) -> bool:
    """Put a file into the canonical layout; tell whether that changes it. `write` replaces it (in one step).

    Raises:
        InputError: it cannot be read or written, or does not parse.
    """
    from cgc.syntax.parser import parse
    from cgc.syntax.printer import format_file

    text = read_source(Path(path), path)
    formatted = format_file(parse(text, path))
    if formatted == text:
        return False
    if write:
        place = Path(path).resolve()
        artifact = text_artifact(place.name, formatted)

        def write_alike(temporary: Path) -> None:
            artifact.write(temporary)
            temporary.chmod(place.stat().st_mode & 0o7777)

        write_artifacts((Artifact(place.name, write_alike),), place.parent)
    return True
