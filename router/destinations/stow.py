"""A DICOMweb service: STOW-RS, an instance a request, and its answer for that instance; read back by QIDO-RS."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal
from uuid import uuid4

import httpx
from pydicom.dataset import Dataset

from router.destinations import Context, Unreachable
from router.destinations._http import HttpDestination, admitted, auth, judge, reached, said, timeout, trust
from router.domain.delivery import Outgoing, Receipt, Subject, Verdict, name_of
from router.domain.delivery import judge as judge_status

JSON = "application/dicom+json"
LARGE = 1 << 20


class Settings(HttpDestination):
    """Where the service is; `url` is the root to which /studies is added."""

    kind: Literal["stow"]


def send(settings: Settings, outgoing: Sequence[Outgoing], context: Context) -> Generator[Receipt, None, None]:
    """Store each instance in order.

    Raises:  Unreachable, Rejected, UnreadableSecret
    Source:  PS3.18 10.5 (Store Transaction)
    """
    with client(settings, context) as web:
        for item in outgoing:
            boundary = uuid4().hex
            with reached(settings):
                response = web.post(
                    f"{settings.base}/studies",
                    content=multipart(item, boundary),
                    headers={
                        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                        "Accept": JSON,
                    },
                )
            admitted(settings, response)
            yield receipt(item, response)


def look(settings: Settings, subject: Subject, context: Context) -> Subject | None:
    """What a search shows of the study and of the source instance; None where it cannot be asked.

    Raises:  Unreachable, Rejected, UnreadableSecret
    """
    if not settings.same_study:
        return None
    study, series = subject.study_instance_uid, subject.series_instance_uid
    with client(settings, context) as web:
        studies = search(settings, web, "studies", StudyInstanceUID=study)
        images = search(settings, web, f"studies/{study}/series/{series}/instances")
    if studies is None or images is None:
        return None
    there = studies[0] if studies else Dataset()
    shown = {str(one.get("SOPInstanceUID", "")) for one in images}
    return replace(
        subject,
        sop_instance_uid=subject.sop_instance_uid if subject.sop_instance_uid in shown else None,
        patient_id=str(there.get("PatientID") or ""),
        accession_number=str(there.get("AccessionNumber") or ""),
    )


def confirm(settings: Settings, outgoing: Sequence[Outgoing], context: Context) -> frozenset[str] | None:
    """Those that a search shows in their study and series; None where it cannot be asked.

    Raises:  Unreachable, Rejected, UnreadableSecret
    """
    shown: set[str] = set()
    with client(settings, context) as web:
        for study, series in dict.fromkeys((item.study_instance_uid, item.series_instance_uid) for item in outgoing):
            found = search(settings, web, f"studies/{study}/series/{series}/instances")
            if found is None:
                return None
            shown.update(str(one.get("SOPInstanceUID", "")) for one in found)
    return frozenset(shown & {item.sop_instance_uid for item in outgoing})


def search(settings: Settings, web: httpx.Client, resource: str, **keys: str) -> list[Dataset] | None:
    """What a search shows; None where it cannot be asked.

    Raises:  Unreachable, Rejected
    Source:  PS3.18 10.6 (Search Transaction)
    """
    with reached(settings):
        response = web.get(f"{settings.base}/{resource}", params=keys, headers={"Accept": JSON})
    admitted(settings, response)
    if response.status_code in (204, 404):
        return []
    return datasets(response) if response.is_success else None


def echo(settings: Settings, context: Context) -> None:
    """Return when it answers a search.

    Raises:  Unreachable, Rejected, UnreadableSecret
    """
    with client(settings, context) as web, reached(settings):
        response = web.get(f"{settings.base}/studies", params={"limit": 1}, headers={"Accept": JSON})
    admitted(settings, response)
    if response.is_server_error:
        raise Unreachable(
            f"destination {settings.name}: {settings.base} answers {said(response)}",
            remedy="Ask its administrator whether it is in order",
        )


@contextmanager
def client(settings: Settings, context: Context) -> Iterator[httpx.Client]:
    """Connections to the service."""
    basic, headers = auth(settings)
    with httpx.Client(auth=basic, headers=headers, verify=trust(settings), timeout=timeout(context)) as made:
        yield made


def multipart(item: Outgoing, boundary: str) -> Iterator[bytes]:
    """The body of a request, read from the file as it goes (RFC 2387)."""
    yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    with item.path.open("rb") as file:
        while part := file.read(LARGE):
            yield part
    yield f"\r\n--{boundary}--\r\n".encode()


def receipt(item: Outgoing, response: httpx.Response) -> Receipt:
    """What the answer says of this instance: Success of the request alone proves nothing (PS3.18 10.5.3)."""
    uid = item.sop_instance_uid
    for answer in datasets(response):
        for failed in answer.get("FailedSOPSequence", ()):
            if str(failed.get("ReferencedSOPInstanceUID", uid)) == uid:
                status = int(failed.get("FailureReason", 0x0110))
                return Receipt(
                    sop_instance_uid=uid, verdict=judge_status(status), status=status, detail=name_of(status)
                )
        for stored in answer.get("ReferencedSOPSequence", ()):
            if str(stored.get("ReferencedSOPInstanceUID", "")) == uid:
                status = int(stored.get("WarningReason", 0))
                return Receipt(sop_instance_uid=uid, verdict=Verdict.ACCEPTED, status=status, detail=name_of(status))
    verdict = Verdict.LATER if response.is_success else judge(response)
    silent = ", and says nothing of the instance" if response.is_success else ""
    return Receipt(sop_instance_uid=uid, verdict=verdict, detail=f"{said(response)}{silent}")


def datasets(response: httpx.Response) -> list[Dataset]:
    """The data sets of a DICOM JSON answer; none where it is no such thing (PS3.18 F.2)."""
    try:
        content = response.json()
        return [Dataset.from_json(one) for one in (content if isinstance(content, list) else [content])]
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, ValueError):
        return []
