"""Graph → ONNX nodes: regions and functions, primitives, and the blocks that runtimes have an operator for."""
