"""Identity headers: a trusted proxy that has signed a user in names it, and settings say what that user may do.

As oauth2-proxy does it: `X-Forwarded-Email` and `X-Forwarded-Groups`. Off unless `PREFTUNE_IDENTITY_HEADER` is set;
from any other address than a trusted proxy's the header is refused, never ignored.
"""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from core.domain.access import Scope
from core.settings import Settings, SettingsError

ANYBODY = "*"
MAX_NAME_CHARS = 200
MAX_GROUPS = 200
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_PROJECT = r"[a-z0-9][a-z0-9-]{0,39}"
_ENTRY = re.compile(rf"(?P<name>[^=]+)=(?P<project>{_PROJECT}):(?P<scope>[a-z]+)")


@dataclass(frozen=True)
class Role:
    project_id: str
    scope: Scope


@dataclass(frozen=True)
class Identity:
    """A user that a proxy names, and its role; None: nothing is granted to it."""

    user: str
    role: Role | None


@dataclass(frozen=True, kw_only=True)
class IdentityHeaders:
    """Header names and the roles of users and groups, the first that matches counts."""

    header: str
    groups_header: str
    roles: tuple[tuple[str, Role], ...]

    def is_given(self, headers: Headers) -> bool:
        return self.header in headers or self.groups_header in headers

    def find(self, headers: Headers) -> Identity | None:
        """Return who is named; None where the proxy names nobody, or not exactly one."""
        given = headers.getlist(self.header)
        user = given[0].strip() if len(given) == 1 else ""
        if not user or len(user) > MAX_NAME_CHARS or not user.isprintable():
            return None
        groups = {part.strip() for value in headers.getlist(self.groups_header) for part in value.split(",")}
        if len(groups) > MAX_GROUPS:
            return Identity(user, None)
        names = {user.lower(), *(group.lower() for group in groups if group), ANYBODY}
        return Identity(user, next((role for name, role in self.roles if name in names), None))


def identity_headers(settings: Settings) -> IdentityHeaders | None:
    """Return what the settings say; None when they are off. Raises SettingsError."""
    if settings.identity_header is None:
        return None
    for name, value in (
        ("IDENTITY_HEADER", settings.identity_header),
        ("IDENTITY_GROUPS_HEADER", settings.identity_groups_header),
    ):
        if not _HEADER.fullmatch(value):
            raise SettingsError(f"PREFTUNE_{name}: {value} is no name of a header")
    if not settings.trusted_proxies.strip():
        raise SettingsError("PREFTUNE_IDENTITY_HEADER: needs PREFTUNE_TRUSTED_PROXIES, whose word it is")
    roles = tuple(_role(part.strip()) for part in settings.identity_roles.split(",") if part.strip())
    if not roles:
        raise SettingsError("PREFTUNE_IDENTITY_HEADER: needs PREFTUNE_IDENTITY_ROLES, such as ml-team=default:write")
    return IdentityHeaders(
        header=settings.identity_header.lower(), groups_header=settings.identity_groups_header.lower(), roles=roles
    )


def _role(text: str) -> tuple[str, Role]:
    found = _ENTRY.fullmatch(text)
    scopes = [scope.value for scope in Scope]
    if found is None or found["scope"] not in scopes:
        raise SettingsError(
            f"PREFTUNE_IDENTITY_ROLES: {text} is not <group or user>=<project>:<scope>, scope {', '.join(scopes)}"
        )
    return found["name"].strip().lower(), Role(found["project"], Scope(found["scope"]))
