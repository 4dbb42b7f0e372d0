"""A program → one ONNX model: the file `model.onnx`, and `model.onnx.data` where there are weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import FunctionProto, GraphProto, ModelProto

from cgc.ir.graph import NOWHERE, Graph
from cgc.program import Program
from cgc.target import Artifact, CompileOptions, TargetError
from cgc.version import VERSION
from cgc_onnx.functions import Structure, opset_imports
from cgc_onnx.layout import declare, layouts
from cgc_onnx.scope import Scope
from cgc_onnx.shapes import Shapes
from cgc_onnx.weights import Stored, check_weights, initializer, plan, write_weights
from cgc_onnx.writer import DOMAIN, IR_VERSION, OPSET, Tensor, Writer, value_info, value_infos

MODEL = "model.onnx"
DATA = "model.onnx.data"


@dataclass(frozen=True, slots=True)
class Emission:
    """A model and where its parameters lie in the data file; with no data file the parameters are inputs."""

    model: ModelProto
    stored: tuple[Stored, ...]

    @property
    def data_bytes(self) -> int:
        """The size of the data file."""
        return self.stored[-1].offset + self.stored[-1].size if self.stored else 0

    def summary(self) -> dict[str, object]:
        """Return what there is to say about the model, as JSON-able data."""
        graph = self.model.graph
        return {
            "opset": OPSET,
            "ir_version": IR_VERSION,
            "functions": len(self.model.functions),
            "nodes": len(graph.node) + sum(len(function.node) for function in self.model.functions),
            "inputs": [value.name for value in graph.input],
            "outputs": [value.name for value in graph.output],
            "initializers": len(graph.initializer),
            "data_bytes": self.data_bytes,
        }


def emit(program: Program, *, flat: bool = False, bound: Mapping[str, int] | None = None, data: str | None) -> Emission:
    """Return `program` as an ONNX model.

    `bound` fixes symbols to sizes. With `data`, parameters are initializers in the file of that name; without, they
    are inputs named by their paths, after the model's own, so that the file is whole and can be run and checked.

    Raises:
        TargetError: the program needs a size that ONNX cannot know.
    """
    graph = program.graph
    writer = Writer(reserved=graph.outputs)
    structure = Structure(graph, flat, bound or {})
    found = layouts(graph.body, [param.value for param in graph.params], structure.callee_layouts)
    inputs = [Tensor(writer.fresh(value.name), value.type.dims, value.type.dtype) for value in graph.inputs]
    parameters = [(param, declare(param.value, found[param.name])) for param in graph.params]
    for _, parameter in parameters:
        for name in parameter.names:
            writer.fresh(name)
    scope = Scope(Shapes(writer, inputs, structure.bound, top=True))
    for value, tensor in zip(graph.inputs, inputs, strict=True):
        scope.define(value, tensor)
    for param, parameter in parameters:
        scope.define(param.value, parameter)
    structure.write(scope, graph.body)
    results = [scope.ordered(value) for value in graph.body.results]
    writer.finish([(x.name, name) for x, name in zip(results, graph.outputs, strict=True)])
    outputs = [Tensor(name, x.dims, x.dtype) for x, name in zip(results, graph.outputs, strict=True)]

    stored = plan(parameters)
    proto = GraphProto(name=graph.name, node=writer.nodes, doc_string=program.doc)
    proto.input.extend(value_info(tensor, structure.bound) for tensor in inputs)
    proto.output.extend(value_info(tensor, structure.bound) for tensor in outputs)
    if data is None:
        proto.input.extend(value_info(Tensor(entry.name, entry.dims, entry.dtype), {}) for entry in stored)
        stored = []
    proto.initializer.extend(initializer(entry, data or "") for entry in stored)
    named = {tensor.name for tensor in outputs}
    inner = [tensor for tensor in writer.values if tensor.name not in named]
    proto.value_info.extend(value_infos(inner, structure.bound))
    return Emission(_model(program, proto, structure.functions), tuple(stored))


def _model(program: Program, graph: GraphProto, functions: list[FunctionProto]) -> ModelProto:
    release = VERSION
    model = ModelProto(
        ir_version=IR_VERSION,
        producer_name="cgc",
        producer_version=release,
        domain=DOMAIN,
        model_version=1,
        doc_string=program.doc or f"{program.name}, compiled from {program.file} by cgc {release}.",
        graph=graph,
        functions=functions,
    )
    model.opset_import.extend(opset_imports(bool(functions)))
    metadata = {"cgc.file": program.file, "cgc.model": program.name, "cgc.version": release}
    if program.graph.location != NOWHERE:
        metadata["cgc.source"] = str(program.graph.location)
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    return model


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
            raise TargetError("CG0801", f"`{name}` = {size} is beyond `{limit.name}` = {limit.size}")
        sizes[name] = size
    return sizes


def artifacts(program: Program, options: CompileOptions) -> tuple[Emission, tuple[Artifact, ...]]:
    """Return the model and the files to write.

    Raises:
        TargetError: an option does not fit the model, weights are missing, or a size must be known and is not.
    """
    if options.device is not None:
        raise TargetError("CG0801", "the target `onnx` does not compile for a device", "leave out --device")
    weights, params = options.weights, program.graph.params
    if weights is not None:
        check_weights(params, weights)
    bound = bound_sizes(program.graph, options)
    emission = emit(program, flat=options.flat, bound=bound, data=DATA if weights is not None and params else None)

    def write_model(path: Path) -> None:
        path.write_bytes(emission.model.SerializeToString(deterministic=True))

    files = [Artifact(MODEL, write_model)]
    if weights is not None and emission.stored:
        present = weights

        def write_data(path: Path) -> None:
            write_weights(path, emission.stored, params, present)

        files.append(Artifact(DATA, write_data))
    return emission, tuple(files)
