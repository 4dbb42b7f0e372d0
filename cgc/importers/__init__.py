"""Published configurations in and out: a hub's `config.json`, and model-zoo YAML with its training run.

`document` and `yaml_document` read text to entries with places, `fields` takes entries by name and type, `hub` and
`modelzoo` know the two kinds of files, `recipe` writes what they found as `.cg`; the `export_…` files go the other way.
"""
