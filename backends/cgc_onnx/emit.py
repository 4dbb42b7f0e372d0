"""A program → one ONNX model: the file `model.onnx`, and `model.onnx.data` where there are weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cgc.checkpoints import CheckpointWeights
from cgc.ir.graph import Graph, Param
from cgc.ir.types import DType
from cgc.passes.kv_cache import Cache
from cgc.passes.parameter_order import with_parameter_order
from cgc.program import Program
from cgc.target import Artifact, CompileOptions, TargetError
from cgc.version import VERSION
from cgc_onnx.capabilities import Profile, profile
from cgc_onnx.deployment import deployment
from cgc_onnx.folder import DATA, MODEL, PRODUCER, guarded
from cgc_onnx.lowering.functions import Structure, opset_imports
from cgc_onnx.lowering.scope import Scope
from cgc_onnx.lowering.shapes import Shapes
from cgc_onnx.metadata import metadata
from cgc_onnx.parameters.layout import Parameter, declare
from cgc_onnx.parameters.linked import Linked, file_orders, link_artifacts, linked, write_linked
from cgc_onnx.parameters.quantization import Matrix, Quantization, matrices, quantization
from cgc_onnx.parameters.weights import Arrays, Stored, check_weights, plan, write_initializers, write_weights
from cgc_onnx.proto import FunctionDef, GraphDef, Initializer, ModelDef, encode
from cgc_onnx.surface import surface_of
from cgc_onnx.writer import DOMAIN, Tensor, Writer, value_info, value_infos

PLAIN = Profile()


@dataclass(frozen=True, slots=True)
class Emission:
    """A model and where its parameters are: `stored` in the data file, `linked` in those of a checkpoint; without
    weights they are inputs. `params` are the parameters as the graph has them.
    """

    model: ModelDef
    stored: tuple[Stored, ...]
    linked: tuple[Linked, ...]
    params: tuple[Param, ...]

    @property
    def data_bytes(self) -> int:
        """The size of the data file."""
        return self.stored[-1].end if self.stored else 0

    def summary(self) -> dict[str, object]:
        """Return what there is to say about the model, as JSON-able data."""
        graph = self.model.graph
        return {
            "opset": dict(self.model.opsets)[""],
            "ir_version": self.model.ir_version,
            "functions": len(self.model.functions),
            "nodes": len(graph.nodes) + sum(len(function.nodes) for function in self.model.functions),
            "inputs": [value.name for value in graph.inputs],
            "outputs": [value.name for value in graph.outputs],
            "initializers": len(graph.initializers),
            "data_bytes": self.data_bytes,
            "linked_bytes": sum(tensor.size for tensor in graph.initializers if tensor.location not in ("", DATA)),
            "weights_in": sorted({tensor.location for tensor in graph.initializers}),
        }

    def report(self) -> str:
        """Return a sentence or two for the terminal."""
        files = sorted({tensor.location for tensor in self.model.graph.initializers} - {""})
        nodes = len(self.model.graph.nodes) + sum(len(function.nodes) for function in self.model.functions)
        where = f"in {', '.join(files)}" if files else "as inputs"
        packed = [entry.packed for entry in self.stored if entry.packed]
        if packed:
            rest = [entry for entry in self.stored if not entry.packed]
            size = sum(entry.size for entry in rest) / 1e6
            where += (
                f": {len(packed)} matrices in int{packed[0].how.bits}, {len(rest)} other tensors ({size:.1f} MB) not"
            )
        opset = dict(self.model.opsets)[""]
        return f"opset {opset}, {len(self.model.functions)} functions, {nodes} nodes, parameters {where}"


@dataclass(frozen=True, slots=True)
class Form:
    """How weights are stored: in a `precision` of their own, or those of `few` quantized."""

    precision: DType | None
    how: Quantization | None
    few: Mapping[str, Matrix]


def emit(
    program: Program,
    *,
    weights: Arrays | None,
    flat: bool = False,
    bound: Mapping[str, int] | None = None,
    written_for: Profile = PLAIN,
    caches: Sequence[Cache] = (),
    precision: DType | None = None,
    how: Quantization | None = None,
) -> Emission:
    """Return `program` as an ONNX model.

    `bound` fixes symbols to sizes; `caches` are those of a program for decoding, whose inputs and outputs get the names
    and axes that the model hub gives them. With `weights`, parameters are initializers whose data lies where the
    weights do, or in the file `DATA`; without, they are inputs named by their paths, after the model's own, so that the
    file is whole and can be run and checked.

    Raises:
        TargetError: the program needs a size that ONNX cannot know.
    """
    graph = program.graph
    orders = file_orders(graph.params, weights) if isinstance(weights, CheckpointWeights) else {}
    few = matrices(graph, how) if how is not None else {}
    rows = {name: matrix.order(how) for name, matrix in few.items()} if how is not None else {}
    graph = with_parameter_order(graph, {**orders, **rows})
    surface = surface_of(graph, caches)
    writer = Writer(written_for, reserved=surface.reserved)
    structure = Structure(graph, flat, bound or {}, written_for, surface.labels, how)
    found = structure.layouts(graph.body, [param.value for param in graph.params])
    inputs = {value.name: surface.input(value, writer) for value in graph.inputs}
    tensors = [tensor for taken in inputs.values() for tensor in taken.tensors]
    tensors = [tensors[at] for at in surface.in_order([tensor.name for tensor in tensors])]
    parameters = [(param, declare(param.value, found[param.name])) for param in graph.params]
    for _, parameter in parameters:
        for name in parameter.tensors:
            writer.fresh(name)
    proto = GraphDef(graph.name, program.doc)
    placed = _place(writer, parameters, weights, proto, Form(precision, how, few))
    scope = Scope(Shapes(writer, tensors, structure.bound, top=True, limits=structure.limits), how=how)
    for value in graph.inputs:
        scope.define(value, inputs[value.name].operand(scope))
    for param, parameter in parameters:
        scope.define(param.value, parameter)
    structure.write(scope, graph.body)
    results = surface.results(scope, graph)
    results = [results[at] for at in surface.in_order([name for _, name in results])]
    writer.finish([(x.name, name) for x, name in results])
    outputs = [replace(x, name=name) for x, name in results]

    proto.nodes = writer.nodes
    proto.inputs[:0] = [value_info(tensor, structure.shown) for tensor in tensors]
    proto.outputs = [value_info(tensor, structure.shown) for tensor in outputs]
    named = {tensor.name for tensor in outputs}
    proto.values = list(value_infos((x for x in writer.values if x.name not in named), structure.shown))
    stored, stay = placed
    model = _model(program, proto, structure.functions, written_for, metadata(program, weights))
    return Emission(model, tuple(stored), tuple(stay), graph.params)


def _place(
    writer: Writer, parameters: list[tuple[Param, Parameter]], weights: Arrays | None, graph: GraphDef, form: Form
) -> tuple[list[Stored], list[Linked]]:
    """Put the parameters into `graph`, as inputs or initializers."""
    if weights is None:
        graph.inputs = [
            value_info(Tensor(name, parameter.stored, parameter.dtype), {})
            for _, parameter in parameters
            for name in parameter.names
        ]
        return [], []
    stay: list[Linked] = []
    # Few bits are for a small folder: it would not be one with the whole checkpoint in it.
    if isinstance(weights, CheckpointWeights) and form.how is None:
        stay, parameters = linked(parameters, weights, form.precision)
    stored = plan(parameters, form.precision, form.how, form.few)
    initializers: list[Initializer] = [*write_linked(writer, stay), *write_initializers(writer, stored, DATA)]
    graph.initializers = initializers
    return stored, stay


def _model(
    program: Program, graph: GraphDef, functions: list[FunctionDef], profile: Profile, about: Mapping[str, str]
) -> ModelDef:
    release = VERSION
    return ModelDef(
        graph,
        tuple(functions),
        model_imports(profile, graph, functions),
        profile.ir_version,
        DOMAIN,
        PRODUCER,
        release,
        1,
        program.doc or f"{program.name}, compiled from {program.file} by cgc {release}.",
        about,
    )


def model_imports(profile: Profile, graph: GraphDef, functions: Sequence[FunctionDef]) -> tuple[tuple[str, int], ...]:
    """Return what a model imports: what its graph does, and what its functions do."""
    nodes = [*graph.nodes, *(node for function in functions for node in function.nodes)]
    return opset_imports(profile, nodes)


def bound_sizes(graph: Graph, options: CompileOptions) -> dict[str, int]:
    """Return the sizes that the user fixed, by symbol.

    Raises:
        TargetError: the model has no such symbol, or the size is beyond its limit.
    """
    sizes: dict[str, int] = {}
    symbols = {symbol.name: symbol for symbol in graph.symbols}
    for name, size in (("batch", options.batch), ("seq", options.seq)):
        if size is None:
            continue
        if name not in symbols:
            raise TargetError("CG0801", f"the model has no size `{name}` to fix", f"leave out --{name}")
        limit = symbols[name].limit
        if limit and isinstance(limit.size, int) and size > limit.size:
            text = f"`{name}` = {size} is beyond `{limit.name}` = {limit.size}"
            raise TargetError("CG0801", text, f"give --{name} at most {limit.size}")
        sizes[name] = size
    return sizes


def stored_precision(options: CompileOptions) -> DType | None:
    """Return the precision in which weights are stored, None for that of the checkpoint (TargetError, CG0710)."""
    match options.precision:
        case None | "f32" | "f16" | "bf16":
            return options.precision
        case _:
            text = f"weights are stored in no precision `{options.precision}`"
            raise TargetError("CG0710", text, "there are f32, f16, bf16")


def artifacts(program: Program, options: CompileOptions) -> tuple[Emission, tuple[Artifact, ...]]:
    """Return the model and the files to write.

    Raises:
        TargetError: an option does not fit the model, weights are missing, or a size must be known and is not.
    """
    weights, params = options.weights, program.graph.params
    if weights is not None:
        check_weights(params, weights)
    bound = bound_sizes(program.graph, options)
    written_for = profile(options.opset, options.runtime, not options.unpadded)
    how, precision = quantization(options.quantize, options.block, written_for), stored_precision(options)
    if weights is None and (how or precision):
        raise TargetError("CG0710", "there are no weights to convert", "give them with `--weights`")
    emission = emit(
        program,
        weights=weights if params else None,
        flat=options.flat,
        bound=bound,
        written_for=written_for,
        caches=options.caches,
        precision=precision,
        how=how,
    )

    def write_model(path: Path) -> None:
        path.write_bytes(encode(emission.model))

    files = link_artifacts(emission.linked, options.copy_weights)
    if weights is not None and emission.stored:
        present = weights

        def write_data(path: Path) -> None:
            write_weights(path, emission.stored, emission.params, present, params)

        files.append(Artifact(DATA, write_data))
    if options.caches and weights is not None:
        files += deployment(program, options.caches, MODEL, written_for, weights)
    return emission, (Artifact(MODEL, write_model), *map(guarded, files))
