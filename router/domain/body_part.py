"""What part of the body a series covers, from its texts and codes."""

from enum import StrEnum


class BodyPart(StrEnum):
    """Regions that the node tells apart."""

    HEAD = "head"
    NECK = "neck"
    CHEST = "chest"
    ABDOMEN = "abdomen"
    PELVIS = "pelvis"
    SPINE = "spine"
    EXTREMITY = "extremity"
    BREAST = "breast"
    WHOLE_BODY = "whole body"
