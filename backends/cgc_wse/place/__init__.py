"""The placement engine: kernels with performance functions, on a grid of cores, as fast and as close together as
possible.

`problem` says what the engine is given, `contest_kernels` and `blocks` are its two libraries of kernels. `geometry` is
rectangles and what is legal; `division` and `sizing` cut a wafer in proportion to work. `shapes`, `tree`, `bands`,
`moves` and `anneal` search, `bound` says what no placement can beat, `shelf` is the simple baseline, `exact` is
OR-Tools. `kgraph` and `solution` are the texts of the ISPD 2020 contest.
"""
