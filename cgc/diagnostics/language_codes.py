"""Codes of faults in models and blocks: CG01xx the text, CG02xx dimensions and types, CG03xx names, CG04xx the rest."""

from __future__ import annotations

from cgc.diagnostics.code import Code

LANGUAGE: dict[str, Code] = {
    "CG0101": Code(
        "A character that does not belong here",
        "The language is written with letters, digits, `_` and a few signs; anything else can stand in comments "
        "and in texts. A text that lacks its closing quote is reported here too: it has to end on the line it "
        "began on.",
        'train {\n    data = "pile\n}\n',
    ),
    "CG0102": Code(
        "A bracket is never closed",
        "The file ends, or the next statement begins, inside brackets. The caret is under the bracket that lacks "
        "its other half; where several are open, the indentation of the lines decides which one is shown.",
        "block double(x) {\n    return 2 * x\n",
    ),
    "CG0103": Code(
        "The text does not follow the grammar",
        "Something stands where the grammar has no place for it. The label says what could stand there instead. "
        "Reading goes on behind the faulty statement, so one run shows all of these; faults in meaning are looked "
        "for once there are none left.",
        "block double(x) {\n    return 2 x\n}\n",
    ),
    "CG0104": Code(
        "A number is too large or too long",
        "No number of a model is larger than 1e300 or written with hundreds of digits; such a number is a slip, "
        "and would only make everything computed from it meaningless.",
        "block huge(x) {\n    return x * 1e999\n}\n",
    ),
    "CG0201": Code(
        "There is no dimension of this name",
        "The name stands where a dimension is needed, and means none here. Dimensions come from the sizes of a "
        "model's header, from its inputs, from `dim name = …`, from the header of a block, and from renaming: `x "
        "as [seq -> key]`. A block also sees the sizes of the model that uses it.",
        "model scaled(width = 64) {\n    input x[batch, width]\n    output y = mean(x, over widht)\n}\n",
    ),
    "CG0202": Code(
        "A dimension would stand twice in one tensor",
        "The axes of a tensor are told apart by their names, so no name stands twice. Rename one of the two "
        "before, as in `x as [seq -> key]`; which one it is only you can know.",
        "model flat(side = 28) {\n    input image[batch, side, side]\n    output y = mean(image, over side)\n}\n",
    ),
    "CG0203": Code(
        "Two tensors do not line up",
        "Elementwise operators align their operands by the names of the dimensions: one operand has all dimensions "
        "of the other (the other is repeated along the rest), or they share none. Here each has some of its own "
        "beside shared ones, which is nearly always a projection or a renaming that was forgotten.",
        "model residual(width = 64, ffn = 256) {\n"
        "    input x[batch, width]\n"
        "    output y = x + linear(x, width -> ffn)\n"
        "}\n",
    ),
    "CG0204": Code(
        "Sizes that should be equal are not",
        "Two dimensions of one name, the parts of a split and its whole, or a renamed dimension and the name it "
        "gets have different sizes. The message shows both.",
        "model split_heads(width = 512, heads = 12, head = 64) {\n"
        "    input x[batch, width]\n"
        "    output y = split(x, width -> heads head)\n"
        "}\n",
    ),
    "CG0205": Code(
        "A size is not a whole number",
        "Dimensions have whole sizes. Most often a division leaves a remainder, such as a width that the number of "
        "heads does not divide; the hint names the nearest sizes that work.",
        "model attending(width = 768, heads = 10) {\n"
        "    dim head = width / heads\n"
        "    input x[batch, width]\n"
        "    output y = split(x, width -> heads head)\n"
        "}\n",
    ),
    "CG0206": Code(
        "A tensor lacks a dimension, or has one too many",
        "An operator, or the header of a block, names dimensions that its argument does not have. The label shows "
        "those it has. Where only the name differs, rename it: `x as [key -> seq]`; to let a block pass further "
        "dimensions through, end its pattern in `...`.",
        "model pooled(width = 64) {\n"
        "    input x[batch, seq, width]\n"
        "    average = mean(x, over seq)\n"
        "    output y = softmax(average, over seq)\n"
        "}\n",
    ),
    "CG0207": Code(
        "Types that do not mix",
        "Numbers of different types are not mixed silently, conditions are of type bool, and an index is a whole "
        "number. Convert with `cast(x, f32)`, or make a condition by a comparison.",
        "model masked(width = 64) {\n    input x[batch, width]\n    output y = where(x, x, 0)\n}\n",
    ),
    "CG0208": Code(
        "A size out of range",
        "A dimension has from 1 to 2^40 entries, a loop up to 2^20 turns, a parameter up to 2^62 entries. Beyond "
        "that a number is a slip of the pen.",
        "model nothing(layers = 0, width = 64) {\n"
        "    input x[batch, width]\n"
        "    repeat layers as h {\n"
        "        x = relu(x)\n"
        "    }\n"
        "    output y = x\n"
        "}\n",
    ),
    "CG0209": Code(
        "It is not clear which dimension an index looks up",
        "`table[index]` works where the index says what it counts: an input declared `: id of vocab`, the result "
        "of `position(seq)` or of `top_k`. Declare it, or say it in place: `table[index over vocab]`.",
        "model lookup(vocab = 1000, width = 64) {\n"
        "    input tokens[batch] : i64\n"
        "    param table[vocab, width] ~ normal(std=0.02)\n"
        "    output y = table[tokens]\n"
        "}\n",
    ),
    "CG0210": Code(
        "A loop changes what it carries",
        "What comes out of one turn of `repeat` goes into the next, so a name from outside that gets a new value "
        "inside keeps its dimensions and its type, and is a tensor before the loop. A name that only lives inside "
        "may be anything; and a loop that changes no name from outside does nothing.",
        "model deep(layers = 4, width = 64, ffn = 256) {\n"
        "    input x[batch, width]\n"
        "    repeat layers as h {\n"
        "        x = linear(x, width -> ffn)\n"
        "    }\n"
        "    output y = x\n"
        "}\n",
    ),
    "CG0211": Code(
        "A parameter's size is not known at compile time",
        "`batch`, `seq` and other dimensions that only inputs have get their sizes when the model runs; parameters "
        "exist before. Give the parameter the largest size and look rows up: with `input tokens[batch, seq <= "
        "context]`, `table[position(seq)]` on a `param table[context, width]`.",
        "model positions(width = 64) {\n"
        "    input x[batch, seq, width]\n"
        "    param table[seq, width] ~ zeros()\n"
        "    output y = x + table\n"
        "}\n",
    ),
    "CG0301": Code(
        "There is nothing of this name",
        "The name was given no value before this place. A block sees what its header names and what its own body "
        "makes, and of the model that uses it only numbers and sizes, never tensors. Texts stand in quotes.",
        "block double(x) {\n    y = 2 * x\n    return z\n}\n",
    ),
    "CG0302": Code(
        "There is no block or model of this name",
        "Blocks are found in the same file, in the files it uses, and in the library's layers, attention, "
        "positions and losses, which need no `use`. Families such as `gpt2` need one: `use std/gpt2`.",
        "block normed(x) {\n    return layernorm(x, over width)\n}\n",
    ),
    "CG0303": Code(
        "A name is taken",
        "Parameters, dimensions, inputs, outputs, loops and definitions each need a name of their own where they "
        "stand. Only the results of computations may take a name anew: `x = x + 1`.",
        "block twice(x) {\n    return 2 * x\n}\n\nblock twice(x) {\n    return x + x\n}\n",
    ),
    "CG0304": Code(
        "There is nothing to `use` there",
        "`use std/gpt2` takes a file of the library, `use blocks` the file `blocks.cg` beside this one, and `use "
        '"../blocks.cg"` any path, from where this file lies. What the missing file might define is not reported '
        "as missing again.",
        "use std/gtp2\n",
    ),
    "CG0305": Code(
        "Files use each other in a circle",
        "A file is read before what uses it, so a circle has no beginning. Move what both need into a third file.",
    ),
    "CG0306": Code(
        "A block uses itself",
        "Blocks are expanded where they are used, so a block that uses itself, directly or through others, would "
        "never end. A number of equal layers is written with `repeat`.",
        "model deep(width = 64) {\n"
        "    input x[batch, width]\n"
        "    output y = tower(x)\n"
        "}\n"
        "\n"
        "block tower(x) {\n"
        "    return tower(relu(x))\n"
        "}\n",
    ),
    "CG0401": Code(
        "Arguments do not fit",
        "A block, a primitive operator or a family needs an argument that is not there, or gets arguments of "
        "another form. The hint shows the header, or the form of the call.",
        "model weights(width = 64) {\n    input x[batch, width]\n    output y = softmax(x)\n}\n",
    ),
    "CG0402": Code(
        "An argument that is not taken",
        "The header has no such name, has no place for a further argument, or gets one name twice. Tensors and "
        "dimensions are given in order, numbers by name: `linear(x, width -> ffn, bias=false)`; all arguments of a "
        "family are given by name.",
        "model mlp(width = 64) {\n"
        "    input x[batch, width]\n"
        "    output y = linear(x, width -> width, biased=false)\n"
        "}\n",
    ),
    "CG0403": Code(
        "A number, a tensor and a dimension are different things",
        "Sizes, counts and settings are numbers known when the model is compiled; tensors hold what is only known "
        "when it runs; dimensions name the axes of tensors. One stands here where another is needed.",
        "model summed(width = 64) {\n    input x[batch, width]\n    output y = mean(x, over x)\n}\n",
    ),
    "CG0404": Code(
        "The number of results is another one",
        "A call gives one value or several, as the `return` of its block says; there are as many names to its "
        "left: `values, places = top_k(x, vocab -> best)`. A block without a `return` gives none.",
        "model best(vocab = 1000, five = 5) {\n"
        "    input x[batch, vocab]\n"
        "    values = top_k(x, vocab -> five)\n"
        "    output y = values\n"
        "}\n",
    ),
    "CG0405": Code(
        "A statement in the wrong place",
        "Models have inputs and outputs, blocks have a header and a `return`. None of these stands inside a loop, "
        "and a model's header has names of sizes only.",
        "model doubled(width = 64) {\n    input x[batch, width]\n    return 2 * x\n}\n",
    ),
    "CG0406": Code(
        "There is not one model to compile",
        "What is compiled is a model with all its sizes: an instance, `model small = gpt2(width=256, …)`, or a "
        "model whose header has a default for each of its names. `--set name=value` gives sizes from the command "
        "line, and `--model` chooses where a file has several.",
        "mup {\n    lr = 6e-3\n}\n",
    ),
    "CG0407": Code(
        "A model without an output",
        "What a model computes leaves it by name. Without an `output` there is nothing to compile.",
        "model doubled(width = 64) {\n    input x[batch, width]\n    y = 2 * x\n}\n",
    ),
    "CG0408": Code(
        "A condition that is not known at compile time",
        "`if` chooses what is built, so its condition is true or false when the model is compiled: `true`, `bias`, "
        "`layers > 12`. Values are chosen while the model runs by `where(condition, a, b)`.",
        "model positive(width = 64) {\n"
        "    input x[batch, width]\n"
        "    if x > 0 {\n"
        "        x = 2 * x\n"
        "    }\n"
        "    output y = x\n"
        "}\n",
    ),
    "CG0409": Code(
        "An initial distribution that does not exist",
        "Parameters start as `normal(std=…)`, `truncated_normal(std=…)` (both with an optional `mean`), "
        "`uniform(limit=…)`, `constant(value=…)`, `zeros()` or `ones()`. The numbers are finite, and widths are "
        "not negative.",
        "block scaled(x[batch, width]) {\n    param scale[width] ~ gaussian(std=0.02)\n    return x * scale\n}\n",
    ),
    "CG0410": Code(
        "A computation without a result",
        "The numbers of a model are computed when it is compiled, and this one has no value: a division by zero, "
        "the root of a negative number, a comparison of a text with a number, or a result beyond 2^62.",
        "model scaled(width = 64) {\n    input x[batch, width]\n    output y = x / sqrt(width - 100)\n}\n",
    ),
    "CG0411": Code(
        "A text that a block does not know",
        'The block compares the text it is given, as in `if kind == "gelu"`, and none of the comparisons holds. '
        "The hint lists the texts it knows.",
        'model active(width = 64) {\n    input x[batch, width]\n    output y = activate(x, kind="gleu")\n}\n',
    ),
}
