"""An Orthanc by its REST API (pyorthanc): upload, labels on the study; and changes and files, for `ingest.follow`."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import httpx
from pydantic import Field
from pyorthanc import Orthanc

from router.config import AETitle
from router.destinations import Context, Rejected, Unreachable
from router.destinations._http import HttpDestination, admitted, auth, judge, reached, said, timeout, trust
from router.domain.delivery import Outgoing, Receipt, Subject, Verdict

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What Orthanc allows as a label."""


class Settings(HttpDestination):
    """Where it is, and what the study is marked with once it has our results."""

    kind: Literal["orthanc"]
    labels: tuple[Label, ...] = Field((), description="Labels that the study gets with the first result")
    pull_as: AETitle | None = Field(
        None,
        description="Studies that become stable there from now on are fetched, as if this source had sent them; "
        "null fetches nothing",
    )
    pull_every_s: float = Field(5, gt=0, description="How often it is asked what has become stable")


STABLE = "StableStudy"
"""The change that says that no instance of a study has come for Orthanc's StableAge."""
CHANGES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of the changes: Orthanc's ids of the studies that have become stable, and where the next part begins."""

    studies: tuple[str, ...]
    last: int
    is_done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One instance there; `file` is the name that Orthanc gave its file, another for each time that it came."""

    id: str
    file: str
    sop_instance_uid: str


def send(settings: Settings, outgoing: Sequence[Outgoing], context: Context) -> Generator[Receipt, None, None]:
    """Upload each instance in order; the study is labelled with each, since a label that is there stays.

    Raises:  Unreachable, Rejected, UnreadableSecret
    """
    with client(settings, context) as web:
        for item in outgoing:
            with reached(settings):
                response: httpx.Response = web.post_instances(item.path.read_bytes())
            admitted(settings, response)
            verdict = judge(response)
            if verdict is Verdict.ACCEPTED:
                label(settings, web, str(response.json()["ParentStudy"]))
            said_so = response.json()["Status"] if verdict is Verdict.ACCEPTED else said(response)
            yield Receipt(sop_instance_uid=item.sop_instance_uid, verdict=verdict, detail=said_so)


def label(settings: Settings, web: Orthanc, study: str) -> None:
    """Mark the study; a label is not worth a delivery, so an Orthanc too old for labels goes without."""
    for name in settings.labels:
        with reached(settings):
            web.put_studies_id_labels_label(study, name)


def look(settings: Settings, subject: Subject, context: Context) -> Subject | None:
    """What its index has of the study and of the source instance.

    Raises:  Unreachable, Rejected, UnreadableSecret
    """
    if not settings.same_study:
        return None
    query = {"Level": "Study", "Query": {"StudyInstanceUID": subject.study_instance_uid}, "Expand": True}
    with client(settings, context) as web, reached(settings):
        response = web.post(f"{settings.base}/tools/find", json=query)
        there = has(settings, web, subject.sop_instance_uid or "")
    if not response.is_success:
        return None
    study: dict[str, dict[str, str]] = next(iter(response.json()), {"MainDicomTags": {}, "PatientMainDicomTags": {}})
    return replace(
        subject,
        sop_instance_uid=subject.sop_instance_uid if there else None,
        patient_id=study["PatientMainDicomTags"].get("PatientID", ""),
        accession_number=study["MainDicomTags"].get("AccessionNumber", ""),
    )


def has(settings: Settings, web: Orthanc, sop_instance_uid: str) -> bool:
    """Whether its index has this instance.

    Raises:  Unreachable, Rejected
    """
    with reached(settings):
        response = web.post(f"{settings.base}/tools/lookup", content=sop_instance_uid)
    admitted(settings, response)
    return response.is_success and any(one["Type"] == "Instance" for one in response.json())


def confirm(settings: Settings, outgoing: Sequence[Outgoing], context: Context) -> frozenset[str]:
    """Those that its index has as instances.

    Raises:  Unreachable, Rejected, UnreadableSecret
    """
    with client(settings, context) as web:
        return frozenset(item.sop_instance_uid for item in outgoing if has(settings, web, item.sop_instance_uid))


def echo(settings: Settings, context: Context) -> None:
    """Return when it says what it is.

    Raises:  Unreachable, Rejected, UnreadableSecret
    """
    with client(settings, context) as web, reached(settings):
        response: httpx.Response = web.get_system()
    admitted(settings, response)
    if not response.is_success:
        raise Unreachable(
            f"destination {settings.name}: {settings.base} answers {said(response)}",
            remedy="Ask its administrator whether it is an Orthanc, and in order",
        )


def changes(settings: Settings, web: Orthanc, since: int) -> Page:
    """What has changed after this place in its list of changes.

    Raises:  Unreachable, Rejected
    """
    with reached(settings):
        response: httpx.Response = web.get_changes(params={"since": since, "limit": CHANGES_AT_ONCE})
    with understood(settings, response):
        told = response.json()
        return Page(
            studies=tuple(dict.fromkeys(one["ID"] for one in told["Changes"] if one["ChangeType"] == STABLE)),
            last=int(told["Last"]),
            is_done=bool(told["Done"]),
        )


def newest(settings: Settings, web: Orthanc) -> int:
    """The place of its newest change.

    Raises:  Unreachable, Rejected
    """
    with reached(settings):
        response: httpx.Response = web.get(f"{settings.base}/changes", params={"last": ""})
    with understood(settings, response):
        return int(response.json()["Last"])


def instances_of(settings: Settings, web: Orthanc, study: str) -> list[Remote]:
    """The instances of a study, by Orthanc's id of it; none where it is no longer there.

    Raises:  Unreachable, Rejected
    """
    with reached(settings):
        response: httpx.Response = web.get_studies_id_instances(study)
    if response.status_code == httpx.codes.NOT_FOUND:
        return []
    with understood(settings, response):
        return [
            Remote(id=one["ID"], file=one["FileUuid"], sop_instance_uid=one["MainDicomTags"]["SOPInstanceUID"])
            for one in response.json()
        ]


@contextmanager
def file_of(settings: Settings, web: Orthanc, instance: Remote) -> Iterator[Iterator[bytes] | None]:
    """The pieces of the instance's Part 10 file; None where it is no longer there.

    Raises:  Unreachable, Rejected
    """
    with reached(settings), web.stream("GET", f"{settings.base}/instances/{instance.id}/file") as response:
        if response.status_code == httpx.codes.NOT_FOUND:
            yield None
            return
        with understood(settings, response):
            yield response.iter_bytes()


@contextmanager
def understood(settings: Settings, response: httpx.Response) -> Iterator[None]:
    """Say in our words that an answer is not what an Orthanc gives.

    Raises:  Unreachable, Rejected
    """
    admitted(settings, response)
    if not response.is_success:
        raise Unreachable(
            f"destination {settings.name}: {settings.base} answers {said(response)}",
            remedy="Ask its administrator whether it is in order; it is asked again",
        )
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected(
            f"destination {settings.name}: {settings.base} does not answer as an Orthanc does",
            remedy="Correct its url: the address of Orthanc's REST API, as in http://orthanc:8042",
        ) from error


@contextmanager
def client(settings: Settings, context: Context) -> Iterator[Orthanc]:
    """Connections to it."""
    basic, headers = auth(settings)
    with Orthanc(
        settings.base,
        return_raw_response=True,
        auth=basic,
        headers=headers,
        verify=trust(settings),
        timeout=timeout(context),
    ) as made:
        yield made
