"""Partitioning: which core does what part of every op, and what travels between cores.

`flat` makes the graph of a mode, `planner` chooses layouts (`segment`, `candidates`, `elimination`) and rectangles
(`regions`), `lower` spells the plan out as a `program`, `fit` makes it fit; `rules` say what splitting means for each
op, `moves` and `messages` what travels. `formulas`, `core_cost`, `analytic` and `memory` say in advance what the
simulator will find; `check` says what is wrong with a program. docs/simulator.md explains it.
"""
