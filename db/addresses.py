"""Database addresses without their secrets: every message and page shows an address by ``shown``."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy import exc

_HIDDEN = "***"
_SHOWN = {
    *("user", "host", "hostaddr", "port", "dbname", "sslmode", "target_session_attrs", "connect_timeout"),
    *("application_name", "gssencmode", "channel_binding", "mode", "service"),
}
"""Parameters of an address that are shown; the value of any other may be a secret."""

_HOST = re.compile(r"[A-Za-z0-9._~:,%-]*")
_WITHOUT_SECRETS = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?[A-Za-z0-9_./~ -]*", re.IGNORECASE)


def shown(url: str | sa.URL) -> str:
    """The address with passwords and other possible secrets replaced by ``***``.

    Of a text that is not an address, only what is surely harmless is kept.

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
    values = {name: value if name in _SHOWN else _HIDDEN for name, value in parsed.query.items()}
    plain = parsed.set(query={}).render_as_string(hide_password=True)
    pairs = [(name, one) for name, value in values.items() for one in ([value] if isinstance(value, str) else value)]
    return plain + ("?" + "&".join(f"{quote_plus(n)}={quote(v, safe='*/')}" for n, v in pairs) if pairs else "")


def _of_text(text: str) -> str:
    if text.startswith("sqlite:") or _WITHOUT_SECRETS.fullmatch(text):
        return text
    scheme = re.match(r"[a-z][a-z0-9+.-]*:(//)?", text, re.IGNORECASE)
    return f"{scheme.group()}{_HIDDEN}" if scheme else _HIDDEN


def secrets_of(url: sa.URL) -> list[str]:
    """Every text in an address that ``shown`` hides, both plain and percent-encoded, the longest first."""
    values = [str(url.password)] if url.password else []
    for name, value in url.query.items():
        if name not in _SHOWN:
            values += [value] if isinstance(value, str) else value
    forms = {form for value in values if value for form in (value, quote(value, safe=""), quote_plus(value))}
    return sorted(forms, key=len, reverse=True)


def redacted(text: str, url: sa.URL) -> str:
    """A message of a driver or a program without the secrets of the address that it was given."""
    for secret in secrets_of(url):
        text = text.replace(secret, _HIDDEN)
    return text


def is_host(name: str | None) -> bool:
    """Whether this may be the name of a host. A part of a password that contains an unquoted @ is not."""
    return bool(_HOST.fullmatch(name or ""))


def is_ambiguous(address: str) -> bool:
    """Whether a character that ends a part of an address stands unquoted before its last @, perhaps in a password."""
    rest = address.partition("://")[2]
    return not address.startswith("sqlite") and bool(re.search(r"[/?#@\s]", rest.rpartition("@")[0]))
