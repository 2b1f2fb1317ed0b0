"""Which names do not ship: the user's patterns, meaning what they mean to the existing PanDA client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.errors import ConfigurationError

_MAKES_AN_EXPRESSION = frozenset("*?[]^$.()|+{}")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One pattern.

    A pattern with any of ``*?[]^$.()|+{}`` is a regular expression that must match the *beginning* of a name; any
    other pattern must equal the name. So ``work`` takes only ``work``, while ``.*log`` takes ``catalog.py``.

    Attributes:
        pattern: As the user wrote it.
        expression: Its compiled form; None when the pattern is a plain name.
    """

    pattern: str
    expression: re.Pattern[str] | None

    @classmethod
    def parse(cls, pattern: str) -> Exclusion:
        """Read a pattern.

        Raises:
            ConfigurationError: It is no valid regular expression.
        """
        if not _MAKES_AN_EXPRESSION.intersection(pattern):
            return cls(pattern, None)
        try:
            return cls(pattern, re.compile(pattern))
        except re.error as error:
            hint = f"; as an expression '{pattern}' is written '.{pattern}'" if pattern.startswith("*") else ""
            raise ConfigurationError(
                f"exclude_source_files: {pattern!r} is no valid regular expression ({error}){hint}"
            ) from error

    def takes(self, name: str) -> bool:
        """Whether a file or directory of this base name stays at home."""
        if self.expression is None:
            return name == self.pattern
        return self.expression.match(name) is not None

    def takes_by_its_beginning(self, name: str) -> bool:
        """Whether the name is taken although the expression does not match the whole of it."""
        return self.expression is not None and self.takes(name) and self.expression.fullmatch(name) is None


def parse_exclusions(patterns: Sequence[str]) -> tuple[Exclusion, ...]:
    """Read the user's list of patterns.

    Raises:
        ConfigurationError: It is no list of strings, or a pattern is no valid regular expression.
    """
    is_list = isinstance(patterns, Sequence) and not isinstance(patterns, str)
    if not is_list or not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigurationError(f"exclude_source_files must be a list of strings, not {patterns!r}")
    return tuple(Exclusion.parse(pattern) for pattern in patterns)
