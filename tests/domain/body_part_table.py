"""The body-part table: `python -m tests.domain.body_part_table` prints it, and the tests assert what it must show.

Three parts: the 62 real headers as they are, against a truth reviewed by hand (`body_parts.csv`); the same headers with
everything blanked that describes them, where "unknown" is the right answer; and real CTs with pixels, without any
text, with empty, right and wrong tags. A region that fewer than five headers cover is not shown.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router import examine, trial
from router.domain.body_part import CONFIDENT, SERIES_TEXTS, STUDY_TEXTS, BodyPart, Detected, detect
from router.domain.facts import Fact, Header, aggregate
from tests.conftest import DATA

TEXTS = ("StudyDescription", "SeriesDescription", "ProtocolName")
TRUTH = Path(__file__).with_name("body_parts.csv")
DESCRIBED_BY = frozenset(keyword.partition(".")[0] for keyword in (*SERIES_TEXTS, *STUDY_TEXTS))
"""Everything that names a region in words or codes; the tag is none of it."""

FEWEST = 5
CHEST = "chest_ct_philips_brilliance16_5mm"
ABDOMEN = "abdomen_pelvis_ct_totalseg_converted"
SHOWN = {CHEST: {"chest"}, ABDOMEN: {"abdomen", "pelvis"}}
TAGS = ("", "CHEST", "ABDOMEN", "HEAD")

Truth = dict[tuple[str, ...], tuple[set[str], set[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One region over the headers: how many cover it, of how many it was found, and where it is wrong."""

    part: str
    covering: int
    found: int
    wrong: int
    confidently_wrong: int

    @property
    def line(self) -> str:
        recall = f"{self.found / self.covering:.0%}" if self.covering >= FEWEST else f"not shown (n < {FEWEST})"
        return f"{self.part:12} {self.covering:4} {self.found:6} {self.wrong:6} {self.confidently_wrong:16}  {recall}"


def headers(data: Path = DATA) -> list[Header]:
    """The 62 real headers, as the door reads them."""
    paths = sorted((data / "routing_headers_covid19_ny_sbu" / "headers_only").glob("*.dcm"))
    return [header for header in map(trial.header_of, paths) if header is not None]


def texts(header: Header) -> tuple[str, ...]:
    """What the truth knows a header by."""
    return tuple(str(header.get(text, "")) for text in TEXTS)


def truth() -> Truth:
    """What each series covers, and what else may be in it and is no mistake to name; reviewed by hand."""
    with TRUTH.open() as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    return {tuple(row[text] for text in TEXTS): (set(row["covers"].split()), set(row["also"].split())) for row in rows}


def blanked(header: Header) -> Header:
    """The header without anything that describes it."""
    return {keyword: value for keyword, value in header.items() if keyword not in DESCRIBED_BY}


def rows(found: Sequence[tuple[Header, Sequence[Detected]]]) -> list[Row]:
    """A row for each region; what was detected is compared with the truth about the header."""
    reviewed = truth()
    there, right, wrong, sure = (Counter[str]() for _ in range(4))
    for header, detected in found:
        covers, also = reviewed[texts(header)]
        there.update(covers)
        right.update(covers & {one.part for one in detected})
        missed = [one for one in detected if one.part not in covers | also]
        wrong.update(one.part for one in missed)
        sure.update(one.part for one in missed if one.confidence >= CONFIDENT)
    return [
        Row(part=part, covering=there[part], found=right[part], wrong=wrong[part], confidently_wrong=sure[part])
        for part in BodyPart
    ]


def as_they_are(data: Path = DATA) -> list[Row]:
    """The table of the real headers."""
    return rows([(header, detect(aggregate([header]))) for header in headers(data)])


def without_words(data: Path = DATA) -> tuple[list[Row], int]:
    """The table of the headers with the descriptions blanked, and of how many "unknown" is said."""
    found = [(header, detect(aggregate([blanked(header)]))) for header in headers(data)]
    return rows(found), sum(not detected for _, detected in found)


def facts_of(folder: Path, **instead: Any) -> dict[str, Fact]:
    """Facts of the one series in this folder, without its texts, and with some attributes changed."""
    seen = []
    for path in sorted(folder.rglob("*")):
        header = trial.header_of(path) if path.is_file() else None
        if header is not None:
            seen.append(examine.Seen(header={**blanked(header), **instead}, path=path))
    return examine.series(seen, given={})


def by_pixels(data: Path = DATA) -> Iterator[tuple[str, str, dict[str, Fact]]]:
    """Each real CT with each tag, and its facts."""
    for folder in SHOWN:
        for tag in TAGS:
            yield folder, tag, facts_of(data / folder, BodyPartExamined=tag)


HEAD = f"{'region':12} {'n':>4} {'found':>6} {'wrong':>6} {'sure and wrong':>16}  recall"


def lines(data: Path = DATA) -> Iterator[str]:
    """The whole table as people read it."""
    yield f"{len(headers(data))} real headers, as they are"
    yield HEAD
    yield from (row.line for row in as_they_are(data))
    blank, unknown = without_words(data)
    yield f"\nThe same headers, descriptions blanked: {unknown} of {len(headers(data))} are unknown, which is right"
    yield HEAD.replace("  recall", "")
    yield from (row.line.rpartition("  ")[0].rstrip() for row in blank)
    yield "\nReal CTs with pixels, all texts blanked"
    yield f"{'what it is':40} {'tag':8} {'detected':16} {'sure':>5}  {'body_part':16} conflict"
    for folder, tag, facts in by_pixels(data):
        yield (
            f"{folder:40} {tag or '(empty)':8} {facts['detected.body_part'].text:16}"
            f" {facts['detected.confidence'].text:>5}  {facts['body_part'].text:16} {facts['body_part_conflict'].text}"
        )


if __name__ == "__main__":
    print("\n".join(lines()))
