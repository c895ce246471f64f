"""Why a series cannot be read as one volume: every refusal by its own name, each with a remedy.

    Problem
    └── UnusableSeries
        ├── NotDicom             a file is no DICOM Part 10 file
        ├── NoImages             nothing to read, or objects without grey-scale pixels
        ├── NoGeometry           no position, orientation or spacing that could be believed
        ├── MixedSeries          several series, studies or patients in one list of files
        ├── MixedOrientation     planes that are not parallel
        ├── MixedMatrix          other rows, columns or pixel spacing on some planes
        ├── MixedFrameOfReference
        ├── Localizer            a scout
        ├── DuplicatePosition    two planes at one place and nothing that tells them apart
        ├── SeveralAcquisitions  two planes at one place and we know what tells them apart, or several radiographs
        ├── GapInSeries          slices are missing
        ├── UnevenSpacing        slices lie unevenly, or beside one straight line
        └── UnreadablePixels     pixel data cut short, or of a kind that cannot be decoded

They name SOP instances and positions, never a patient.
"""

from dicom_sr.problem import Problem


class UnusableSeries(Problem):
    """These files do not make one volume, so no pipeline may see them as one."""


class NotDicom(UnusableSeries):
    """A file is not a DICOM Part 10 file (PS3.10 7.1)."""


class NoImages(UnusableSeries):
    """There is nothing to read: no file, or objects without grey-scale pixels."""


class NoGeometry(UnusableSeries):
    """Position, orientation or pixel spacing is missing or impossible (PS3.3 C.7.6.2)."""


class MixedSeries(UnusableSeries):
    """The files belong to several series, studies or patients."""


class MixedOrientation(UnusableSeries):
    """The planes are not parallel, so they do not stack."""


class MixedMatrix(UnusableSeries):
    """Some planes have other rows, columns or pixel spacing."""


class MixedFrameOfReference(UnusableSeries):
    """Positions refer to several frames of reference, so they cannot be compared (PS3.3 C.7.4.1)."""


class Localizer(UnusableSeries):
    """A scout image is for planning and is not part of a volume."""


class DuplicatePosition(UnusableSeries):
    """Two planes lie at one place and no attribute tells them apart."""


class SeveralAcquisitions(UnusableSeries):
    """The series holds several volumes: acquisitions, time points, echoes or kinds of image."""


class GapInSeries(UnusableSeries):
    """Slices are missing, so the volume would be false (PS3.3 C.7.6.2)."""


class UnevenSpacing(UnusableSeries):
    """Slices lie at uneven distances, or beside the straight line through the first and the last."""


class UnreadablePixels(UnusableSeries):
    """Pixel data is cut short, contradicts its header, or needs a codec that is not here."""
