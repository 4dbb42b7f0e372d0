"""Codes of faults in `mup`, `train`, `device` and `checkpoint` items: CG05xx."""

from __future__ import annotations

from cgc.diagnostics.code import Code

_HEAD = (
    "model scaled(vocab = 64, width = 64, layers = 2) {\n"
    "    input tokens[batch, seq] : id of vocab\n"
    "    param embed[vocab, width] ~ normal(std=0.02)\n"
    "    x = embed[tokens]\n"
)

ITEMS: dict[str, Code] = {
    "CG0501": Code(
        "A setting that does not exist",
        "The item, or the optimizer or schedule in it, takes no setting of this name. The hint has the near one, "
        "or all that there are.",
        "train {\n    batch_size = 32 sequences\n}\n",
    ),
    "CG0502": Code(
        "A setting cannot have this value",
        "The value is of another kind, lacks its unit, has one that does not fit, or is out of range. Units are "
        "written as people write them: `375M tokens`, `48 KiB`, `1.1 GHz`, `16 B per cycle`.",
        "train {\n    tokens = 300\n}\n",
    ),
    "CG0503": Code(
        "A device does not say everything",
        "Placement and cost need the grid, the memory of a core, the clock, what a core does in a cycle, and the "
        "links. `power` and `code` may be left out, and what single kernels are timed with: `task`, `loop`, `vector`, "
        "`shift`, `ramp`, `relay`; and `queue`, the words that a router has room for at the end of a link. "
        "`devices/wse2.cg` of the library is a complete one to start from.",
        "device tiny {\n    grid = 8 x 8\n}\n",
    ),
    "CG0504": Code(
        "Something is given twice",
        "A setting stands twice in one item, or two settings say the same thing, as `tokens` and `steps` do. Keep "
        "the one that is meant.",
        "train {\n    clip = 1.0\n    clip = 0.5\n}\n",
    ),
    "CG0505": Code(
        "What should grow is not a size of the model",
        "`scale width from 256` names a size of the model's header or a dimension of its parameters, and the value "
        "at which the hyperparameters were tuned.",
        "model scaled(width = 64) {\n"
        "    input x[batch, width]\n"
        "    output y = linear(x, width -> width)\n"
        "}\n"
        "\n"
        "mup {\n"
        "    scale d_model from 256\n"
        "}\n",
    ),
    "CG0506": Code(
        "There are two items where one is meant",
        "A file has at most one `mup` and one `train` item, and one device of each name. Put the lines together, "
        "or the models into files of their own.",
        "train {\n    clip = 1.0\n}\n\ntrain {\n    seed = 1\n}\n",
    ),
    "CG0507": Code(
        "A line speaks of no parameter",
        "`multiply` and `override` name a parameter by its path (`cgc params` lists them), the beginning of such a "
        "path, or a group: `embedding`, `output` and so on. The layers of a `repeat` are one parameter, so paths "
        "have no numbers.",
        "model scaled(width = 64) {\n"
        "    input x[batch, width]\n"
        "    output y = linear(x, width -> width)\n"
        "}\n"
        "\n"
        "mup {\n"
        "    multiply embeding by 10\n"
        "}\n",
    ),
    "CG0508": Code(
        "There is no such device",
        "`--device` takes the name of a device that comes with cgc, or a file: `wafer.cg`, and `wafer.cg:small` "
        "where the file has several devices.",
    ),
    "CG0511": Code(
        "The model cannot be built at other sizes",
        "What a `mup` item says is measured on the model itself: it is built at the base sizes of `scale`, and with "
        "what grows made larger. Here that fails, or gives a dimension another size than the item says. Usually a size "
        "is missing in `scale`, or a base does not divide.",
        "model scaled(width = 64, heads = 4) {\n"
        "    dim head = width / heads\n"
        "    input x[batch, width]\n"
        "    output y = linear(x, width -> heads head)\n"
        "}\n"
        "\n"
        "mup {\n"
        "    scale width from 30\n"
        "}\n",
    ),
    "CG0512": Code(
        "The model is another one at other sizes",
        "A parametrization carries numbers from a small model to a large one of the same structure. Here an `if` or a "
        "choice of blocks depends on a size that grows.",
        "model scaled(width = 64) {\n"
        "    input x[batch, width]\n"
        "    y = linear(x, width -> width)\n"
        "    if width > 100 {\n"
        "        y = gelu(y)\n"
        "    }\n"
        "    output z = linear(y, width -> width)\n"
        "}\n"
        "\n"
        "mup {\n"
        "    scale width from 32\n"
        "}\n",
    ),
    "CG0520": Code(
        "Initial activations grow or vanish",
        "The static coordinate check: a typical coordinate of what this tensor makes is Θ(n^a) at initialization, with "
        "n the sizes that grow, and a is not 0. A sum of n independent terms grows with the root of n, so that weights "
        "start with a standard deviation of 1 / sqrt(n). `cgc check --scaling` shows all exponents.",
        _HEAD + "    y = gelu(linear(x, width -> width))\n"
        "    output logits = dot(y, embed, over width)\n"
        "}\n"
        "\n"
        "parametrization mine {\n"
        "    hidden {\n"
        "        init = std\n"
        "        lr   = lr / m\n"
        "    }\n"
        "    output {\n"
        "        multiply by 1 / m\n"
        "    }\n"
        "}\n"
        "\n"
        "mup {\n"
        "    scale width from 32\n"
        "    parametrization = mine\n"
        "}\n",
    ),
    "CG0521": Code(
        "Updates grow or vanish",
        "The static coordinate check: one step of AdamW changes a weight by its learning rate, and the n terms of the "
        "sum that it stands in all in the same direction. What the update of one tensor adds is to be Θ(1): more, and "
        "training diverges at some width; less, and the tensor stops to learn. Hidden weights have learning rates of "
        "1 / n for that.",
        _HEAD + "    y = gelu(linear(x, width -> width))\n"
        "    output logits = dot(y, embed, over width)\n"
        "}\n"
        "\n"
        "parametrization mine {\n"
        "    hidden {\n"
        "        init = std / sqrt(m)\n"
        "    }\n"
        "    output {\n"
        "        multiply by 1 / m\n"
        "    }\n"
        "}\n"
        "\n"
        "mup {\n"
        "    scale width from 32\n"
        "    parametrization = mine\n"
        "}\n",
    ),
    "CG0522": Code(
        "Attention scores grow",
        "Queries and keys are independent at first, and a score is a sum of as many terms as a head has entries: the "
        "root of it. Trained, they are correlated, and the score grows with the size itself. Where that grows, divide "
        "by the size, not by its root.",
        "model scaled(vocab = 64, width = 64) {\n"
        "    input tokens[batch, seq] : id of vocab\n"
        "    param embed[vocab, width] ~ normal(std=0.02)\n"
        "    x = embed[tokens]\n"
        "    q = linear(x, width -> width)\n"
        "    k = linear(x, width -> width) as [seq -> key]\n"
        "    y = attend(q, k, k, over width, seq -> key)\n"
        "    output logits = dot(y, embed, over width)\n"
        "}\n"
        "\n"
        "parametrization mine {\n"
        "    hidden {\n"
        "        init = std / sqrt(m)\n"
        "        lr   = lr / m\n"
        "    }\n"
        "    output {\n"
        "        multiply by 1 / m\n"
        "    }\n"
        "}\n"
        "\n"
        "mup {\n"
        "    scale width from 32\n"
        "    parametrization = mine\n"
        "}\n",
    ),
    "CG0523": Code(
        "The residual stream grows with depth",
        "Every layer adds a branch to the residual stream. At first branches are independent and their sum grows with "
        "the root of their number; updates are alike, and their sum grows with the number itself. Where `scale` names "
        "the number of layers, branches, variances or learning rates have to shrink with it: `parametrization = "
        "completep` does that.",
        _HEAD + "    repeat layers as h {\n"
        "        x = x + linear(rms_norm(x, over width), width -> width)\n"
        "    }\n"
        "    output logits = dot(rms_norm(x, over width), embed, over width)\n"
        "}\n"
        "\n"
        "mup {\n"
        "    scale width from 32, layers from 2\n"
        "}\n",
    ),
    "CG0510": Code(
        "A checkpoint layout does not fit the model",
        "A `checkpoint` item says for every parameter of its family which tensor of a hub file it is, axis by "
        "axis. A line names a parameter that does not exist or other dimensions than it has, a parameter is "
        "claimed twice, or one is left out.",
        "model scaled(width = 64) {\n"
        "    input x[batch, width]\n"
        "    param scale[width] ~ ones()\n"
        "    output y = x * scale\n"
        "}\n"
        "\n"
        "checkpoint scaled {\n"
        '    "norm.weight" [batch] = scale\n'
        "}\n",
    ),
}
