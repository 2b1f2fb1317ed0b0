"""Whose token or proxy programs would use, and how long it lives. Nothing is verified and no secret is shown."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.doctor.checks import Check, Verdict

_TOKEN_VARIABLE, _TOKEN_FILE_VARIABLE, _LEAKING_VARIABLE = (
    "PANDA_AUTH_ID_TOKEN",
    "OIDC_AUTH_TOKEN_FILE",
    "OIDC_AUTH_ID_TOKEN",
)
_LOG_IN = "run scheduler login"
_SHORT_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Token:
    """A token and where it comes from."""

    source: str
    text: str
    can_be_renewed: bool = False


class _UnreadableError(Exception):
    """There is something in the place of a token that is none; the message says what."""


def examine_token(environment: Mapping[str, str], *, is_needed: bool) -> Iterator[Check]:
    """The identity token of panda-client: where it is, whose, how long it lives.

    Args:
        environment: The environment variables of programs.
        is_needed: Whether a grid service is configured.
    """
    wants_token = is_needed and environment.get("PANDA_AUTH") == "oidc"
    try:
        token = _find_token(environment)
        if token is None:
            found = "none" if wants_token else "none, and none is needed (PANDA_AUTH is not oidc, or there is no grid)"
            yield Check("token", Verdict.FAIL if wants_token else Verdict.OK, found, _LOG_IN if wants_token else "")
        else:
            yield _judge(token, _claims(token), time.time(), is_needed=wants_token)
    except _UnreadableError as error:
        yield Check("token", Verdict.FAIL if wants_token else Verdict.WARN, str(error), f"remove it and {_LOG_IN}")
    if environment.get(_LEAKING_VARIABLE):
        remedy = f"unset it, and let {_TOKEN_FILE_VARIABLE} name a file instead"
        found = f"{_LEAKING_VARIABLE} is set; iDDS's client copies it into job parameters that others can read"
        yield Check("token in the environment", Verdict.WARN, found, remedy)


def token_in_words(environment: Mapping[str, str]) -> str:
    """Whose token programs would use, and how long it lives."""
    return next(examine_token(environment, is_needed=True)).found


def examine_proxy(environment: Mapping[str, str], *, is_needed: bool) -> Iterator[Check]:
    """The grid proxy file: whether it is there, and private."""
    wants_proxy = is_needed and environment.get("PANDA_AUTH") != "oidc"
    named = environment.get("X509_USER_PROXY")
    file = Path(named or f"/tmp/x509up_u{os.getuid()}")  # noqa: S108 - where grid tools put it
    if not file.is_file():
        if wants_proxy or named:
            remedy = "run voms-proxy-init, or set PANDA_AUTH=oidc to use a token"
            yield Check("proxy", Verdict.FAIL if wants_proxy else Verdict.WARN, f"{file} does not exist", remedy)
        else:
            yield Check("proxy", Verdict.OK, "none, and none is needed")
    elif file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Check("proxy", Verdict.WARN, f"{file} can be read by others", f"chmod 600 {file}")
    else:
        yield Check("proxy", Verdict.OK, str(file))


def _find_token(environment: Mapping[str, str]) -> _Token | None:
    """The token that panda-client would take: from the environment, else from the file that it keeps."""
    if environment.get(_TOKEN_VARIABLE):
        return _Token(f"${_TOKEN_VARIABLE}", environment[_TOKEN_VARIABLE])
    if environment.get(_TOKEN_FILE_VARIABLE):
        file = Path(environment[_TOKEN_FILE_VARIABLE])
        return _Token(str(file), _read(file).strip())
    if environment.get(_LEAKING_VARIABLE):
        return _Token(f"${_LEAKING_VARIABLE}", environment[_LEAKING_VARIABLE])
    file = Path(environment.get("PANDA_CONFIG_ROOT", ".")).expanduser() / ".token"
    if not file.is_file():
        return None
    try:
        kept = json.loads(_read(file))
        return _Token(str(file), str(kept["id_token"]), can_be_renewed="refresh_token" in kept)
    except (ValueError, KeyError, TypeError):
        raise _UnreadableError(f"{file} is no token file of panda-client") from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _UnreadableError(f"{file} cannot be read: {error}") from error


def _claims(token: _Token) -> Mapping[str, Any]:
    try:
        payload = token.text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        float(claims["exp"])
    except (ValueError, IndexError, KeyError, TypeError):
        raise _UnreadableError(f"what is in {token.source} is no JSON web token with an end of life") from None
    return dict(claims)


def _judge(token: _Token, claims: Mapping[str, Any], now: float, *, is_needed: bool) -> Check:
    owner = next((claims[name] for name in ("name", "preferred_username", "email", "sub") if claims.get(name)), "?")
    left = float(claims["exp"]) - now
    whose = f"of {owner}, from {token.source}"
    if left > 0:
        found = f"{whose}, lives for {_duration(left)}"
        if left > _SHORT_S or token.can_be_renewed:
            return Check("token", Verdict.OK, found)
        return Check("token", Verdict.WARN, found, f"it cannot be renewed by itself: {_LOG_IN}")
    found = f"{whose}, expired {_duration(-left)} ago"
    if token.can_be_renewed:
        return Check("token", Verdict.OK, f"{found}; panda-client will renew it")
    return Check("token", Verdict.FAIL if is_needed else Verdict.WARN, found, _LOG_IN)


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    hours, days = minutes // 60, minutes // 1440
    if days > 1:
        return f"{days} days"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
