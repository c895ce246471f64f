"""What destinations behind HTTP share: who we are there, how long we wait, and what a refusal means."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
from pydantic import Field, HttpUrl, PlainSerializer, model_validator

from dicom_sr.problem import Problem
from router.destinations import Context, Destination, Interrupted, Rejected, Unreachable
from router.domain.delivery import Verdict

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
"""HTTP answers after which the same request may succeed (RFC 9110 15.5, 15.6; RFC 6585 4; RFC 4918 11.5)."""

Address = Annotated[HttpUrl, PlainSerializer(str, return_type=str)]


class UnreadableSecret(Problem):
    """A file that holds a secret cannot be read."""


class HttpDestination(Destination):
    """Where the service is, and how it knows that it is us. Secrets stand in files, never in the rulebook."""

    url: Address = Field(description="Its address, as in https://pacs.example/dicom-web")
    username: str | None = Field(None, description="For HTTP Basic authentication")
    password_file: Path | None = Field(None, description="File that holds the password")
    token_file: Path | None = Field(None, description="File that holds a bearer token")
    certificate_file: Path | None = Field(None, description="Our client certificate, PEM")
    key_file: Path | None = Field(None, description="Its private key, PEM; default: in certificate_file")
    ca_file: Path | None = Field(None, description="Certificates that we trust there, PEM; default: the system's")
    same_study: bool = Field(True, description="Ask whose study it has, before sending")

    @model_validator(mode="after")
    def one_identity(self) -> "HttpDestination":
        """A user name has a password and stands for itself."""
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file belong together")
        if self.username is not None and self.token_file is not None:
            raise ValueError("give username or token_file, not both")
        return self

    @property
    def base(self) -> str:
        """The address without a slash at its end."""
        return str(self.url).rstrip("/")


def auth(settings: HttpDestination) -> tuple[httpx.BasicAuth | None, dict[str, str]]:
    """How we identify ourselves: HTTP Basic, or headers.

    Raises:  UnreadableSecret
    """
    if settings.username is not None and settings.password_file is not None:
        return httpx.BasicAuth(settings.username, secret(settings, settings.password_file)), {}
    if settings.token_file is not None:
        return None, {"Authorization": f"Bearer {secret(settings, settings.token_file)}"}
    return None, {}


def secret(settings: HttpDestination, path: Path) -> str:
    """What stands in the file, without the line's end.

    Raises:  UnreadableSecret
    """
    try:
        return path.read_text().strip()
    except OSError as error:
        raise UnreadableSecret(
            f"destination {settings.name}: {path} cannot be read ({error.strerror})",
            remedy="Put the secret there, readable by the user that runs Isocenter; then retry the job",
        ) from error


def trust(settings: HttpDestination) -> ssl.SSLContext:
    """Whom we trust, and our own certificate if there is one.

    Raises:  UnreadableSecret
    """
    try:
        made = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
        if settings.certificate_file is not None:
            made.load_cert_chain(settings.certificate_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise UnreadableSecret(
            f"destination {settings.name}: certificates cannot be used ({error.strerror})",
            remedy="Check certificate_file, key_file and ca_file; then retry the job",
        ) from error
    return made


def timeout(context: Context) -> httpx.Timeout:
    """The same patience for each step of a request."""
    return httpx.Timeout(context.timeout_s)


@contextmanager
def reached(settings: HttpDestination) -> Iterator[None]:
    """Say in our words what goes wrong on the way.

    Raises:  Unreachable, Interrupted
    """
    where = f"destination {settings.name}: {settings.base}"
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unreachable(
            f"{where}: nobody answers there ({type(error).__name__})",
            remedy="Check address, firewall and certificates; the delivery goes on by itself",
        ) from error
    except httpx.TransportError as error:
        raise Interrupted(
            f"{where} went away in the middle, or did not answer in time ({type(error).__name__})",
            remedy="Ask its administrator what its log says; the delivery goes on by itself",
        ) from error


def admitted(settings: HttpDestination, response: httpx.Response) -> None:
    """Go on unless the service does not want us.

    Raises:  Rejected
    """
    if response.status_code in (401, 403):
        raise Rejected(
            f"destination {settings.name}: {settings.base} answers {said(response)}",
            remedy="Correct the user, token or certificate; then retry the job",
        )


def judge(response: httpx.Response) -> Verdict:
    """What an HTTP answer means for the instance that was sent."""
    if response.is_success:
        return Verdict.ACCEPTED
    return Verdict.LATER if response.status_code in BUSY else Verdict.NEVER


def said(response: httpx.Response) -> str:
    """The answer's number and name; its content may name a patient and is left out."""
    return f"HTTP {response.status_code} ({response.reason_phrase})"
