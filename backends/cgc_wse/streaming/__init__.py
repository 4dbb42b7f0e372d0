"""Weight streaming: activations stay on the wafer, the weights of one layer after another pass through it.

`work` says what a layer computes and keeps, in vectors of tokens; `layout` what that takes when features are cut along
one side of the wafer and tokens along the other; `search` chooses the layout, how many sequences a pass takes and what
is kept for the way back; `planner` makes a plan of it. docs/wafer_cost.md has the formulas and what they rest on.
"""
