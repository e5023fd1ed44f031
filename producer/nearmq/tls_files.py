"""Certificates that the command line names once, for whichever of its servers speak TLS."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import typer

#: How the query of a URL names certificate authorities, certificate and key: RabbitMQ's words, and redis-py's.
_QUERY_NAMES = {
    "amqps": ("cacertfile", "certfile", "keyfile"),
    "rediss": ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files; the root command makes it its context's object, where the options of all distributions find it.

    Attributes:
        ca_file: the authorities to trust; None for the system's, which redis-py trusts besides in any case.
        cert_file: our own certificate, with those between it and the authority.
        key_file: its key.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def completed(self, url: str) -> str:
        """Add to the query of an `amqps` or `rediss` url what it does not say; any other url stays as it is."""
        if url.startswith("local:"):
            return f"local:{self.completed(url.removeprefix('local:'))}"
        parts = urlsplit(url)
        names = _QUERY_NAMES.get(parts.scheme)
        if names is None:
            return url
        said = dict(parse_qsl(parts.query, keep_blank_values=True))
        files = zip(names, (self.ca_file, self.cert_file, self.key_file), strict=True)
        more = {name: str(file) for name, file in files if file is not None and name not in said}
        if not more:
            return url
        return parts._replace(query="&".join(filter(None, (parts.query, urlencode(more))))).geturl()


def completed(context: typer.Context, url: str | None) -> str | None:
    """Complete the url of an option, as its callback."""
    files = context.obj
    return files.completed(url) if url and isinstance(files, TlsFiles) else url
