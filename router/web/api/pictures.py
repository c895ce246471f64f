"""Pictures of what a job found: slices with coloured overlays."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel

from router.node import Node
from router.web.api.words import Number, may_answer
from router.web.pictures import NothingToSee, Pictures, drawn

PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


class SegmentLine(BaseModel):
    """A segment that can be shown."""

    number: int
    label: str
    colour: str
    millilitres: float


class Album(BaseModel):
    """What there is to see of a job. Spacing is that of slices, rows and columns, in mm."""

    slices: int
    rows: int
    columns: int
    spacing: tuple[float, float, float]
    windows: list[str]
    best_slice: int
    segments: list[SegmentLine]


def album(pictures: Pictures, job_id: int) -> Album:
    """What there is to see of a job.

    Raises:  UnknownJob, NothingToSee, UnusableSeries, UnreadablePixels, NotOnItsSource
    """
    scan = pictures.scan(job_id)
    slices, rows, columns = scan.volume.array.shape
    return Album(
        slices=slices,
        rows=rows,
        columns=columns,
        spacing=scan.volume.spacing,
        windows=list(scan.presets),
        best_slice=scan.best_slice(),
        segments=[
            SegmentLine(
                number=one.number,
                label=one.label,
                colour="#{:02x}{:02x}{:02x}".format(*one.rgb),
                millilitres=round(scan.millilitres(one.number), 3),
            )
            for one in scan.segments
        ],
    )


def routes(node: Node) -> APIRouter:
    """Of pictures."""
    router = APIRouter(tags=["pictures"])
    pictures = Pictures(node)

    @router.get("/jobs/{job_id}/pictures", responses=may_answer(404, 409))
    def describe(job_id: Number) -> Album:
        """What there is to see of a job: slices, windows, segments."""
        return album(pictures, job_id)

    @router.get("/jobs/{job_id}/pictures/{index}", response_class=Response, responses={**PNG, **may_answer(404, 409)})
    def picture(
        job_id: Number,
        index: Annotated[int, Path(ge=0, le=100_000, description="Slice, from 0")],
        window: Annotated[str, Query(max_length=20)] = "auto",
        segments: Annotated[str, Query(pattern=r"^(all|[0-9,]{0,400})$", description="Numbers, or all")] = "all",
        opacity: Annotated[float, Query(ge=0, le=1)] = 0.3,
        contours: bool = True,
    ) -> Response:
        """One slice as PNG, in its true proportions, its segments tinted and outlined."""
        scan = pictures.scan(job_id)
        if index >= scan.volume.array.shape[0]:
            raise NothingToSee(f"job {job_id} has no slice {index}", remedy="Ask for one that it has")
        shown = None if segments == "all" else frozenset(int(n) for n in segments.split(",") if 0 < len(n) < 4)
        content = drawn(scan, index, window=window, shown=shown, opacity=opacity, contours=contours)
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=300"})

    return router
