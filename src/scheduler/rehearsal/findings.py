"""What a rehearsal finds: facts with a place and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Kind(StrEnum):
    """What it is about."""

    CONFIGURATION = "configuration"
    SHIPPING = "shipping"
    SIZE = "size"
    GUARD = "guard"
    IMPORT = "import"
    FILE = "file"
    PATH = "path"
    WRITE = "write"
    VARIABLE = "variable"
    OUTPUT = "output"
    LIMIT = "limit"
    RESULT = "result"
    FAILURE = "failure"
    PROGRAM = "program"
    COVERAGE = "coverage"
    USE = "use"


_REMEDIES = {
    Kind.CONFIGURATION: "correct the argument; nothing has been run",
    Kind.SHIPPING: "change the function, the files or exclude_source_files as the message says",
    Kind.SIZE: "keep what the jobs do not need at home with exclude_source_files, or read it from a dataset",
    Kind.GUARD: 'put what only the program itself shall do below  if __name__ == "__main__":',
    Kind.IMPORT: "ship the module in source_dir, loosen exclude_source_files, or install it with init_env",
    Kind.FILE: "put the file into source_dir, loosen exclude_source_files, or take it from an input dataset",
    Kind.PATH: "ship it in source_dir and open it by a relative path, or take it from an input dataset",
    Kind.WRITE: "write into the working directory; what shall be kept goes into output_file or the result",
    Kind.VARIABLE: "set it in init_env, or give its value as an argument or in a file that ships",
    Kind.OUTPUT: "write the file under exactly this name, relative to the working directory of the job",
    Kind.LIMIT: "let the job use less, or raise max_walltime, total_memory or the limits of the step",
    Kind.RESULT: "return a dict of numbers, {metric: value} or {metric: (mean, sem)}",
    Kind.FAILURE: "read the traceback in the log, and mend the function",
    Kind.PROGRAM: "run the program by itself until it reaches run_optimization",
    Kind.COVERAGE: "mend what is reported above, and rehearse again",
    Kind.USE: "",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        kind: What it is about.
        severity: Errors would fail on the grid; warnings might.
        message: A sentence for the user.
        step: The step of the workflow, if it is about one.
        file: The source file, relative to the source directory or the directory of the program, if there is one.
        line: The line in it.
        remedy: What to do; empty for notes that ask for nothing.
    """

    kind: Kind
    severity: Severity
    message: str
    step: str | None = None
    file: str | None = None
    line: int | None = None
    remedy: str = ""

    def __post_init__(self) -> None:
        if not self.remedy and self.severity is not Severity.NOTE:
            object.__setattr__(self, "remedy", _REMEDIES[self.kind])

    @property
    def place(self) -> str:
        """File and line as editors understand them; empty when it has no place."""
        if self.file is None:
            return ""
        return self.file if self.line is None else f"{self.file}:{self.line}"
