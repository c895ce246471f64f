"""Machine settings: read once from `isocenter.yaml`, frozen, and wrong ones refused with file, line and column.

Rules, sources and destinations are not settings: they are numbered revisions in the database.
"""

import re
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from router import document
from router.domain.disk import GIGABYTE, Marks
from router.domain.hours import Hours
from router.errors import WrongSettings

if TYPE_CHECKING:
    from dicom_sr.source import Policy


class Section(BaseModel):
    """Base of every group of settings: frozen, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def ae_title(value: str) -> str:
    """An AE title as PS3.5 6.2 (VR AE) allows it: 1 to 16 printable ASCII characters, outer blanks not significant."""
    value = value.strip(" ")
    if not 1 <= len(value) <= 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return value


def uid(value: str) -> str:
    """A UID as PS3.5 9.1 allows it."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", value) or len(value) > 64:
        raise ValueError(f"{value!r} is not a UID such as 1.3.12.2.1107.5.9.1; write it in quotes")
    return value


def time_zone(value: str) -> str:
    """A name of the IANA time zone database."""
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"{value!r} is not a time zone name such as Europe/Zurich") from None
    return value


def database_url(value: str) -> str:
    """A URL of SQLite (a file) or PostgreSQL; both have the same tables."""
    try:
        url = make_url(value)
    except ArgumentError:
        raise ValueError("not a database URL such as sqlite:///isocenter.db") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ValueError("the database is sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("a database in memory would forget everything; name a file as in sqlite:///isocenter.db")
    return value


AETitle = Annotated[str, AfterValidator(ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Listener(Section):
    """The door: where C-STORE arrives."""

    host: str = Field("0.0.0.0", description="Address to listen on")
    port: Port = Field(11112, description="TCP port; 0 takes a free one")
    plain: bool = Field(True, description="Whether `port` is open; false where everybody comes by TLS")
    tls_port: Port | None = Field(None, description="TCP port for TLS, 2762 by custom; null opens none")
    client_certificate: Literal["none", "optional", "required"] = Field(
        "required", description="On tls_port: whether a sender must show a certificate that tls.ca_file vouches for"
    )
    max_associations: int = Field(100, ge=1, description="Associations at once, in all")
    max_associations_per_ae: int = Field(50, ge=1, description="Associations at once from one calling AE")
    max_pdu_bytes: int = Field(131072, ge=4096, le=16 << 20, description="Largest PDU that a sender may use")
    association_timeout_s: float = Field(10, gt=0, description="For the association request, once connected")
    idle_timeout_s: float = Field(60, gt=0, description="Silence after which an association is aborted")
    pdu_timeout_s: float = Field(20, gt=0, description="For the rest of a PDU whose beginning has arrived")
    private_sop_classes: list[Annotated[str, AfterValidator(uid)]] = Field(
        [], description="UIDs of private Storage SOP classes that are stored, too"
    )
    on_conflict: Literal["accept", "refuse"] = Field(
        "accept", description="Other pixels under a known SOPInstanceUID: kept apart, answered Success or C000"
    )
    fsync: bool = Field(True, description="Success only after the file is on the disk; off only for benchmarks")


class Tls(Section):
    """Who we are on encrypted DICOM connections, to senders and to destinations; changed files are read at once."""

    certificate_file: Path | None = Field(
        None, description="Our certificate and its chain (PEM); relative to this file"
    )
    key_file: Path | None = Field(None, description="Its private key (PEM, without password); relative to this file")
    ca_file: Path | None = Field(
        None, description="Certificates that we trust (PEM); null trusts no sender, and the system's for destinations"
    )
    crl_file: Path | None = Field(
        None, description="Which of them are revoked (PEM): the current list of every authority in ca_file"
    )

    @model_validator(mode="after")
    def _is_a_pair(self) -> "Tls":
        if self.crl_file is not None and self.ca_file is None:
            raise ValueError("crl_file needs ca_file")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class Storage(Section):
    """Where received and produced objects lie, and how full the disk may become."""

    path: Path = Field(Path("store"), description="Folder of the objects; relative to this file")
    purge_free_gb: float = Field(
        5.0, ge=0, description="Below this much free space the oldest delivered and committed pixels go"
    )
    refuse_free_gb: float = Field(2.0, ge=0, description="Below this much free space C-STORE answers A700")
    reject_free_gb: float = Field(1.0, ge=0, description="Below this much free space associations are rejected")

    @model_validator(mode="after")
    def _marks_are_in_order(self) -> "Storage":
        if not self.purge_free_gb >= self.refuse_free_gb >= self.reject_free_gb:
            raise ValueError("purge_free_gb must not be below refuse_free_gb, nor that below reject_free_gb")
        return self

    @property
    def marks(self) -> Marks:
        """The three marks of the disk, in bytes."""
        return Marks(
            purge_at=round(self.purge_free_gb * GIGABYTE),
            refuse_at=round(self.refuse_free_gb * GIGABYTE),
            reject_at=round(self.reject_free_gb * GIGABYTE),
        )


class Database(Section):
    """The durable truth."""

    url: Annotated[str, AfterValidator(database_url)] = Field(
        "sqlite:///isocenter.db", description="SQLite file relative to this file, or postgresql+psycopg://..."
    )


class Retention(Section):
    """How long received pixels, what was made of them, and what was read of them are kept."""

    keep_days: float = Field(30, ge=0, description="Pixels are kept for so long after arrival and last delivery")
    keep_results_days: float = Field(365, ge=0, description="Results and findings likewise; not shorter than pixels")
    keep_facts_days: float = Field(730, ge=0, description="Facts of studies whose pixels are gone, for back-tests")

    @model_validator(mode="after")
    def _results_outlive_pixels(self) -> "Retention":
        if self.keep_results_days < self.keep_days:
            raise ValueError("keep_results_days is shorter than keep_days: results are kept at least as long as pixels")
        return self


class Audit(Section):
    """The chain over the audit, and where its heads go."""

    key_file: Path = Field(
        Path("audit.key"), description="Key of the chain, made when missing; ISOCENTER_AUDIT_KEY comes first"
    )
    heads_file: Path | None = Field(None, description="Heads are appended here; best on another machine's disk")
    heads_url: str | None = Field(None, pattern="^https?://", description="Heads are posted here as JSON")
    heads_syslog: str | None = Field(
        None, pattern="^(udp|tcp|tls)://[^/:]+(:[0-9]+)?$", description="udp://, tcp:// or tls://HOST:PORT for heads"
    )
    syslog_ca_file: Path | None = Field(None, description="Certificates that may sign a syslog receiver's")


class Completeness(Section):
    """When a study counts as complete."""

    quiet_period_s: float = Field(30, ge=0, description="Silence after the last instance and its association's end")
    deadline_s: float = Field(3600, gt=0, description="Longest wait after the first instance")
    at_deadline: Literal["decide", "hold"] = Field(
        "decide", description="What happens then: decide with what is there, or hold the study for a person"
    )


class Inference(Section):
    """The machine's devices and the pipelines' worker."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto takes the first GPU, else cpu")
    threads: int = Field(0, ge=0, description="CPU threads of the worker; 0 takes all cores")
    lease_s: float = Field(60, gt=1, description="A worker that is silent for so long has lost its job")
    max_attempts: int = Field(3, ge=1, description="Attempts of a job before it has failed")
    at_once: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="Jobs of a pipeline that may run at once, on all workers together, as in {ct_lung: 1}"
    )
    frames_of_reference: Literal["refuse", "warn"] = Field(
        "refuse", description="Slices that disagree on FrameOfReferenceUID: refuse, or warn in the report"
    )
    several_acquisitions: Literal["refuse", "first"] = Field(
        "refuse", description="Several volumes in one series: refuse, or read the first and say so in the report"
    )
    models_path: Path = Field(Path("models"), description="Folder of installed MONAI bundles; relative to this file")
    allow_list: Path | None = Field(
        None, description="Digests of bundles that may run code of their own, isolated; its signature lies beside it"
    )
    allow_list_key: Path | None = Field(
        None, description="The ed25519 public key to it (base64), in a folder that the node's user may not write to"
    )
    models_gb: float | None = Field(
        None, gt=0, description="Memory for networks kept between jobs; null is half of a GPU's, or a quarter of ours"
    )
    model_server: str | None = Field(
        None,
        pattern=r"^https?://[^\s/@]+(/\S*)?$",
        description="Model server (KServe v2, by HTTP) for bundles whose network is there; pixels go to it",
    )

    @property
    def policy(self) -> "Policy":
        """Which odd series are read."""
        from dicom_sr.source import Policy

        return Policy(frames_of_reference=self.frames_of_reference, several_acquisitions=self.several_acquisitions)

    @property
    def shelf(self) -> dict[str, Any]:
        """Where installed bundles lie and what they may use: the arguments of `catalog.look_in`."""
        return {
            "root": self.models_path,
            "allow_list": self.allow_list,
            "key": self.allow_list_key,
            "server": self.model_server,
            "gigabytes": self.models_gb,
        }


def clock_time(value: str) -> str:
    """A time of the day as HH:MM."""
    try:
        time.fromisoformat(value)
    except ValueError:
        raise ValueError(f'{value!r} is no time of the day such as "19:30"') from None
    return value


ClockTime = Annotated[str, AfterValidator(clock_time)]


class OffPeak(Section):
    """When jobs of rules with priority off_peak may start, by the clock of `timezone`."""

    begins: ClockTime = Field("19:00", description="From this time of the day on, in quotes")
    ends: ClockTime = Field("07:00", description="Until this one; earlier than begins means over midnight")
    weekends: bool = Field(True, description="All of Saturday and Sunday as well")


class Delivery(Section):
    """How results leave."""

    calling_ae_title: AETitle | None = Field(None, description="Our AE title as a sender; default: ae_title")
    retry_first_s: float = Field(5, gt=0, description="Wait before the first retry; doubles with each")
    retry_cap_s: float = Field(600, gt=0, description="Longest wait between retries")
    max_attempts: int = Field(50, ge=1, description="Attempts of a delivery before it has failed")
    timeout_s: float = Field(30, gt=0, description="For connecting, for negotiation and for each answer")
    at_once: dict[str, Annotated[int, Field(ge=1, le=8)]] = Field(
        {}, description="Deliveries to one destination at a time, by its name, as in pacs: 2; else one after the other"
    )


class Results(Section):
    """What all result objects share."""

    series_number_base: int = Field(9000, ge=1, description="SeriesNumber of the first result; unique in its study")
    institution_name: str | None = Field(None, description="Copied into results; default: as in the source")


class Oidc(Section):
    """Logging in with accounts of another place (OpenID Connect); ISOCENTER_OIDC_SECRET may hold our secret there."""

    issuer: str | None = Field(
        None,
        pattern="^(https://|http://(127\\.0\\.0\\.1|localhost)[:/])",
        description="The provider; null: passwords only",
    )
    client_id: str | None = Field(None, description="Our name there")
    client_secret_file: Path | None = Field(None, description="File that holds our secret there; relative to this file")
    label: str = Field("your hospital account", max_length=60, description="What the login page calls it")
    scopes: list[str] = Field(["openid", "profile"], description="What is asked for; openid is among them")
    name_claim: str = Field("preferred_username", description="Which claim is a person's name here")
    groups_claim: str = Field("groups", description="Which claim lists a person's groups")
    viewers: list[str] = Field([], description="Groups that may look")
    operators: list[str] = Field([], description="Groups that may also move jobs")
    admins: list[str] = Field([], description="Groups that may also change rules, sources, destinations and users")

    @model_validator(mode="after")
    def _is_whole(self) -> "Oidc":
        if self.issuer is not None and self.client_id is None:
            raise ValueError("issuer needs client_id")
        if self.issuer is not None and not (self.viewers or self.operators or self.admins):
            raise ValueError("issuer needs a group under viewers, operators or admins: else nobody could log in")
        if "openid" not in self.scopes:
            raise ValueError("scopes must name openid")
        return self


class Web(Section):
    """The window."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback by default")
    port: Port = Field(8042, description="TCP port; 0 takes a free one")
    tls: bool = Field(False, description="HTTPS with the certificate under tls; wanted wherever it is not loopback")
    session_hours: float = Field(12, gt=0, description="A browser has to log in again after so long")
    idle_minutes: float = Field(60, gt=0, description="A browser has to log in again after so long without use")
    open_metrics: bool = Field(False, description="/metrics for anybody; else for a user, or a token of scope metrics")
    largest_instance_mb: float = Field(
        4000, gt=0, description="STOW-RS takes no instance that is larger, in 10^6 bytes"
    )
    viewer_url: str | None = Field(
        None, description="Link into the site's viewer; {StudyInstanceUID} stands for the study's"
    )
    viewer_path: Path | None = Field(
        None, description="Folder of OHIF's built pages, shown under /viewer; relative to this file"
    )
    public_url: str | None = Field(
        None,
        pattern="^https?://[^/]+$",
        description="The window as browsers name it, such as https://isocenter.example",
    )
    oidc: Oidc = Oidc()


class Heartbeat(Section):
    """A phantom of known volume that goes from door to door, and whose number must come back."""

    every_min: float | None = Field(None, gt=0, description="Minutes between two cycles; null beats only when asked")
    deadline_s: float = Field(300, gt=0, description="It must be back after so long, else an alert names the stage")
    folder: Path = Field(Path("heartbeat"), description="Where its results go; relative to this file")


class Email(Section):
    """Alerts by e-mail; the password is that of ISOCENTER_SMTP_PASSWORD, or stands in a file."""

    host: str | None = Field(None, description="The mail server that takes them; null sends none")
    port: Port = Field(25, description="Its TCP port: 25, 587 with starttls, 465 with tls")
    security: Literal["none", "starttls", "tls"] = Field("none", description="Encryption; both check the certificate")
    username: str | None = Field(None, description="Where the server wants to know who sends")
    password_file: Path | None = Field(None, description="File that holds the password; relative to this file")
    sender: str = Field("isocenter@localhost", description="Address from which they come")
    to: list[str] = Field([], description="Addresses to which they go")

    @model_validator(mode="after")
    def _has_readers(self) -> "Email":
        if self.host is not None and not self.to:
            raise ValueError("host needs at least one address under `to`")
        if any(not re.fullmatch(r"[^@\s,;<>]+@[^@\s,;<>]+", one) for one in (self.sender, *self.to)):
            raise ValueError("an address is name@place, one an entry")
        return self


class Alerts(Section):
    """When somebody should be told, and how. What leaves the machine names no patient."""

    destination_down_min: float | None = Field(
        10, ge=0, description="A destination has not answered for so long while deliveries wait; null: no alert"
    )
    stat_waiting_min: float | None = Field(2, ge=0, description="A stat job was not begun for so long; null: no alert")
    results_moved_days: float | None = Field(
        7, gt=0, description="Results of the last so many days against those of 90 days before; null: no alert"
    )
    webhook_url: str | None = Field(None, pattern="^https?://", description="Alerts are posted here as JSON")
    webhook_key_file: Path | None = Field(
        None, description="Key of the X-Isocenter-Signature (HMAC-SHA256 of the body); relative to this file"
    )
    syslog: str | None = Field(
        None, pattern="^(udp|tcp|tls)://[^/:]+(:[0-9]+)?$", description="udp://, tcp:// or tls://HOST:PORT"
    )
    syslog_ca_file: Path | None = Field(None, description="Certificates that may sign that receiver's")
    email: Email = Email()


class Log(Section):
    """What is written to standard error."""

    format: Literal["auto", "pretty", "json"] = Field("auto", description="auto: pretty on a terminal, else json")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe event shown")


class Settings(Section):
    """All of `isocenter.yaml`."""

    ae_title: AETitle = Field("ISOCENTER", description="Our AE title; a sender must call it so")
    timezone: Annotated[str, AfterValidator(time_zone)] = Field(
        "UTC", description="IANA name; dates and times in results are in this zone"
    )
    listener: Listener = Listener()
    tls: Tls = Tls()
    storage: Storage = Storage()
    database: Database = Database()
    retention: Retention = Retention()
    audit: Audit = Audit()
    completeness: Completeness = Completeness()
    inference: Inference = Inference()
    off_peak: OffPeak = OffPeak()
    delivery: Delivery = Delivery()
    results: Results = Results()
    web: Web = Web()
    heartbeat: Heartbeat = Heartbeat()
    alerts: Alerts = Alerts()
    log: Log = Log()
    run_path: Path = Field(
        Path("run"), description="Folder of sockets and locks, on a local disk; relative to this file"
    )

    @model_validator(mode="after")
    def _tls_has_what_it_needs(self) -> "Settings":
        if self.web.oidc.issuer is not None and self.web.public_url is None:
            raise ValueError("web.oidc needs web.public_url: the provider sends browsers back there")
        if self.web.tls and self.tls.certificate_file is None:
            raise ValueError("web.tls needs tls.certificate_file and tls.key_file")
        if self.heartbeat.every_min is not None and not self.listener.plain:
            raise ValueError("heartbeat.every_min needs listener.plain: the phantom comes in by `listener.port`")
        if self.listener.tls_port is None:
            if not self.listener.plain:
                raise ValueError("listener.plain is false and listener.tls_port is null: nobody could come in")
            return self
        if self.tls.certificate_file is None:
            raise ValueError("listener.tls_port needs tls.certificate_file and tls.key_file")
        if self.listener.client_certificate != "none" and self.tls.ca_file is None:
            raise ValueError("listener.client_certificate needs tls.ca_file, or is none")
        return self


def load(path: Path) -> Settings:
    """The settings in this file, every path in them absolute: relative ones start at the file's folder.

    Raises:  WrongSettings with all faults at once, UnreadableFile
    """
    page = document.read(path, wrong=WrongSettings)
    try:
        settings = Settings.model_validate({} if page.value is None else page.value)
    except ValidationError as error:
        raise WrongSettings(page.faults(error, Settings)) from None
    return absolute(settings, path.resolve().parent)


def off_peak(settings: Settings) -> Hours:
    """The hours in which off-peak jobs may start."""
    written = settings.off_peak
    return Hours(
        begins=time.fromisoformat(written.begins),
        ends=time.fromisoformat(written.ends),
        weekends=written.weekends,
        zone=ZoneInfo(settings.timezone),
    )


def absolute(settings: Settings, folder: Path) -> Settings:
    """The same settings with relative paths, the SQLite file's included, taken from this folder."""
    storage = settings.storage.model_copy(update={"path": folder / settings.storage.path})
    url = make_url(settings.database.url)
    if url.get_backend_name() == "sqlite" and url.database is not None:
        url = url.set(database=str(folder / url.database))
    database = settings.database.model_copy(update={"url": url.render_as_string(hide_password=False)})
    inference = settings.inference.model_copy(
        update={
            name: folder / path
            for name in ("models_path", "allow_list", "allow_list_key")
            if (path := getattr(settings.inference, name)) is not None
        }
    )
    tls = settings.tls.model_copy(
        update={name: folder / path for name, path in settings.tls if path is not None}  # all its fields are paths
    )
    heartbeat = settings.heartbeat.model_copy(update={"folder": folder / settings.heartbeat.folder})
    trail = {
        name: folder / value
        for name in ("key_file", "heads_file", "syslog_ca_file")
        if (value := getattr(settings.audit, name)) is not None
    }
    alerts = {
        name: folder / value
        for name in ("webhook_key_file", "syslog_ca_file")
        if (value := getattr(settings.alerts, name)) is not None
    }
    email = settings.alerts.email
    if email.password_file is not None:
        email = email.model_copy(update={"password_file": folder / email.password_file})
    oidc = settings.web.oidc
    if oidc.client_secret_file is not None:
        oidc = oidc.model_copy(update={"client_secret_file": folder / oidc.client_secret_file})
    viewer = settings.web.viewer_path
    web = {"oidc": oidc, "viewer_path": None if viewer is None else folder / viewer}
    return settings.model_copy(
        update={
            "web": settings.web.model_copy(update=web),
            "alerts": settings.alerts.model_copy(update={**alerts, "email": email}),
            "audit": settings.audit.model_copy(update=trail),
            "tls": tls,
            "storage": storage,
            "database": database,
            "inference": inference,
            "heartbeat": heartbeat,
            "run_path": folder / settings.run_path,
        }
    )
