"""What the closure tests came to: RESULTS.md, plots, and the targets that were missed."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from problems import PROBLEMS, Problem

_TITLES = {
    "dtlz2": "DTLZ2, M=2, d=5: evaluations until 90 % of the largest hypervolume",
    "branincurrin": "BraninCurrin with noise: hypervolume of the noise-free values after 86 evaluations",
    "c2dtlz2": "C2-DTLZ2 with a gate: feasible hypervolume after 60 evaluations",
}


def write_report(results: Path, here: Path) -> list[str]:
    """Write the report beside the program and the plots into the directory above; returns the missed targets."""
    missed: list[str] = []
    lines = ["# Closure tests", "", f"{_machine()} {_commits(results)}", ""]
    for name, title in _TITLES.items():
        pairs = list(_pairs(results, name))
        if pairs:
            lines += [f"## {title}", "", *_table(name, pairs, missed), "", f"![{name}](../closure_{name}.png)", ""]
            _plot(name, pairs, here.parent / f"closure_{name}.png")
    detector = results / "detector.json"
    if detector.exists():
        lines += _detector(json.loads(detector.read_text()), missed)
    lines += ["## Targets", "", *([f"* missed: {line}" for line in missed] or ["All are met."]), ""]
    (here / "RESULTS.md").write_text("\n".join(lines))
    return missed


def _commits(results: Path) -> str:
    """Which versions were measured."""
    facts = [json.loads(file.read_text()) for file in (*results.glob("*-ours.json"), *results.glob("detector.json"))]
    return f"Measured at {', '.join(sorted({fact['commit'] for fact in facts}))}."


def _pairs(results: Path, name: str) -> Iterator[tuple[int, list[dict[str, Any]], dict[str, Any]]]:
    """Seed, the rows of the bare loop, and what came of ours."""
    for bare in sorted(results.glob(f"{name}-*-bare.json")):
        seed = int(bare.name.split("-")[1])
        ours = results / f"{name}-{seed}-ours.json"
        if ours.exists():
            yield seed, json.loads(bare.read_text()), json.loads(ours.read_text())


def _table(
    name: str, pairs: Sequence[tuple[int, list[dict[str, Any]], dict[str, Any]]], missed: list[str]
) -> list[str]:
    problem = PROBLEMS[name]
    rows, bare_figures, our_figures = [], [], []
    for seed, bare, ours in pairs:
        figures = [_figure(name, problem, each) for each in (bare, ours["rows"])]
        bare_figures.append(figures[0])
        our_figures.append(figures[1])
        counts = ", ".join(f"{count} {state}" for state, count in sorted(ours["counts"].items()))
        rows.append(
            f"| {seed} | {figures[0]:.4g} | {figures[1]:.4g} | {bare[-1]['at']:.0f} | {ours['rows'][-1]['at']:.0f} | "
            f"{ours['kills']} | {ours['retries']} | {counts} |"
        )
        missed += [f"{name}, seed {seed}: {problem}" for problem in ours["problems"]]
        if ours["kills"] != 1:
            missed.append(f"{name}, seed {seed}: killed {ours['kills']} times instead of once")
        if problem.noise and ours["told with errors"] != ours["counts"].get("completed", 0):
            missed.append(f"{name}, seed {seed}: standard errors reached Ax in {ours['told with errors']} trials only")
    bare_median, our_median = statistics.median(bare_figures), statistics.median(our_figures)
    verdict, is_met = _verdict(name, bare_median, our_median)
    if not is_met:
        missed.append(f"{name}: {verdict}")
    if problem.constraint:
        shares = [
            [share_of_feasible(problem.constraint, each) for each in (bare, ours["rows"])] for _, bare, ours in pairs
        ]
        words = ", ".join(f"{bare:.2f} and {ours:.2f}" for bare, ours in shares)
        verdict = (
            f"Share of feasible designs after the first one, bare loop and ours: {words} (of random designs 0.06). "
            f"{verdict}"
        )
    return [
        "| seed | bare loop | ours | bare s | ours s | kills | retries | our trials |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Medians: bare loop {bare_median:.4g}, ours {our_median:.4g}. {verdict}: {'met' if is_met else 'missed'}.",
    ]


def share_of_feasible(constraint: str, rows: Sequence[dict[str, Any]]) -> float:
    """How many of the designs after the first feasible one are feasible; before it there is nothing to model."""
    feasible = [row["true"][constraint] >= 0 for row in rows]
    later = feasible[feasible.index(True) + 1 :] if True in feasible else []
    return sum(later) / len(later) if later else 0.0


def _figure(name: str, problem: Problem, rows: Sequence[dict[str, Any]]) -> float:
    """Evaluations until the goal (infinite if it was not reached), or the hypervolume at the end."""
    if name != "dtlz2":
        return problem.volume([row["true"] for row in rows])
    seen = []
    for count, row in enumerate(rows, start=1):
        seen.append(row["true"])
        if problem.volume(seen) >= 0.9 * problem.best:
            return count
    return float("inf")


def _verdict(name: str, bare: float, ours: float) -> tuple[str, bool]:
    match name:
        case "dtlz2":
            return f"Target: at most 1.1 times the bare loop's (here {ours / bare:.2f})", ours <= 1.1 * bare
        case "branincurrin":
            return "Target: at least 54 of 59.36", ours >= 54
        case _:
            return f"Target: at least 0.9 times the bare loop's (here {ours / bare:.2f})", ours >= 0.9 * bare


def _detector(found: dict[str, Any], missed: list[str]) -> list[str]:
    done, trials = found["done"], found["trials"]
    wanted = {"simulation": 800, "merge": 100, **{f"analysis_{k}": 100 for k in range(4)}}
    lost = {step: done.get(step) for step, count in wanted.items() if done.get(step) != count}
    doubled = found["jobs tried twice"] + found["trials told twice"] + found["jobs without an end"]
    if lost or doubled or found["problems"]:
        missed.append(f"detector: lost or doubled jobs: {lost}, {found}")
    for figure, limit in (("driver cores", 1.0), ("driver memory_mb", 500.0)):
        if found[figure] > limit:
            missed.append(f"detector: {figure} {found[figure]:.3g}, at most {limit:g}")
    analyses = sum(done[f"analysis_{k}"] for k in range(4))
    text = f"""\
## The shape of a detector study

Six parameters, three maximised objectives with thresholds, a gate, 4 points x 2 particles, 4 analyses, one merge.

* {trials.get("completed", 0)} trials completed, {trials.get("infeasible", 0)} stopped by the gate;
  {done["simulation"]} simulations, {analyses} analyses, {done["merge"]} merges.
* {doubled} jobs or trials done twice, told twice or left without an end;
  {len(found["problems"])} problems in the database.
* {found["took_s"]:.0f} s; the driver took {found["driver cores"]:.2f} cores
  and at most {found["driver memory_mb"]:.0f} MB, in an environment with the package alone; there a loop by hand
  that proposes and tells 150 designs takes {found["bare loop memory_mb"]:.0f} MB. Targets: 1 core and 500 MB.
"""
    return text.split("\n")


def _plot(name: str, pairs: Sequence[tuple[int, list[dict[str, Any]], dict[str, Any]]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    problem = PROBLEMS[name]
    figure, (by_count, by_time) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for _, bare, ours in pairs:
        for rows, colour in ((bare, "tab:gray"), (ours["rows"], "tab:blue")):
            volumes = [problem.volume([row["true"] for row in rows[:count]]) for count in range(1, len(rows) + 1)]
            by_count.plot(range(1, len(rows) + 1), volumes, color=colour, alpha=0.7)
            by_time.plot([row["at"] for row in rows], volumes, color=colour, alpha=0.7)
    goal = 0.9 * problem.best if name == "dtlz2" else 54 if name == "branincurrin" else None
    for axes in (by_count, by_time):
        if goal is not None:
            axes.axhline(goal, color="tab:red", linewidth=0.8)
        axes.grid(alpha=0.3)
    by_count.set(xlabel="evaluations", ylabel="hypervolume", title=name)
    by_time.set(xlabel="seconds (ours: 2 s a job, one kill and resume)")
    by_count.plot([], [], color="tab:gray", label="bare loop")
    by_count.plot([], [], color="tab:blue", label="ours")
    by_count.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _machine() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ax-platform", "botorch", "torch"))
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {where}, {versions}. Two runs at a time, one thread each. In ours a "
        "tenth of the jobs fail at first, and the program is killed once (SIGKILL) and resumed."
    )
