"""Passes: pure functions from a graph to a graph, one a file, each with its IR before and after in the docstring.

The verifier runs on every result in the tests, and behind `--dump-after`.
"""
