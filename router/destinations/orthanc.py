"""An Orthanc by its REST API (pyorthanc): upload, and labels on the study."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Literal

import httpx
from pydantic import Field
from pyorthanc import Orthanc

from router.destinations import Context, Unreachable
from router.destinations._http import HttpDestination, admitted, auth, judge, reached, said, timeout, trust
from router.domain.delivery import Outgoing, Receipt, Subject, Verdict

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What Orthanc allows as a label."""


class Settings(HttpDestination):
    """Where it is, and what the study is marked with once it has our results."""

    kind: Literal["orthanc"]
    labels: tuple[Label, ...] = Field((), description="Labels that the study gets with the first result")


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
