"""Generated trees: against all trees there are on short lines, and never worse than what has a name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cgc_wse.kernel_cost.collectives import REDUCTIONS, Phase, reduce_phase
from cgc_wse.kernel_cost.generated import _generated, best_trees, generated_phase
from cgc_wse.kernel_cost.machine import Machine, machine_of
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cgc import load_device
from cgc.cli import main

PLAIN = Machine(task=100, loop=10, vector=2, shift=1, relay=1, ramp=2, lanes=4, entries=2, number=2, memory=48 * 1024)
WSE3 = machine_of(load_device("wse3"), "f16")


def trees(cores: int) -> Iterator[tuple[int, ...]]:
    """Yield every tree whose subtrees are parts of the line: for each core but the first the one that it sends to."""
    if cores == 1:
        yield ()
        return
    for rest in trees(cores - 1):
        # The next core sends to the last one, or to one on that one's way to the root: other subtrees are closed.
        target = cores - 2
        while True:
            yield (*rest, target)
            if target == 0:
                break
            target = rest[target - 1]


def measured(tree: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the depth of a tree, the most messages into a core, and the hops of all messages."""
    cores = len(tree) + 1
    depth, messages = [0] * cores, [0] * cores
    hops = 0
    for source in range(cores - 1, 0, -1):
        target = tree[source - 1]
        depth[target] = max(depth[target], depth[source] + 1)
        messages[target] += 1
        hops += source - target
    return depth[0], max(messages), hops


@pytest.mark.parametrize("cores", range(2, 9))
def test_no_tree_is_better(cores: int) -> None:
    """All trees in which cores send towards the first and whose subtrees are parts of the line: 1, 2, 5, 14, …, 429."""
    assert sum(1 for _ in trees(cores)) == [1, 2, 5, 14, 42, 132, 429][cores - 2]
    found = {measured(tree) for tree in trees(cores)}
    for machine in (PLAIN, WSE3):
        for words in (1, 2, 3, 5, 8, 16, 50, 1000):
            times = [
                Phase(words * messages, words * hops / (cores - 1), cores - 1, depth).cycles(machine)
                for depth, messages, hops in found
            ]
            assert _generated(machine, cores, words).cycles(machine) == pytest.approx(min(times))


def test_trees_by_hand() -> None:
    """Four cores: a chain of 3 hops; two pairs, 1 + 1 + 2; a star, 1 + 2 + 3."""
    found = best_trees(4)
    rows = set(zip(found.depth.tolist(), found.messages.tolist(), found.hops.tolist(), strict=True))
    assert {(3, 1, 3.0), (2, 2, 4.0), (1, 3, 6.0)} <= rows
    assert (1, 2, 5.0) not in rows and (2, 1, 3.0) not in rows


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(2, 90), st.integers(1, 5000), st.sampled_from([PLAIN, WSE3]))
def test_never_worse_than_what_has_a_name(cores: int, words: int, machine: Machine) -> None:
    best = generated_phase(machine, cores, words).cycles(machine)
    for name in REDUCTIONS:
        assert best <= reduce_phase(name, cores, words).cycles(machine) * (1 + 1e-12)


@pytest.mark.parametrize("cores", [256, 300])
def test_long_lines(cores: int) -> None:
    """Without the help of those that have a name, the trees that are looked at are better than they are."""
    for words in (1, 16, 256):
        best = _generated(PLAIN, cores, words).cycles(PLAIN)
        assert best < 0.97 * min(reduce_phase(name, cores, words).cycles(PLAIN) for name in REDUCTIONS)
    assert generated_phase(PLAIN, cores, 9000).cycles(PLAIN) <= reduce_phase("chain", cores, 9000).cycles(PLAIN)


def test_the_command_names_it_and_takes_it_where_it_is_best() -> None:
    words = ["cost", "reduce", "--device", "wse2", "--grid", "60x1", "--dtype", "f32", "--n", "16", "--format", "json"]
    data = json.loads(CliRunner().invoke(main, words).stdout)
    # Grouped sums meet in the middle: the way is half as long as to the first core.
    assert data["algorithm"] == "grouped"
    others = {other["algorithm"]: other["cycles"] for other in data["alternatives"]}
    assert set(others) == {"chain", "star", "tree", "two-phase", "autogen"}
    assert min(others, key=lambda name: others[name]) == "autogen" and data["cycles"] <= others["autogen"]
    asked = json.loads(CliRunner().invoke(main, [*words, "--algorithm", "auto-gen"]).stdout)
    assert asked["algorithm"] == "autogen" and asked["cycles"] == others["autogen"]
    assert asked["cycles"] == asked["parts"]["reduce_along_rows"]
    # Of many words there is nothing to gain by a middle that receives twice.
    words[words.index("16")] = "200"
    assert json.loads(CliRunner().invoke(main, words).stdout)["algorithm"] == "autogen"
