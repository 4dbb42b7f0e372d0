"""Changes of a slicing tree: what simulated annealing picks from."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from cgc_wse.place.tree import NONE, SlicingTree

NEXT_TO_NEIGHBOUR = 0.5
"""How often a kernel that is moved goes next to one that it is connected to."""

CLIMB = 0.4
"""How often the place next to a kernel is taken to mean next to the group it is in, again and again."""


def change(tree: SlicingTree, neighbours: Sequence[Sequence[int]], kinds: Sequence[int], random: Random) -> bool:
    """Change the tree at random, curves included; return whether anything was changed.

    `neighbours` are the leaves each leaf is connected to; leaves of the same of the `kinds` have the same curve.
    """
    leaves, pick = tree.leaves, random.random()
    if pick < 0.14:
        return flip(tree, random.randrange(leaves, 2 * leaves - 1))
    if pick < 0.32:
        return swap_leaves(tree, random.randrange(leaves), random.randrange(leaves), kinds)
    if pick < 0.42:
        node = random.randrange(leaves, 2 * leaves - 1)
        tree.stacked[node] = not tree.stacked[node]
        tree.update(node)
        return True
    if pick < 0.88:
        node = random.randrange(leaves if random.random() < 0.7 else 2 * leaves - 1)
        target = _target(tree, node, neighbours, random)
        return graft(tree, node, target, stacked=random.random() < 0.5, first=random.random() < 0.5)
    return rotate(tree, random.randrange(leaves, 2 * leaves - 1), of_left=random.random() < 0.5)


def _target(tree: SlicingTree, node: int, neighbours: Sequence[Sequence[int]], random: Random) -> int:
    if node >= tree.leaves or not neighbours[node] or random.random() >= NEXT_TO_NEIGHBOUR:
        return random.randrange(2 * tree.leaves - 1)
    target = neighbours[node][random.randrange(len(neighbours[node]))]
    while random.random() < CLIMB and tree.parent[target] != NONE:
        target = tree.parent[target]
    return target


def flip(tree: SlicingTree, node: int) -> bool:
    """Exchange the two subtrees of a cut; no curve changes."""
    tree.left[node], tree.right[node] = tree.right[node], tree.left[node]
    return True


def swap_leaves(tree: SlicingTree, one: int, other: int, kinds: Sequence[int]) -> bool:
    """Exchange two leaves."""
    above, over = tree.parent[one], tree.parent[other]
    if above == over:
        return one != other and flip(tree, above)
    _put(tree, above, one, other)
    _put(tree, over, other, one)
    tree.parent[one], tree.parent[other] = over, above
    if kinds[one] != kinds[other]:
        tree.update(above)
        tree.update(over)
    return True


def graft(tree: SlicingTree, node: int, target: int, *, stacked: bool, first: bool) -> bool:
    """Take a subtree out and put it beside (or on) another node, before or after it."""
    cut = tree.parent[node]
    above = target
    while above not in (NONE, node):
        above = tree.parent[above]
    if cut == NONE or above == node or target == cut:
        return False
    brother = tree.right[cut] if tree.left[cut] == node else tree.left[cut]
    _hang(tree, brother, cut)
    changed = tree.parent[brother]
    _hang(tree, cut, target)
    tree.parent[target] = tree.parent[node] = cut
    tree.left[cut], tree.right[cut] = (node, target) if first else (target, node)
    tree.stacked[cut] = stacked
    if changed != NONE:
        tree.update(changed)
    tree.update(cut)
    return True


def rotate(tree: SlicingTree, node: int, *, of_left: bool) -> bool:
    """Make (a ∘ b) • c into a ∘ (b • c), or the mirror image; the order of the leaves stays."""
    low = tree.left[node] if of_left else tree.right[node]
    if low < tree.leaves:
        return False
    if of_left:
        outer, inner, other = tree.left[low], tree.right[low], tree.right[node]
        tree.left[node], tree.right[node] = outer, low
        tree.left[low], tree.right[low] = inner, other
    else:
        outer, inner, other = tree.right[low], tree.left[low], tree.left[node]
        tree.left[node], tree.right[node] = low, outer
        tree.left[low], tree.right[low] = other, inner
    tree.parent[outer], tree.parent[other] = node, low
    tree.stacked[node], tree.stacked[low] = tree.stacked[low], tree.stacked[node]
    tree.update(low)
    return True


def _put(tree: SlicingTree, parent: int, old: int, new: int) -> None:
    if tree.left[parent] == old:
        tree.left[parent] = new
    else:
        tree.right[parent] = new


def _hang(tree: SlicingTree, node: int, place: int) -> None:
    """Hang a node where `place` hangs."""
    parent = tree.parent[place]
    tree.parent[node] = parent
    if parent == NONE:
        tree.root = node
    else:
        _put(tree, parent, place, node)
