"""The proxy that the environment names for a server, if it does: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY
and NO_PROXY, in lower case too, as openai's own client reads them. Only http and https proxies can
be used, and of another kind is said only where it would be."""

from fnmatch import fnmatch
from ipaddress import ip_address, ip_network
from urllib.request import getproxies, proxy_bypass

import yarl

from batchgen.errors import ConfigError


def proxy_for(url: yarl.URL) -> str | None:
    """None: calls go there directly. Raises ConfigError when it cannot be used."""
    proxies = getproxies()
    if _goes_directly(url, proxies.get("no", "")):
        return None
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme = proxy.partition("://")[0]
    if scheme not in ("http", "https"):
        raise ConfigError(
            f"the environment names a {scheme} proxy; batchgen can use http and https ones. "
            "Set HTTP_PROXY or HTTPS_PROXY, or name the host in NO_PROXY."
        )
    if not _is_place(proxy):
        raise ConfigError(
            f"the environment's proxy for {url.scheme} is not like http://user:password@host:port. "
            "In its password write # as %23, / as %2F, ? as %3F and @ as %40."
        )
    return proxy


def _goes_directly(url: yarl.URL, no_proxy: str) -> bool:
    """Python knows names, suffixes and `*`; what people paste has networks and wildcards too."""
    host = (url.host or "").lower()
    forms = (form.strip().lower() for form in no_proxy.split(","))
    return bool(proxy_bypass(f"{host}:{url.port}")) or any(_covers(form, host) for form in forms)


def _covers(form: str, host: str) -> bool:
    """`10.0.0.0/8`, `*.lan`, `192.168.*`, `[::1]`, `<local>`."""
    if form == "<local>":
        return "." not in host and ":" not in host
    if "/" in form:
        return _is_in_network(form, host)
    return fnmatch(host, form) if "*" in form else form.strip("[]") == host


def _is_in_network(form: str, host: str) -> bool:
    try:
        return ip_address(host) in ip_network(form, strict=False)
    except ValueError:
        return False


def _is_place(text: str) -> bool:
    """Whether it is a URL of a host and no more: a `#` in a password makes the rest a fragment."""
    try:
        url = yarl.URL(text)
        is_bare = url.with_user(None) == url.origin()
    except ValueError:
        return False
    return is_bare and url.host is not None and " " not in url.host
