"""The URLs of Azure, which the simulated model serves too: .../openai/deployments/NAME, with an
api-version in the query, and .../openai/v1. There the key may be in the header `api-key`."""

import re
from collections.abc import Mapping

_PLACE = re.compile(r"/openai/(?:deployments/[^/]+|v1)(?=/)")


def path_after_place(path: str, query: Mapping[str, str]) -> str | None:
    """What of a path follows where the API is; None: Azure finds nothing there."""
    place = _PLACE.match(path)
    if place is None:
        return path.removeprefix("/v1")
    if "deployments" in place[0] and not query.get("api-version"):
        return None
    return path.removeprefix(place[0])


def key_of(path: str, headers: Mapping[str, str]) -> str | None:
    """The key that a request has."""
    if _PLACE.match(path) and "api-key" in headers:
        return headers["api-key"]
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key if scheme == "Bearer" else None
