"""Whose the object is, who made it and when: copied from the source, as ordered, and one in all objects of a set.

No fault quotes a patient's name or number.

Source:  PS3.3 C.7.1.1, C.7.2.1, C.12.1
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from pydicom.dataset import Dataset

from dicom_sr import codes
from dicom_sr.checks.fault import Fault, code_of, expect, items, same, text
from dicom_sr.checks.seen import Seen
from dicom_sr.elements import elements, joined, tag_of
from dicom_sr.header import (
    ALWAYS,
    MANUFACTURER,
    clock,
    copied_keywords,
    device,
    series_description,
    series_number,
)
from dicom_sr.kinds import Built, Order
from dicom_sr.script import UNICODE, Script, terms


def of_source(dataset: Dataset, source: Dataset, place: str) -> Iterator[Fault]:
    """Patient and study are the source's, byte for byte, or the same text in UTF-8."""
    unicode = terms(dataset) == (UNICODE,) != terms(source)
    if not unicode and terms(dataset) != terms(source):
        yield Fault(f"{place}.SpecificCharacterSet", f"is {terms(dataset)}, the source's is {terms(source)}")
    ours, theirs = Script(terms(dataset)), Script(terms(source), unicode)
    for keyword in copied_keywords(source):
        wanted = theirs.copied(source, (keyword,)).get(tag_of(keyword), b"")
        found = ours.copied(dataset, (keyword,)).get(tag_of(keyword), b"")
        empty = joined(elements(**{keyword: None}))
        if found != wanted and not (found in (b"", empty) and wanted in (b"", empty)):
            yield Fault(f"{place}.{keyword}", "is not the source's")
    for keyword in ALWAYS:
        if keyword not in dataset:
            yield Fault(f"{place}.{keyword}", "is missing")


SAME_PERSON = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber")
"""What two objects of one study must not contradict each other in, where both say it."""


def of_patient(dataset: Dataset, source: Dataset, place: str) -> Iterator[Fault]:
    """An object by whomever does not contradict its source on whose it is; what it leaves out is its own affair."""
    for keyword in SAME_PERSON:
        found, wanted = text(dataset, keyword), text(source, keyword)
        if found and wanted and found.rstrip("^") != wanted.rstrip("^"):
            yield Fault(f"{place}.{keyword}", "is not the source's")


def as_ordered(seen: Seen, built: Built, order: Order) -> Iterator[Fault]:
    """UIDs, series, equipment and time are those of the order."""
    dataset, place = seen.dataset, seen.place
    meta = dataset.file_meta
    for keyword, wanted in (
        ("SOPInstanceUID", order.uid(built.kind, built.ordinal)),
        ("SeriesInstanceUID", order.uid(f"{built.kind}.series", 0)),
        ("SOPClassUID", built.sop_class_uid),
        ("SeriesDescription", series_description(order)),
        ("ContentQualification", "RESEARCH" if order.research else "PRODUCT"),
        ("Manufacturer", MANUFACTURER),
        ("ManufacturerModelName", order.findings.algorithm.name),
        ("SoftwareVersions", order.findings.algorithm.version),
    ):
        yield from expect(place, keyword, text(dataset, keyword), wanted)
    yield from expect(
        place, "MediaStorageSOPInstanceUID", text(meta, "MediaStorageSOPInstanceUID"), built.sop_instance_uid
    )
    yield from expect(place, "MediaStorageSOPClassUID", text(meta, "MediaStorageSOPClassUID"), built.sop_class_uid)
    yield from expect(place, "SOPInstanceUID", text(dataset, "SOPInstanceUID"), built.sop_instance_uid)
    yield from expect(place, "SeriesInstanceUID", text(dataset, "SeriesInstanceUID"), built.series_instance_uid)
    yield from _equipment(seen, order)
    yield from _time(dataset, clock(order), place)


def _equipment(seen: Seen, order: Order) -> Iterator[Fault]:
    """One Contributing Equipment item of this model version, so that every node knows the object for ours."""
    dataset, place, algorithm = seen.dataset, seen.place, order.findings.algorithm
    where = f"{place}.ContributingEquipmentSequence"
    ours = [
        part for part in items(dataset, "ContributingEquipmentSequence") if text(part, "Manufacturer") == MANUFACTURER
    ]
    if len(ours) != 1:
        yield Fault(where, f"has {len(ours)} items of {MANUFACTURER}, must be 1")
        return
    if not same(code_of(ours[0], "PurposeOfReferenceCodeSequence"), codes.find("processing_equipment")):
        yield Fault(where, "is not Processing Equipment")
    yield from expect(where, "DeviceUID", text(ours[0], "DeviceUID"), device(algorithm))
    yield from expect(where, "ManufacturerModelName", text(ours[0], "ManufacturerModelName"), algorithm.name)
    yield from expect(where, "SoftwareVersions", text(ours[0], "SoftwareVersions"), algorithm.version)


def _time(dataset: Dataset, made_at: datetime, place: str) -> Iterator[Fault]:
    """Dates and times are of one moment, in the zone that TimezoneOffsetFromUTC says."""
    yield from expect(
        place, "TimezoneOffsetFromUTC", text(dataset, "TimezoneOffsetFromUTC"), made_at.strftime("%z")[:5]
    )
    for what in ("InstanceCreation", "Content", "Series"):
        yield from expect(place, f"{what}Date", text(dataset, f"{what}Date"), made_at.strftime("%Y%m%d"))
        yield from expect(place, f"{what}Time", text(dataset, f"{what}Time"), made_at.strftime("%H%M%S.%f"))


def of_one_set(datasets: Sequence[Dataset], order: Order) -> Iterator[Fault]:
    """No UID twice in a set, one kind of object to a series, and to each series a number of its own."""
    uids = [text(dataset, "SOPInstanceUID") for dataset in datasets]
    if len(set(uids)) < len(uids):
        yield Fault("SOPInstanceUID", "is the same in two objects of the set")
    number, series = "SeriesNumber", "SeriesInstanceUID"
    for one, other in ((series, number), (number, series), (series, "SOPClassUID")):
        pairs = {(text(dataset, one), text(dataset, other)) for dataset in datasets}
        if len({first for first, _ in pairs}) < len(pairs):
            yield Fault(one, f"is the same in objects with different {other}")
    lowest, highest = order.series_number, series_number(order) + len(datasets)
    for dataset in datasets:
        number = text(dataset, "SeriesNumber")
        if not number.isdigit() or not lowest <= int(number) <= highest:
            yield Fault("SeriesNumber", f"is {number or 'empty'}, was ordered from {lowest}")
