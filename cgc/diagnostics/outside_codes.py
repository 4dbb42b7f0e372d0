"""Codes of faults around the language: CG00xx files, CG06xx wafers, CG07xx weights, CG08xx targets, CG09xx limits."""

from __future__ import annotations

from cgc.diagnostics.code import Code

OUTSIDE: dict[str, Code] = {
    "CG0001": Code(
        "A file cannot be read",
        "There is no such file, it is a folder, or its permissions forbid reading it. The message ends in the "
        "reason that the system gave.",
    ),
    "CG0002": Code(
        "A file is too large",
        "Source files are written by people: one of more than 256 KiB is something else. A model that large in "
        "earnest can be put into several files with `use`.",
    ),
    "CG0003": Code(
        "A file is not text",
        "Source files are text in UTF-8. The message says which byte is not; most often the file is a compiled "
        "model or a checkpoint, or was saved in another encoding.",
    ),
    "CG0004": Code(
        "A file cannot be written",
        "The folder does not exist and cannot be made, is not writable, or the disk is full. Or a file of that name is "
        "there that would be lost: a checkpoint, say, or its configuration, in a folder without a model of cgc's. "
        "Nothing half-written is left behind: files get their names once they are complete.",
    ),
    "CG0005": Code(
        "A program that is needed is not installed",
        "Pictures of graphs are laid out by graphviz, whose program `dot` has to be on the PATH. A `.dot` file can "
        "be written without it.",
    ),
    "CG0006": Code(
        "A text cannot be trained on",
        "The experiments train small copies of a model on the bytes of a text. The file cannot be read, is too short, "
        "or has a byte outside of the model's vocabulary: a model of bytes has `vocab=256`.",
    ),
    "CG0007": Code(
        "There is not enough memory",
        "The command needs more memory than the machine has: weights, activations or a training step of a model of "
        "this size. `--set` makes a smaller copy; without weights, `cgc compile` needs little memory for any model.",
    ),
    "CG0601": Code(
        "One sequence does not fit on the wafer",
        "Even with the weights streamed, the activations of one sequence need more memory than the cores have. The "
        "message says by how much, the hint which sequence length would fit.",
    ),
    "CG0602": Code(
        "The weights of two layers do not fit on the wafer",
        "Decoding with weights streamed holds the layer in work and the one that comes next. Together they need more "
        "memory than the square of cores that works on them has: a smaller width or a larger device is needed.",
    ),
    "CG0603": Code(
        "A model has more blocks than the wafer has cores",
        "In a pipeline (`--run pipelined`) every block of every layer gets at least one core of its own. This happens "
        "on very small devices only; weight streaming (`--run streaming`) gives all cores to one block after another.",
    ),
    "CG0604": Code(
        "A run-time size that the model does not take",
        "`--batch` and `--seq` give the sizes that the model leaves open. The one given is below 1, above the "
        "limit that the input declares (`seq <= context`), or the model has no such size.",
    ),
    "CG0606": Code(
        "A run-time size is not known",
        "How much memory and time a model takes depends on this size, which the input leaves open without a limit. "
        "Give it on the command line, or a limit in the model: `input tokens[batch, seq <= 2048]`.",
    ),
    "CG0607": Code(
        "A model without anything to compute",
        "Every output is an input or a parameter, perhaps under other names: no block needs a core. There is nothing "
        "to place on a wafer.",
    ),
    "CG0608": Code(
        "A kernel's grid is not one of the wafer",
        "`cgc cost` times a kernel on a rectangle of cores, columns by rows. The one given is wider or higher than the "
        "device, or no grid that may be chosen fits on it.",
    ),
    "CG0609": Code(
        "An algorithm does not run like this",
        "Shifting tiles in rings (`mesh`, `cannon`) needs as many rows as columns; `summa` and `allgather` run on any "
        "rectangle. A reduction cannot have more groups than cores.",
    ),
    "CG0610": Code(
        "A model does not decode token by token",
        "`cgc cost decode` times the step for one new token: the model's input has a dimension `seq`, which its "
        "attention renames for keys and values. This model has no such dimension of open size.",
    ),
    "CG0611": Code(
        "A model does not fit on the wafer for decoding",
        "Weights, keys and values stay on the wafer while tokens are made. They need more memory than the regions of "
        "this size have together: a shorter context, a smaller model, another grid or a larger device is needed.",
    ),
    "CG0640": Code(
        "A model has no such mode on a wafer",
        "`cgc simulate --mode train` needs a language model (tokens in, logits out) that is trained with AdamW, "
        "`--mode decode` one whose keys and values can be cached. `--mode prefill` runs any model forward. An option "
        "that is for training, `--recompute`, has no use in the others.",
    ),
    "CG0641": Code(
        "A model does not fit into the cores of a small wafer",
        "Partitioned, some core would hold more than it has memory for; the message says what of. Layouts that hold "
        "less at the cost of time have been tried. Weights can be kept outside (`--run streaming`); a smaller batch, a "
        "shorter sequence, a smaller model or a larger device are what is left.",
    ),
    "CG0642": Code(
        "A device is too large to be simulated core by core",
        "The simulator runs every core's program with real numbers. Devices of up to 8,192 cores are run; "
        "larger ones are what the cost model of `cgc compile` and `cgc cost` is for.",
    ),
    "CG0655": Code(
        "A model does not fit on the wafer in the way asked for",
        "`--run pipelined` keeps the whole model on the wafer: weights, and in training gradients, optimizer state and "
        "the activations in flight, in decoding keys and values. The message says how much that is, by what, and how "
        "much there is; `--run auto` streams the weights where they do not fit.",
    ),
    "CG0656": Code(
        "More wafers than sequences",
        "Wafers share a batch: each works on whole sequences of its own, so there can be no more wafers than sequences "
        "in a step (`--wafers`, `--batch`).",
    ),
    "CG0701": Code(
        "A checkpoint cannot be read",
        "The file does not exist, is cut off, or is not in the safetensors format. Files of other formats, such as "
        "pickled ones, are not read, since reading them can run code.",
    ),
    "CG0702": Code(
        "A checkpoint lacks tensors",
        "Parameters of the model have no tensor in the file. Either the checkpoint is of another model, or its "
        "layout names them differently; the names it looked for are in the message.",
    ),
    "CG0703": Code(
        "A checkpoint has tensors that nothing claims",
        "The layout of the family speaks of every tensor of a file, with `ignore` where one is no parameter. What "
        "is left over is a sign that the model lacks a part that the checkpoint has.",
    ),
    "CG0704": Code(
        "A tensor has another shape than its parameter",
        "The sizes of the model are not those of the checkpoint. The message shows both shapes.",
    ),
    "CG0705": Code(
        "A tensor does not hold floating-point numbers",
        "Weights are stored as f64, f32, f16 or bf16. Quantized checkpoints have to be converted first.",
    ),
    "CG0706": Code(
        "An index of a checkpoint points elsewhere",
        "The index of a checkpoint in several files names files beside itself only; a path that leads out of the "
        "folder is refused.",
    ),
    "CG0707": Code(
        "A family has no layout",
        "Checkpoints are read by the `checkpoint` item of a model's family, which says which tensor is which "
        "parameter. The families of the library have one; write one beside a family of your own.",
    ),
    "CG0708": Code(
        "Weights are not finite",
        "An entry is NaN or infinite. Nothing can be compared with what such weights compute, and they cannot be "
        "rounded to fewer bits: the training that wrote them diverged, or the file is damaged.",
    ),
    "CG0710": Code(
        "Weights cannot be stored in this form",
        "`--precision` takes f32, f16 or bf16; `--quantize` takes int4 or int8, with a `--block` that is a power of "
        "two from 16 to 256. Both convert what `--weights` or `--seed` gives, and blocks need opset 21, or ONNX "
        "Runtime's own operator (`--runtime ort`).",
    ),
    "CG0801": Code(
        "A size cannot be fixed so",
        "`--batch` and `--seq` fix sizes that a model leaves open. This model has no such size, or the one given is "
        "beyond its limit (`seq <= context`).",
    ),
    "CG0802": Code(
        "A target needs a size as a number",
        "In this place the target cannot compute with a size that is only known at run time. Give it with "
        "`--batch` or `--seq`.",
    ),
    "CG0804": Code(
        "The model has no KV cache",
        "`--kv-cache` keeps what a model renames from the dimension of its tokens, as it does with keys and values. "
        "This one renames nothing, or computes along that dimension: a step would need all earlier tokens again. Or "
        "what it makes of a token may depend on later ones, as attention without a causal mask does. With "
        "`--last-logits`, it gives nothing for each token, or masks nothing by which the last one could be told.",
    ),
    "CG0803": Code(
        "A target cannot express an operation of training",
        "Graphs of training steps hold sums into chosen places (`scatter`) and loops that run in reverse or collect "
        "values. Targets that derive gradients themselves, such as PyTorch, take the model and not its training graph.",
    ),
    "CG0805": Code(
        "No such opset or runtime",
        "ONNX models are written in the opsets 18 to 23, in standard operators (`--runtime onnx`, the default) or with "
        "those that ONNX Runtime has beside them (`--runtime ort`).",
    ),
    "CG0901": Code(
        "Nesting is too deep",
        "Brackets and expressions nest at most 100 deep. Give parts of the expression names of their own.",
        "block deep(x) {\n    return " + "-" * 120 + "x\n}\n",
    ),
    "CG0902": Code(
        "Too much of something",
        "Blocks use blocks at most 60 deep and in at most 4000 different ways, a model has at most 50,000 "
        "parameters, and files use each other at most 50 in a row. Models stay far below when equal layers are "
        "written once, in a `repeat`.",
    ),
}
