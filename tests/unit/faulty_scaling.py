"""Models and tables that scale wrongly, each with a comment `# CG05xx` on the line that is to be reported.

A rule that lacks something is reported at its name, a table that lacks a rule at its own.
"""

from __future__ import annotations


def edit(text: str, *changes: tuple[str, str]) -> str:
    """Return `text` with each (old, new) replaced; every `old` must stand in it exactly once."""
    for old, new in changes:
        assert text.count(old) == 1, (old, text.count(old))
        text = text.replace(old, new)
    return text


def mup(scale: str, *lines: str) -> str:
    """Return a `mup` item."""
    return "\n".join(("mup {", f"    scale {scale}", *(f"    {line}" for line in lines), "}", ""))


TABLE = """
parametrization mine {
    embedding {
        init = std
    }
    hidden {
        init = std / sqrt(m)
        lr   = lr / m * depth ^ (alpha - 1)
    }
    residual {
        multiply by depth ^ -alpha
        init = std / sqrt(m + 0)
        lr   = depth ^ (alpha - 1) * lr / m
    }
    output {
        multiply by 1 / m
        init = std
    }
    vector {
        lr = lr * depth ^ (alpha - 1)
    }
    attention {
        multiply by 1 / (size * given)
    }
}
"""
"""A table that is right for width and depth; every line in it stands there once."""

MLP = """
model mlp(vocab = 64, width = 64) {
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width]   ~ normal(std=0.02)
    param unembed[vocab, width] ~ normal(std=0.02)
    x = embed[tokens]
    y = gelu(linear(x, width -> width))
    z = gelu(linear(y, width -> width, bias=false))
    output logits = dot(z, unembed, over width)
}
"""

RESIDUAL = """
model residual(vocab = 64, width = 64, layers = 4) {
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width]   ~ normal(std=0.02)
    x = embed[tokens]
    repeat layers as h {
        y = gelu(linear(rms_norm(x, over width), width -> width, bias=false))
        x = x + linear(y, width -> width, bias=false)
    }
    output logits = dot(rms_norm(x, over width), embed, over width)
}
"""

HEADS = """
model heads(vocab = 64, width = 64, heads = 4) {
    dim head = width / heads
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width] ~ normal(std=0.02)
    x = embed[tokens]
    q = linear(x, width -> heads head, bias=false)
    k = linear(x, width -> heads head, bias=false) as [seq -> key]
    scores = dot(q, k, over head) / sqrt(head)
    y = dot(softmax(causal(scores, seq, key), over key), k, over key)
    x = x + linear(y, heads head -> width)
    output logits = dot(rms_norm(x, over width), embed, over width)
}
"""

WIDTH = "width from 32"
DEPTH = "width from 32, layers from 2"
MINE = "parametrization = mine"
GPT2 = "use std/gpt2\nmodel m = gpt2(vocab=64, context=32, layers=4, width=64, heads=4)\n"


def table(*changes: tuple[str, str], model: str = MLP, scale: str = WIDTH, alpha: float = 1.0) -> str:
    """Return a model under the table with changes."""
    return model + edit(TABLE, *changes) + mup(scale, MINE, f"alpha = {alpha}")


def text(model: str, *changes: tuple[str, str], scale: str = WIDTH) -> str:
    """Return a model with changes under µP."""
    return edit(model, *changes) + mup(scale)


FAULTS = {
    "no multiplier of logits": table(
        ("    output {\n        multiply by 1 / m\n        init = std\n", "    output {  # CG0520 # CG0521\n")
    ),
    "no multiplier of logits, tied": table(
        ("    output {\n        multiply by 1 / m\n        init = std\n", "    output {  # CG0520 # CG0521\n"),
        model=GPT2,
    ),
    "logits shrink too fast": table(("by 1 / m\n", "by 1 / m ^ 2  # CG0521\n")),
    "logits shrink too little": table(("by 1 / m\n", "by 1 / sqrt(m)  # CG0521\n")),
    "no rule for attention": table(
        ("\nparametrization mine {", "\nparametrization mine {  # CG0522"),
        ("    attention {\n        multiply by 1 / (size * given)\n    }\n", ""),
        model=HEADS,
    ),
    "no rule for attention in a library block": table(
        ("\nparametrization mine {", "\nparametrization mine {  # CG0522"),
        ("    attention {\n        multiply by 1 / (size * given)\n    }\n", ""),
        model=GPT2,
    ),
    "the root of the head": table(("1 / (size * given)\n", "1 / (sqrt(size) * given)  # CG0522\n"), model=HEADS),
    "the rate of hidden weights stays": table(
        ("    hidden {", "    hidden {  # CG0521"), ("        lr   = lr / m * depth ^ (alpha - 1)\n", "")
    ),
    "the rate of hidden weights falls with the root": table(
        ("lr   = lr / m * depth ^ (alpha - 1)", "lr = lr / sqrt(m)  # CG0521")
    ),
    "the rate of hidden weights falls too fast": table(
        ("lr   = lr / m * depth ^ (alpha - 1)", "lr = lr / m ^ 2  # CG0521")
    ),
    "the rate of residual weights stays": table(
        ("    residual {", "    residual {  # CG0521"),
        ("        lr   = depth ^ (alpha - 1) * lr / m\n", ""),
        model=GPT2,
    ),
    "hidden weights start as given": table(("init = std / sqrt(m)\n", "init = std  # CG0520\n")),
    "hidden weights start too small": table(("init = std / sqrt(m)\n", "init = std / m  # CG0520\n")),
    "residual weights start as given": table(("init = std / sqrt(m + 0)\n", "init = std  # CG0520\n"), model=RESIDUAL),
    "embeddings start smaller": table(
        ("    embedding {\n        init = std\n", "    embedding {\n        init = std / sqrt(m)  # CG0520\n")
    ),
    "the rate of embeddings falls": table(
        ("    embedding {\n", "    embedding {\n        lr = lr / m  # CG0521\n"), model=RESIDUAL
    ),
    "the rate of vectors falls": table(
        ("lr = lr * depth ^ (alpha - 1)\n    }\n    att", "lr = lr / sqrt(m)  # CG0521\n    }\n    att")
    ),
    "the rate of vectors grows": table(
        ("lr = lr * depth ^ (alpha - 1)\n    }\n    att", "lr = lr * m  # CG0521\n    }\n    att"), model=GPT2
    ),
    "branches of full size": table(
        ("    residual {\n        multiply by depth ^ -alpha\n", "    residual {  # CG0523\n"),
        model=RESIDUAL,
        scale=DEPTH,
    ),
    "branches by the root of depth": table(
        ("by depth ^ -alpha", "by depth ^ -0.5"),
        ("lr   = depth ^ (alpha - 1) * lr / m", "lr = lr / m  # CG0523"),
        model=RESIDUAL,
        scale=DEPTH,
    ),
    "branches of gpt2 of full size": table(
        ("    residual {\n        multiply by depth ^ -alpha\n", "    residual {  # CG0523\n"), model=GPT2, scale=DEPTH
    ),
    "a rate without depth at alpha 0.5": table(
        ("lr   = depth ^ (alpha - 1) * lr / m", "lr = lr / m  # CG0523"), model=RESIDUAL, scale=DEPTH, alpha=0.5
    ),
    "a rate that rises with depth": table(
        ("lr   = lr / m * depth ^ (alpha - 1)", "lr = lr / m * depth  # CG0521"), model=RESIDUAL, scale=DEPTH
    ),
    "a rate that falls with depth": table(
        ("lr   = lr / m * depth ^ (alpha - 1)", "lr = lr / m / depth  # CG0521"), model=RESIDUAL, scale=DEPTH
    ),
    "µP for depth": edit(RESIDUAL, ("y, width -> width, bias=false)", "y, width -> width, bias=false)  # CG0523"))
    + mup("layers from 2"),
    "logits times width": text(MLP, ("unembed, over width)", "unembed, over width) * width  # CG0520 # CG0521")),
    "logits times the root of width": text(
        MLP, ("unembed, over width)", "unembed, over width) * sqrt(width)  # CG0521")
    ),
    "logits over width, which µP does": text(MLP, ("unembed, over width)", "unembed, over width) / width  # CG0521")),
    "activations times the root of width": text(
        MLP, ("width -> width))\n", "width -> width)) * sqrt(width)  # CG0520 # CG0521\n")
    ),
    "activations times the root of width, before the bend": text(
        MLP, ("width -> width))\n", "width -> width) * sqrt(width))  # CG0520 # CG0521\n")
    ),
    "the last activations times the root of width": text(MLP, ("bias=false))", "bias=false)) * sqrt(width)  # CG0521")),
    "activations over width": text(MLP, ("width -> width))\n", "width -> width) / width)  # CG0520 # CG0521\n")),
    "embeddings times the root of width": text(
        MLP, ("embed[tokens]", "embed[tokens] * sqrt(width)  # CG0520 # CG0521")
    ),
    "a branch times the root of width": text(
        RESIDUAL,
        ("linear(y, width -> width, bias=false)", "linear(y, width -> width) * sqrt(width)  # CG0520 # CG0521"),
    ),
    "queries times the root of head": text(
        HEADS,
        ("/ sqrt(head)", ""),
        ("    k = ", "    q = tanh(q) * head  # CG0522\n    k = "),
    ),
    "mixed values times the root of head": text(
        HEADS,
        ("over key), k, over key)", "over key), k, over key) * sqrt(head)  # CG0520 # CG0521"),
    ),
    "queries and keys of length one": text(
        HEADS,
        ("    scores = dot(q, k, over head) / sqrt(head)", "    scores = dot(q, unit, over head)  # CG0522"),
        (
            "    k = linear(x, width -> heads head, bias=false) as [seq -> key]",
            """    q = q * rsqrt(sum(q * q, over head))
    k = linear(x, width -> heads head, bias=false) as [seq -> key]
    unit = k * rsqrt(sum(k * k, over head))""",
        ),
    ),
    "weights that start equal": text(
        MLP,
        ("width = 64)", "width = 64, height = width)"),
        ("    x = embed", "    param level[width, height] ~ constant(value=0.01)\n    x = embed"),
        ("over width)", "over height)"),
        ("unembed[vocab, width]", "unembed[vocab, height]"),
        ("bias=false))", "bias=false))\n    z = gelu(dot(z, level, over width))  # CG0520"),
    ),
    "a base that does not divide": HEADS + mup("width from 30  # CG0511"),
    "a base that contradicts another": HEADS + mup("width from 32, head from 16  # CG0511"),
    "a size that cannot grow alone": GPT2 + mup("heads from 2  # CG0511"),
    "a structure that depends on size": text(
        MLP, ("    z = gelu", "    if width > 100 {\n        y = gelu(y)\n    }\n    z = gelu")
    ).replace("mup {", "mup {  # CG0512"),
    "an activation that depends on size": text(
        MLP,
        ("width = 64)", "width = 64, bent = 0)"),
        ("    z = gelu", "    if width > 3000 {\n        y = relu(y)\n    }\n    z = gelu"),
    ).replace("mup {", "mup {  # CG0512"),
    "standard parametrization": edit(
        MLP,
        ("width -> width))\n", "width -> width))  # CG0520 # CG0521\n"),
        ("bias=false))", "bias=false))  # CG0520 # CG0521"),
        ("unembed, over width)", "unembed, over width)  # CG0520 # CG0521"),
    )
    + mup(WIDTH, "parametrization = sp"),
}
"""By what is wrong."""
