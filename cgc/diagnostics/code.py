"""What is known of a diagnostic's code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means and how to mend what it speaks of; `example` is a file that has the fault, empty where the
    fault is not in a file of the language.
    """

    title: str
    explanation: str
    example: str = ""
