"""A DICOM node: C-STORE SCU."""

from typing import Literal

from pydantic import Field

from router.config import AETitle, Port
from router.destinations import Destination


class Settings(Destination):
    """Where the node listens and what it is called."""

    kind: Literal["dicom"]
    ae_title: AETitle = Field(description="Its AE title")
    host: str = Field(min_length=1, description="Its name or address")
    port: Port = Field(description="Its TCP port")
    calling_ae_title: AETitle | None = Field(None, description="What we call ourselves there; default: as everywhere")
