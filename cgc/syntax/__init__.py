"""Text to tree and back: `parser` reads a `.cg` file into `tree`, `printer` writes a tree in the one canonical layout.

The grammar is `grammar/cg.lark`. Nothing here knows what a name means.
"""
