"""Role `deliver`: each result set to each of its destinations, in order, the report last, until all of it is there;
and studies as they were received where a rule forwards them.

An answer is written down the moment it comes, so after a failure or a kill only what is missing is sent again; what was
taken but not written down is sent once more as the same bytes under the same UID.
"""

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from uuid import uuid4

import structlog
from sqlalchemy import Connection

from dicom_sr.problem import Problem
from router import destinations
from router.db import audit, instances, jobs, pledges, receipts, results, studies
from router.db.engine import reading, writing
from router.db.instances import InstanceRow
from router.destinations import Awaited, CannotCommit, Context, Destination, Interrupted, Kind, Unheard
from router.domain.delivery import DUPLICATE, Commitment, Outgoing, Receipt, Result, Subject, Verdict, contradictions
from router.domain.job import Job, Lane, Outcome
from router.node import Node
from router.work import notes, outbox
from router.work.loop import Ending, ForPerson, InHand, Loop, Pause

log = structlog.get_logger()

LEASE_S = 60.0
PATIENCE = 8
"""Attempts during which images that are not there yet may still come: with the usual settings ten minutes."""

SLOTS = 8
"""Destinations that are served at once; each gets one delivery at a time."""


class NotYet(Problem):
    """The far side does not have the images yet that the results are about, or a note that goes before them."""

    retryable = True


class OtherStudy(ForPerson):
    """The far side has no such study, or has it as another patient's or another order's."""


class NotTaken(Problem):
    """The far side has not taken an instance; it may later."""

    retryable = True


class NotThere(Problem):
    """The far side has taken what it does not show when it is asked."""

    retryable = True


class Refused(Problem):
    """The far side refuses an instance, or to keep it, and will refuse it again.

    `classes` are the SOP classes that it does not take at all.
    """

    def __init__(self, what: str, *, remedy: str, classes: tuple[str, ...] = ()) -> None:
        super().__init__(what, remedy=remedy)
        self.classes = classes


class NoSuchDestination(Problem):
    """The destination of a delivery is not among the destinations in force."""


class NothingToSend(Problem):
    """A delivery without objects: its result set is gone."""


def serve(node: Node, stop: threading.Event) -> None:
    """Deliver until `stop` is set; what is on its way then arrives first."""
    settings = node.settings.delivery
    Loop(
        node=node,
        lane=Lane.DELIVER,
        work=lambda hand: deliver(node, hand),
        lease_s=LEASE_S,
        retry_first_s=settings.retry_first_s,
        retry_cap_s=settings.retry_cap_s,
        slots=SLOTS,
    ).serve(stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A delivery with all that it means, from one snapshot of the database."""

    job: Job
    destination: Destination
    context: Context
    objects: tuple[Outgoing, ...]
    """The whole set, in the order of sending."""
    kinds: dict[str, str]
    """Result kind by SOPInstanceUID."""
    taken: frozenset[str]
    """What the destination has taken at earlier attempts."""
    committed: frozenset[str]
    """What it has promised to keep."""

    @property
    def way(self) -> Kind:
        """The hands of this kind of destination."""
        return destinations.find(self.destination.kind)


def deliver(node: Node, hand: InHand) -> Ending | Pause:
    """Send what the destination does not have yet, and see that it keeps it: by its promise, or by what it shows.

    Raises:  Unreachable, Rejected, NotYet, OtherStudy, NotTaken, NotThere, Refused, NoSuchDestination, NothingToSend,
             Lost
    """
    not_kept = take_note(node, hand.job)
    errand = errand_of(node, hand.job)
    for receipt in sorted(not_kept, key=lambda receipt: receipt.verdict is not Verdict.NEVER):
        judge(receipt, errand, missing=len(errand.objects) - len(errand.taken))
    seen_to = hand.job.problem == OtherStudy.__name__  # by the person who has released it
    if not errand.taken and not hand.job.is_forward and not seen_to:
        let_note_pass(node, errand)
        look(node, errand)
    try:
        send(node, hand, errand)
    except Refused as problem:
        if errand.taken or not problem.classes:
            raise
        return instead(node, hand.job, problem)
    hand.progress("asking for commitment", 1.0)
    return settled(node, errand)


def take_note(node: Node, job: Job) -> list[Receipt]:
    """Enter in the ledger what has been reported since; what it says of instances that are not kept."""
    found: list[Receipt] = []
    with writing(node.engine) as connection:
        for said in pledges.unsettled(connection, job.id):
            asked = receipts.accepted(connection, job.id)
            receipts.commit(connection, job.id, said.committed & asked)
            for receipt in said.receipts(sorted(asked - receipts.committed(connection, job.id))):
                receipts.write(connection, job.id, receipt)
                found.append(receipt)
            pledges.settle(connection, said.transaction_uid)
    return found


def settled(node: Node, errand: Errand) -> Ending | Pause:
    """How a set that has been sent whole ends: committed, waiting for that, or shown where nobody commits.

    Raises:  Unreachable, Rejected, NotTaken, NotThere, Refused
    """
    missing = [one for one in errand.objects if one.sop_instance_uid not in errand.committed]
    if missing and errand.way.commit is not None:
        try:
            try:
                answer = ask(node, errand, missing)
            except Unheard as problem:
                log.info("commitment.never_heard", reason=problem.what)
                if read_back(node, errand):
                    return ending(errand, "read back")
                answer = ask(node, errand, missing, patient=True)
        except CannotCommit as problem:
            log.info("commitment.not_taken", reason=problem.what)
            return ending(errand, "read back" if read_back(node, errand) else "accepted")
        if isinstance(answer, Awaited):
            return Pause(
                wait_s=answer.wait_s,
                reason=f"destination {errand.destination.name} has taken all {len(errand.objects)} objects and is "
                "asked to commit to keep them",
                record=lambda connection: wake_if_told(connection, errand.job),
            )
        for receipt in take_note(node, errand.job):
            judge(receipt, errand, missing=len(answer.failed))
    elif missing:
        return ending(errand, "read back" if read_back(node, errand) else "accepted")
    return ending(errand, "committed")


def ask(node: Node, errand: Errand, missing: Sequence[Outgoing], *, patient: bool = False) -> Commitment | Awaited:
    """Ask to commit to what is missing; that we ask is written down before, and what comes at once, too.

    `patient` waits for who has never reported as for others.

    Raises:  Unheard, CannotCommit, Unreachable, Rejected
    """
    commit = errand.way.commit
    assert commit is not None
    transaction_uid = f"2.25.{uuid4().int}"
    with writing(node.engine) as connection:
        unanswered = pledges.unanswered(connection, errand.job.id)
        heard = patient or pledges.heard(connection, errand.destination.name)
        pledges.add(connection, transaction_uid, errand.job.id)
    try:
        answer = commit(
            errand.destination, missing, transaction_uid, errand.context, unanswered=unanswered, heard=heard
        )
    except Interrupted:  # it may have heard us, and may report
        raise
    except Problem:
        with writing(node.engine) as connection:
            pledges.withdraw(connection, transaction_uid)
        raise
    log.info("commitment.asked", transaction=transaction_uid, instances=len(missing))
    if isinstance(answer, Commitment):
        with writing(node.engine) as connection:
            pledges.report(connection, answer)
    return answer


def wake_if_told(connection: Connection, job: Job) -> None:
    """A report that was quicker than we finds nobody to wake; its job was parked in this transaction."""
    if pledges.unsettled(connection, job.id):
        jobs.wake(connection, job.id)


def ending(errand: Errand, how: str) -> Ending:
    """The set has been delivered."""
    return Ending(outcome=Outcome.DELIVERED, record=lambda connection: note(connection, errand, how))


def instead(node: Node, job: Job, problem: Refused) -> Ending:
    """The set is not taken for its SOP classes, and nothing of it is there: the destination gets another one."""

    def record(connection: Connection) -> None:
        made = outbox.refuse(connection, job, problem.classes, max_attempts=node.settings.delivery.max_attempts)
        if made is None:
            raise problem
        audit.write(
            connection,
            "deliver",
            "results.refused",
            job.study_instance_uid,
            job=job.id,
            destination=job.destination,
            sop_classes=list(problem.classes),
            instead=made,
        )

    said = f"{problem.what}. It gets a result set without that instead"
    return Ending(outcome=Outcome.REFUSED, reason=said, record=record, rings=(Lane.BUILD, Lane.DELIVER))


def errand_of(node: Node, job: Job) -> Errand:
    """What the job means.

    Raises:  NoSuchDestination, NothingToSend
    """
    settings = node.settings
    with writing(node.engine) if job.is_forward else reading(node.engine) as connection:
        destination = find(connection, job)
        objects: Sequence[Result | InstanceRow]
        if job.is_forward:
            receipts.inherit(connection, job)
            objects = instances.of_study(connection, job.study_instance_uid)
        else:
            objects = results.of_set(connection, job.result_set_id or 0)
            if any(one.purged_at is not None for one in objects):
                raise NothingToSend(
                    f"the files of result set {job.result_set_id} are gone: retention.keep_results_days are over",
                    remedy="Re-run its inference job, for which the study must be here",
                )
        taken, committed = receipts.accepted(connection, job.id), receipts.committed(connection, job.id)
    if not objects and job.is_forward:
        raise NothingToSend("the study has no images here any more", remedy="Send it here again, or cancel the job")
    if not objects:
        raise NothingToSend(f"result set {job.result_set_id} has no objects", remedy="Re-run its inference job")
    return Errand(
        job=job,
        destination=destination,
        context=Context(
            calling_ae_title=settings.delivery.calling_ae_title or settings.ae_title,
            timeout_s=settings.delivery.timeout_s,
            tls=settings.tls,
        ),
        objects=tuple(
            Outgoing(
                sop_class_uid=item.sop_class_uid,
                sop_instance_uid=item.sop_instance_uid,
                path=node.store.path(item.path),
                study_instance_uid=job.study_instance_uid,
                series_instance_uid=item.series_instance_uid,
            )
            for item in objects
        ),
        kinds={one.sop_instance_uid: one.kind if isinstance(one, Result) else "instance" for one in objects},
        taken=taken,
        committed=committed,
    )


def look(node: Node, errand: Errand) -> None:
    """Go on when the destination has the study that the results are about, under the same identity, or cannot say.

    Raises:  Unreachable, Rejected, NotYet, OtherStudy
    """
    ours = subject_of(node, errand.job)
    theirs = None if ours is None else errand.way.look(errand.destination, ours, errand.context)
    if ours is None or theirs is None:
        return
    where = f"destination {errand.destination.name}"
    if theirs.sop_instance_uid is None:
        said = f"{where} does not have the images that the results are about"
        if errand.job.attempt < PATIENCE:
            raise NotYet(said, remedy="It is asked again; the delivery goes on by itself once they are there")
        raise OtherStudy(said, remedy=f"Send them there, then `isocenter jobs release {errand.job.id}`")
    differing = contradictions(ours, theirs)
    if differing:
        with writing(node.engine) as connection:
            receipts.write(connection, errand.job.id, shown(ours, theirs))
        raise OtherStudy(
            f"{where} has this study with another {' and '.join(differing)}",
            remedy=f"`isocenter jobs show {errand.job.id}` shows both. Correct the wrong one, then release the job",
        )


def let_note_pass(node: Node, errand: Errand) -> None:
    """Go on when no note waits that rejects what the same images gave in the study from which they were moved.

    Raises:  NotYet
    """
    with reading(node.engine) as connection:
        due = not errand.job.last_attempt and notes.is_due(connection, errand.job)
    if due:
        raise NotYet(
            f"destination {errand.destination.name} is first to get the note that rejects these results where their "
            "images were before",
            remedy="The delivery goes on by itself once the note is there",
        )


def subject_of(node: Node, job: Job) -> Subject | None:
    """What the set is about: its study, and one instance of the series that was read; None where we have neither."""
    with reading(node.engine) as connection:
        study = studies.find(connection, job.study_instance_uid)
        found = results.find_set(connection, job.result_set_id or 0)
        made_by = jobs.find(connection, found.job_id) if found else None
        series = (made_by.series_instance_uid if made_by else None) or ""
        rows = instances.of_series(connection, job.study_instance_uid, series)
    if study is None or not rows:
        return None
    return Subject(
        study_instance_uid=study.study_instance_uid,
        series_instance_uid=series,
        sop_instance_uid=rows[0].sop_instance_uid,
        patient_id=study.patient.patient_id,
        accession_number=study.patient.accession_number,
    )


def shown(ours: Subject, theirs: Subject) -> Receipt:
    """Both identities, for a person; a receipt is shown and never logged."""
    return Receipt(
        sop_instance_uid=ours.sop_instance_uid or "",
        verdict=Verdict.NEVER,
        detail=f"here PatientID {ours.patient_id!r}, AccessionNumber {ours.accession_number!r}; "
        f"there {theirs.patient_id!r}, {theirs.accession_number!r}",
    )


def send(node: Node, hand: InHand, errand: Errand) -> None:
    """Send what was not taken yet; each answer is written down as it comes.

    Raises:  Unreachable, Rejected, NotTaken, Refused, Lost
    """
    missing = [item for item in errand.objects if item.sop_instance_uid not in errand.taken]
    if not missing:
        return
    with closing(errand.way.send(errand.destination, missing, errand.context)) as answers:
        for number, answer in enumerate(answers):
            receipt = compared(errand, missing[number], answer)
            with writing(node.engine) as connection:
                receipts.write(connection, errand.job.id, receipt)
            log.info("instance.sent", instance=receipt.sop_instance_uid, verdict=receipt.verdict, answer=receipt.detail)
            judge(receipt, errand, missing=len(missing) - number)
            hand.progress("sending", 1 - (len(missing) - number - 1) / len(errand.objects))


def compared(errand: Errand, item: Outgoing, receipt: Receipt) -> Receipt:
    """A duplicate that is there under our UIDs has been delivered: what we send under a UID is always the same."""
    if receipt.status != DUPLICATE or receipt.verdict is Verdict.ACCEPTED:
        return receipt
    there = errand.way.confirm(errand.destination, [item], errand.context)
    if there is None or item.sop_instance_uid not in there:
        return receipt
    return replace(receipt, verdict=Verdict.ACCEPTED, detail=f"{receipt.detail}, and it is there")


def read_back(node: Node, errand: Errand) -> bool:
    """Whether the far side shows the whole set; False where it cannot be asked.

    An archive may take a moment to show what it has taken. When it does not show it at the next attempt either, what is
    missing is sent again.

    Raises:  Unreachable, Rejected, NotThere
    """
    there = errand.way.confirm(errand.destination, errand.objects, errand.context)
    if there is None:
        return False
    missing = [item.sop_instance_uid for item in errand.objects if item.sop_instance_uid not in there]
    if not missing:
        return True
    if errand.job.problem == NotThere.__name__:
        with writing(node.engine) as connection:
            for uid in missing:
                lost = Receipt(sop_instance_uid=uid, verdict=Verdict.LATER, detail="taken, and not there afterwards")
                receipts.write(connection, errand.job.id, lost)
    raise NotThere(
        f"destination {errand.destination.name} has taken {len(errand.objects)} objects and shows "
        f"{len(errand.objects) - len(missing)} of them",
        remedy="It is asked again, and sent what is missing; if that does not help, ask its administrator",
    )


def find(connection: Connection, job: Job) -> Destination:
    """The destination of a delivery, as the revision in force has it.

    Raises:  NoSuchDestination
    """
    destination = outbox.in_force(connection).get(job.destination or "")
    if destination is not None:
        return destination
    raise NoSuchDestination(
        f"there is no destination {job.destination} any more",
        remedy=f"Import destinations that have it, then `isocenter jobs retry {job.id}`",
    )


def judge(receipt: Receipt, errand: Errand, *, missing: int) -> None:
    """Go on after an instance that was taken; later ones may reference it, so without it none is sent.

    Raises:  NotTaken, Refused
    """
    if receipt.verdict is Verdict.ACCEPTED:
        return
    uid = receipt.sop_instance_uid
    said = (
        f"destination {errand.destination.name} did not take {errand.kinds[uid]} {uid}: {receipt.detail}; "
        f"{missing} of {len(errand.objects)} objects are not there"
    )
    if receipt.verdict is Verdict.LATER:
        raise NotTaken(said, remedy="The delivery goes on by itself")
    raise Refused(
        said,
        remedy="Put it right there, or give it a profile without this kind; then retry the job",
        classes=receipt.refused,
    )


def note(connection: Connection, errand: Errand, how: str) -> None:
    """One audit row a delivery; `how` is by what we know that the far side has it."""
    audit.write(
        connection,
        "deliver",
        "study.sent" if errand.job.is_forward else "results.sent",
        errand.job.study_instance_uid,
        job=errand.job.id,
        destination=errand.destination.name,
        instances=len(errand.objects),
        proof=how,
    )
