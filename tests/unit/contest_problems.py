"""Small placement problems in the contest's format, and a solution."""

from __future__ import annotations

from cgc_wse.place.contest_kernels import ContestKernel, convs_of
from cgc_wse.place.kgraph import Contest, parse_kgraph

TEXT = """(*
test=toy
width=60
height=50
wdeltat=2
wlength=3.5
wadapter=0
memlimit=2000
*)

(* Node Definitions *)
input[0] n=[ 8 8 4 ] name='k0'
conv[1] W=8 H=8 R=3 S=3 C=4 K=8 T=1 U=1 name='a'
dblock[2] f=8 h=4 w=4 name='b'
cblock[3] f=8 h=6 w=6 name='c'
output[4] n=[ 3 3 8 ] name='k4'

(* Connectivity *)
input[0]:_ -> conv[1]:x, shape:[8][8][4]
conv[1]:y	->	dblock[2]:x, shape:[4][4][8]
dblock[ 2]:y -> cblock[ 3]:x, shape:[6][6][8]
conv[1]:y -> cblock[3]:x
cblock[3]:y -> output[4]:_, shape:[3][3][8]
"""

SOLUTION = """a = conv( 8 8 3 3 4 8 1 2 2 4 4 )
a : place(0 0 R0)
b = dblock( 4 4 8 2 2 2 2 2 1 1 2 )
b : place(12 0 R0)
c = cblock( 6 6 8 2 3 1 1 2 4 1 1 2 2 )
c : place(24 13 R90)
"""


def problem(memory: int = 2000) -> Contest:
    """Return the problem, with another memory limit."""
    return parse_kgraph(TEXT.replace("memlimit=2000", f"memlimit={memory}"), "toy.kgraph")


KERNELS = (
    ContestKernel("conv", "conv", (6, 5, 3, 2, 4, 7, 1), convs_of("conv", (6, 5, 3, 2, 4, 7, 1)), 120, 4),
    ContestKernel("dblock", "dblock", (4, 3, 4), convs_of("dblock", (4, 3, 4)), 60, 4),
    ContestKernel("cblock", "cblock", (4, 4, 4), convs_of("cblock", (4, 4, 4)), 60, 4),
)
