"""Codes of faults in `mup`, `train`, `device` and `checkpoint` items: CG05xx."""

from __future__ import annotations

from cgc.diagnostics.code import Code

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
        "links; only `power` may be left out. `devices/wse2.cg` of the library is a complete one to start from.",
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
