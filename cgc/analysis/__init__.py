"""Facts about a graph, as pure functions: `flops` says how much it computes and where, `memory` what it holds.

Nothing here changes a graph, and nothing looks at the name of a block.
"""
