"""The placement engine: kernels with performance functions, on a grid of cores, as fast and as close together as
possible.

`problem` says what the engine is given, `contest_kernels` and `block_kernels` are its two libraries of kernels;
`shapes`, `tree`, `bands`, `moves` and `anneal` search, `bound` says what no placement can beat, `shelf` is the simple
baseline. `kgraph` and `solution` are the texts of the ISPD 2020 contest.
"""
