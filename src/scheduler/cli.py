"""The command ``scheduler``: rehearse a program, look at its run, resume it, re-analyse it, stop it, verify it.

Exit codes: 0 when all is well, 1 when the answer is a problem (a damaged run, nothing to cancel), 2 for wrong usage.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from scheduler import reanalysing
from scheduler.core.events import Event, JobEvent, encode
from scheduler.core.states import JobState, TrialState
from scheduler.errors import SchedulerError
from scheduler.export import FORMATS, rows_of, write
from scheduler.run_directory import DATABASE
from scheduler.run_view import JobView, RunView, TrialView

if TYPE_CHECKING:
    from rich.console import Console

_RUN = click.argument("run", type=click.Path(file_okay=False, path_type=Path))
_LOG_TAIL_LINES = 30
_FOLLOW_EVERY_S = 0.5
_WIDTH_OF_A_FILE = 200
_LONGEST_DETAIL = 300
"""Characters of one value in a line of ``scheduler events``; Ax's account of a candidate has thousands."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aid2e-scheduler")
def main() -> None:
    """Rehearse programs, look at their runs, resume, re-analyse, stop and verify them.

    RUN is a run directory, for example scheduler_runs/my_experiment. All commands work while the run goes on and after
    it.

    \b
    Examples:
      scheduler list
      scheduler status scheduler_runs/my_experiment
      scheduler why scheduler_runs/my_experiment 3
      scheduler resume scheduler_runs/my_experiment
    """


@contextmanager
def _view(run: Path) -> Iterator[RunView]:
    """A view of the run; our errors become messages of the command."""
    try:
        view = RunView(run)
        try:
            yield view
        finally:
            view.close()
    except SchedulerError as error:
        raise click.ClickException(str(error)) from error


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


@main.command("list")
@click.argument("root", type=click.Path(file_okay=False, path_type=Path), default="scheduler_runs")
def list_runs(root: Path) -> None:
    """List the runs below ROOT (default: scheduler_runs)."""
    from rich.table import Table

    databases = sorted(root.glob(f"*/{DATABASE}"))
    if not databases:
        raise click.ClickException(f"there are no runs in {root}")
    table = Table("run", "is", "completed", "failed", "under way", "created", "best", box=None, header_style="bold")
    for database in databases:
        with _view(database.parent) as view:
            counts = view.trial_counts()
            table.add_row(
                database.parent.name,
                _activity(view),
                str(counts.get(TrialState.COMPLETED, 0)),
                str(_failed(counts)),
                str(_under_way(counts)),
                str(view.about.get("created", "")),
                view.standing(),
            )
    _console().print(table)


@main.command()
@_RUN
def status(run: Path) -> None:
    """One screen: trials, steps, running jobs, failures by cause, the best result.

    \b
    Example:
      watch scheduler status scheduler_runs/my_experiment
    """
    console = _console()
    with _view(run) as view:
        counts = view.trial_counts()
        console.print(f"[bold]{view.about.get('experiment')}[/bold] in {view.path}: {_activity(view)}")
        if "reanalysis" in view.about:
            from scheduler.reanalysis import plan_of

            console.print(f"begun by {plan_of(view.about)}", markup=False)
        console.print(
            f"trials: {counts.get(TrialState.COMPLETED, 0)} completed, {_failed(counts)} failed, "
            f"{_infeasible(counts)}{_under_way(counts)} under way"
        )
        if standing := view.standing():
            console.print(f"best: {standing}")
        console.print(_steps_table(view))
        active = view.jobs(active_only=True)
        if active:
            console.print(_jobs_table(active))
        for cause, message, count in view.failures():
            console.print(f"{count} jobs failed by {cause}, for example: {message}", markup=False)


@main.command()
@_RUN
@click.argument("trial", type=int)
def why(run: Path, trial: int) -> None:
    """Why a trial failed: the first true error, its log, and how many trials share it.

    \b
    Example:
      scheduler why scheduler_runs/my_experiment 3
    """
    with _view(run) as view:
        record = _need_trial(view, trial)
        job = view.first_failure(trial)
        if job is None:
            click.echo(_why_not_failed(record))
            _echo_whereabouts(view.jobs(trial=trial))
            return
        click.echo(f"trial {trial} failed in {_where(job)}, attempt {job.attempt}, by {job.cause}:")
        click.echo(f"  {job.message}")
        sharing = view.trials_that_share(job.message or "")
        if sharing > 1:
            click.echo(f"{sharing} trials failed with this very message")
        if job.log:
            click.echo(f"log: {job.log}")
            _echo_tail(Path(job.log))
        _echo_whereabouts(view.jobs(trial=trial))


@main.command()
@_RUN
@click.argument("trial", type=int)
@click.argument("step", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on as the logs grow, until the trial is over.")
def logs(run: Path, trial: int, step: str | None, *, follow: bool) -> None:
    """Print the logs of a trial's jobs, or of one STEP.

    \b
    Example:
      scheduler logs scheduler_runs/my_experiment 3 simreco --follow
    """
    with _view(run) as view:
        record = _need_trial(view, trial)
        shown: dict[Path, int] = {}
        while True:
            is_over = record.state.is_terminal
            for path in view.logs(trial, step):
                _echo_new(path, shown)
            if not follow or is_over:
                break
            time.sleep(_FOLLOW_EVERY_S)
            record = _need_trial(view, trial)
        if not shown:
            raise click.ClickException(f"trial {trial} has no logs" + (f" of step '{step}'" if step else ""))


@main.command()
@_RUN
@click.option("--follow", "-f", is_flag=True, help="Go on with new events; end with Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, as they are stored.")
@click.option("--trial", type=int, help="Only the events of this trial.")
def events(run: Path, *, follow: bool, as_json: bool, trial: int | None) -> None:
    """Print everything that happened, in order.

    \b
    Examples:
      scheduler events scheduler_runs/my_experiment --trial 3
      scheduler events scheduler_runs/my_experiment --json --follow | jq .kind
    """
    render: Callable[[int, Event], str] = _event_json if as_json else _event_line
    last = 0
    with _view(run) as view:
        while True:
            for number, event in view.store.events(after=last, trial=trial):
                click.echo(render(number, event))
                last = number
            if not follow:
                break
            sys.stdout.flush()
            time.sleep(_FOLLOW_EVERY_S)


@main.command()
@_RUN
@click.option("--format", "form", type=click.Choice(FORMATS), default="csv", show_default=True)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of stdout.")
def export(run: Path, form: str, output: Path | None) -> None:
    """Write one row per trial: parameters, objectives with sem, status, times, cost.

    \b
    Example:
      scheduler export scheduler_runs/my_experiment --format csv -o trials.csv
    """
    with _view(run) as view:
        write(rows_of(view.trials()), form, output or sys.stdout)


@main.command()
@_RUN
@click.option("--accept-changes", is_flag=True, help="Go on although functions, runners or limits have changed.")
def resume(run: Path, *, accept_changes: bool) -> None:
    """Go on with a run: starts its program again, in its directory, with its arguments.

    \b
    Example:
      scheduler resume scheduler_runs/my_experiment
    """
    with _view(run) as view:
        about = view.about
        holder = view.holder()
    if holder is not None:
        raise click.ClickException(f"the run is being worked on by process {holder[0]} on {holder[1]}")
    command, directory = _command_of(about)
    environment = {**os.environ, "SCHEDULER_RESUME": str(run.resolve())}
    if accept_changes:
        environment["SCHEDULER_ACCEPT_CHANGES"] = "1"
    click.echo(f"in {directory}: {' '.join(command)}", err=True)
    sys.stdout.flush()
    os.chdir(directory)
    os.execvpe(command[0], command, environment)  # noqa: S606 - the program becomes the user's


@main.command()
@_RUN
@click.argument("program", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--from", "steps", multiple=True, required=True, metavar="STEP", help="The changed step; may be repeated."
)
@click.option("--run-dir", type=click.Path(file_okay=False, path_type=Path), help="The directory of the new run.")
def reanalyse(
    run: Path, program: Path, arguments: tuple[str, ...], steps: tuple[str, ...], run_dir: Path | None
) -> None:
    """Run the steps from STEP on for all trials of RUN, as the changed PROGRAM says, and go on from there.

    The results and datasets of the other steps are kept. All of it goes into a new run directory; RUN is only read.
    Arguments of PROGRAM come after --.

    \b
    Example:
      scheduler reanalyse scheduler_runs/my_experiment my_program.py --from merge
    """
    from scheduler.reanalysis import plan_of

    with _view(run) as view:
        python = str(view.about.get("executable") or sys.executable)
    order = reanalysing.Order(str(run.resolve()), steps, None if run_dir is None else str(run_dir.resolve()))
    command = [python if Path(python).exists() else sys.executable, str(program), *arguments]
    with tempfile.TemporaryDirectory(prefix="scheduler-") as directory:
        file = Path(directory) / "order.json"
        order.write(file)
        ours = {"SCHEDULER_RESUME", "SCHEDULER_ACCEPT_CHANGES"}
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        code = _run_program(command, {**environment, reanalysing.VARIABLE: str(file)})
        made = reanalysing.made_run(file)
    if made is not None:
        with _view(made) as view:
            click.echo(str(plan_of(view.about)), err=True)
        click.echo(f"new run directory: {made}", err=True)
    elif code == 0:
        raise click.ClickException(f"{program} ended without calling run_optimization, so nothing was re-analysed")
    sys.exit(code)


def _run_program(command: list[str], environment: dict[str, str]) -> int:
    """Run a program that gets the signals meant for this command; returns its exit code, as a shell would."""
    with subprocess.Popen(command, env=environment) as process:
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),  # the terminal sends it to both
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number)),
        }
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return code if code >= 0 else 128 - code


@main.command()
@_RUN
@click.option("--trial", type=int, help="Only this trial; the run goes on.")
def cancel(run: Path, trial: int | None) -> None:
    """Cancel running jobs and end the run, which can be resumed; or cancel one trial.

    \b
    Example:
      scheduler cancel scheduler_runs/my_experiment --trial 3
    """
    with _view(run) as view:
        holder = view.holder()
        if holder is None:
            raise click.ClickException(f"nobody works on the run in {run}, so there is nothing to cancel")
        if trial is not None and _need_trial(view, trial).state.is_terminal:
            raise click.ClickException(f"trial {trial} is over already")
        view.store.ask({"kind": "stop"} if trial is None else {"kind": "cancel", "trial": trial})
        what = "to stop" if trial is None else f"to cancel trial {trial}"
        click.echo(f"asked process {holder[0]} on {holder[1]} {what}")


@main.command()
@_RUN
def verify(run: Path) -> None:
    """Replay all events and compare the outcome with the tables; exit code 1 if anything is wrong."""
    with _view(run) as view:
        problems = list(view.problems())
        count = view.store.query("SELECT count(*) FROM events")[0][0]
    for problem in problems:
        click.echo(problem)
    if problems:
        raise click.ClickException(f"{len(problems)} problems in {run}")
    click.echo(f"{count} events agree with the tables")


@main.command(context_settings={"allow_interspersed_args": False})
@click.option("--json", "as_json", is_flag=True, help="The findings as one JSON object.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the files of the rehearsal in this new directory.")
@click.argument("program", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def rehearse(program: Path, arguments: tuple[str, ...], keep: Path | None, *, as_json: bool) -> None:
    """Run one trial of PROGRAM as bare as on a node and report what would fail on the grid.

    The jobs run on this machine out of the very tarball, with an empty home directory, PATH, LANG and what init_env
    makes. What the program prints goes to stderr. Exit code 1 when something would fail. Options come before PROGRAM.

    \b
    Example:
      scheduler rehearse my_program.py
    """
    from scheduler.rehearsal import rehearse as perform
    from scheduler.rehearsal import render

    try:
        if keep is not None:
            keep.mkdir(parents=True)
        outcome = perform(program, arguments, directory=keep)
    except (SchedulerError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(render.as_json(outcome) if as_json else render.as_text(outcome))
    if keep is None and not outcome.would_fail:
        shutil.rmtree(outcome.directory, ignore_errors=True)
    sys.exit(outcome.would_fail)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line of the table.")
def doctor(*, as_json: bool) -> None:
    """Look at what programs will find here: versions, cores, services, credentials. Exit code 1 when something fails.

    \b
    Example:
      scheduler doctor
    """
    from scheduler import doctor as practice

    checks = practice.examine(os.environ, Path.cwd())
    if as_json:
        click.echo("\n".join(practice.as_json(check) for check in checks))
    else:
        _console().print(practice.as_table(checks))
    sys.exit(any(check.verdict is practice.Verdict.FAIL for check in checks))


@main.command()
@click.option("--force", is_flag=True, help="Log in anew although the present token is still good.")
def login(*, force: bool) -> None:
    """Get a token for PanDA: sign in with a browser on any device. Programs that wait for a token go on by themselves.

    The token is kept where panda-client keeps it, below PANDA_CONFIG_ROOT, readable for you alone.

    \b
    Example:
      source ./setup_panda_bnl.sh && scheduler login
    """
    from scheduler.doctor import token_in_words
    from scheduler.panda import login as flow
    from scheduler.panda.idds import open_oidc

    try:
        flow.check_login(os.environ)
        oidc = open_oidc()
        if force or not flow.has_good_token(oidc, click.echo):
            flow.log_in(oidc, click.echo)
    except SchedulerError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("given up; nothing was changed") from None
    click.echo(f"token {token_in_words(os.environ)}")


# Words ------------------------------------------------------------------------------------------------------------


def _activity(view: RunView) -> str:
    holder = view.holder()
    return "not running" if holder is None else f"running (process {holder[0]} on {holder[1]})"


def _failed(counts: dict[TrialState, int]) -> int:
    return counts.get(TrialState.FAILED, 0) + counts.get(TrialState.CANCELLED, 0)


def _infeasible(counts: dict[TrialState, int]) -> str:
    count = counts.get(TrialState.INFEASIBLE, 0)
    return f"{count} infeasible, " if count else ""


def _under_way(counts: dict[TrialState, int]) -> int:
    return counts.get(TrialState.RUNNING, 0) + counts.get(TrialState.CREATED, 0)


def _need_trial(view: RunView, trial: int) -> TrialView:
    found = next(view.trials(index=trial), None)
    if found is None:
        numbers = [each.index for each in view.trials()]
        known = f"trials {min(numbers)} to {max(numbers)}" if numbers else "no trials"
        raise click.ClickException(f"there is no trial {trial}; the run has {known}")
    return found


def _why_not_failed(trial: TrialView) -> str:
    if trial.state is TrialState.COMPLETED:
        return f"trial {trial.index} did not fail: it completed with {trial.result}"
    if trial.state is TrialState.INFEASIBLE:
        return f"trial {trial.index} did not fail: its design is infeasible: {trial.failure}"
    if trial.state is TrialState.CANCELLED:
        return f"trial {trial.index} was cancelled: {trial.failure or 'no reason is recorded'}"
    return f"trial {trial.index} has not failed: it is {trial.state}"


def _where(job: JobView) -> str:
    return f"step '{job.step}'" + ("" if job.point == "None" else f", point {job.point}")


def _echo_whereabouts(jobs: list[JobView]) -> None:
    """Where jobs can be looked at, and which results were not simply computed."""
    for job in jobs:
        if job.link:
            click.echo(f"{_where(job)} is {job.state}: {job.link}")
        if job.source:
            click.echo(f"{_where(job)} has its result from {job.source}")


def _steps_table(view: RunView) -> Any:  # noqa: ANN401 - rich is imported late
    from rich.table import Table

    table = Table("step", "queued", "running", "done", "failed", "stopped", box=None, header_style="bold")
    for step, counts in view.step_counts().items():
        table.add_row(
            step,
            str(_sum(counts, JobState.SUBMITTING, JobState.QUEUED, JobState.RETRYING)),
            str(_sum(counts, JobState.RUNNING, JobState.CANCELLING)),
            str(_sum(counts, JobState.COMPLETED)),
            str(_sum(counts, JobState.FAILED)),
            str(_sum(counts, JobState.CANCELLED, JobState.INFEASIBLE)),
        )
    return table


def _sum(counts: dict[JobState, int], *states: JobState) -> int:
    return sum(counts.get(state, 0) for state in states)


def _jobs_table(jobs: list[JobView], limit: int = 20) -> Any:  # noqa: ANN401
    from rich.table import Table

    table = Table("trial", "step", "point", "state", "age", "native id", box=None, header_style="bold")
    has_links = any(job.link for job in jobs[:limit])
    if has_links:
        table.add_column("look at", overflow="fold")
    now = time.time()
    for job in jobs[:limit]:
        age = "" if job.started_at is None else f"{now - job.started_at:.0f} s"
        cells = [str(job.trial), job.step, job.point, job.state.value, age, job.native_id, job.link]
        table.add_row(*cells[: len(table.columns)])
    if len(jobs) > limit:
        table.add_row("...", f"{len(jobs) - limit} more")
    return table


def _event_json(number: int, event: Event) -> str:
    return json.dumps({"id": number, **encode(event)})


def _event_line(number: int, event: Event) -> str:
    at = datetime.fromtimestamp(event.at).astimezone().isoformat(sep=" ", timespec="milliseconds")
    subject = str(event.job) if isinstance(event, JobEvent) else f"trial {event.trial}"
    skipped = {"kind", "version", "job", "trial", "at"}
    details = {name: value for name, value in encode(event).items() if name not in skipped and value not in (None, "")}
    words = " ".join(f"{name}={_shortened(json.dumps(value))}" for name, value in details.items())
    return f"{number:6d} {at} {subject}: {type(event).__name__} {words}".rstrip()


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_DETAIL else f"{text[:_LONGEST_DETAIL]}... (all of it with --json)"


def _echo_tail(path: Path) -> None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        click.echo(f"  (cannot be read: {error})")
        return
    for line in lines[-_LOG_TAIL_LINES:]:
        click.echo(f"  | {line}")


def _echo_new(path: Path, shown: dict[Path, int]) -> None:
    """Print what a log has got since the last look, under its name when it is a new one."""
    with path.open("rb") as file:
        file.seek(shown.get(path, 0))
        text = file.read()
    if path not in shown:
        click.echo(f"==> {path} <==")
    shown[path] = shown.get(path, 0) + len(text)
    _echo_bytes(text, sys.stdout)


def _echo_bytes(text: bytes, stream: IO[str]) -> None:
    stream.write(text.decode("utf-8", errors="replace"))
    stream.flush()


def _command_of(about: dict[str, Any]) -> tuple[list[str], Path]:
    """The command line that started a run, and where."""
    program, directory = about.get("program"), Path(str(about.get("working_directory")))
    if not program or not Path(program).is_file():
        raise click.ClickException(
            f"the run was not started from a program file that still exists ({program}): "
            "start your program again with config['resume'] = True"
        )
    if not directory.is_dir():
        raise click.ClickException(f"the directory {directory}, where the run was started, does not exist any more")
    python = str(about.get("executable") or sys.executable)
    return [python if Path(python).exists() else sys.executable, program, *about.get("arguments", [])], directory


if __name__ == "__main__":
    main()
