"""Codes of faults in configurations that are imported, and in models that are exported as one: CG10xx."""

from __future__ import annotations

from cgc.diagnostics.code import Code

IMPORTS: dict[str, Code] = {
    "CG1001": Code(
        "A configuration cannot be read",
        "The file is neither JSON nor YAML, nests too deep, gives a key twice, or uses a part of YAML that "
        "configurations have no use for, such as tags. The message says what stands where nothing can be made of it.",
    ),
    "CG1002": Code(
        "A configuration lacks a field",
        "The fields that the message names decide on numbers of the model or of its run, so nothing is taken for "
        "granted where they are missing. A field that is null counts as missing.",
    ),
    "CG1003": Code(
        "A field of a configuration has another form",
        "The field is of another type than it needs, or out of range: sizes are whole numbers of at least 1, and a "
        "number in quotes is a text. The hint says what it is.",
    ),
    "CG1004": Code(
        "A field of a configuration is not known",
        "Every field is either used, or known to change no number of the model. This one is neither, and may change "
        "the model, so it is not passed over. Take it out where it does not matter.",
    ),
    "CG1005": Code(
        "A configuration says what cannot be expressed",
        "The field is known, and its value means something that the family of the library does not have, or the "
        "language has no word for. A model of your own may have it; the hint says more.",
    ),
    "CG1006": Code(
        "Fields of a configuration do not go together",
        "Two fields that mean the same say different things, or sizes do not divide each other. The message names the "
        "fields and their values.",
    ),
    "CG1007": Code(
        "A kind of configuration that is not known",
        "Known are the `config.json` of the model hub for gpt2, gpt_neox and llama, which has a `model_type`, and "
        "model-zoo YAML of the Cerebras-GPT form, which has a `trainer`.",
    ),
    "CG1008": Code(
        "A model cannot be exported as a configuration",
        "A configuration of this form cannot say what the message names, and would be read as another model. Every "
        "exported configuration is imported again and compared before it is written.",
    ),
}
