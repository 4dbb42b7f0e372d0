"""The commands that move weights: `cgc export-weights` to the model hub, and `cgc import-weights` from there."""

from __future__ import annotations

from pathlib import Path

import click

from cgc.cli.options import FILE, FORMAT, MODEL, SET, options, written
from cgc.driver import UsageError, parse_overrides, write_artifacts

WEIGHTS = click.option(
    "--weights",
    required=True,
    type=click.Path(),
    help="A safetensors file, an index or a folder; in the layout of the hub, of cgc, or of the emitted module.",
)


@click.command("export-weights")
@options(
    FILE,
    WEIGHTS,
    click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="The folder to write to."),
    click.option("--dtype", type=click.Choice(["f32", "bf16", "f16"]), help="By default the type they are stored in."),
    click.option("--shard-size", default="5GB", show_default=True, help="The most that one file holds."),
    SET,
    MODEL,
    FORMAT,
)
def export_weights(
    file: str,
    weights: str,
    output: str,
    dtype: str | None,
    shard_size: str,
    settings: tuple[str, ...],
    model: str | None,
    as_json: str,
) -> None:
    """Write the model in FILE with its weights as a folder of the model hub, which `transformers` loads.

    Multipliers of a parametrization are folded into the weights.
    """
    from cgc.driver import load_program
    from cgc.importers.export_folder import hub_folder, load_weights, parse_bytes

    program = load_program(file, parse_overrides(settings), model)
    most = parse_bytes(shard_size)
    artifacts = hub_folder(program, load_weights(Path(weights), program), dtype, most)
    written(write_artifacts(artifacts, Path(output)), as_json)


@click.command("import-weights")
@options(
    FILE,
    WEIGHTS,
    click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The .safetensors to write."),
    click.option(
        "--layout",
        type=click.Choice(["module", "own"]),
        default="module",
        show_default=True,
        help="module: what the emitted project loads; own: a tensor for each parameter.",
    ),
    SET,
    MODEL,
    FORMAT,
)
def import_weights(
    file: str, weights: str, output: str, layout: str, settings: tuple[str, ...], model: str | None, as_json: str
) -> None:
    """Write weights of the model in FILE, as they come from the hub, as one file that the emitted project loads.

    `cgc import` makes FILE of the `config.json` beside them.
    """
    from cgc.driver import load_program
    from cgc.importers.export_folder import imported_weights, load_weights

    path = Path(output)
    if path.suffix != ".safetensors":
        raise UsageError(f"-o {output}: name a .safetensors file")
    program = load_program(file, parse_overrides(settings), model)
    artifact = imported_weights(program, load_weights(Path(weights), program), layout, path.name)
    written(write_artifacts((artifact,), path.parent), as_json)
