"""Every table, once: SQLite and PostgreSQL share this schema, and a test compares Alembic's migrations with it.

Keys are text, times are whole microseconds since 1970 UTC, structures are JSON. A state is guarded by a CHECK, an
"at most one" by a unique index. No column that nothing reads.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from router.domain.access import Role
from router.domain.job import Lane, Outcome, State
from router.domain.procedure_step import StepState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = BigInteger().with_variant(Integer(), "sqlite")
"""An ascending row number; SQLite gives those to INTEGER only."""


def one_of(column: str, values: type) -> CheckConstraint:
    """The column holds one of an enumeration's values, or nothing."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(str(value)) for value in values)})", name=column)  # type: ignore[attr-defined]


node = Table(
    "node",
    metadata,
    Column("node_id", Text, primary_key=True, comment="uuid made by init; part of every derived UID"),
    Column("created_at", BigInteger, nullable=False),
)

revision = Table(
    "revision",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("body", JSON, nullable=False),
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False, default=""),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("kind IN ('rules', 'sources', 'destinations')", name="kind"),
)
"""Rules, sources and destinations are numbered revisions; the current one is the highest number of its kind."""

caller = Table(
    "caller",
    metadata,
    Column("calling_ae_title", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("first_seen_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, default=1),
    Column("reason", Text, nullable=False),
)
"""Callers that were turned away, for `isocenter sources seen`."""

account = Table(
    "account",
    metadata,
    Column("name", Text, primary_key=True, comment="as it is typed at the login, in small letters"),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, comment="Argon2id; NULL for one who logs in elsewhere"),
    Column("created_at", BigInteger, nullable=False),
    Column("password_at", BigInteger, comment="when the password was last set"),
    Column("subject", Text, unique=True, comment="provider and subject of one who logs in elsewhere"),
    one_of("role", Role),
)
"""Who may use the window."""

session = Table(
    "session",
    metadata,
    Column("digest", Text, primary_key=True, comment="sha256 of the secret in the browser's cookie"),
    Column("account", Text, ForeignKey("account.name", ondelete="CASCADE"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)
Index("ix_session_account", session.c.account)

token = Table(
    "token",
    metadata,
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True, comment="sha256 of the secret"),
    Column("scopes", JSON, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("used_at", BigInteger),
)
"""Programs that may use the API."""

login_failure = Table(
    "login_failure",
    metadata,
    Column("key", Text, primary_key=True, comment="digest of a name, or an address"),
    Column("failures", Integer, nullable=False),
    Column("last_at", BigInteger, nullable=False),
)
"""Wrong passwords, kept so that a restart forgives none."""
Index("ix_login_failure_last_at", login_failure.c.last_at)

association = Table(
    "association",
    metadata,
    Column("id", Text, primary_key=True),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("listener", Text, nullable=False, comment="process that holds it; a dead listener closes its own at start"),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    Column("ending", Text, comment="release, abort, lost"),
    Column("instances", Integer, nullable=False, default=0),
)
Index(
    "ix_association_open",
    association.c.listener,
    sqlite_where=association.c.closed_at.is_(None),
    postgresql_where=association.c.closed_at.is_(None),
)

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("generation", Integer, nullable=False, default=0, comment="how often it has been complete"),
    Column("patient_id", Text, nullable=False),
    Column("issuer_of_patient_id", Text, nullable=False),
    Column("patient_name", Text, nullable=False),
    Column("patient_birth_date", Text, nullable=False),
    Column("patient_sex", Text, nullable=False),
    Column("accession_number", Text, nullable=False),
    Column("study_id", Text, nullable=False),
    Column("study_date", Text, nullable=False),
    Column("study_time", Text, nullable=False),
    Column("study_description", Text, nullable=False),
    Column("referring_physician_name", Text, nullable=False),
    Column("calling_ae_title", Text, nullable=False, comment="who sent the last instance"),
    Column("first_instance_at", BigInteger, nullable=False),
    Column("last_instance_at", BigInteger, nullable=False),
    Column("decide_at", BigInteger, comment="when decide looks again; NULL when there is nothing to decide"),
    Column("completed_at", BigInteger),
    Column("completed_after", BigInteger, comment="from its last instance to its last completion, in microseconds"),
    Column("witnesses", JSON, comment="how completeness was known, at the last completion"),
    Column("held_reason", Text, comment="why a person had to look, until decide has settled it after that"),
    Column("attention", Text, comment="what a person should look at; NULL once someone has"),
    Column("announced", JSON, comment="how many instances there should be, who said so, and how often the same"),
    CheckConstraint("state IN ('receiving', 'complete', 'held')", name="state"),
)
Index("ix_study_decide_at", study.c.decide_at)
Index("ix_study_patient", study.c.patient_id, study.c.issuer_of_patient_id, study.c.study_instance_uid)
Index("ix_study_patient_name", study.c.patient_name, study.c.study_instance_uid)
Index("ix_study_accession_number", study.c.accession_number)
Index("ix_study_study_date", study.c.study_date, study.c.study_instance_uid)
Index("ix_study_last_instance_at", study.c.last_instance_at)
Index("ix_study_state", study.c.state, study.c.last_instance_at)
Index("ix_study_completed_at", study.c.completed_at)
Index(
    "ix_study_attention",
    study.c.last_instance_at,
    sqlite_where=text("attention IS NOT NULL"),
    postgresql_where=text("attention IS NOT NULL"),
)
Index(
    "ix_study_held",
    study.c.study_instance_uid,
    sqlite_where=text("held_reason IS NOT NULL"),
    postgresql_where=text("held_reason IS NOT NULL"),
)

pause = Table(
    "pause",
    metadata,
    Column("study_instance_uid", Text, primary_key=True),
    Column("calling_ae_title", Text, nullable=False),
    Column("longest", BigInteger, nullable=False, comment="between two instances of the study, in microseconds"),
    Column("longest_in_series", BigInteger, nullable=False, comment="between two instances of one series"),
    Column("noted_at", BigInteger, nullable=False),
)
"""What quiet periods are learned from: how long each sender has paused inside a study."""
Index("ix_pause_sender", pause.c.calling_ae_title, pause.c.noted_at)

series = Table(
    "series",
    metadata,
    Column("series_instance_uid", Text, primary_key=True),
    Column("study_instance_uid", Text, ForeignKey("study.study_instance_uid"), nullable=False, primary_key=True),
    Column("modality", Text, nullable=False),
    Column("series_number", Text, nullable=False),
    Column("series_description", Text, nullable=False),
    Column("body_part_examined", Text, nullable=False),
    Column("facts", JSON, comment="aggregated over all instances when the series was last complete"),
    Column("facts_generation", Integer),
    Column("completed_at", BigInteger, comment="when rules about series were last asked about it"),
    Column("witnesses", JSON, comment="how its completeness was known then, and of which instances"),
)
Index("ix_series_study_instance_uid", series.c.study_instance_uid, series.c.series_instance_uid)

instance = Table(
    "instance",
    metadata,
    Column("sop_instance_uid", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False, comment="1, 2 ...: corrections of one instance"),
    Column("status", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("instance_number", Text, nullable=False),
    Column("path", Text, nullable=False, unique=True, comment="below the store's root"),
    Column("size", BigInteger, nullable=False, comment="bytes of the Part 10 file"),
    Column("pixel_offset", BigInteger, comment="of the pixel data's value in the file"),
    Column("pixel_length", BigInteger, comment="NULL when encapsulated"),
    Column("header", JSON, nullable=False, comment="routing facts, keyword -> value(s)"),
    Column("dataset_digest", Text, comment="sha256; NULL until the digester has read it"),
    Column("pixel_digest", Text),
    Column("identity_digest", Text),
    Column("ours", Boolean, nullable=False, default=False, comment="made by an Isocenter: never routed"),
    Column("association_id", Text),
    Column("received_at", BigInteger, nullable=False),
    CheckConstraint("status IN ('current', 'replaced', 'conflict', 'purged')", name="status"),
)
Index(
    "ix_instance_series",  # one for all that asks by study: each index is a page more in every commit of the door
    instance.c.study_instance_uid,
    instance.c.series_instance_uid,
    instance.c.sop_class_uid,
    instance.c.status,
)
Index(
    "ix_instance_undigested",
    instance.c.received_at,
    sqlite_where=instance.c.dataset_digest.is_(None),
    postgresql_where=instance.c.dataset_digest.is_(None),
)
Index(
    "uq_instance_current",
    instance.c.sop_instance_uid,
    unique=True,
    sqlite_where=text("status = 'current'"),
    postgresql_where=text("status = 'current'"),
)

job = Table(
    "job",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("lane", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False, default=50, comment="stat 10, routine 50, off-peak 90: low is urgent"),
    Column("study_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, comment="what an inference job reads"),
    Column("generation", Integer, nullable=False),
    Column("pixels_digest", Text, comment="ordered (SOPInstanceUID, pixel digest) that an inference job reads"),
    Column("identity_digest", Text, comment="whose series it is: what results copy of patient and study"),
    Column("pipeline", Text),
    Column("pipeline_version", Text),
    Column("weights_digest", Text),
    Column("settings", JSON),
    Column("settings_digest", Text),
    Column("run", Integer, nullable=False, default=0, comment="counts re-runs that a person asked for"),
    Column("completeness", Text, comment="how it was known that what it reads is complete, for the report"),
    Column("instances", Integer, comment="how many it reads"),
    Column("stale_at", BigInteger, comment="since when its series is no longer what it read"),
    Column("result_set_id", ID, comment="what a delivery job sends; NULL: the study itself"),
    Column("destination", Text, comment="where a delivery job sends it"),
    Column("findings_job_id", ID, comment="the inference job whose findings a build job builds"),
    Column("profile", Text, comment="what a build job builds, as a result set's"),
    Column("attempt", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False, default=3),
    Column("not_before", BigInteger, nullable=False),
    Column("deadline", BigInteger, comment="when its results are wanted; NULL when no rule says so"),
    Column("worker", Text),
    Column("lease_until", BigInteger),
    Column("phase", Text),
    Column("fraction", Float),
    Column("outcome", Text),
    Column("reason", Text, comment="why refused, failed, held or cancelled; or the last retry's cause"),
    Column("problem", Text, comment="class of the error behind reason"),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    one_of("lane", Lane),
    one_of("state", State),
    one_of("outcome", Outcome),
    CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
)
Index(
    "ix_job_claim",
    job.c.lane,
    job.c.priority,
    job.c.not_before,
    job.c.id,
    sqlite_where=text("state = 'queued'"),
    postgresql_where=text("state = 'queued'"),
)
Index(
    "ix_job_lease_until",
    job.c.lease_until,
    sqlite_where=text("state = 'running'"),
    postgresql_where=text("state = 'running'"),
)
Index("ix_job_study_instance_uid", job.c.study_instance_uid)
Index("ix_job_state", job.c.state, job.c.id)
Index("ix_job_finished_at", job.c.finished_at)
Index(
    "uq_job_inference",
    job.c.pixels_digest,
    job.c.identity_digest,
    job.c.pipeline,
    job.c.pipeline_version,
    job.c.settings_digest,
    job.c.run,
    unique=True,
    sqlite_where=text("lane = 'infer'"),
    postgresql_where=text("lane = 'infer'"),
)
Index(
    "uq_job_delivery",
    job.c.result_set_id,
    job.c.destination,
    job.c.run,
    unique=True,
    sqlite_where=text("lane = 'deliver'"),
    postgresql_where=text("lane = 'deliver'"),
)
Index(
    "uq_job_forward",
    job.c.study_instance_uid,
    job.c.generation,
    job.c.destination,
    job.c.run,
    unique=True,
    sqlite_where=text("lane = 'deliver' AND result_set_id IS NULL"),
    postgresql_where=text("lane = 'deliver' AND result_set_id IS NULL"),
)
Index(
    "uq_job_build",
    job.c.findings_job_id,
    job.c.profile,
    job.c.run,
    unique=True,
    sqlite_where=text("lane = 'build'"),
    postgresql_where=text("lane = 'build'"),
)

decision = Table(
    "decision",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("study_instance_uid", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("series_instance_uid", Text, nullable=False, comment="empty for a study-level rule"),
    Column("rule", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("fires", Boolean, nullable=False),
    Column("mode", Text, nullable=False),
    Column("reasons", JSON, nullable=False, comment="every condition with the value seen; the first that failed"),
    Column("pipeline", Text, nullable=False, comment="empty where the rule names none"),
    Column("destinations", JSON, nullable=False),
    Column("job_id", ID, ForeignKey("job.id"), comment="the one run that many decisions may share"),
    Column("decided_at", BigInteger, nullable=False),
    Column("inputs", Text, nullable=False, comment="digest of the series, or of the study, as it was decided on"),
    UniqueConstraint(
        "study_instance_uid", "generation", "series_instance_uid", "rule", "pipeline", "inputs", name="uq_decision_once"
    ),
    CheckConstraint("mode IN ('on', 'shadow', 'off')", name="mode"),
)
Index("ix_decision_job_id", decision.c.job_id)

findings = Table(
    "findings",
    metadata,
    Column("job_id", ID, ForeignKey("job.id"), primary_key=True),
    Column("path", Text, nullable=False, comment="below the store's root"),
    Column("digest", Text, nullable=False, comment="sha256 of the file"),
    Column("title", Text, nullable=False, comment="of the pipeline, as objects say it"),
    Column("research", Boolean, nullable=False),
    Column("completeness", Text, nullable=False, comment="how the series was known to be complete, as reports say it"),
    Column("kept_at", BigInteger, nullable=False),
)
"""What each run found, kept before anything is built from it: any profile's result set is built from this."""

result_set = Table(
    "result_set",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("job_id", ID, ForeignKey("job.id"), nullable=False),
    Column("profile", Text, nullable=False, comment="what kinds were built and how, as canonical JSON"),
    Column("study_instance_uid", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("built_at", BigInteger, nullable=False),
    UniqueConstraint("job_id", "profile"),
)
Index("ix_result_set_study_instance_uid", result_set.c.study_instance_uid)

result = Table(
    "result",
    metadata,
    Column("sop_instance_uid", Text, primary_key=True),
    Column("result_set_id", ID, ForeignKey("result_set.id"), nullable=False),
    Column("ordinal", Integer, nullable=False, comment="order of sending; the SR is last"),
    Column("kind", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("path", Text, nullable=False, comment="below the store's root"),
    Column("digest", Text, nullable=False, comment="sha256 of the file: other bytes under this UID are an error"),
    Column("purged_at", BigInteger, comment="when the file went; NULL while it is here"),
)
Index("ix_result_result_set_id", result.c.result_set_id)

result_header = Table(
    "result_header",
    metadata,
    Column("sop_instance_uid", Text, ForeignKey("result.sop_instance_uid", ondelete="CASCADE"), primary_key=True),
    Column("header", JSON, nullable=False, comment="keyword -> value(s), as of an instance"),
)
"""What queries show of an object that we made."""

measurement = Table(
    "measurement",
    metadata,
    Column("job_id", ID, ForeignKey("job.id"), primary_key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("label", Text, nullable=False, comment="what was measured"),
    Column("name", Text, nullable=False),
    Column("value", Float),
    Column("unit", Text, nullable=False),
    Column("remark", Text, comment="why withheld, or what qualifies the value"),
)

receipt = Table(
    "receipt",
    metadata,
    Column("job_id", ID, ForeignKey("job.id"), primary_key=True),
    Column("sop_instance_uid", Text, primary_key=True),
    Column("status", Integer, comment="the far side's answer to C-STORE; NULL when none came"),
    Column("accepted", Boolean, nullable=False),
    Column("detail", Text, nullable=False, default=""),
    Column("sent_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, default=1),
    Column("committed_at", BigInteger, comment="when the far side promised to keep it"),
)
"""What each destination answered for each instance: only what is missing is sent again."""

pledge = Table(
    "pledge",
    metadata,
    Column("transaction_uid", Text, primary_key=True),
    Column("job_id", ID, ForeignKey("job.id"), nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("committed", JSON(none_as_null=True), comment="SOPInstanceUIDs; NULL until the destination has reported"),
    Column("failed", JSON(none_as_null=True), comment="SOPInstanceUID -> FailureReason"),
    Column("settled", Boolean, nullable=False, default=False, comment="the delivery has taken note of the report"),
)
"""Storage commitment that we have asked of destinations: the row comes first, then the request."""
Index("ix_pledge_job_id", pledge.c.job_id)

feed = Table(
    "feed",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("position", BigInteger, nullable=False, comment="of the last change that was seen to"),
    Column("moved_at", BigInteger, nullable=False),
)
"""How far we have followed the changes of an archive from which we fetch."""

feed_file = Table(
    "feed_file",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("file", Text, primary_key=True, comment="as the archive names this file; one that comes again has another"),
    Column("noted_at", BigInteger, nullable=False),
)
"""What was fetched already: a study that becomes stable again is not fetched again, for as long as we keep facts."""
Index("ix_feed_file_noted_at", feed_file.c.noted_at)

refusal = Table(
    "refusal",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("sop_class_uid", Text, primary_key=True),
    Column("form", Text, nullable=False, comment="digest of the destination's settings: other settings, other answers"),
    Column("noted_at", BigInteger, nullable=False),
)
"""SOP classes that a destination does not take: it gets what its profile gives without them."""

commitment_request = Table(
    "commitment_request",
    metadata,
    Column("calling_ae_title", Text, primary_key=True),
    Column("transaction_uid", Text, primary_key=True),
    Column("requested", JSON, nullable=False, comment="[SOPClassUID, SOPInstanceUID] of each referenced instance"),
    Column("received_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", BigInteger, comment="when to report next; NULL once the sender has the report"),
)
"""Storage commitment that senders have asked of us, until they have been told."""
Index("ix_commitment_request_not_before", commitment_request.c.not_before)

performed_step = Table(
    "performed_step",
    metadata,
    Column("sop_instance_uid", Text, primary_key=True, comment="of the Modality Performed Procedure Step"),
    Column("study_instance_uid", Text, primary_key=True, comment="one that it serves"),
    Column("calling_ae_title", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("series", JSON, nullable=False, comment="SOPInstanceUIDs that it has made, by SeriesInstanceUID"),
    Column("received_at", BigInteger, nullable=False, comment="its last N-CREATE or N-SET"),
    one_of("state", StepState),
)
"""What modalities say that they have made: a witness of completeness."""
Index("ix_performed_step_study_instance_uid", performed_step.c.study_instance_uid)

audit_patient = Table(
    "audit_patient",
    metadata,
    Column("key", Text, primary_key=True, comment="random: it says nothing once this row is gone"),
    Column("patient_id", Text, nullable=False),
    Column("issuer_of_patient_id", Text, nullable=False),
    Column("patient_name", Text, nullable=False),
    UniqueConstraint("patient_id", "issuer_of_patient_id"),
)
"""Who is meant by the keys in the audit; the only place of it that names a patient, and outside the chain."""

audit_seal = Table(
    "audit_seal",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False, comment="1, 2 ... without gaps"),
    Column("at", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("mac", Text, nullable=False, comment="HMAC over the seal before, and the rows of this one"),
    Column("sent_at", BigInteger, comment="when this head left the machine"),
)
"""The chain: each seal binds a batch of audit rows to all seals before it."""
Index(
    "ix_audit_seal_unsent",
    audit_seal.c.number,
    sqlite_where=audit_seal.c.sent_at.is_(None),
    postgresql_where=audit_seal.c.sent_at.is_(None),
)

audit = Table(
    "audit",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("study_instance_uid", Text),
    Column("job_id", ID),
    Column("patient_key", Text, comment="of audit_patient; stays when that row is erased"),
    Column("detail", JSON, nullable=False),
    Column("seal", Integer, comment="of audit_seal; NULL until tick has sealed it"),
    Column("mac", Text, comment="HMAC of this row alone, so that a changed row can be named"),
    CheckConstraint("outcome IN ('done', 'refused', 'failed')", name="outcome"),
)
"""Acts on patient data, written in the transaction of the act itself."""
Index("ix_audit_study_instance_uid", audit.c.study_instance_uid)
Index("ix_audit_patient_key", audit.c.patient_key)
Index("ix_audit_seal", audit.c.seal)
Index(
    "ix_audit_unsealed",
    audit.c.id,
    sqlite_where=audit.c.seal.is_(None),
    postgresql_where=audit.c.seal.is_(None),
)

breaker = Table(
    "breaker",
    metadata,
    Column("pipeline", Text, primary_key=True),
    Column("deaths", JSON, nullable=False, comment="studies on which its process died since a run last ended"),
    Column("paused_at", BigInteger, comment="NULL while its jobs may start"),
    Column("paused_by", Text),
    Column("why", Text),
)
"""Pipelines whose process has died, or that are paused."""

beat = Table(
    "beat",
    metadata,
    Column("study_instance_uid", Text, primary_key=True, comment="of the phantom"),
    Column("asked_by", Text, nullable=False, comment="timetable, or who"),
    Column("folder", Text, nullable=False, comment="where its results go"),
    Column("passcode_digest", Text, comment="sha256; who has the passcode may send the phantom; NULL once it is over"),
    Column("began_at", BigInteger, nullable=False),
    Column("deadline_at", BigInteger, nullable=False),
    Column("sent_at", BigInteger, comment="when the listener had taken all of it"),
    Column("ended_at", BigInteger),
    Column("stage", Text, comment="what was broken; NULL where nothing was, or while it goes on"),
    Column("what", Text, comment="what was seen there"),
    Column("volume_ml", Float, comment="what came back"),
)
"""Cycles of the heartbeat."""
Index("ix_beat_began_at", beat.c.began_at)

alert = Table(
    "alert",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False, comment="a dotted name, as of a log event"),
    Column("subject", Text, nullable=False, comment="which pipeline, destination, folder ...; never a patient"),
    Column("what", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("times", Integer, nullable=False, default=1, comment="how often it was raised while it stood"),
    Column("ended_at", BigInteger, comment="NULL while it stands"),
)
"""What a person should look at; one row stands at a time for one kind and subject."""
Index(
    "uq_alert_standing",
    alert.c.kind,
    alert.c.subject,
    unique=True,
    sqlite_where=alert.c.ended_at.is_(None),
    postgresql_where=alert.c.ended_at.is_(None),
)

alert_message = Table(
    "alert_message",
    metadata,
    Column("alert_id", ID, ForeignKey("alert.id"), primary_key=True),
    Column("channel", Text, primary_key=True, comment="email, webhook, syslog"),
    Column("over", Boolean, primary_key=True, comment="whether it said that the alert is over"),
    Column("sent_at", BigInteger, nullable=False),
)
"""What has left this machine of each alert."""
