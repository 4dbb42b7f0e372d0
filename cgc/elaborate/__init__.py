"""Tree to program: names, dimensions and types. Every fault of a user's file that is not one of syntax is found here.

`models` is the entrance; `statements` walks bodies, `expressions` and `builtins` what stands in them, `calls` binds
arguments and makes one function of a block for each set of dimensions it is used at; `items` reads the rest of a file.
"""
