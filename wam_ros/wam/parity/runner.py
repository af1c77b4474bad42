"""Run every parity case of this package on a folder of recorded reference data."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wam_ros.wam import parity
from wam_ros.wam.parity.result import Result, Unavailable

Case = Callable[[Path], Iterator[Result]]

# Recorded too, and compared where the code lives that they are about.
ELSEWHERE = {
    "sampling.json": "training windows",
}


@dataclass
class Outcome:
    """What one case gave: its comparisons, or why there are none."""

    case: str
    results: list[Result] = field(default_factory=list)
    absent: str | None = None
    seconds: float = 0.0

    @property
    def missed(self) -> list[Result]:
        """Comparisons beyond their limit."""
        return [r for r in self.results if not r.ok]


def cases() -> dict[str, Case]:
    """All functions named ``case_*`` in the modules of this package, by the rest of their name."""
    found: dict[str, Case] = {}
    for info in pkgutil.iter_modules(parity.__path__):
        module = importlib.import_module(f"{parity.__name__}.{info.name}")
        for name, function in vars(module).items():
            if name.startswith("case_") and inspect.getmodule(function) is module:
                found[name.removeprefix("case_")] = function
    return found


def run_case(name: str, case: Case, golden: Path) -> Outcome:
    """Run one case; a missing file makes it absent, any other error a miss."""
    outcome = Outcome(name)
    start = time.perf_counter()
    try:
        outcome.results.extend(case(golden))
    except FileNotFoundError as error:
        # safetensors puts the path into its message only.
        name_of_file = Path(error.filename or str(error).strip("'\" ")).name
        outcome.absent = f"{name_of_file} is not in this folder"
    except Unavailable as error:
        outcome.absent = str(error)
    except Exception as error:  # one broken case must not hide the others
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        outcome.results.append(Result(f"{name}/error", float("inf"), 0.0, False, detail))
    else:
        if not outcome.results:
            detail = "the case compared nothing"
            outcome.results.append(Result(f"{name}/empty", float("inf"), 0.0, False, detail))
    outcome.seconds = time.perf_counter() - start
    return outcome


def run(
    golden: Path, only: list[str] | None = None, report: Callable[[str], None] = print
) -> tuple[int, dict[str, Any]]:
    """Run the cases and report a line for each.

    Parameters
    ----------
    golden
        Folder with the recorded data.
    only
        Names of cases to run; all by default.
    report
        Receives the lines.

    Returns
    -------
    tuple
        Exit code (0 all within limits, 1 a miss or nothing to compare) and a JSON-ready summary.

    Raises
    ------
    NotADirectoryError
        If `golden` is no folder.
    ValueError
        If `only` names an unknown case.
    """
    if not golden.is_dir():
        raise NotADirectoryError(f"{golden}: no such folder; it should hold the recorded data")
    available = cases()
    unknown = [name for name in only or [] if name not in available]
    if unknown:
        raise ValueError(f"no case {', '.join(unknown)}; there are {', '.join(available)}")
    outcomes = []
    for name in only or sorted(available):
        outcome = run_case(name, available[name], golden)
        for line in _lines(outcome):
            report(line)
        outcomes.append(outcome)
    compared = sum(len(o.results) for o in outcomes)
    missed = sum(len(o.missed) for o in outcomes)
    absent = [o.case for o in outcomes if o.absent]
    elsewhere = {n: why for n, why in ELSEWHERE.items() if (golden / n).exists()}
    for name, why in elsewhere.items():
        report(f"not compared here: {name} ({why})")
    report(
        f"{len(outcomes) - len(absent)} cases, {compared} comparisons: "
        f"{compared - missed} within their limits, {missed} missed"
        + (f"; {len(absent)} cases absent" if absent else "")
    )
    code = 1 if missed or not compared else 0
    summary = {
        "golden": str(golden),
        "comparisons": compared,
        "missed": missed,
        "absent": absent,
        "not_compared": elsewhere,
        "ok": code == 0,
        "cases": [_json(o) for o in outcomes],
    }
    return code, summary


def _lines(outcome: Outcome) -> Iterator[str]:
    """One line for the case, and one more for every comparison that missed."""
    if outcome.absent:
        yield f"absent {outcome.case:24} {outcome.absent}"
    if not outcome.results:
        return
    # The result nearest to its limit, or farthest beyond it.
    worst = max(outcome.results, key=_strain)
    state = "MISS  " if outcome.missed else "ok    "
    yield (
        f"{state} {outcome.case:24} worst error {worst.error:8.2g} (limit {worst.limit:.0e}) "
        f"of {len(outcome.results)} comparisons, {outcome.seconds:.1f} s"
    )
    for r in outcome.missed:
        yield f"       {r.name}: error {r.error:.3g}, limit {r.limit:.0e}; {r.detail}"


def _strain(result: Result) -> tuple[bool, float]:
    ratio = result.error / result.limit if result.limit > 0 else result.error
    return not result.ok, ratio


def _json(outcome: Outcome) -> dict[str, Any]:
    return {
        "case": outcome.case,
        "absent": outcome.absent,
        "seconds": round(outcome.seconds, 3),
        "results": [{**asdict(r), "error": _finite(r.error)} for r in outcome.results],
    }


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
