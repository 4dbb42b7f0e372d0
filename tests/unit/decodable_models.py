"""Models that can be decoded token by token: every way the library knows to keep keys and values, and one by hand."""

MODELS = {
    "positions in a block": """use std/attention
use std/positions
model m(vocab = 11, context = 16, width = 8) {
    input tokens[batch, seq <= context] : id of vocab
    param embed[vocab, width] ~ normal(std=1.0)
    x = embed[tokens] + learned_positions(seq, context, width)
    k = linear(x, width -> width, std=0.5) as [seq -> key]
    v = linear(x, width -> width, std=0.5) as [seq -> key]
    x = x + attend(x, k, v, over width, seq -> key) + wave(x)
    output logits = dot(x, embed, over width)
}
block wave(x[batch, seq, width]) {
    return sin(cast(position(seq), f32)) * 0.1
}
""",
    "gpt2": "use std/gpt2\nmodel m = gpt2(vocab=11, context=16, layers=3, width=8, heads=2, std=0.5)\n",
    "gpt_neox": "use std/gpt_neox\nmodel m = gpt_neox(vocab=11, context=16, layers=2, width=16, heads=2, std=0.5)\n",
    "llama": "use std/llama\nmodel m = llama(vocab=11, context=16, layers=2, width=16, heads=4, ffn=24, std=0.5)\n",
    "llama grouped": (
        "use std/llama\n"
        "model m = llama(vocab=11, context=16, layers=2, width=16, heads=4, kv_heads=2, ffn=24, std=0.5)\n"
    ),
    "llama multi-query": (
        "use std/llama\n"
        "model m = llama(vocab=11, context=16, layers=2, width=16, heads=4, kv_heads=1, ffn=24, std=0.5)\n"
    ),
    "alibi": """
model m(vocab = 11, width = 8, heads = 2, layers = 2) {
    dim head = width / heads
    input tokens[batch, seq] : id of vocab
    param embed[vocab, width] ~ normal(std=1.0)
    x = embed[tokens]
    repeat layers as h {
        q = linear(x, width -> heads head, std=0.5)
        k = linear(x, width -> heads head, std=0.5) as [seq -> key]
        x = x + linear(
            attend_with_bias(q, k, k, alibi(seq, key, heads), over head, seq -> key), heads head -> width, std=0.5
        )
    }
    output logits = dot(x, embed, over width)
}
""",
    "loops in loops, and one layer outside": """
model m(vocab = 11, width = 8, outer = 2, inner = 3) {
    input tokens[batch, seq <= vocab] : id of vocab
    param embed[vocab, width] ~ normal(std=1.0)
    x = embed[tokens] + embed[position(seq) over vocab]
    x = x + attend(x, x as [seq -> key], x as [seq -> key], over width, seq -> key)
    repeat outer as o {
        x = x + linear(x, width -> width, std=0.3)
        repeat inner as i {
            y = linear(x, width -> width, std=0.3)
            x = x + attend(y, x as [seq -> key], y as [seq -> key], over width, seq -> key)
        }
    }
    output logits = dot(x, embed, over width)
}
""",
}
