"""Scaling laws: laws found again in what they made, the published frontier, intervals, and what is no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cgc.cli import main
from cgc.diagnostics import InputError
from cgc.scaling_laws.fit import Method, PowerLaw, Undetermined, fit, interval
from cgc.scaling_laws.runs import Run, read_runs
from cgc.scaling_laws.study import study

FAMILY = [
    ("111M", 2.6e18, 2.608),
    ("256M", 1.3e19, 2.349),
    ("590M", 6.1e19, 2.181),
    ("1.3B", 2.8e20, 1.997),
    ("2.7B", 1.1e21, 1.834),
    ("6.7B", 6.3e21, 1.704),
    ("13B", 2.3e22, 1.572),
]
"""Training FLOPs as printed, Pile test loss under SP (Dey et al. 2023, arXiv 2304.03208)."""
METHODS = [Method(space, robust) for space in ("loss", "log") for robust in (False, True)]


def family(count: int = 7) -> list[Run]:
    return [Run(name, compute, loss, None, None, "") for name, compute, loss in FAMILY[:count]]


def made(law: PowerLaw, count: int = 8, low: float = 1e10, high: float = 1e22) -> tuple[Any, Any]:
    compute = np.geomspace(low, high, count)
    return compute, np.array([law(value) for value in compute])


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.floats(0.03, 0.5), st.floats(0.2, 3.0), st.floats(0.0, 2.0), st.sampled_from(METHODS))
def test_laws_are_found_again(exponent: float, middle: float, base: float, method: Method) -> None:
    law = PowerLaw(exponent, float(1e16 * middle ** (1 / exponent)), base)
    compute, loss = made(law)
    found = fit(compute, loss, True, method).law
    assert found.exponent == pytest.approx(exponent, rel=1e-3)
    assert found.irreducible == pytest.approx(base, abs=1e-3 * loss.min() + 1e-4)
    for value in (1e9, 1e24):
        assert found(value) == pytest.approx(law(value), rel=2e-3)
    plain = PowerLaw(exponent, law.scale)
    again = fit(*made(plain), False, method).law
    assert (again.exponent, again.scale) == (pytest.approx(exponent, rel=1e-6), pytest.approx(plain.scale, rel=1e-4))


def test_the_published_frontier() -> None:
    found = study(family(), Method(), samples=300)
    plain, above = found.fits
    assert above.fit.law.exponent == pytest.approx(0.0737, rel=0.006)
    assert above.fit.law.irreducible == pytest.approx(0.5066, abs=0.006)
    assert above.fit.law.scale == pytest.approx(5.984e22, rel=0.09)
    for compute in (1e18, 1e20, 2.3e22):
        paper = (compute / 5.984e22) ** -0.0737 + 0.5066
        assert above.fit.law(compute) == pytest.approx(paper, rel=0.002)
    low, high = above.intervals["exponent"]
    assert low < -0.0737 < high and found.preferred is plain


def test_13b_is_foretold_by_the_smaller_ones() -> None:
    found = study(family(), Method(), "13B", samples=300)
    assert [run.name for run in found.left_out] == ["13B"] and len(found.runs) == 6
    foretold = found.preferred.foretold
    assert foretold is not None and foretold.error is not None and abs(foretold.error) < 0.005
    assert foretold.interval is not None and foretold.interval[0] < 1.572 < foretold.interval[1]
    by_number = study(family(6), Method(), "2.3e22", samples=300).preferred.foretold
    assert by_number is not None and (by_number.loss, by_number.measured) == (foretold.loss, None)
    held_out = study(family(), Method(), samples=0).preferred.held_out
    assert held_out is not None and held_out.loss == foretold.loss and held_out.interval is None


def test_intervals_cover_what_made_the_data() -> None:
    law, random = PowerLaw(0.08, 1e23, 0.9), np.random.default_rng(1)
    compute, exact = made(law, 12, 1e17, 1e22)
    inside = 0
    for _ in range(15):
        runs = [
            Run("", float(c), float(x), None, None, "")
            for c, x in zip(compute, exact + random.normal(0, 0.01, 12), strict=True)
        ]
        found = study(runs, Method(), "1e23", samples=100).fits[1].foretold
        assert found is not None and found.interval is not None
        inside += found.interval[0] <= law(1e23) <= found.interval[1]
    assert 12 <= inside <= 15


def test_the_seed_decides_and_nothing_else() -> None:
    first, again, other = (study(family(), Method(), samples=50, seed=seed).to_json() for seed in (3, 3, 4))
    assert first == again != other


def test_an_outlier_moves_a_robust_fit_less() -> None:
    law = PowerLaw(0.1, 1e20)
    compute, loss = made(law, 9, 1e12, 1e20)
    loss[4] *= 1.3
    plain, robust = (fit(compute, loss, False, Method("log", robust)).law.exponent for robust in (False, True))
    assert abs(robust - 0.1) < abs(plain - 0.1) or abs(robust - 0.1) < 1e-4
    errors = [abs(fit(compute, loss, False, Method("log", r)).law(1e22) / law(1e22) - 1) for r in (False, True)]
    assert errors[1] < errors[0] / 2


def test_an_irreducible_loss_is_never_negative() -> None:
    compute = np.geomspace(1e10, 1e16, 7)
    bent = 3.0 - 0.1 * np.arange(7) - 0.02 * np.arange(7) ** 2  # falls faster and faster
    assert fit(compute, bent, True, Method()).law.irreducible == pytest.approx(0, abs=1e-6)


def test_interval() -> None:
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))


def run_cli(*words: str) -> Any:
    return CliRunner().invoke(main, ["scaling", *words])


def test_tables_and_pictures(tmp_path: Path) -> None:
    rows = [f"{name},{compute!r},{loss}" for name, compute, loss in FAMILY]
    (tmp_path / "runs.csv").write_text("name,FLOPs,val_loss\n" + "\n".join(rows) + "\n\n")
    listed = [{"model": name, "compute": compute, "loss": loss} for name, compute, loss in FAMILY]
    (tmp_path / "runs.json").write_text(json.dumps({"runs": listed}))
    found = []
    for name in ("runs.csv", "runs.json"):
        picture = tmp_path / f"{name}.svg"
        words = [str(tmp_path / name), "--samples", "20", "--extrapolate", "1e23", "-o", str(picture)]
        result = run_cli(*words, "--format", "json")
        assert result.exit_code == 0, result.output
        data = json.loads(result.stdout)
        found.append((data["fits"], data["extrapolation"]))
        first = picture.read_bytes()
        assert run_cli(*words).exit_code == 0 and picture.read_bytes() == first
        for text in ("13B", "training FLOPs"):
            assert text in result.stdout or b"<svg" in first
    assert found[0] == found[1]
    assert run_cli(str(tmp_path / "runs.csv"), "-o", str(tmp_path / "x.txt")).exit_code == 2
    png = tmp_path / "x.png"
    assert run_cli(str(tmp_path / "runs.csv"), "--samples", "0", "-o", str(png)).exit_code == 0
    assert png.read_bytes()[:4] == b"\x89PNG"


def test_compute_from_parameters_and_tokens(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("params,tokens,loss\n1e6,2e7,4.0\n1e7,2e8,3.0\n1e8,2e9,2.2\n")
    runs = read_runs([str(tmp_path / "runs.csv")])
    assert [run.compute for run in runs] == pytest.approx([1.2e14, 1.2e16, 1.2e18])
    assert [run.name for run in runs] == ["line 2", "line 3", "line 4"]


def test_logs(tmp_path: Path) -> None:
    def log(name: str, lines: list[dict[str, Any]], config: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    lines = [
        {"step": step, "loss": 5 - step / 50, "tokens": 100 * step, "flops": 1000 * step} for step in range(1, 101)
    ]
    log("all/held-out", [*lines, {"step": 100, "val_loss": 3.25}], {"parameters": 7, "model": "m", "steps": 100})
    log("all/trained", lines)
    log("all/unfinished", lines[:50], {"steps": 100})
    six = log("six", [{"step": 1, "tokens": 10, "loss": 2.0, "parameters": 5}])
    emitted = log("project/out", [{"step": 30, "loss": 3.0}, {"step": 30, "validation_loss": 3.5}])
    manifest = {"step": 30, "run": {"model": "a1", "tokens": "b2", "batch": 4, "context": 8, "steps": 30}}
    manifest["run"]["flops_per_token"] = 100  # type: ignore[index]
    (emitted / "step_00000030").mkdir()
    (emitted / "step_00000030/manifest.json").write_text(json.dumps(manifest))
    runs = {run.name: run for run in read_runs([str(tmp_path / "all"), str(six), str(emitted / "log.jsonl")])}
    assert set(runs) == {"m", "trained", "six", "project"}
    assert (runs["m"].loss, runs["m"].compute, runs["m"].parameters) == (3.25, 100_000, 7)
    assert runs["trained"].loss == pytest.approx(np.mean([5 - step / 50 for step in range(91, 101)]))
    assert runs["six"].compute == 6 * 5 * 10
    assert (runs["project"].compute, runs["project"].loss) == (30 * 32 * 100, 3.5)
    with (six / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "tok')  # a run that was killed
    assert read_runs([str(six)])[0].tokens == 10


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", "CG0681", "empty"),
        ("name,loss\na,1\n", "CG0681", "no column `compute`"),
        ("compute,name\n1,a\n", "CG0681", "no column `loss`"),
        ("compute,loss\n", "CG0681", "no rows"),
        ("compute,loss\n1,2,3\n", "CG0681", "3 cells"),
        ("[1, 2]", "CG0681", "no list of runs"),
        ("{", "CG0681", "not JSON"),
        ("[" * 100_000, "CG0681", "not JSON"),
        ("compute,loss\n1e9,nan\n2e9,1\n3e9,1\n", "CG0682", "line 2"),
        ("compute,loss\n1e9,2\n-2e9,1\n3e9,\n", "CG0682", "line 3"),
        ("compute,loss\n1e9,2\ninf,1\n3e9,1\n", "CG0682", "`compute` is 'inf'"),
        ("compute,loss\n1e9,2\n0,1\n3e9,1\n", "CG0682", "`compute` is '0'"),
        ("compute,loss\n1e9,2\nfast,1\n3e9,1\n", "CG0682", "'fast'"),
        ('[{"compute": true, "loss": 1}]', "CG0682", "run 1"),
        ("compute,loss\n1e9,2\n2e9,1\n", "CG0683", "2 different computes"),
        ("compute,loss\n1e9,2\n1e9,1.9\n1e9,1.8\n1e9,1.7\n", "CG0683", "1 different"),
        ("compute,loss\n1e9,1\n1e10,2\n1e11,3\n1e12,4\n", "CG0684", "does not fall"),
    ],
)
def test_what_is_no_run(text: str, code: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text(text)
    result = run_cli(str(tmp_path / "runs"))
    assert result.exit_code == 1 and result.stdout == ""
    assert code in result.stderr and says in " ".join(result.stderr.split()) and "Traceback" not in result.stderr
    as_json = json.loads(run_cli(str(tmp_path / "runs"), "--format", "json").stdout)
    assert as_json["diagnostics"][0]["code"] == code


def test_other_faults(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for path in ("binary", "nothing", "."):
        with pytest.raises(InputError) as caught:
            read_runs([str(tmp_path / path)])
        assert caught.value.diagnostics[0].code == "CG0681"
    with pytest.raises(Undetermined):
        fit(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]), True, Method())
    rows = "\n".join(f"{name},{compute},{loss}" for name, compute, loss in FAMILY)
    (tmp_path / "runs.csv").write_text("name,compute,loss\n" + rows)
    for goal in ("14B", "-1", "nan", "0", "inf"):
        assert run_cli(str(tmp_path / "runs.csv"), "--extrapolate", goal).exit_code == 2
    result = run_cli(str(tmp_path / "runs.csv"), "--extrapolate", "256M")
    assert result.exit_code == 1 and "CG0683" in result.stderr
