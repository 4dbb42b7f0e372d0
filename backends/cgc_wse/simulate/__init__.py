"""The simulated wafer: it runs a partitioned program core by core, message by message, with real numbers.

`machine` runs the cores, `fabric` the links, `memory` and `tiles` what a core holds and computes; `requests` and
`answer` are `cgc simulate`, `evaluate` is `cgc verify`; `cases`, `travel` and `compare` hold the formulas to it.
"""
