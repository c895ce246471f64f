"""Alerts that leave the machine: by e-mail, to a webhook, to a syslog receiver. They name no patient.

Each channel takes some notices at once, so that a bad night is one e-mail and not a hundred, and either takes all of
them or raises NotSent.
"""

import hashlib
import hmac
import json
import os
import smtplib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path

import httpx

from dicom_sr.problem import Problem
from router import syslog
from router.config import Settings
from router.db.alerts import Alert

TIMEOUT_S = 10.0
LONGEST_SUBJECT = 150
PASSWORD = "ISOCENTER_SMTP_PASSWORD"
SIGNATURE = "X-Isocenter-Signature"


class NotSent(Problem):
    """A channel for alerts does not take them."""

    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An alert as it leaves. Times in microseconds since 1970 UTC; `ended_at` is None while it stands."""

    id: int
    kind: str
    subject: str
    what: str
    remedy: str
    raised_at: int
    ended_at: int | None = None

    @classmethod
    def of(cls, one: Alert) -> "Notice":
        """The notice of an alert, each text on one line."""
        return cls(
            id=one.id,
            kind=line(one.kind),
            subject=line(one.subject),
            what=line(one.what),
            remedy=line(one.remedy),
            raised_at=one.raised_at,
            ended_at=one.ended_at,
        )

    @property
    def over(self) -> bool:
        """Whether it says that the alert is over."""
        return self.ended_at is not None

    @property
    def title(self) -> str:
        """All that a subject line has to say."""
        return f"{'over: ' if self.over else ''}{self.what}"


def line(text: str) -> str:
    """The text on one line, without characters that a terminal or a header would act on."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def channels(settings: Settings) -> dict[str, Callable[[Settings, Sequence[Notice]], None]]:
    """What is configured, by name."""
    alerts = settings.alerts
    known = {
        "email": (alerts.email.host, by_email),
        "webhook": (alerts.webhook_url, by_webhook),
        "syslog": (alerts.syslog, by_syslog),
    }
    return {name: send for name, (address, send) in known.items() if address is not None}


def by_email(settings: Settings, notices: Sequence[Notice]) -> None:
    """One e-mail with all of them.

    Raises:  NotSent
    """
    email = settings.alerts.email
    message = EmailMessage()
    more = f" (and {len(notices) - 1} more)" if len(notices) > 1 else ""
    message["Subject"] = f"[{settings.ae_title}] {notices[0].title[:LONGEST_SUBJECT]}{more}"
    message["From"], message["To"] = email.sender, ", ".join(email.to)
    message["Date"], message["Message-ID"] = format_datetime(datetime.now(UTC)), make_msgid(domain="isocenter")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(_paragraph(one) for one in notices) + "See `isocenter alerts list`.\n")
    try:
        with _mail_server(settings) as server:
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(
            f"alerts cannot leave by e-mail: {email.host}:{email.port} ({_said(error)})",
            remedy="Look at alerts.email in isocenter.yaml; `isocenter alerts test` tries it",
        ) from error


def _mail_server(settings: Settings) -> smtplib.SMTP:
    email = settings.alerts.email
    context = ssl.create_default_context()
    if email.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(email.host or "", email.port, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(email.host or "", email.port, timeout=TIMEOUT_S)
    try:
        if email.security == "starttls":
            server.starttls(context=context)
        if email.username is not None:
            given = os.environ.get(PASSWORD)
            server.login(email.username, _kept(email.password_file) if given is None else given)
    except BaseException:
        server.close()
        raise
    return server


def _paragraph(one: Notice) -> str:
    state = f"over since {_at(one.ended_at)}" if one.ended_at is not None else f"since {_at(one.raised_at)}"
    remedy = "" if one.over else f"  What to do: {one.remedy}\n"
    return f"{one.kind}, alert {one.id}, {state}\n  {one.what}\n{remedy}"


def by_webhook(settings: Settings, notices: Sequence[Notice]) -> None:
    """One POST with all of them as JSON; `text` is what chat programs show.

    Raises:  NotSent
    """
    url = settings.alerts.webhook_url or ""
    body = json.dumps(
        {
            "node": settings.ae_title,
            "text": "\n".join(f"[{settings.ae_title}] {one.title}" for one in notices),
            "alerts": [_as_json(one) for one in notices],
        }
    ).encode()
    headers = {"Content-Type": "application/json"}
    if settings.alerts.webhook_key_file is not None:
        made = hmac.new(_kept(settings.alerts.webhook_key_file).encode(), body, hashlib.sha256)
        headers[SIGNATURE] = f"sha256={made.hexdigest()}"
    try:
        httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_S).raise_for_status()
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotSent(
            f"alerts cannot leave by webhook: {_place(url)} ({_said(error)})",
            remedy="Look at alerts.webhook_url in isocenter.yaml; `isocenter alerts test` tries it",
        ) from error


def by_syslog(settings: Settings, notices: Sequence[Notice]) -> None:
    """One message for each.

    Raises:  NotSent
    """
    address = settings.alerts.syslog or ""
    texts = [f"{one.kind} {one.subject}: {one.title}. {'' if one.over else one.remedy}".strip() for one in notices]
    try:
        syslog.send(address, texts, kind="alert", ca_file=settings.alerts.syslog_ca_file, priority=syslog.WARNING)
    except OSError as error:
        raise NotSent(
            f"alerts cannot leave by syslog: {address} ({_said(error)})",
            remedy="Look at alerts.syslog in isocenter.yaml; `isocenter alerts test` tries it",
        ) from error


def _as_json(one: Notice) -> dict[str, object]:
    return {
        "id": one.id,
        "state": "over" if one.over else "raised",
        "kind": one.kind,
        "subject": one.subject,
        "what": one.what,
        "remedy": one.remedy,
        "raised_at": _at(one.raised_at),
        "ended_at": None if one.ended_at is None else _at(one.ended_at),
    }


def _at(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _kept(path: Path | None) -> str:
    """The secret in a file.

    Raises:  NotSent
    """
    if path is None:
        raise NotSent("alerts cannot leave by e-mail: there is no password", remedy=f"Set {PASSWORD}, or password_file")
    try:
        return path.read_text().strip()
    except OSError as error:
        raise NotSent(
            f"alerts cannot leave: {path} cannot be read ({error.strerror})",
            remedy="Put the secret there, readable by the user that runs Isocenter",
        ) from error


def _place(url: str) -> str:
    """The address without what may be a secret in it."""
    return str(httpx.URL(url).copy_with(query=None, userinfo=b"", path="/")) if "://" in url else url


def _said(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"answered {error.response.status_code}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"answered {error.smtp_code}"
    return line(getattr(error, "strerror", None) or type(error).__name__)
