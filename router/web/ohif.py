"""OHIF under /viewer, where the settings name a folder with its built pages: same origin, and so the same session.

The pages are OHIF's own, as they are published (`npm pack @ohif/app`), built to lie at the root of a site. So whatever
in them names a place at the root is served with /viewer before it, and its settings point at this node's DICOMweb.
"""

import json
import mimetypes
import re
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse, Response

from router.web.doors import DICOMWEB, VIEWER

MOVED: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    ".js": ((rb'(__webpack_require__\.p ?= ?)"/"', rb'\1"/viewer/"'),),
    ".css": ((rb"url\(/", rb"url(/viewer/"),),
    ".html": (
        (rb'((?:href|src|content)=)"/(?!/)', rb'\1"/viewer/'),
        (rb'(PUBLIC_URL=)"/"', rb'\1"/viewer/"'),
        (rb'<link rel="manifest"[^>]*>', b""),
    ),
}
"""What is written anew in which files."""

NAMED_BY_CONTENT = re.compile(r".*[0-9a-f]{16}\.\w+")
"""Names of files that never change."""

SETTINGS = {
    "routerBasename": VIEWER,
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 3,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "isocenter",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "isocenter",
            "configuration": {
                "friendlyName": "Isocenter",
                "name": "isocenter",
                "qidoRoot": f"ORIGIN{DICOMWEB}",
                "wadoRoot": f"ORIGIN{DICOMWEB}",
                "wadoUriRoot": f"ORIGIN{DICOMWEB}",
                "qidoSupportsIncludeField": True,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "singlepart": "bulkdata,video",
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}
"""What OHIF is told; ORIGIN stands for where it was opened."""


def routes(folder: Path) -> APIRouter:
    """The viewer's pages from this folder."""
    router = APIRouter(include_in_schema=False)
    words = json.dumps(SETTINGS).replace('"ORIGIN', 'location.origin + "')
    told = f"window.config = {words};".encode()

    @router.get(VIEWER)
    def list_() -> Response:
        return RedirectResponse(f"{VIEWER}/", status_code=303)

    @router.get(f"{VIEWER}/app-config.js")
    def settings() -> Response:
        return Response(told, media_type="text/javascript")

    @router.get(f"{VIEWER}/")
    @router.get(f"{VIEWER}/{{file:path}}")
    def file(file: str = "") -> Response:
        path = (folder / file).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            if Path(file).suffix not in ("", ".html"):
                return Response(status_code=404)
            path = folder / "index.html"
        if not path.is_file():
            return Response("There is no viewer here: see web.viewer_path", status_code=404, media_type="text/plain")
        ever = (
            {"cache-control": "private, max-age=31536000, immutable"} if NAMED_BY_CONTENT.fullmatch(path.name) else {}
        )
        kind = "application/wasm" if path.suffix == ".wasm" else mimetypes.guess_type(path.name)[0]
        if path.suffix in MOVED:
            return Response(moved(path, path.stat().st_mtime_ns), media_type=kind, headers=ever)
        return FileResponse(path, media_type=kind, headers=ever)

    return router


@lru_cache(maxsize=512)
def moved(path: Path, _: int) -> bytes:
    """A file's content as it has to be under /viewer; the second argument is when it was changed."""
    content = path.read_bytes()
    for found, instead in MOVED[path.suffix]:
        content = re.sub(found, instead, content)
    return content


def link(study_instance_uid: str) -> str:
    """Where a study is seen."""
    return f"{VIEWER}/viewer?StudyInstanceUIDs={study_instance_uid}"
