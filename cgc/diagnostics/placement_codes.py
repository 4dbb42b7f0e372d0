"""Codes of placement problems and their solutions: CG0620 to CG0634."""

from __future__ import annotations

from cgc.diagnostics.code import Code

PLACEMENT: dict[str, Code] = {
    "CG0620": Code(
        "A line of a placement problem cannot be read",
        "Problems of kernels to be placed are in the format of the ISPD 2020 contest: a comment with the figures of "
        "the problem, a line for each kernel (`dblock[5] f=64 h=7 w=7 name='k5'`), and a line for each connection "
        "(`dblock[6]:y -> dblock[5]:x`).",
    ),
    "CG0621": Code(
        "A figure of a placement problem is missing or wrong",
        "The comment at the top gives the grid (`width`, `height`), the memory of a core in words (`memlimit`) and the "
        "weights of the score (`wdeltat`, `wlength`), each on a line of its own.",
    ),
    "CG0622": Code(
        "A kernel of a placement problem is wrong",
        "Its kind is unknown, an argument is missing or no whole number, its number or name is taken, or a block "
        "cannot be divided into its convolutions (its filters are a multiple of 4, the points of a `cblock` are even).",
    ),
    "CG0623": Code(
        "A connection of a placement problem goes nowhere",
        "Both ends are nodes by kind and number, as they are defined in the same file.",
    ),
    "CG0624": Code(
        "Kernels cannot be placed",
        "A kernel needs more memory or a longer side than any rectangle of the grid has, or all of them together need "
        "more cores than there are.",
    ),
    "CG0625": Code(
        "A line of a placement cannot be read",
        "A placement has two lines for each kernel: `k1 = dblock( … )` with formal arguments and execution parameters, "
        "and `k1 : place(x y R0)` with the corner nearest the origin and the orientation.",
    ),
    "CG0626": Code(
        "A placement does not have every kernel once",
        "It names a kernel that the problem does not have, one of them twice, or leaves one out. Inputs and outputs "
        "are not placed.",
    ),
    "CG0627": Code(
        "A placement has other kernels than its problem",
        "Kind and formal arguments of a kernel are those of the problem; only execution parameters are free.",
    ),
    "CG0628": Code(
        "An execution parameter is not legal",
        "Execution parameters say over how many cores points, channels and filters are split: at least 1, and at most "
        "as many as there are.",
    ),
    "CG0629": Code(
        "A placed kernel needs more memory than a core has",
        "The words of weights and points in each core, at these execution parameters, are more than the problem's "
        "`memlimit`.",
    ),
    "CG0630": Code(
        "A placed kernel leaves the grid",
        "Its rectangle, turned or not, reaches beyond the columns or rows of the problem.",
    ),
    "CG0631": Code(
        "Placed kernels overlap",
        "Two rectangles share a core.",
    ),
    "CG0632": Code(
        "A method of placement is not there",
        "`cgc place` has several methods. One of them needs a library that an extra of the package installs: "
        "`pip install 'cgc[place]'`.",
    ),
}
