"""Addresses as people may see them: every message and page shows them by ``shown``, and none shows a password."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy import exc

_HIDDEN = "***"
_TOLD = {
    *("user", "host", "hostaddr", "port", "dbname", "sslmode", "target_session_attrs", "connect_timeout"),
    *("application_name", "gssencmode", "channel_binding", "mode", "service"),
}
"""Parameters of an address that are shown; the value of any other may be a secret."""

_HOST = re.compile(r"[A-Za-z0-9._~:,%-]*")
_WITHOUT_SECRETS = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?[A-Za-z0-9_./~ -]*", re.IGNORECASE)


def shown(url: str | sa.URL) -> str:
    """The address without what may be secret; of a text that is none, no more than is surely harmless.

    >>> shown("postgresql://me:secret@db.example/results?password=secret&sslmode=require")
    'postgresql://me:***@db.example/results?password=***&sslmode=require'
    >>> shown("postgresql://me:sec@ret@db.example/results")
    'postgresql://***'
    >>> shown("host=db.example password=secret")
    '***'
    """
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        return _of_text(str(url))
    if parsed.drivername.split("+")[0] == "sqlite":
        return f"{parsed.drivername}:///{re.sub('[%?#]', lambda mark: quote(mark.group()), parsed.database or '')}"
    if not is_host(parsed.host) or (isinstance(url, str) and is_ambiguous(url)):
        return f"{parsed.drivername}://{_HIDDEN}"
    told = {name: value if name in _TOLD else _HIDDEN for name, value in parsed.query.items()}
    plain = parsed.set(query={}).render_as_string(hide_password=True)
    pairs = [(name, one) for name, value in told.items() for one in ([value] if isinstance(value, str) else value)]
    return plain + ("?" + "&".join(f"{quote_plus(n)}={quote(v, safe='*/')}" for n, v in pairs) if pairs else "")


def _of_text(text: str) -> str:
    if text.startswith("sqlite:") or _WITHOUT_SECRETS.fullmatch(text):
        return text
    scheme = re.match(r"[a-z][a-z0-9+.-]*:(//)?", text, re.IGNORECASE)
    return f"{scheme.group()}{_HIDDEN}" if scheme else _HIDDEN


def secrets_of(url: sa.URL) -> list[str]:
    """Every text in an address that ``shown`` hides, as it stands there and as it is written in an address."""
    values = [str(url.password)] if url.password else []
    for name, value in url.query.items():
        if name not in _TOLD:
            values += [value] if isinstance(value, str) else value
    forms = {form for value in values if value for form in (value, quote(value, safe=""), quote_plus(value))}
    return sorted(forms, key=len, reverse=True)


def redacted(text: str, url: sa.URL) -> str:
    """What a driver or a program said, without the secrets of the address that it was given."""
    for secret in secrets_of(url):
        text = text.replace(secret, _HIDDEN)
    return text


def is_host(name: str | None) -> bool:
    """Whether this may be the name of a host; what an unquoted @ leaves of a password is none."""
    return bool(_HOST.fullmatch(name or ""))


def is_ambiguous(address: str) -> bool:
    """Whether a character that ends a part of an address stands unquoted before its last @, perhaps in a password."""
    rest = address.partition("://")[2]
    return not address.startswith("sqlite") and bool(re.search(r"[/?#@\s]", rest.rpartition("@")[0]))
