"""From the notes and the run of a rehearsal to findings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from scheduler.core.states import JobState, TrialState
from scheduler.rehearsal.failures import explain_failure
from scheduler.rehearsal.findings import Finding, Kind, Severity
from scheduler.rehearsal.notes import Note, Notes
from scheduler.rehearsing import Rehearsal
from scheduler.run_directory import DATABASE
from scheduler.run_view import JobView, RunView

_MB = 1024 * 1024
_LARGE_BYTES = 100 * _MB
_MOST_NAMED = 8
_NEAR_A_LIMIT = 0.8
_INIT_ENV_FAILED = "init_env: exit code"
_LONGEST_LINE = 300
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)
_KINDS_BY_EXCEPTION = {"ShippingError": Kind.SHIPPING, "ConfigurationError": Kind.CONFIGURATION}


def judge(rehearsal: Rehearsal, *, exit_code: int) -> list[Finding]:
    """Everything that a rehearsal found, the worst first, each once.

    Args:
        rehearsal: The rehearsal, which is over.
        exit_code: How the program left.
    """
    notes = Notes.read(rehearsal.notes, rehearsal.run)
    seen, failed = list(_of_the_surroundings(notes)), []
    if (rehearsal.run / DATABASE).is_file():
        with closing(RunView(rehearsal.run)) as view:
            failed = list(_of_the_run(view, notes))
    findings = [
        *_of_the_program(notes, exit_code),
        *_of_the_files(notes),
        *_without_echoes(seen, failed),
        *_of_init_env(notes),
        *_of_the_use(notes),
    ]
    return sorted(dict.fromkeys(findings), key=lambda finding: _ORDER.index(finding.severity))


def _of_the_program(notes: Notes, exit_code: int) -> Iterator[Finding]:
    """Errors outside the jobs, and programs that never came to a trial."""
    for raised in notes.of("raised"):
        kind = next((_KINDS_BY_EXCEPTION[name] for name in raised["ancestors"] if name in _KINDS_BY_EXCEPTION), None)
        message = raised["message"] if kind is not None else f"{raised['exception']}: {raised['message']}"
        yield Finding(kind or Kind.PROGRAM, Severity.ERROR, message, file=raised["file"], line=raised["line"])
    if notes.of("raised") or notes.of("ended"):
        return
    left = "".join(f", with exit code {note['code']}" for note in notes.of("left"))
    how = left or (f", with exit code {exit_code}" if exit_code else "")
    yield Finding(
        Kind.PROGRAM, Severity.ERROR, f"the program ended without having run a trial{how}: nothing was rehearsed"
    )


def _of_the_files(notes: Notes) -> Iterator[Finding]:
    """What ships and what does not."""
    selections = notes.of("selected")
    if not selections and notes.of("ended"):
        yield Finding(Kind.COVERAGE, Severity.NOTE, "no step runs on a PanDAiDDSRunner, so no file has to ship")
    for selection in selections:
        sizes: dict[str, int] = selection["files"]
        total = sum(sizes.values())
        left_out = selection["left_out"]
        shown = "; ".join(f"{name} {reason}" for name, reason in sorted(left_out.items())[:_MOST_NAMED])
        more = f"; and {len(left_out) - _MOST_NAMED} more" if len(left_out) > _MOST_NAMED else ""
        count = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
        what = f"{count} of {selection['root']} to ship, {total / _MB:.1f} MB before compression"
        yield Finding(Kind.SHIPPING, Severity.NOTE, what + (f". Not shipped: {shown}{more}" if left_out else ""))
        if total > _LARGE_BYTES:
            biggest = sorted(sizes, key=lambda name: -sizes[name])[:_MOST_NAMED]
            named = ", ".join(f"{name} ({sizes[name] / _MB:.0f} MB)" for name in biggest)
            message = f"{total / _MB:.0f} MB ship with every job, and 768 MB is the limit; the biggest are {named}"
            yield Finding(Kind.SIZE, Severity.WARNING, message)
        for name, pattern in selection["surprises"].items():
            message = f"{name} does not ship: the pattern {pattern!r} takes it by the beginning of its name"
            remedy = f"end the pattern with '$' (for example '{pattern}$') if it is not meant"
            yield Finding(Kind.SHIPPING, Severity.WARNING, message, file=name.rstrip("/"), remedy=remedy)


def _of_init_env(notes: Notes) -> Iterator[Finding]:
    """Lines of init_env that failed here. They may well work there: /cvmfs, for instance, is not everywhere."""
    for log in sorted((notes.run / "sandboxes").glob("init-*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(_INIT_ENV_FAILED):
                yield Finding(Kind.COVERAGE, Severity.NOTE, f"a line of init_env failed here: {line[:_LONGEST_LINE]}")


def _of_the_run(view: RunView, notes: Notes) -> Iterator[Finding]:
    """Jobs that failed, and what they kept from running."""
    jobs = view.jobs()
    failed: dict[tuple[object, ...], list[tuple[JobView, Finding]]] = {}
    for job in jobs:
        if job.state is JobState.FAILED:
            finding = explain_failure(job, notes)
            failed.setdefault((finding.step, finding.kind, finding.place), []).append((job, finding))
    for group in failed.values():
        job, finding = group[0]
        others = f" (and in {len(group) - 1} more jobs of the step)" if len(group) > 1 else ""
        log = f"; log: {job.log}" if job.log else ""
        yield replace(finding, message=f"{finding.message}{others}{log}")
    for trial in view.trials():
        if trial.state is TrialState.FAILED and not failed:
            yield Finding(Kind.RESULT, Severity.ERROR, trial.failure or "the trial failed, and nobody said why")
    submitted = {job.step for job in jobs if job.started_at is not None or job.state is JobState.FAILED}
    missed = [step for step in view.about["identity"]["steps"] if step not in submitted]
    gated = any(trial.state is TrialState.INFEASIBLE for trial in view.trials())
    why = "the trial's design is infeasible: rehearse again" if gated else "a step before it failed"
    for step in missed if failed or gated else []:
        yield Finding(Kind.COVERAGE, Severity.WARNING, f"not rehearsed, because {why}", step)


def _of_the_surroundings(notes: Notes) -> Iterator[Finding]:
    """What jobs touched, or looked for, that exists only here."""
    for note in notes.of("missing"):
        message = f"'{note['asked']}' is not there for the job, but {note['path']} exists here: {_why_not(note, notes)}"
        yield _at(note, notes, Finding(Kind.FILE, Severity.ERROR, message))
    for note in notes.of("touch"):
        yield _at(note, notes, _judge_touch(note, notes))
    for note in notes.of("variable"):
        message = f"the environment variable {note['name']} is set here and will not be there"
        yield _at(note, notes, Finding(Kind.VARIABLE, Severity.WARNING, message))


def _judge_touch(note: Note, notes: Notes) -> Finding:
    match note["how"]:
        case "write" if note["path"].startswith(f"{notes.run.parent / 'home'}/"):
            message = f"writes {note['asked']} into the home directory, which a node may not have"
            return Finding(Kind.WRITE, Severity.WARNING, message)
        case "write":
            return Finding(
                Kind.WRITE, Severity.ERROR, f"writes '{note['asked']}', which is outside the working directory"
            )
        case "run":
            return Finding(
                Kind.PATH,
                Severity.ERROR,
                f"runs {note['path']}, which exists only on this machine",
                remedy="ship the program, or have init_env provide it",
            )
        case _:
            return Finding(Kind.PATH, Severity.ERROR, f"reads {note['path']}, which exists only on this machine")


def _why_not(note: Note, notes: Notes) -> str:
    """Why a file of this machine did not ship."""
    for selection in notes.of("selected"):
        prefix = f"{selection['root']}/"
        if note["path"].startswith(prefix):
            parts = note["path"].removeprefix(prefix).split("/")
            for depth in range(1, len(parts) + 1):
                name = "/".join(parts[:depth])
                if name in selection["left_out"]:
                    return f"{name} {selection['left_out'][name]}"
    roots = ", ".join(selection["root"] for selection in notes.of("selected"))
    return f"it did not ship, as it is not among the files that were found in {roots}"


def _at(note: Note, notes: Notes, finding: Finding) -> Finding:
    return replace(finding, step=notes.step_of(note["directory"]), file=note["file"], line=note["line"])


@dataclass(slots=True)
class _Use:
    """What the jobs of a step used at most, beside their limits."""

    jobs: int = 0
    seconds: float = 0.0
    memory_mb: float = 0.0
    walltime_s: float | None = None
    limit_mb: float | None = None


def _of_the_use(notes: Notes) -> Iterator[Finding]:
    """Time and memory beside the limits, and the seconds of the import."""
    limits = {note["results"]: note for note in notes.of("ordered")}
    uses: dict[str, _Use] = {}
    for note in notes.of("used"):
        step, order = notes.step_of(note["results"]), limits.get(note["results"])
        if step is None or order is None:
            continue
        use = uses.setdefault(step, _Use(walltime_s=order["walltime_s"], limit_mb=order["memory_mb"]))
        use.jobs += 1
        use.seconds = max(use.seconds, note["seconds"])
        use.memory_mb = max(use.memory_mb, note["memory_mb"])
    for step, use in uses.items():
        parts = [("s", use.seconds, use.walltime_s), ("MB", use.memory_mb, use.limit_mb)]
        near = any(limit is not None and used > _NEAR_A_LIMIT * limit for _, used, limit in parts)
        words = " and ".join(f"{used:.1f} of {limit:g} {unit}" for unit, used, limit in parts if limit is not None)
        yield Finding(
            Kind.LIMIT if near else Kind.USE,
            Severity.WARNING if near else Severity.NOTE,
            ("1 job" if use.jobs == 1 else f"{use.jobs} jobs, each") + f" at most {words}",
            step,
        )
    for note in notes.of("blind"):
        message = f"not everything was observed ({note['event']}): {note['message']}"
        yield Finding(
            Kind.COVERAGE, Severity.WARNING, message, remedy="look for paths and variables of this machine yourself"
        )
    for note in notes.of("imported"):
        yield Finding(Kind.USE, Severity.NOTE, f"the import took {note['seconds']:.1f} s", file=note["file"])


def _without_echoes(seen: list[Finding], failed: list[Finding]) -> list[Finding]:
    """What was seen and what failed, without what is said twice.

    A file that is not there is both seen and the end of its job: what was seen tells why. A variable that is not there
    is only suspicious until the job fails for it.
    """

    def subjects(findings: list[Finding]) -> set[tuple[Kind, str]]:
        return {(each.kind, each.place) for each in findings if each.severity is Severity.ERROR and each.place}

    explained, fatal = subjects(seen), subjects(failed)
    return [
        *(each for each in seen if each.severity is Severity.ERROR or (each.kind, each.place) not in fatal),
        *(each for each in failed if (each.kind, each.place) not in explained),
    ]
