"""stub"""
from __future__ import annotations
from typing import Any
from collections.abc import Mapping
from cgc.program import Program
from cgc_wse.plan import Plan
def viewer_html(program: Program, plan: Plan, data: Mapping[str, Any]) -> str:
    return ""
