"""Result kind `presentation_state`: a Grayscale Softcopy Presentation State with the outlines on the source's images.

One for the series: on each image on which a segment lies its outline, in a layer and colour of the segment, and the
words that say that it is AI, for research. UIDs of an order used here: "presentation_state",
"presentation_state.series".

Source:  PS3.3 A.33.1, C.10.4, C.10.5, C.10.7, C.11.6, C.11.10, C.11.11.
"""

from collections.abc import Iterator

from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from dicom_sr import drawing
from dicom_sr.elements import Elements, elements
from dicom_sr.header import clock, written
from dicom_sr.kinds import Built, Order
from dicom_sr.kinds.segmentation import cielab
from dicom_sr.nouns import Code
from dicom_sr.outlines import Loop, regions
from dicom_sr.references import instance, source_instances
from dicom_sr.script import Script

KIND = "presentation_state"

WORDS_LAYER = "WORDS"
CENTRE = 0.5
"""Graphic coordinates begin at the corner of the first pixel, ours at its centre (PS3.3 C.10.5.1.2)."""


def build(order: Order) -> Built | None:
    """The presentation state; None where nothing was delineated."""
    if order.findings.labels is None or not order.findings.segments:
        return None

    def content(script: Script) -> tuple[Elements, list[Code]]:
        said = identification(order, script) | shown(order)
        return said | annotations(order, script) | layers(order, script), []

    return written(
        order, kind=KIND, sop_class_uid=GrayscaleSoftcopyPresentationStateStorage, modality="PR", content=content
    )


def identification(order: Order, script: Script) -> Elements:
    """What it is called, when it was made, and of which images it is."""
    now = clock(order)
    return elements(
        script,
        ContentLabel="AI_OUTLINES",
        ContentDescription=order.title[:64],
        ContentCreatorName=None,
        PresentationCreationDate=now.strftime("%Y%m%d"),
        PresentationCreationTime=now.strftime("%H%M%S.%f"),
        Laterality=None,
        ReferencedSeriesSequence=[
            elements(
                SeriesInstanceUID=order.source.acquisition.series_instance_uid,
                ReferencedImageSequence=source_instances(order.source),
            )
        ],
    )


def shown(order: Order) -> Elements:
    """The whole image, and its grey values by the source's rescaling where that is one for all images."""
    source = order.source
    area = elements(
        DisplayedAreaTopLeftHandCorner=(1, 1),
        DisplayedAreaBottomRightHandCorner=(source.shape[2], source.shape[1]),
        PresentationSizeMode="SCALE TO FIT",
        PresentationPixelSpacing=source.planes[0].spacing,
    )
    said = elements(DisplayedAreaSelectionSequence=[area], PresentationLUTShape="IDENTITY")
    rescalings = {(plane.slope, plane.intercept) for plane in source.planes}
    if len(rescalings) > 1:
        return said
    slope, intercept = rescalings.pop()
    unit = "HU" if source.acquisition.modality == "CT" else "US"
    said |= elements(RescaleIntercept=intercept, RescaleSlope=slope, RescaleType=unit)
    indices = drawing.key_planes(order.findings, 3)
    low, high = drawing.window(order, drawing.planes_of(source, indices), indices)
    window = elements(WindowCenter=(low + high) / 2, WindowWidth=high - low)
    return said | elements(SoftcopyVOILUTSequence=[window])


def annotations(order: Order, script: Script) -> Elements:
    """For each image on which something lies: the words, and an item a segment with its outlines."""
    return elements(
        GraphicAnnotationSequence=[item for index in used(order) for item in on_image(order, index, script)]
    )


def used(order: Order) -> list[int]:
    """Planes on which a segment lies."""
    return [i for i in range(order.source.shape[0]) if any(layer[i].any() for layer in order.findings.layers)]


def on_image(order: Order, index: int, script: Script) -> Iterator[Elements]:
    """The annotations of one image."""
    image = elements(ReferencedImageSequence=[instance(order.source.planes[index], frame=True)])
    columns = order.source.shape[2]
    words = elements(
        script,
        BoundingBoxAnnotationUnits="PIXEL",
        UnformattedTextValue=drawing.claim(order),
        BoundingBoxTopLeftHandCorner=(1.0, 1.0),
        BoundingBoxBottomRightHandCorner=(columns / 2, max(2.0, columns / 24)),
        BoundingBoxTextHorizontalJustification="LEFT",
    )
    yield image | elements(GraphicLayer=WORDS_LAYER, TextObjectSequence=[words])
    for segment in order.findings.segments:
        loops = [
            graphic(loop)
            for layer in order.findings.layers
            for region in regions(layer[index] == segment.number)
            for loop in region
        ]
        if loops:
            yield image | elements(GraphicLayer=f"SEGMENT{segment.number}", GraphicObjectSequence=loops)


def graphic(loop: Loop) -> Elements:
    """One closed line."""
    return elements(
        GraphicAnnotationUnits="PIXEL",
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(loop),
        GraphicData=[float(part) + CENTRE for row, column in loop for part in (column, row)],
        GraphicType="POLYLINE",
        GraphicFilled="N",
    )


def layers(order: Order, script: Script) -> Elements:
    """A layer a segment, in its colour, and one for the words."""
    made = [
        elements(
            script,
            GraphicLayer=f"SEGMENT{segment.number}",
            GraphicLayerOrder=segment.number,
            GraphicLayerRecommendedDisplayCIELabValue=cielab(segment.rgb),
            GraphicLayerDescription=segment.label[:64],
        )
        for segment in order.findings.segments
    ]
    words = elements(GraphicLayer=WORDS_LAYER, GraphicLayerOrder=len(made) + 1)
    return elements(GraphicLayerSequence=[*made, words])
