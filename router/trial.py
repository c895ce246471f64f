"""`rules test`: what the rules would say to files, without a server, with where every fact came from."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from dicom_sr.problem import Problem
from router import examine
from router.domain.facts import Fact, Facts, Header
from router.domain.routing import Judged, judge_study
from router.domain.rules import Rule
from router.errors import UnreadableFile
from router.ingest import headers, part10
from router.ingest.walker import NotParseable

USUAL = (
    "kind", "plane", "instances", "slice_spacing", "body_part", "detected.body_part", "Modality",
    "BodyPartExamined", "StudyDescription",
    "SeriesDescription", "ProtocolName", "ImageType", "SliceThickness", "ConvolutionKernel", "kernel", "contrast",
    "algorithm",
)  # fmt: skip
"""Facts that are shown of every series; beside these, what the rules ask for."""


class NothingToTest(Problem):
    """No DICOM file lies where a test of the rules was asked for."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTrial:
    """One series of the files, with its facts."""

    series_instance_uid: str
    files: int
    facts: dict[str, Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTrial:
    """One study of the files, and every rule's answer to it."""

    study_instance_uid: str
    series: tuple[SeriesTrial, ...]
    judged: tuple[Judged, ...]

    def as_json(self, asked: frozenset[str]) -> dict[str, Any]:
        """The trial as `--json` prints it."""
        return {
            "study_instance_uid": self.study_instance_uid,
            "series": [
                {
                    "series_instance_uid": one.series_instance_uid,
                    "files": one.files,
                    "facts": {
                        keyword: {**fact.as_json(), "text": fact.text} for keyword, fact in _shown(one.facts, asked)
                    },
                }
                for one in self.series
            ],
            "decisions": [
                {
                    "rule": one.rule.name,
                    "series_instance_uid": one.series_instance_uid,
                    "fires": one.fires,
                    "mode": str(one.rule.mode),
                    "reason": one.verdict.reason,
                    "verdict": one.verdict.as_json(),
                    "pipelines": [wanted.pipeline for wanted in one.rule.pipelines],
                    "destinations": list(one.rule.destinations),
                }
                for one in self.judged
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """All studies of the files; `skipped` are files that are no DICOM."""

    studies: tuple[StudyTrial, ...]
    skipped: tuple[Path, ...]
    asked: frozenset[str]

    def as_json(self) -> dict[str, Any]:
        """The trial as `--json` prints it."""
        return {
            "studies": [study.as_json(self.asked) for study in self.studies],
            "skipped": [str(path) for path in self.skipped],
        }


def _shown(facts: Facts, asked: frozenset[str]) -> Iterator[tuple[str, Fact]]:
    """The usual facts and those that a rule asks for; what a rule asks for in vain is absent, and is shown so."""
    for keyword, fact in facts.items():
        if keyword in asked or keyword in USUAL:
            yield keyword, fact
    for keyword in sorted(asked - facts.keys()):
        yield keyword, Fact(keyword=keyword)


def on_files(paths: Sequence[Path], rules: Sequence[Rule], *, calling_ae_title: str | None = None) -> Trial:
    """What these rules say to the studies in these files and folders.

    Raises:  NothingToTest
    """
    found: dict[str, dict[str, list[examine.Seen]]] = {}
    skipped: list[Path] = []
    for path in _files(paths):
        header = header_of(path)
        if header is None:
            skipped.append(path)
            continue
        study = found.setdefault(str(header.get("StudyInstanceUID", "")), {})
        seen = examine.Seen(header=header, path=path)
        study.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(seen)
    if not found:
        raise NothingToTest(
            f"no DICOM file in {', '.join(map(str, paths))}", remedy="Name a DICOM file or a folder with some"
        )
    asked = examine.keywords_of(rules)
    given = {"calling_ae_title": calling_ae_title}
    return Trial(
        studies=tuple(_study(uid, series, rules, asked, given) for uid, series in found.items()),
        skipped=tuple(skipped),
        asked=asked,
    )


def header_of(path: Path) -> Header | None:
    """The facts that the door would read from this file; None when it is no DICOM file.

    Raises:  UnreadableFile
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(
            f"{path} cannot be read ({error.strerror})", remedy="Name DICOM files, or folders with some"
        ) from error
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        start = part10.dataset_offset(content)
        return headers.read(content, str(meta.TransferSyntaxUID), start=start).facts
    except (InvalidDicomError, EOFError, AttributeError, struct.error, NotParseable):
        return None


def _study(
    uid: str,
    series: dict[str, list[examine.Seen]],
    rules: Sequence[Rule],
    asked: Iterable[str],
    given: dict[str, Any],
) -> StudyTrial:
    facts = {series_uid: examine.series(seen, wanted=asked, given=given) for series_uid, seen in series.items()}
    return StudyTrial(
        study_instance_uid=uid,
        series=tuple(
            SeriesTrial(series_instance_uid=series_uid, files=len(seen), facts=facts[series_uid])
            for series_uid, seen in series.items()
        ),
        judged=judge_study(rules, facts),
    )


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
