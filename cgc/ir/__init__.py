"""The dataflow graph: named-dimension SSA over a closed set of primitive operators.

`dims` and `types` say what a value is, `ops` what can be done to one, `graph` how nodes hang together;
`rules` infers types, `verify` says what is valid, `text` and `read` print a graph and parse it back.
"""
