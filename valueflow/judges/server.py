"""Where a server of OpenAI's kind is, and its key, which comes from the environment alone."""

import contextlib
import os
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from valueflow.errors import InvalidInput, JudgeUnavailable

OFFICIAL = "https://api.openai.com/v1"

NO_KEY = "none"
"""What servers that want no key are sent."""

_SHORTEST_KEY = 8  # What is shorter is a placeholder ("EMPTY"), and may be a word of an answer.


def import_openai() -> Any:
    """The `openai` package.

    Raises:
        JudgeUnavailable: it is not installed; names the extra.
    """
    try:
        import openai
    except ImportError:
        raise JudgeUnavailable(
            "this judge needs the openai client: pip install 'valueflow[openai]'"
        ) from None
    return openai


def check_url(url: str) -> None:
    """Pass if `url` can be a server's, and holds no secret.

    Raises:
        InvalidInput: not http(s), or with a user, password, query or fragment.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidInput(
            "the base URL holds a user, password or query: keys belong in OPENAI_API_KEY alone"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"expected a base URL such as http://localhost:8000/v1, got {url!r}")


def host_of(url: str) -> str:
    """Host of a URL, "local" for this machine: the port of a local server is of no account."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        address = ip_address(host)
        return "local" if address.is_loopback or address.is_unspecified else host
    return "local" if host == "localhost" else host


def key_for(url: str) -> str:
    """OPENAI_API_KEY, or `NO_KEY` where none is set and the server is not OpenAI's own.

    Raises:
        JudgeUnavailable: OpenAI's server, and no key.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and host_of(url) == host_of(OFFICIAL):
        raise JudgeUnavailable(
            f"{host_of(OFFICIAL)} wants a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for another "
            "server (http://localhost:8000/v1)"
        )
    return key or NO_KEY


def cleared(text: str, key: str) -> str:
    """The text without the key; servers like to repeat it."""
    return text.replace(key, "[key]") if len(key) >= _SHORTEST_KEY else text
