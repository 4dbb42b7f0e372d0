"""What the target offers as a placer: problems of the contest, solved and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cgc.services import PlaceProgress, PlaceRequest
from cgc.syntax.parser import read_source
from cgc.target import TargetError
from cgc_wse.place.answer import ContestAnswer
from cgc_wse.place.bound import Bounder, Unplaceable
from cgc_wse.place.contest import solve
from cgc_wse.place.exact import NotInstalled
from cgc_wse.place.kgraph import Contest, parse_kgraph
from cgc_wse.place.search import NothingFound
from cgc_wse.place.solution import illegal, parse_solution, score, solution_text

METHODS = ("search", "cpsat", "shelf")


def place(request: PlaceRequest, report: Callable[[PlaceProgress], None]) -> ContestAnswer:
    """Solve the problem of a request.

    Raises:
        InputError: the problem cannot be read.
        TargetError: it has no solution, or none was found (CG0624); there is no such method (CG0632).
    """
    contest = _contest(request.problem)
    if request.method not in METHODS:
        raise TargetError("CG0632", f"there is no method `{request.method}`", f"the methods are {', '.join(METHODS)}")

    try:
        solved = solve(contest, method=request.method, seed=request.seed, time_limit=request.time_limit, report=report)
    except NotInstalled as error:
        hint = "install it with `pip install 'cgc[place]'`, or use `--method search`"
        raise TargetError("CG0632", f"`--method {request.method}` needs OR-Tools: {error}", hint) from error
    except (Unplaceable, NothingFound) as error:
        raise TargetError("CG0624", f"{request.problem}: {error}", "a larger grid, or a larger memlimit") from error
    text = solution_text(contest, solved.placed)
    return ContestAnswer(contest, solved.scored, solved.bounds, request.method, request.seed, solved, text)


def check(problem: str, solution: str) -> ContestAnswer:
    """Return what a solution is worth.

    Raises:
        InputError: problem or solution cannot be read, or the solution is illegal.
        TargetError: the problem has no solution (CG0624).
    """
    contest = _contest(problem)
    text = read_source(Path(solution), solution)
    placed = parse_solution(contest, text, solution)
    illegal(contest, placed, text, solution).raise_if_any()
    return ContestAnswer(contest, score(contest, placed), Bounder(contest.engine).bounds())


def _contest(path: str) -> Contest:
    return parse_kgraph(read_source(Path(path), path), path)
