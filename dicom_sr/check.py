"""The gate: the last look at a result set before it leaves. It passes whole or not at all.

Every object is read back from its bytes. `check` holds a set against the order it was made for; `inspect` looks at any
objects, by others too, beside whatever is at hand. Nothing here raises for a fault: all of them are listed. What
is looked at of each kind of object stands in one file of `dicom_sr/checks/`, found by listing that folder.
"""

import importlib
import pkgutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from dicom_sr import checks as folder
from dicom_sr.checks import attributes, identity
from dicom_sr.checks.fault import Fault, text
from dicom_sr.checks.seen import Around, Checks, Seen, read
from dicom_sr.header import is_ours
from dicom_sr.kinds import Built, Order
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries

__all__ = ["Fault", "GateClosed", "check", "inspect"]


class GateClosed(Problem):
    """A result set contradicts the standard, its source or its findings; nothing of it leaves.

    `objects` are those of the set, for whoever looks into it.
    """

    def __init__(self, faults: Sequence[Fault], objects: Sequence[Built] = ()) -> None:
        listed = "; ".join(str(fault) for fault in faults)
        super().__init__(
            f"the result set has {len(faults)} fault{'s' if len(faults) > 1 else ''}: {listed}",
            remedy="Nothing was sent; report this defect of Isocenter or its pipeline",
        )
        self.faults, self.objects = tuple(faults), tuple(objects)


@cache
def checks() -> dict[str, Checks]:
    """What is looked at, by SOP Class: the modules of `dicom_sr/checks/` that name SOP_CLASSES."""
    modules = [
        importlib.import_module(f"{folder.__name__}.{one.name}") for one in pkgutil.iter_modules(folder.__path__)
    ]
    return {uid: module for module in modules for uid in getattr(module, "SOP_CLASSES", ())}


def check(objects: Sequence[Built], order: Order) -> None:
    """Let a result set pass, or say everything that is wrong with it.

    Raises:  GateClosed
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's opinion of values that are the source's own
        faults = _faults(objects, order)
    if faults:
        raise GateClosed(faults, objects)


def inspect(
    datasets: Sequence[Dataset],
    *,
    places: Sequence[str] = (),
    source: SourceSeries | None = None,
    images: Iterable[Dataset] = (),
    related: Iterable[Dataset] = (),
) -> list[Fault]:
    """Every fault of these objects, by whomever; references are followed as far as source and related objects go.

    `places` are what faults call the objects, by default their modality; `images` are further ones that they may
    refer to, of which headers are enough.
    """
    named = places or [text(dataset, "Modality") or "object" for dataset in datasets]
    looked = [_look(dataset, place) for dataset, place in zip(datasets, named, strict=True)]
    others = [_look(dataset, "related") for dataset in related]
    there = {text(one, "SOPInstanceUID"): (text(one, "SOPClassUID"), text(one, "SeriesInstanceUID")) for one in images}
    around = Around(source=source, objects=[*looked, *others], images=there)
    faults: list[Fault] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seen in looked:
            faults += _alone(seen)
            if seen.sop_class in checks():
                faults += checks()[seen.sop_class].beside(seen, around)
            if source is not None and text(seen.dataset, "StudyInstanceUID") == text(source.header, "StudyInstanceUID"):
                faults += identity.of_patient(seen.dataset, source.header, seen.place)
            elif source is not None:
                faults.append(Fault(f"{seen.place}.StudyInstanceUID", "is not the source's"))
    return faults


def _look(dataset: Dataset, place: str) -> Seen:
    return Seen(dataset, place, dataset.get("PixelData") or b"", ours=is_ours(dataset))


def _faults(objects: Sequence[Built], order: Order) -> list[Fault]:
    faults: list[Fault] = []
    looked: list[tuple[Built, Seen]] = []
    for built in objects:
        try:
            looked.append((built, read(built)))
        except (InvalidDicomError, ValueError, EOFError, KeyError, NotImplementedError) as error:
            faults.append(Fault(built.kind, f"cannot be read back: {error}"))
    around = Around(source=order.source, objects=[seen for _, seen in looked], order=order)
    for built, seen in looked:
        faults += _alone(seen)
        faults += identity.of_source(seen.dataset, order.source.header, seen.place)
        faults += identity.as_ordered(seen, built, order)
        if built.sop_class_uid in checks():
            faults += checks()[built.sop_class_uid].beside(seen, around)
    return faults + list(identity.of_one_set([seen.dataset for _, seen in looked], order))


def _alone(seen: Seen) -> Iterator[Fault]:
    known = checks().get(seen.sop_class)
    if known is None:
        name = UID(seen.sop_class).name if seen.sop_class else "nothing"
        yield Fault(f"{seen.place}.SOPClassUID", f"{name} is no result that this gate knows")
        yield from attributes.attributes(seen, (), ())
        return
    yield from attributes.attributes(seen, known.TYPE_1, known.TYPE_2)
    yield from known.alone(seen)
