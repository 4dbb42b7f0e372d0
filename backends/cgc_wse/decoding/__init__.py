"""One token after another, keys and values on the wafer: plans, and what no plan can beat."""
