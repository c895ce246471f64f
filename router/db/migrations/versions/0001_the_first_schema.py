"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "association",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("called_ae_title", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column(
            "listener",
            sa.Text(),
            nullable=False,
            comment="process that holds it; a dead listener closes its own at start",
        ),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("ending", sa.Text(), nullable=True, comment="release, abort, lost"),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_association")),
    )
    with op.batch_alter_table("association", schema=None) as batch_op:
        batch_op.create_index(
            "ix_association_open",
            ["listener"],
            unique=False,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        )

    op.create_table(
        "alert",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="a dotted name, as of a log event"),
        sa.Column(
            "subject", sa.Text(), nullable=False, comment="which pipeline, destination, folder ...; never a patient"
        ),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.BigInteger(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False, comment="how often it was raised while it stood"),
        sa.Column("ended_at", sa.BigInteger(), nullable=True, comment="NULL while it stands"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
    )
    with op.batch_alter_table("alert", schema=None) as batch_op:
        batch_op.create_index(
            "uq_alert_standing",
            ["kind", "subject"],
            unique=True,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )

    op.create_table(
        "alert_message",
        sa.Column("alert_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False, comment="email, webhook, syslog"),
        sa.Column("over", sa.Boolean(), nullable=False, comment="whether it said that the alert is over"),
        sa.Column("sent_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alert.id"], name=op.f("fk_alert_message_alert_id")),
        sa.PrimaryKeyConstraint("alert_id", "channel", "over", name=op.f("pk_alert_message")),
    )

    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=True),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("patient_key", sa.Text(), nullable=True, comment="of audit_patient; stays when that row is erased"),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("seal", sa.Integer(), nullable=True, comment="of audit_seal; NULL until tick has sealed it"),
        sa.Column(
            "mac", sa.Text(), nullable=True, comment="HMAC of this row alone, so that a changed row can be named"
        ),
        sa.CheckConstraint("outcome IN ('done', 'refused', 'failed')", name=op.f("ck_audit_outcome")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index("ix_audit_study_instance_uid", ["study_instance_uid"], unique=False)
        batch_op.create_index("ix_audit_patient_key", ["patient_key"], unique=False)
        batch_op.create_index("ix_audit_seal", ["seal"], unique=False)
        batch_op.create_index(
            "ix_audit_unsealed",
            ["id"],
            unique=False,
            sqlite_where=sa.text("seal IS NULL"),
            postgresql_where=sa.text("seal IS NULL"),
        )

    op.create_table(
        "audit_patient",
        sa.Column("key", sa.Text(), nullable=False, comment="random: it says nothing once this row is gone"),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_audit_patient")),
        sa.UniqueConstraint(
            "patient_id", "issuer_of_patient_id", name=op.f("uq_audit_patient_patient_id_issuer_of_patient_id")
        ),
    )
    op.create_table(
        "audit_seal",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False, comment="1, 2 ... without gaps"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("mac", sa.Text(), nullable=False, comment="HMAC over the seal before, and the rows of this one"),
        sa.Column("sent_at", sa.BigInteger(), nullable=True, comment="when this head left the machine"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_seal")),
    )
    with op.batch_alter_table("audit_seal", schema=None) as batch_op:
        batch_op.create_index(
            "ix_audit_seal_unsent",
            ["number"],
            unique=False,
            sqlite_where=sa.text("sent_at IS NULL"),
            postgresql_where=sa.text("sent_at IS NULL"),
        )

    op.create_table(
        "account",
        sa.Column("name", sa.Text(), nullable=False, comment="as it is typed at the login, in small letters"),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True, comment="Argon2id; NULL for one who logs in elsewhere"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("password_at", sa.BigInteger(), nullable=True, comment="when the password was last set"),
        sa.Column("subject", sa.Text(), nullable=True, comment="provider and subject of one who logs in elsewhere"),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name=op.f("ck_account_role")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_account")),
        sa.UniqueConstraint("subject", name=op.f("uq_account_subject")),
    )
    op.create_table(
        "session",
        sa.Column("digest", sa.Text(), nullable=False, comment="sha256 of the secret in the browser's cookie"),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.name"], name=op.f("fk_session_account"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_session")),
    )
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.create_index("ix_session_account", ["account"], unique=False)

    op.create_table(
        "token",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="sha256 of the secret"),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_token")),
        sa.UniqueConstraint("digest", name=op.f("uq_token_digest")),
    )
    op.create_table(
        "login_failure",
        sa.Column("key", sa.Text(), nullable=False, comment="digest of a name, or an address"),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_failure")),
    )
    with op.batch_alter_table("login_failure", schema=None) as batch_op:
        batch_op.create_index("ix_login_failure_last_at", ["last_at"], unique=False)

    op.create_table(
        "beat",
        sa.Column("study_instance_uid", sa.Text(), nullable=False, comment="of the phantom"),
        sa.Column("asked_by", sa.Text(), nullable=False, comment="timetable, or who"),
        sa.Column("folder", sa.Text(), nullable=False, comment="where its results go"),
        sa.Column(
            "passcode_digest",
            sa.Text(),
            nullable=True,
            comment="sha256; who has the passcode may send the phantom; NULL once it is over",
        ),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True, comment="when the listener had taken all of it"),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "stage", sa.Text(), nullable=True, comment="what was broken; NULL where nothing was, or while it goes on"
        ),
        sa.Column("what", sa.Text(), nullable=True, comment="what was seen there"),
        sa.Column("volume_ml", sa.Float(), nullable=True, comment="what came back"),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_beat")),
    )
    with op.batch_alter_table("beat", schema=None) as batch_op:
        batch_op.create_index("ix_beat_began_at", ["began_at"], unique=False)

    op.create_table(
        "breaker",
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column(
            "deaths", sa.JSON(), nullable=False, comment="studies on which its process died since a run last ended"
        ),
        sa.Column("paused_at", sa.BigInteger(), nullable=True, comment="NULL while its jobs may start"),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("pipeline", name=op.f("pk_breaker")),
    )
    op.create_table(
        "caller",
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("calling_ae_title", "address", name=op.f("pk_caller")),
    )
    op.create_table(
        "commitment_request",
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("transaction_uid", sa.Text(), nullable=False),
        sa.Column(
            "requested", sa.JSON(), nullable=False, comment="[SOPClassUID, SOPInstanceUID] of each referenced instance"
        ),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column(
            "not_before",
            sa.BigInteger(),
            nullable=True,
            comment="when to report next; NULL once the sender has the report",
        ),
        sa.PrimaryKeyConstraint("calling_ae_title", "transaction_uid", name=op.f("pk_commitment_request")),
    )
    with op.batch_alter_table("commitment_request", schema=None) as batch_op:
        batch_op.create_index("ix_commitment_request_not_before", ["not_before"], unique=False)

    op.create_table(
        "performed_step",
        sa.Column("sop_instance_uid", sa.Text(), nullable=False, comment="of the Modality Performed Procedure Step"),
        sa.Column("study_instance_uid", sa.Text(), nullable=False, comment="one that it serves"),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "series", sa.JSON(), nullable=False, comment="SOPInstanceUIDs that it has made, by SeriesInstanceUID"
        ),
        sa.Column("received_at", sa.BigInteger(), nullable=False, comment="its last N-CREATE or N-SET"),
        sa.CheckConstraint(
            "state IN ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')", name=op.f("ck_performed_step_state")
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", "study_instance_uid", name=op.f("pk_performed_step")),
    )
    with op.batch_alter_table("performed_step", schema=None) as batch_op:
        batch_op.create_index("ix_performed_step_study_instance_uid", ["study_instance_uid"], unique=False)

    op.create_table(
        "instance",
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column(
            "version",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="1, 2 ...: corrections of one instance",
        ),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("series_instance_uid", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.Text(), nullable=False),
        sa.Column("instance_number", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False, comment="below the store's root"),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="bytes of the Part 10 file"),
        sa.Column("pixel_offset", sa.BigInteger(), nullable=True, comment="of the pixel data's value in the file"),
        sa.Column("pixel_length", sa.BigInteger(), nullable=True, comment="NULL when encapsulated"),
        sa.Column("header", sa.JSON(), nullable=False, comment="routing facts, keyword -> value(s)"),
        sa.Column("dataset_digest", sa.Text(), nullable=True, comment="sha256; NULL until the digester has read it"),
        sa.Column("pixel_digest", sa.Text(), nullable=True),
        sa.Column("identity_digest", sa.Text(), nullable=True),
        sa.Column("ours", sa.Boolean(), nullable=False, comment="made by an Isocenter: never routed"),
        sa.Column("association_id", sa.Text(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('current', 'replaced', 'conflict', 'purged')", name=op.f("ck_instance_status")),
        sa.PrimaryKeyConstraint("sop_instance_uid", "version", name=op.f("pk_instance")),
        sa.UniqueConstraint("path", name=op.f("uq_instance_path")),
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index(
            "ix_instance_series",
            ["study_instance_uid", "series_instance_uid", "sop_class_uid", "status"],
            unique=False,
        )
        batch_op.create_index(
            "ix_instance_undigested",
            ["received_at"],
            unique=False,
            sqlite_where=sa.text("dataset_digest IS NULL"),
            postgresql_where=sa.text("dataset_digest IS NULL"),
        )
        batch_op.create_index(
            "uq_instance_current",
            ["sop_instance_uid"],
            unique=True,
            sqlite_where=sa.text("status = 'current'"),
            postgresql_where=sa.text("status = 'current'"),
        )

    op.create_table(
        "job",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False, comment="stat 10, routine 50, off-peak 90: low is urgent"),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("series_instance_uid", sa.Text(), nullable=True, comment="what an inference job reads"),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column(
            "pixels_digest",
            sa.Text(),
            nullable=True,
            comment="ordered (SOPInstanceUID, pixel digest) that an inference job reads",
        ),
        sa.Column(
            "identity_digest",
            sa.Text(),
            nullable=True,
            comment="whose series it is: what results copy of patient and study",
        ),
        sa.Column("pipeline", sa.Text(), nullable=True),
        sa.Column("pipeline_version", sa.Text(), nullable=True),
        sa.Column("weights_digest", sa.Text(), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=True),
        sa.Column("settings_digest", sa.Text(), nullable=True),
        sa.Column("run", sa.Integer(), nullable=False, comment="counts re-runs that a person asked for"),
        sa.Column(
            "completeness",
            sa.Text(),
            nullable=True,
            comment="how it was known that what it reads is complete, for the report",
        ),
        sa.Column("instances", sa.Integer(), nullable=True, comment="how many it reads"),
        sa.Column(
            "stale_at", sa.BigInteger(), nullable=True, comment="since when its series is no longer what it read"
        ),
        sa.Column(
            "result_set_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=True,
            comment="what a delivery job sends; NULL: the study itself",
        ),
        sa.Column("destination", sa.Text(), nullable=True, comment="where a delivery job sends it"),
        sa.Column(
            "findings_job_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=True,
            comment="the inference job whose findings a build job builds",
        ),
        sa.Column("profile", sa.Text(), nullable=True, comment="what a build job builds, as a result set's"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column(
            "deadline",
            sa.BigInteger(),
            nullable=True,
            comment="when its results are wanted; NULL when no rule says so",
        ),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("fraction", sa.Float(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=True,
            comment="why refused, failed, held or cancelled; or the last retry's cause",
        ),
        sa.Column("problem", sa.Text(), nullable=True, comment="class of the error behind reason"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_job_lease")),
        sa.CheckConstraint("lane IN ('infer', 'build', 'deliver')", name=op.f("ck_job_lane")),
        sa.CheckConstraint("outcome IN ('result', 'refused', 'delivered')", name=op.f("ck_job_outcome")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'waiting', 'held', 'done', 'failed', 'cancelled', 'superseded')",
            name=op.f("ck_job_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(
            "ix_job_claim",
            ["lane", "priority", "not_before", "id"],
            unique=False,
            sqlite_where=sa.text("state = 'queued'"),
            postgresql_where=sa.text("state = 'queued'"),
        )
        batch_op.create_index(
            "ix_job_lease_until",
            ["lease_until"],
            unique=False,
            sqlite_where=sa.text("state = 'running'"),
            postgresql_where=sa.text("state = 'running'"),
        )
        batch_op.create_index("ix_job_study_instance_uid", ["study_instance_uid"], unique=False)
        batch_op.create_index("ix_job_finished_at", ["finished_at"], unique=False)
        batch_op.create_index("ix_job_state", ["state", "id"], unique=False)
        batch_op.create_index(
            "uq_job_forward",
            ["study_instance_uid", "generation", "destination", "run"],
            unique=True,
            sqlite_where=sa.text("lane = 'deliver' AND result_set_id IS NULL"),
            postgresql_where=sa.text("lane = 'deliver' AND result_set_id IS NULL"),
        )
        batch_op.create_index(
            "uq_job_build",
            ["findings_job_id", "profile", "run"],
            unique=True,
            sqlite_where=sa.text("lane = 'build'"),
            postgresql_where=sa.text("lane = 'build'"),
        )
        batch_op.create_index(
            "uq_job_delivery",
            ["result_set_id", "destination", "run"],
            unique=True,
            sqlite_where=sa.text("lane = 'deliver'"),
            postgresql_where=sa.text("lane = 'deliver'"),
        )
        batch_op.create_index(
            "uq_job_inference",
            ["pixels_digest", "identity_digest", "pipeline", "pipeline_version", "settings_digest", "run"],
            unique=True,
            sqlite_where=sa.text("lane = 'infer'"),
            postgresql_where=sa.text("lane = 'infer'"),
        )

    op.create_table(
        "node",
        sa.Column("node_id", sa.Text(), nullable=False, comment="uuid made by init; part of every derived UID"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node")),
    )
    op.create_table(
        "pause",
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column(
            "longest", sa.BigInteger(), nullable=False, comment="between two instances of the study, in microseconds"
        ),
        sa.Column("longest_in_series", sa.BigInteger(), nullable=False, comment="between two instances of one series"),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_pause")),
    )
    with op.batch_alter_table("pause", schema=None) as batch_op:
        batch_op.create_index("ix_pause_sender", ["calling_ae_title", "noted_at"], unique=False)

    op.create_table(
        "feed",
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="of the last change that was seen to"),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_feed")),
    )
    op.create_table(
        "feed_file",
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column(
            "file",
            sa.Text(),
            nullable=False,
            comment="as the archive names this file; one that comes again has another",
        ),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("destination", "file", name=op.f("pk_feed_file")),
    )
    with op.batch_alter_table("feed_file", schema=None) as batch_op:
        batch_op.create_index("ix_feed_file_noted_at", ["noted_at"], unique=False)

    op.create_table(
        "refusal",
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column(
            "form",
            sa.Text(),
            nullable=False,
            comment="digest of the destination's settings: other settings, other answers",
        ),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("destination", "sop_class_uid", name=op.f("pk_refusal")),
    )
    op.create_table(
        "revision",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('rules', 'sources', 'destinations')", name=op.f("ck_revision_kind")),
        sa.PrimaryKeyConstraint("kind", "number", name=op.f("pk_revision")),
    )
    op.create_table(
        "study",
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False, comment="how often it has been complete"),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.Column("patient_birth_date", sa.Text(), nullable=False),
        sa.Column("patient_sex", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("study_date", sa.Text(), nullable=False),
        sa.Column("study_time", sa.Text(), nullable=False),
        sa.Column("study_description", sa.Text(), nullable=False),
        sa.Column("referring_physician_name", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False, comment="who sent the last instance"),
        sa.Column("first_instance_at", sa.BigInteger(), nullable=False),
        sa.Column("last_instance_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "decide_at",
            sa.BigInteger(),
            nullable=True,
            comment="when decide looks again; NULL when there is nothing to decide",
        ),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "completed_after",
            sa.BigInteger(),
            nullable=True,
            comment="from its last instance to its last completion, in microseconds",
        ),
        sa.Column("witnesses", sa.JSON(), nullable=True, comment="how completeness was known, at the last completion"),
        sa.Column(
            "held_reason",
            sa.Text(),
            nullable=True,
            comment="why a person had to look, until decide has settled it after that",
        ),
        sa.Column("attention", sa.Text(), nullable=True, comment="what a person should look at; NULL once someone has"),
        sa.Column(
            "announced",
            sa.JSON(),
            nullable=True,
            comment="how many instances there should be, who said so, and how often the same",
        ),
        sa.CheckConstraint("state IN ('receiving', 'complete', 'held')", name=op.f("ck_study_state")),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_study")),
    )
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.create_index("ix_study_accession_number", ["accession_number"], unique=False)
        batch_op.create_index("ix_study_completed_at", ["completed_at"], unique=False)
        batch_op.create_index("ix_study_decide_at", ["decide_at"], unique=False)
        batch_op.create_index(
            "ix_study_attention",
            ["last_instance_at"],
            unique=False,
            sqlite_where=sa.text("attention IS NOT NULL"),
            postgresql_where=sa.text("attention IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_study_held",
            ["study_instance_uid"],
            unique=False,
            sqlite_where=sa.text("held_reason IS NOT NULL"),
            postgresql_where=sa.text("held_reason IS NOT NULL"),
        )
        batch_op.create_index("ix_study_last_instance_at", ["last_instance_at"], unique=False)
        batch_op.create_index("ix_study_state", ["state", "last_instance_at"], unique=False)
        batch_op.create_index(
            "ix_study_patient", ["patient_id", "issuer_of_patient_id", "study_instance_uid"], unique=False
        )
        batch_op.create_index("ix_study_patient_name", ["patient_name", "study_instance_uid"], unique=False)
        batch_op.create_index("ix_study_study_date", ["study_date", "study_instance_uid"], unique=False)

    op.create_table(
        "decision",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.Text(), nullable=False, comment="empty for a study-level rule"),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("fires", sa.Boolean(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column(
            "reasons", sa.JSON(), nullable=False, comment="every condition with the value seen; the first that failed"
        ),
        sa.Column("pipeline", sa.Text(), nullable=False, comment="empty where the rule names none"),
        sa.Column("destinations", sa.JSON(), nullable=False),
        sa.Column(
            "job_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=True,
            comment="the one run that many decisions may share",
        ),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "inputs", sa.Text(), nullable=False, comment="digest of the series, or of the study, as it was decided on"
        ),
        sa.CheckConstraint("mode IN ('on', 'shadow', 'off')", name=op.f("ck_decision_mode")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_decision_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decision")),
        sa.UniqueConstraint(
            "study_instance_uid",
            "generation",
            "series_instance_uid",
            "rule",
            "pipeline",
            "inputs",
            name="uq_decision_once",
        ),
    )
    with op.batch_alter_table("decision", schema=None) as batch_op:
        batch_op.create_index("ix_decision_job_id", ["job_id"], unique=False)

    op.create_table(
        "measurement",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("label", sa.Text(), nullable=False, comment="what was measured"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("remark", sa.Text(), nullable=True, comment="why withheld, or what qualifies the value"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_measurement_job_id")),
        sa.PrimaryKeyConstraint("job_id", "ordinal", name=op.f("pk_measurement")),
    )
    op.create_table(
        "receipt",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column(
            "status", sa.Integer(), nullable=True, comment="the far side's answer to C-STORE; NULL when none came"
        ),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("committed_at", sa.BigInteger(), nullable=True, comment="when the far side promised to keep it"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_receipt_job_id")),
        sa.PrimaryKeyConstraint("job_id", "sop_instance_uid", name=op.f("pk_receipt")),
    )
    op.create_table(
        "findings",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("path", sa.Text(), nullable=False, comment="below the store's root"),
        sa.Column("digest", sa.Text(), nullable=False, comment="sha256 of the file"),
        sa.Column("title", sa.Text(), nullable=False, comment="of the pipeline, as objects say it"),
        sa.Column("research", sa.Boolean(), nullable=False),
        sa.Column(
            "completeness",
            sa.Text(),
            nullable=False,
            comment="how the series was known to be complete, as reports say it",
        ),
        sa.Column("kept_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_findings_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_findings")),
    )
    op.create_table(
        "pledge",
        sa.Column("transaction_uid", sa.Text(), nullable=False),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "committed",
            sa.JSON(none_as_null=True),
            nullable=True,
            comment="SOPInstanceUIDs; NULL until the destination has reported",
        ),
        sa.Column("failed", sa.JSON(none_as_null=True), nullable=True, comment="SOPInstanceUID -> FailureReason"),
        sa.Column("settled", sa.Boolean(), nullable=False, comment="the delivery has taken note of the report"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_pledge_job_id")),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_pledge")),
    )
    with op.batch_alter_table("pledge", schema=None) as batch_op:
        batch_op.create_index("ix_pledge_job_id", ["job_id"], unique=False)

    op.create_table(
        "result_set",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False, comment="what kinds were built and how, as canonical JSON"),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("built_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_result_set_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_result_set")),
        sa.UniqueConstraint("job_id", "profile", name=op.f("uq_result_set_job_id_profile")),
    )
    with op.batch_alter_table("result_set", schema=None) as batch_op:
        batch_op.create_index("ix_result_set_study_instance_uid", ["study_instance_uid"], unique=False)

    op.create_table(
        "series",
        sa.Column("series_instance_uid", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("series_number", sa.Text(), nullable=False),
        sa.Column("series_description", sa.Text(), nullable=False),
        sa.Column("body_part_examined", sa.Text(), nullable=False),
        sa.Column(
            "facts", sa.JSON(), nullable=True, comment="aggregated over all instances when the series was last complete"
        ),
        sa.Column("facts_generation", sa.Integer(), nullable=True),
        sa.Column(
            "completed_at",
            sa.BigInteger(),
            nullable=True,
            comment="when rules about series were last asked about it",
        ),
        sa.Column(
            "witnesses",
            sa.JSON(),
            nullable=True,
            comment="how its completeness was known then, and of which instances",
        ),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_series_study_instance_uid")
        ),
        sa.PrimaryKeyConstraint("series_instance_uid", "study_instance_uid", name=op.f("pk_series")),
    )
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.create_index(
            "ix_series_study_instance_uid", ["study_instance_uid", "series_instance_uid"], unique=False
        )

    op.create_table(
        "result",
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("result_set_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False, comment="order of sending; the SR is last"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("series_instance_uid", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False, comment="below the store's root"),
        sa.Column(
            "digest", sa.Text(), nullable=False, comment="sha256 of the file: other bytes under this UID are an error"
        ),
        sa.Column("purged_at", sa.BigInteger(), nullable=True, comment="when the file went; NULL while it is here"),
        sa.ForeignKeyConstraint(["result_set_id"], ["result_set.id"], name=op.f("fk_result_result_set_id")),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_result")),
    )
    with op.batch_alter_table("result", schema=None) as batch_op:
        batch_op.create_index("ix_result_result_set_id", ["result_set_id"], unique=False)

    op.create_table(
        "result_header",
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("header", sa.JSON(), nullable=False, comment="keyword -> value(s), as of an instance"),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid"],
            ["result.sop_instance_uid"],
            name=op.f("fk_result_header_sop_instance_uid"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_result_header")),
    )
