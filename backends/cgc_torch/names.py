"""Names for Python: every name of a `.cg` file becomes a legal identifier here, the same one every time."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable

AMBIGUOUS = frozenset({"l", "O", "I"})
"""Identifiers that linters refuse (pycodestyle E741)."""

MODULE_NAMES = frozenset(
    {"torch", "math", "re", "nn", "F", "Any", "Tensor", "Config", "cast", "dataclass", "top_k"}
    | {"truncated_normal_", "parameters_named", "LinearCrossEntropy", "linear_cross_entropy", "MOST_LOGITS"}
    | {"gelu_linear", "gelu_tanh_linear", "silu_linear", "GeluLinear", "GeluTanhLinear", "SiluLinear", "checkpoint"}
)
"""What an emitted file imports or defines at its top, whatever the model."""

LOCAL_NAMES = MODULE_NAMES | frozenset(dir(builtins)) | {"self", "config"}
"""What a local variable of an emitted function must not hide, beside the file's own functions."""

# `dir(torch.nn.Module())`, without importing torch; a test keeps it complete.
_OF_NN_MODULE = """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval
    extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules
    mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule
    share_memory state_dict to to_empty train training type xpu zero_grad
"""

ATTRIBUTE_NAMES = frozenset(_OF_NN_MODULE.split()) | {
    "config",
    "init_weights",
    "count_parameters",
    "configure_optimizers",
}
"""Attributes that a module already has: a parameter or block of the user's cannot take them."""


def identifier(name: str) -> str:
    """Return `name` as a legal identifier: `width'` gives `width_prime`, `lambda` gives `lambda_`.

    Two leading underscores become one, because Python mangles such names inside classes.
    """
    text = re.sub(r"\W", "_", name.replace("'", "_prime"), flags=re.ASCII)
    text = re.sub(r"^_+", "_", text)
    if not text.strip("_"):
        return "value"
    if text[0].isdigit():
        text = f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) or text in AMBIGUOUS else text


def class_name(name: str) -> str:
    """Return `name` in the words of a class: `grouped_attention` gives `GroupedAttention`."""
    words = [word for word in identifier(name).split("_") if word]
    text = "".join(word[:1].upper() + word[1:] for word in words)
    return f"Block{text}" if text[:1].isdigit() else text


def body_name(instance: str) -> str:
    """Return a name for the body of `repeat … as instance`: `h` is a `block`, `layers` are made of a `layer`."""
    name = identifier(instance).strip("_")
    if len(name) <= 2:
        return "block"
    if name.endswith("s") and not name.endswith("ss"):
        return name[:-1]
    return f"{name}_block" if "block" not in name and "layer" not in name else name


class Namespace:
    """Names taken in one scope. A reserved name gets an underscore; a second wish for a name gets `_2`, then `_3`."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._reserved = frozenset(reserved)
        self._taken = set(self._reserved)

    def fresh(self, wish: str, joint: str = "_") -> str:
        """Return `wish`, or the first variant of it that is free, and take it."""
        stem = f"{wish}_" if wish in self._reserved else wish
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}{joint}{count}"
        self._taken.add(name)
        return name
