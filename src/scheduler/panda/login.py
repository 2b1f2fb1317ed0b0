"""``scheduler login``: a token for PanDA by the device flow of OAuth 2.0 (RFC 8628), kept where panda-client keeps it.

panda-client finds the service's pages, checks and refreshes the token; its own way of waiting asks questions on the
terminal, gives up at the first "slow down" and leaves the file readable for others, so that part is ours.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from scheduler.errors import ConfigurationError, RunnerError, RunnerUnavailableError

TOKEN_VARIABLES = ("PANDA_AUTH_ID_TOKEN", "OIDC_AUTH_TOKEN_FILE", "OIDC_AUTH_ID_TOKEN")
"""The variables that give panda-client a token; it takes the first of these before its own file."""

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL_S, _SLOWER_S, _TIMEOUT_S, _WORD_EVERY_S = 5.0, 5.0, 30.0, 30.0


class Oidc(Protocol):
    """What is used of panda-client's ``OpenIdConnect_Utils``."""

    auth_config_url: str

    def check_token(self) -> tuple[bool, str | None, Mapping[str, Any] | None]:
        """Whether the kept token is good for five more minutes; else its refresh token, if any; its claims."""

    def fetch_page(self, url: str) -> tuple[bool, Any]:
        """Whether a page is there, and its JSON or what went wrong."""

    def refresh_token(self, endpoint: str, client: str, secret: str, refresh: str) -> tuple[bool, str]:
        """Whether a new token was taken and kept, and it or what went wrong."""

    def get_device_code(self, endpoint: str, client: str, audience: str, profile: str | None) -> tuple[bool, Any]:
        """Whether a device code was given, and the answer or what went wrong."""

    def get_token_path(self) -> str:
        """Where the token is kept."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The identity provider of a service.

    Attributes:
        token_endpoint: Where tokens are.
        device_endpoint: Where device codes are.
        client_id: The service's name there.
        client_secret: Its secret, which every user has.
        audience: Who takes the tokens.
        profile: Of the tokens; None for the provider's own.
    """

    token_endpoint: str
    device_endpoint: str
    client_id: str
    client_secret: str
    audience: str
    profile: str | None


def check_login(environment: Mapping[str, str]) -> None:
    """Refuse to log in where that would have no effect.

    Raises:
        ConfigurationError: With what to set.
    """
    if not environment.get("PANDA_URL_SSL"):
        raise ConfigurationError(
            "PANDA_URL_SSL is not set: source the set-up script of your PanDA service (for BNL: setup_panda_bnl.sh)"
        )
    if environment.get("PANDA_AUTH") != "oidc":
        raise ConfigurationError(
            f"PANDA_AUTH is {environment.get('PANDA_AUTH')!r}, so no token is used: export PANDA_AUTH=oidc and "
            "PANDA_AUTH_VO, or make a proxy certificate (voms-proxy-init)"
        )
    if not environment.get("PANDA_AUTH_VO"):
        raise ConfigurationError("PANDA_AUTH_VO is not set: it says which identity provider is asked (for BNL: EIC)")
    if not environment.get("PANDA_CONFIG_ROOT"):
        raise ConfigurationError(
            "PANDA_CONFIG_ROOT is not set, so the token would be kept in the current directory: export it, for example "
            "PANDA_CONFIG_ROOT=$HOME/.panda"
        )
    given = next((name for name in TOKEN_VARIABLES if environment.get(name)), None)
    if given is not None:
        raise ConfigurationError(f"{given} is set, and its token is taken before any other: renew that, or unset it")


def provider_of(oidc: Oidc) -> Provider:
    """The identity provider that the service names.

    Raises:
        RunnerUnavailableError: Its pages cannot be had.
    """
    service = _page(oidc, oidc.auth_config_url)
    try:
        endpoints = _page(oidc, service["oidc_config_url"])
        return Provider(
            token_endpoint=endpoints["token_endpoint"],
            device_endpoint=endpoints.get("device_authorization_endpoint", ""),
            client_id=service["client_id"],
            client_secret=service["client_secret"],
            audience=service.get("audience", ""),
            profile=service.get("jwt_profile"),
        )
    except KeyError as error:
        raise RunnerUnavailableError(f"the pages about the identity provider have no {error}") from error


def renew(oidc: Oidc, provider: Provider, refresh: str) -> None:
    """Change a token that has expired, or will soon, for a new one.

    Raises:
        RunnerUnavailableError: It was refused.
    """
    is_new, text = oidc.refresh_token(provider.token_endpoint, provider.client_id, provider.client_secret, refresh)
    if not is_new:
        raise RunnerUnavailableError(f"the token could not be refreshed: {' '.join(str(text).split())[:300]}")
    Path(oidc.get_token_path()).chmod(0o600)


def has_good_token(oidc: Oidc, tell: Callable[[str], None]) -> bool:
    """Whether the kept token is good for a while, or could be changed for a new one."""
    is_good, refresh, _ = oidc.check_token()
    if is_good:
        tell("There is a good token already; --force gets another one.")
        return True
    if refresh is None:
        return False
    try:
        renew(oidc, provider_of(oidc), refresh)
    except RunnerUnavailableError as error:
        tell(f"{error}; a new login is needed.")
        return False
    tell("The token was refreshed.")
    return True


def log_in(oidc: Oidc, tell: Callable[[str], None], *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Have the user approve a new token in a browser, and keep it.

    Args:
        oidc: panda-client's side.
        tell: Shows a line to the user.
        sleep: Waits so many seconds.

    Raises:
        RunnerUnavailableError: The provider cannot be reached.
        RunnerError: The user declined, or did not approve in time.
    """
    provider = provider_of(oidc)
    if not provider.device_endpoint:
        raise RunnerError("the identity provider offers no login by device code; ask those who run the service")
    is_given, answer = oidc.get_device_code(
        provider.device_endpoint, provider.client_id, provider.audience, provider.profile
    )
    if not is_given:
        raise RunnerUnavailableError(f"the identity provider gave no device code: {answer}")
    address = answer.get("verification_uri_complete") or answer["verification_uri"]
    tell(f"Open this address in a browser, on any device, and sign in:\n\n  {address}\n")
    if answer.get("user_code"):
        tell(f"The code there should be {answer['user_code']}.")
    _keep(Path(oidc.get_token_path()), _wait(provider, answer, tell, sleep))


def _wait(
    provider: Provider, code: Mapping[str, Any], tell: Callable[[str], None], sleep: Callable[[float], None]
) -> str:
    """Ask for the token, as often as the provider likes, until the user has decided."""
    interval, left = float(code.get("interval") or _INTERVAL_S), float(code["expires_in"])
    word_at = left
    while left > 0:
        if left <= word_at:
            tell(f"Waiting for your approval; the code is good for {left / 60:.0f} more minutes. Ctrl-C gives up.")
            word_at = left - _WORD_EVERY_S
        sleep(interval)
        left -= interval
        match _ask_for_token(provider, code["device_code"]):
            case str(token):
                return token
            case {"error": "authorization_pending"} | None:
                pass
            case {"error": "slow_down"}:
                interval += _SLOWER_S  # RFC 8628, section 3.5
            case {"error": "access_denied"}:
                raise RunnerError("the login was declined in the browser; nothing was changed")
            case {"error": "expired_token"}:
                break
            case refusal:
                words = refusal.get("error_description") or refusal.get("error") or "no reason is given"
                raise RunnerError(f"the identity provider refused the login: {words}")
    raise RunnerError("the login was not approved in time; nothing was changed: run scheduler login again")


def _ask_for_token(provider: Provider, device_code: str) -> str | dict[str, Any] | None:
    """The token's text, why there is none yet, or None when the provider did not answer."""
    data = {"client_id": provider.client_id, "grant_type": _GRANT, "device_code": device_code}
    if provider.client_secret:
        data["client_secret"] = provider.client_secret
    request = Request(provider.token_endpoint, urlencode(data).encode())  # noqa: S310 - as the service says
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310
            text = str(reply.read().decode())
    except HTTPError as error:
        return _refusal(error)
    except OSError:
        return None  # another try is due anyway
    try:
        kept = json.loads(text)["id_token"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunnerError("the identity provider answered something else than a token") from error
    return text if kept else {"error": "the token is empty"}


def _refusal(error: HTTPError) -> dict[str, Any] | None:
    try:
        found = json.loads(error.read())
    except ValueError:
        return None  # a gateway in between
    return found if isinstance(found, dict) and "error" in found else None


def _keep(path: Path, text: str) -> None:
    """Write the token, whole or not at all, for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _page(oidc: Oidc, url: str) -> Mapping[str, Any]:
    is_there, page = oidc.fetch_page(url)
    if not is_there or not isinstance(page, Mapping):
        raise RunnerUnavailableError(f"{url} cannot be had: {page}")
    return page
