"""The standard library, in `.cg`."""
