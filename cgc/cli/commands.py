"""The command line: options in, text out. What happens in between is `cgc.driver`'s."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cgc.cli.cost import cost
from cgc.cli.experiments import coordcheck, sweep
from cgc.cli.family import family
from cgc.cli.options import (
    COUNT,
    DUMP,
    FILE,
    FORMAT,
    JSON,
    MODEL,
    SET,
    TIMINGS,
    options,
    print_json,
    print_rich,
    written,
)
from cgc.cli.place import place
from cgc.cli.plan import plan
from cgc.cli.scaling import scaling
from cgc.cli.simulate import simulate
from cgc.cli.weights import export_weights, import_weights
from cgc.diagnostics import Diagnostic, InputError
from cgc.driver import Timings, UsageError, parse_overrides
from cgc.version import VERSION

if TYPE_CHECKING:
    from cgc.program import Program


class Cgc(click.Group):
    """Turns faults into diagnostics on stderr (or JSON on stdout) and exit status 1; wrong usage is 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            _fail(error, bool(ctx.meta.get(JSON)))
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except MemoryError as error:
            text = f"there is not enough memory: {error or 'it is used up'}"
            fault = Diagnostic("CG0007", text, (), "make the model smaller, as in `--set layers=2`")
            _fail(InputError([fault]), bool(ctx.meta.get(JSON)))


def _fail(error: InputError, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"ok": False, "diagnostics": [diagnostic.to_json() for diagnostic in error.diagnostics]})
    else:
        from cgc.diagnostics.render import render

        click.echo(render(error.diagnostics, error.sources, color=sys.stderr.isatty()), err=True, nl=False)
    sys.exit(1)


def _report(timings: Timings, wanted: bool) -> None:
    if wanted:
        for name, seconds in timings.seconds.items():
            click.echo(f"{seconds * 1e3:10.1f} ms  {name}", err=True)


def _dump(program: Program, name: str) -> None:
    from cgc.driver import after_pass
    from cgc.ir.text import print_graph

    click.echo(print_graph(after_pass(program.graph, name)), nl=False)


@click.group(cls=Cgc, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="cgc")
def main() -> None:
    """Compile models written in .cg to a dataflow graph, PyTorch, ONNX and a simulated wafer."""


@main.command()
@options(
    FILE,
    click.option("--scaling", is_flag=True, help="Show how every tensor scales as the `mup` item's sizes grow."),
    SET,
    FORMAT,
    TIMINGS,
    DUMP,
    MODEL,
)
def check(
    file: str,
    scaling: bool,
    settings: tuple[str, ...],
    as_json: str,
    timings: bool,
    dump_after: str | None,
    model: str | None,
) -> None:
    """Find every mistake in FILE, also in how its model scales."""
    from cgc.driver import check as run
    from cgc.driver import select
    from cgc.show.params import summary_data, summary_text

    if scaling and dump_after:
        raise UsageError("give `--scaling` or `--dump-after`, not both")
    clock = Timings()
    checked = run(file, parse_overrides(settings), clock, "none" if scaling else "all")
    if scaling:
        _report(clock, timings)
        _check_scaling(select(checked, file, model), as_json, checked.sources)
        return
    if model is not None:
        checked = replace(checked, programs=(select(checked, file, model),))
    if dump_after:
        _dump(select(checked, file, model), dump_after)
    elif as_json == "json":
        names = {
            "models": list(checked.models),
            "blocks": list(checked.blocks),
            "devices": [d.name for d in checked.devices],
        }
        print_json({"ok": True, **names, "programs": [summary_data(program) for program in checked.programs]})
    else:
        for program in checked.programs:
            click.echo(summary_text(program))
        if not checked.programs:
            counts = f"{len(checked.models)} models, {len(checked.blocks)} blocks, {len(checked.devices)} devices"
            click.echo(f"{file}: no faults ({counts})")
    _report(clock, timings)


def _check_scaling(program: Program, as_json: str, sources: dict[str, str]) -> None:
    from cgc.parametrize.model import scaling_check
    from cgc.show.scaling import scaling_data, scaling_table

    found = scaling_check(program)
    if found is None:
        raise UsageError(f"--scaling: {program.file} has no `mup` item that says what grows")
    faults = found.diagnostics()
    if as_json == "json":
        listed = [diagnostic.to_json() for diagnostic in faults]
        print_json({"ok": not faults, "diagnostics": listed, "scaling": scaling_data(found)})
        sys.exit(1 if faults else 0)
    print_rich(scaling_table(program, found))
    if faults:
        raise InputError(faults, sources)


@main.command()
@options(
    click.argument("files", type=click.Path(), nargs=-1, required=True),
    click.option("--check", "only_check", is_flag=True, help="Change nothing; exit with 1 if something would change."),
    FORMAT,
)
def fmt(files: tuple[str, ...], only_check: bool, as_json: str) -> None:
    """Write FILES in the canonical layout."""
    from cgc.driver import format_source

    changed = [file for file in files if format_source(file, write=not only_check)]
    ok = not (only_check and changed)
    if as_json == "json":
        print_json({"ok": ok, "would_change" if only_check else "formatted": changed})
    else:
        for file in changed:
            click.echo(f"would change {file}" if only_check else f"formatted {file}")
    if not ok:
        sys.exit(1)


@main.command()
@options(FILE, SET, MODEL, FORMAT, TIMINGS)
def params(file: str, settings: tuple[str, ...], model: str | None, as_json: str, timings: bool) -> None:
    """List the parameters of the model in FILE."""
    from cgc.driver import load_program
    from cgc.show.params import params_data, params_table

    clock = Timings()
    program = load_program(file, parse_overrides(settings), model, clock)
    if as_json == "json":
        print_json(params_data(program))
    else:
        print_rich(params_table(program))
    _report(clock, timings)


@main.command()
@options(
    FILE,
    click.option(
        "-o",
        "--output",
        required=True,
        type=click.Path(),
        help="A .svg, .png, .pdf or .dot file, or .json for Model Explorer.",
    ),
    click.option("--costs", is_flag=True, help="With what every block costs on a wafer."),
    click.option("--device", help="The wafer, by name or as a .cg file; wse2 by default."),
    click.option(
        "--depth", type=click.IntRange(0), default=2, help="Open blocks down to this depth; below, one box each."
    ),
    SET,
    MODEL,
    FORMAT,
)
def graph(
    file: str,
    output: str,
    costs: bool,
    device: str | None,
    depth: int,
    settings: tuple[str, ...],
    model: str | None,
    as_json: str,
) -> None:
    """Draw the graph of the model in FILE (needs graphviz for anything but .dot and .json)."""
    from cgc.drawing import draw
    from cgc.driver import load_program
    from cgc.graph_costs import costs_of

    if device is not None and not costs:
        raise UsageError("--device: a device is for `--costs`")
    program = load_program(file, parse_overrides(settings), model)
    found = costs_of(program, "wse-sim", device) if costs else None
    written([draw(program.graph, Path(output), depth, found)], as_json)


@main.command("compile")
@options(
    FILE,
    click.option("--target", required=True, help="torch, onnx, wse-sim, or another installed target."),
    click.option("-o", "--output", type=click.Path(file_okay=False), help="The folder to write to."),
    click.option("--device", help="A device by name (wse2) or a .cg file, for wse-sim."),
    click.option(
        "--mode",
        type=click.Choice(["train", "prefill", "decode"]),
        help="wse-sim: what the model is run for; by default training where it has a `train` item, else prefill.",
    ),
    click.option(
        "--run",
        type=click.Choice(["pipelined", "streaming", "auto"]),
        help="wse-sim: all of it on the wafer, or its weights streamed; auto takes the faster and says why.",
    ),
    click.option("--wafers", type=click.IntRange(1), help="wse-sim: so many wafers share the batch."),
    click.option("--recompute", is_flag=True, help="wse-sim: training stores only what enters a layer."),
    click.option("--batch", type=COUNT, help="Sequences at a time."),
    click.option("--seq", type=COUNT, help="Tokens a sequence."),
    click.option("--weights", type=click.Path(), help="A safetensors checkpoint, or a folder with a sharded one."),
    click.option("--seed", type=int, help="Draw the weights from the initial distributions with this seed."),
    click.option("--flat", is_flag=True, help="onnx: no functions, one flat graph."),
    click.option(
        "--copy-weights", is_flag=True, help="onnx: copy the checkpoint instead of linking to it (ONNX's own loader)."
    ),
    click.option("--kv-cache", is_flag=True, help="onnx: for decoding, with keys and values of earlier tokens."),
    click.option(
        "--unpadded",
        is_flag=True,
        help="onnx, with --kv-cache: sequences of a batch all begin together; faster.",
    ),
    click.option(
        "--last-logits", is_flag=True, help="onnx, with --kv-cache: only those of the next token; faster prompts."
    ),
    click.option("--precision", help="onnx: store the weights as f32, f16 or bf16; computed in float32."),
    click.option("--quantize", help="onnx: store the matrices in int4 or int8, with a scale for each block."),
    click.option("--block", type=int, help="Entries to a block of --quantize (32)."),
    click.option("--opset", type=int, help="onnx: the operators' version, 18 to 23."),
    click.option("--runtime", help="onnx: `ort` writes ONNX Runtime's own operators; by default standard ones."),
    SET,
    MODEL,
    FORMAT,
    TIMINGS,
    DUMP,
)
def compile_command(file: str, target: str, output: str | None, as_json: str, timings: bool, **rest: Any) -> None:
    """Compile the model in FILE for a target, and name what was written."""
    from cgc.driver import Request, compile_program, load_program

    clock = Timings()
    program = load_program(file, parse_overrides(rest.pop("settings")), rest.pop("model"), clock)
    dump_after = rest.pop("dump_after")
    if dump_after:
        _dump(program, dump_after)
        return
    if not output:
        raise UsageError("name the folder to write to: `-o DIR`")
    result, paths = compile_program(program, target, Path(output), Request(**rest), clock)
    if result.report is not None and as_json == "text":
        print_rich(result.report)
    others = _others(result.others - {path.name for path in paths}, Path(output), rest["weights"])
    written(paths, as_json, {**result.data, "not_written": others} if others else dict(result.data))
    if others and as_json == "text":
        click.echo(f"also there, and no part of it: {', '.join(others)}")
    _report(clock, timings)


def _others(names: frozenset[str], folder: Path, weights: str | None) -> list[str]:
    """Return those of `names` that are in a folder, none where it is that of the checkpoint itself."""
    if weights is not None:
        source = Path(weights) if Path(weights).is_dir() else Path(weights).parent
        if source.samefile(folder):
            return []
    return sorted(name for name in names if (folder / name).exists())


@main.command("import")
@options(
    click.argument("file", type=click.Path()),
    click.option("-o", "--output", type=click.Path(), help="The .cg file to write; without it, print."),
    click.option("--name", help="The model's name; by default made of the file's."),
    click.option("--without-dropout", is_flag=True, help="Leave dropout out, which acts in training only."),
    FORMAT,
)
def import_command(file: str, output: str | None, name: str | None, without_dropout: bool, as_json: str) -> None:
    """Make a .cg file of a published configuration: a config.json of the model hub, or model-zoo YAML."""
    from cgc.importers.configuration import import_file
    from cgc.importers.recipe import is_name

    if name is not None and not is_name(name):
        raise UsageError(f"--name {name}: a name is of letters, digits and `_`, and no word of the language")
    _give(import_file(file, name, without_dropout), output, as_json)


@main.command("export-config")
@options(
    FILE,
    click.option("-o", "--output", type=click.Path(), help="The file to write; without it, print."),
    click.option(
        "--format",
        "form",
        type=click.Choice(["hub", "modelzoo"]),
        help="hub: config.json; modelzoo: YAML with the run. By default as the name of the output ends.",
    ),
    SET,
    MODEL,
)
def export_command(
    file: str, output: str | None, form: str | None, settings: tuple[str, ...], model: str | None
) -> None:
    """Write the model in FILE as a config.json of the model hub, or as model-zoo YAML with its run."""
    from cgc.driver import load_program
    from cgc.importers.export import export_text

    if form is None:
        form = "modelzoo" if output is not None and Path(output).suffix in (".yaml", ".yml") else "hub"
    _give(export_text(load_program(file, parse_overrides(settings), model), form), output, "text")


def _give(text: str, output: str | None, as_json: str) -> None:
    """Write a text to a file and say so, or print it."""
    from cgc.driver import write_artifacts
    from cgc.target import text_artifact

    if output is not None:
        path = Path(output)
        if path.name in ("", "..") or path.is_dir():
            raise UsageError(f"-o {output}: name a file")
        written(write_artifacts((text_artifact(path.name, text),), path.parent), as_json)
    elif as_json == "json":
        print_json({"ok": True, "text": text})
    else:
        click.echo(text, nl=False)


@main.command()
@options(FILE, SET, MODEL, FORMAT, click.option("--target", "targets", multiple=True, help="Only this target."))
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random weights and inputs.")
@click.option("--full", is_flag=True, help="At the file's sizes instead of a shrunken copy.")
@click.option(
    "--weights", type=click.Path(), help="A checkpoint: compare with PyTorch on it, logits and greedy tokens."
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    help="With --weights: how many are chosen greedily in each sequence (64, or as many as the model takes).",
)
def verify(
    file: str,
    settings: tuple[str, ...],
    model: str | None,
    as_json: str,
    targets: tuple[str, ...],
    seed: int,
    full: bool,
    weights: str | None,
    tokens: int | None,
) -> None:
    """Run every target against the NumPy reference on random weights, and print the largest difference of each."""
    from cgc.verification import Verification, verify_file
    from cgc.weights_verification import WeightsVerification, verify_weights

    overrides = parse_overrides(settings)
    verification: Verification | WeightsVerification
    if weights is None and tokens is not None:
        raise UsageError("--tokens: tokens are chosen with `--weights` only")
    if weights is not None and full:
        raise UsageError("--full: with `--weights` the model has its own sizes anyway")
    if weights is not None:
        verification = verify_weights(file, overrides, model, targets, weights, tokens, seed)
    else:
        verification = verify_file(file, overrides, model, targets, seed, full)
    if as_json == "json":
        print_json(verification.to_json())
    else:
        print_rich(verification.table())
    if not verification.ok:
        sys.exit(1)


@main.command()
@options(click.argument("subject"), click.argument("parameter", required=False), SET, MODEL, FORMAT)
def explain(subject: str, parameter: str | None, settings: tuple[str, ...], model: str | None, as_json: str) -> None:
    """Explain a diagnostic by its code (`cgc explain CG0203`), or how a parameter of a model is parametrized
    (`cgc explain FILE h.attention.q.w`).
    """
    if parameter is None:
        _explain_code(subject, as_json)
    else:
        _explain_param(load_for_scaling(subject, settings, model), parameter, as_json)


def load_for_scaling(file: str, settings: tuple[str, ...], model: str | None) -> Program:
    """Return the program of a file, whether or not it scales as it should."""
    from cgc.driver import load_program

    return load_program(file, parse_overrides(settings), model, scaling="none")


def _explain_param(program: Program, path: str, as_json: str) -> None:
    from difflib import get_close_matches

    from cgc.show.params import explain_param, params_data

    names = [param.name for param in program.graph.params]
    if path not in names:
        near = get_close_matches(path, names, 1, 0.4)
        raise UsageError(f"there is no parameter `{path}`" + (f"; did you mean `{near[0]}`?" if near else ""))
    if as_json == "json":
        (data,) = (entry for entry in params_data(program)["params"] if entry["name"] == path)
        print_json({**data, "explanation": explain_param(program, path)})
    else:
        click.echo(explain_param(program, path))


def _explain_code(code: str, as_json: str) -> None:
    from difflib import get_close_matches

    from cgc.diagnostics.codes import CODES

    found = CODES.get(code.upper())
    if found is None:
        near = get_close_matches(code.upper(), CODES, 1, 0.5)
        raise UsageError(f"there is no code `{code}`" + (f"; did you mean {near[0]}?" if near else ""))
    if as_json == "json":
        print_json(
            {"code": code.upper(), "title": found.title, "explanation": found.explanation, "example": found.example}
        )
    else:
        click.echo(f"{code.upper()}: {found.title}\n\n{found.explanation}")
        if found.example:
            click.echo("\nwrong:\n" + "\n".join(f"    {line}" for line in found.example.splitlines()))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a SHELL: `eval "$(cgc completion bash)"`."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "cgc", "_CGC_COMPLETE").source())


main.add_command(cost)
main.add_command(place)
main.add_command(simulate)
main.add_command(coordcheck)
main.add_command(sweep)
main.add_command(family)
main.add_command(plan)
main.add_command(scaling)
main.add_command(export_weights)
main.add_command(import_weights)
