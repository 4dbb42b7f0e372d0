"""A slicing tree that is changed in place: leaves are kernels, a cut puts two subtrees beside or on each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from cgc_wse.place.shapes import Curve, inverted

if TYPE_CHECKING:
    from cgc_wse.place.shapes import Ints

NONE = -1

Nested: TypeAlias = "int | tuple[bool, Nested, Nested]"
"""A leaf, or a cut: whether the second part is on top of the first (or to its right), and the two parts."""

Snapshot: TypeAlias = "tuple[list[int], list[int], list[int], list[bool], list[Ints | None], list[Ints | None], int]"

Spot: TypeAlias = "tuple[int, int, int, int]"
"""x, y, width and height of a rectangle."""


class SlicingTree:
    """Nodes 0 to n - 1 are the leaves, n to 2·n - 2 the cuts; `stacked` cuts put the right subtree above the left one.

    Of a cut's curve, the direction in which it is a sum is kept up to date by `update`; the other is made on demand.
    """

    __slots__ = ("heights", "leaves", "left", "parent", "right", "root", "stacked", "widths")

    def __init__(self, nested: Nested, leaves: int) -> None:
        size = 2 * leaves - 1
        self.leaves = leaves
        self.left, self.right, self.parent = [NONE] * size, [NONE] * size, [NONE] * size
        self.stacked = [False] * size
        self.heights: list[Ints | None] = [None] * size
        self.widths: list[Ints | None] = [None] * size
        self.root = self._build(nested)

    def _build(self, nested: Nested) -> int:
        """Number the cuts from the root down, without recursion: trees may be as deep as they have leaves."""
        free = self.leaves
        work: list[tuple[Nested, int, bool]] = [(nested, NONE, False)]
        root = NONE
        while work:
            part, parent, second = work.pop()
            if isinstance(part, int):
                node = part
            else:
                node, free = free, free + 1
                self.stacked[node] = part[0]
                work += [(part[1], node, False), (part[2], node, True)]
            self.parent[node] = parent
            if parent == NONE:
                root = node
            elif second:
                self.right[parent] = node
            else:
                self.left[parent] = node
        return root

    def set_curves(self, curves: Sequence[Curve]) -> None:
        """Give the leaves other curves."""
        for leaf, curve in enumerate(curves):
            self.heights[leaf], self.widths[leaf] = curve
        for node in reversed(self.cuts()):
            self._update(node)

    def cuts(self) -> list[int]:
        """Return the cuts, each before those below it."""
        found, work = [], [self.root]
        while work:
            node = work.pop()
            if node >= self.leaves:
                found.append(node)
                work += (self.left[node], self.right[node])
        return found

    def update(self, node: int) -> None:
        """Bring the curves of a cut and of all cuts above it up to date."""
        while node != NONE:
            self._update(node)
            node = self.parent[node]

    def _update(self, node: int) -> None:
        left, right = self.left[node], self.right[node]
        if self.stacked[node]:
            self.heights[node] = self.heights_of(left) + self.heights_of(right)
            self.widths[node] = None
        else:
            self.widths[node] = self.widths_of(left) + self.widths_of(right)
            self.heights[node] = None

    def heights_of(self, node: int) -> Ints:
        """Return the least height of a subtree by width."""
        found = self.heights[node]
        if found is None:
            widths = self.widths[node]
            assert widths is not None
            leaf = self.heights[0]
            assert leaf is not None
            found = self.heights[node] = inverted(widths, len(leaf))
        return found

    def widths_of(self, node: int) -> Ints:
        """Return the least width of a subtree by height."""
        found = self.widths[node]
        if found is None:
            heights = self.heights[node]
            assert heights is not None
            leaf = self.widths[0]
            assert leaf is not None
            found = self.widths[node] = inverted(heights, len(leaf))
        return found

    def rectangles(self, width: int, height: int) -> list[Spot]:
        """Return the rectangle of every leaf in a box, in which the tree is known to fit; what is left over is around
        it.
        """
        spots: list[Spot] = [(0, 0, 0, 0)] * self.leaves
        work = [(self.root, 0, 0, width, height)]
        heights_of, widths_of, leaves, left, right, stacked = (
            self.heights_of,
            self.widths_of,
            self.leaves,
            self.left,
            self.right,
            self.stacked,
        )
        while work:
            node, x, y, w, h = work.pop()
            if node < leaves:
                heights, widths = heights_of(node), widths_of(node)
                narrow, flat = widths.item(h), heights.item(w)
                high, wide = heights.item(narrow), widths.item(flat)
                if narrow * high > wide * flat:
                    narrow, high = wide, flat
                spots[node] = (x + (w - narrow) // 2, y + (h - high) // 2, narrow, high)
            elif stacked[node]:
                a, b = heights_of(left[node]).item(w), heights_of(right[node]).item(w)
                y += (h - a - b) // 2
                work += ((left[node], x, y, w, a), (right[node], x, y + a, w, b))
            else:
                a, b = widths_of(left[node]).item(h), widths_of(right[node]).item(h)
                x += (w - a - b) // 2
                work += ((left[node], x, y, a, h), (right[node], x + a, y, b, h))
        return spots

    def snapshot(self) -> Snapshot:
        """Return the tree as it is, to go back to; curves are never changed in place, so they are not copied."""
        return (
            self.left[:],
            self.right[:],
            self.parent[:],
            self.stacked[:],
            self.heights[:],
            self.widths[:],
            self.root,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, which is used up."""
        self.left, self.right, self.parent, self.stacked, self.heights, self.widths, self.root = snapshot

    def nested(self) -> Nested:
        """Return the tree as nested cuts."""
        made: dict[int, Nested] = {leaf: leaf for leaf in range(self.leaves)}
        for node in reversed(self.cuts()):
            made[node] = (self.stacked[node], made[self.left[node]], made[self.right[node]])
        return made[self.root]
