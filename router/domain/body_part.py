"""What part of the body a series covers, from what its pixels show and what people and scanners wrote about it.

BodyPartExamined is often empty and sometimes wrong, so the descriptions are read as well: the most specific text that
names a region wins, in the usual abbreviations of English, German, French, Spanish, Portuguese, Italian and Dutch.
Of a CT the pixels are asked first (`pipelines.detect_body`); what they show with confidence overrules every text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from router.domain.facts import Fact, Facts, Scalar, derived
from router.domain.region_codes import regions_of

CONFIDENT = 0.75
"""From here on a detected region is one that rules may trust."""


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


TRUNK = (BodyPart.CHEST, BodyPart.ABDOMEN, BodyPart.PELVIS)

NOT_ANATOMY = re.compile(
    r"\b(feet|foot|head) ?first\b|\b(patient|table) ?(head|foot)\w*|\bh?and ?(inj\w*)?\b(?=injection)"
)
"""Words of position that name a region without meaning it."""

TOGETHER: tuple[tuple[str, tuple[BodyPart, ...]], ...] = (
    (r"cap|tap|chap|tabd?|th ?abd|thorabd\w*|chest ?to ?pelvis|chestabdpelvis", TRUNK),
    (r"kub|abdo?pel\w*|abdomenpelvis|uro ?ct|ct ?uro\w*|urogra\w*", (BodyPart.ABDOMEN, BodyPart.PELVIS)),
    (r"chestabd\w*", (BodyPart.CHEST, BodyPart.ABDOMEN)),
    (r"headneck|head ?(and|&) ?neck|kopf ?hals", (BodyPart.HEAD, BodyPart.NECK)),
)
"""Words for several regions at once."""

SPINE_WORDS = (
    r"spines?|spinal|[ctl]{1,3} ?sp(ine)?|[ctl] ?l ?sp(ine)?|[hbl]ws|wirbels\w*|rachis|columna|colonna|coluna|"
    r"wervelkolom|thora[ck]o ?lumb\w*|cervico ?thora[ck]\w*|lumbar\w*|lumbo\w*|lombaire|lombare|"
    r"(thoracic|dorsal|cervical) ?(spine|vertebra\w*|column)|sacr\w+|myelo\w*"
)
"""Taken out of a text before the rest is read: a thoracic spine is no chest."""

WORDS: tuple[tuple[BodyPart, str], ...] = (
    (
        BodyPart.HEAD,
        r"heads?|brain|skull|crani\w*|cranial|cerebr\w*|kopf|sch[aä]del\w*|n?cct|hirn\w*|neurocranium|cr[aâ]ne|t[eê]te|"
        r"cerveau|cabe[zcç]a|cr[aá]neo|testa|encefalo|hoofd|hersenen|sinus(es)?|nnh|orbit\w*|face|facial|maxillo\w*|iac|"
        r"pituitary|sella|temporal ?bones?|felsenbein\w*|nch",
    ),
    (BodyPart.NECK, r"necks?|hals|cou|cuello|collo|nek|pesco[cç]o|carotid\w*|carotis|thyroid|schilddr\w*|larynx"),
    (
        BodyPart.CHEST,
        r"chest|thorax|thorac\w*|thorak\w*|thx|lungs?|lunge\w*|pulmon\w*|poumons?|t[oó]rax|torace|borst(kas)?|ctpa|pe|hrct|"
        r"mediastin\w*|heart|herz|cardiac|cardio|coronar(y|ies)|koronar\w*|c[oœ]eur|cuore|coraz[oó]n|ribs?|brustkorb|rippen",
    ),
    (
        BodyPart.ABDOMEN,
        r"abd|abdo|abdom\w*|addome\w*|abdome|bauch|oberbauch|buik|ventre|liver|leber\w*|hepat\w*|foie|h[ií]gado|fegato|"
        r"pancrea\w*|pankrea\w*|kidneys?|niere\w*|renal|spleen|adrenals?|enterogra\w*|mrcp|gallbladder|evar",
    ),
    (
        BodyPart.PELVIS,
        r"pel|pelvi[scn]\w*|pelves|pelvi|becken\w*|bassin|bekken|bacino|prostat\w*|bladder|uter\w*|rectum|rektum",
    ),
    (
        BodyPart.EXTREMITY,
        r"knees?|knie|genou|rodilla|ginocchio|shoulders?|schulter\w*|[eé]paule|hombro|spalla|hands?|wrists?|handgelenk|"
        r"foot|feet|fu(ss|ß)|ankles?|sprunggelenk|femur|tibia|humerus|forearm|elbows?|ell?bogen|hips?|h[uü]fte\w*|fingers?|"
        r"toes?|legs?|arms?|extremit\w*|runoff|run ?off|thighs?|calf|bein\w*",
    ),
    (BodyPart.BREAST, r"breasts?|mamm[ao]\w*|brust|seins?|seno|mama|tomosynthesis"),
    (BodyPart.WHOLE_BODY, r"whole ?body|wholebody|ganzk\w*|wb|total ?body|corps ?entier|cuerpo ?entero|"
     r"(skull ?base|vertex|eyes?|orbits?) ?(to|-) ?(mid ?)?thighs?"),
)  # fmt: skip


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W\d_])(?:{words})(?![^\W\d_])")


_TOGETHER = tuple((_pattern(words), parts) for words, parts in TOGETHER)
_SPINE = _pattern(SPINE_WORDS)
_WORDS = tuple((part, _pattern(words)) for part, words in WORDS)

CODED = "AnatomicRegionSequence"
"""Codes, which say the same in every language."""
SERIES_TEXTS = ("SeriesDescription", CODED, f"{CODED}.CodeMeaning")
STUDY_TEXTS = (
    "ProtocolName", "StudyDescription", "RequestedProcedureDescription", "ProcedureCodeSequence.CodeMeaning",
)  # fmt: skip
"""Texts about more than this series; what two of them agree on is as good as a text about the series."""

BY_SERIES, BY_TWO, BY_ONE = 0.9, 0.8, 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """A region, how sure that is (0 to 1), and what named or showed it: attributes, or the pixels."""

    part: BodyPart
    confidence: float
    origin: str


@lru_cache(maxsize=4096)
def named_in(text: str) -> tuple[BodyPart, ...]:
    """Regions that a free text names."""
    plain = re.sub(r"[_./\\,;:()+\-]", " ", text.casefold())
    plain = NOT_ANATOMY.sub(" ", re.sub(r"\s+", " ", plain))
    found: set[BodyPart] = set()
    if next((part for part, words in _WORDS if part is BodyPart.WHOLE_BODY and words.search(plain)), None):
        return (BodyPart.WHOLE_BODY,)
    for words, parts in _TOGETHER:
        if words.search(plain):
            found.update(parts)
    if _SPINE.search(plain):
        found.add(BodyPart.SPINE)
        plain = _SPINE.sub(" ", plain)
    found.update(part for part, words in _WORDS if words.search(plain))
    return tuple(part for part in BodyPart if part in found)


def of_tag(values: Sequence[object]) -> tuple[BodyPart, ...]:
    """Regions that BodyPartExamined names, also in its run-together terms (PS3.16 Annex L), such as CHESTABDPELVIS."""
    found: set[BodyPart] = set()
    for value in values:
        text = str(value).casefold()
        found.update(named_in(text))
        if "spine" in text:
            found.add(BodyPart.SPINE)
            found.discard(BodyPart.CHEST)
        for part, stem in ((BodyPart.CHEST, "chest"), (BodyPart.ABDOMEN, "abd"), (BodyPart.PELVIS, "pelvi")):
            if stem in text:
                found.add(part)
    return tuple(part for part in BodyPart if part in found)


def detect(facts: Facts) -> tuple[Detected, ...]:
    """Regions of a series from the texts about it; none where they say nothing."""
    for keyword in SERIES_TEXTS:
        parts = _named(facts, keyword)
        if parts:
            made = tuple(Detected(part=part, confidence=BY_SERIES, origin=keyword) for part in parts)
            return made + _pelvis_too(facts, parts)
    said: dict[BodyPart, list[str]] = {}
    for keyword in STUDY_TEXTS:
        for part in _named(facts, keyword):
            said.setdefault(part, []).append(keyword)
    speaking = {keyword for keywords in said.values() for keyword in keywords}
    return tuple(
        Detected(
            part=part,
            confidence=BY_TWO if len(said[part]) > 1 or len(speaking) == 1 else BY_ONE,
            origin=" and ".join(said[part]),
        )
        for part in BodyPart
        if part in said
    )


def _pelvis_too(facts: Facts, parts: tuple[BodyPart, ...]) -> tuple[Detected, ...]:
    """An "abdomen" series of an examination that all say is of abdomen and pelvis covers both."""
    speaking = [keyword for keyword in STUDY_TEXTS if _named(facts, keyword)]
    if BodyPart.ABDOMEN not in parts or BodyPart.PELVIS in parts or len(speaking) < 2:
        return ()
    if not all(BodyPart.PELVIS in _named(facts, keyword) for keyword in speaking):
        return ()
    return (Detected(part=BodyPart.PELVIS, confidence=BY_TWO, origin=" and ".join(speaking)),)


def _named(facts: Facts, keyword: str) -> tuple[BodyPart, ...]:
    fact = facts.get(keyword)
    if fact is None:
        return ()
    if keyword == CODED:
        covered = {part for value in fact.values for part in regions_of(str(value))}
        return tuple(part for part in BodyPart if part in covered)
    return named_in(" ".join(map(str, fact.values)))


NOT_IN_PIXELS = {BodyPart.SPINE: frozenset[BodyPart](), BodyPart.WHOLE_BODY: frozenset(TRUNK[:2])}
"""Regions that pixels do not tell from others; a text may add them to what the pixels show, given these are shown."""


def combine(shown: Sequence[Detected], read: Sequence[Detected]) -> tuple[Detected, ...]:
    """What is detected after all: what the pixels show with confidence, else what the texts say, else what may be."""
    sure = tuple(one for one in shown if one.confidence >= CONFIDENT)
    if not sure:
        return tuple(read) or tuple(shown)
    parts = {one.part for one in sure}
    more = (one for one in read if one.part in NOT_IN_PIXELS and NOT_IN_PIXELS[one.part] <= parts)
    return sure + tuple(one for one in more if one.part not in parts and one.confidence >= CONFIDENT)


class OnConflict(StrEnum):
    """What a rule makes of a BodyPartExamined that contradicts what was detected."""

    TRUST_PIXELS = "trust_pixels"
    TRUST_TAG = "trust_tag"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The regions that rules see as `body_part`, and whether tag and detection contradict each other."""

    parts: tuple[BodyPart, ...]
    conflict: bool
    origin: str


def reconcile(
    tag: tuple[BodyPart, ...], detected: tuple[Detected, ...], policy: OnConflict = OnConflict.TRUST_PIXELS
) -> Reconciled:
    """Detected regions where they are confident or the tag is silent, else what the tag says.

    They contradict each other when no region is in both. Then the policy decides: what was detected with confidence
    is trusted, or the tag is; a rule that holds its jobs sees both, since a person will look.
    """
    parts = tuple(one.part for one in detected)
    conflict = bool(tag) and bool(parts) and not set(tag) & set(parts)
    if conflict and policy is OnConflict.HOLD:
        both = tuple(part for part in BodyPart if part in tag or part in parts)
        return Reconciled(parts=both, conflict=True, origin=f"BodyPartExamined and {detected[0].origin}")
    if conflict and policy is OnConflict.TRUST_TAG:
        return Reconciled(parts=tag, conflict=True, origin="BodyPartExamined")
    if parts and (not tag or max(one.confidence for one in detected) >= CONFIDENT):
        return Reconciled(parts=parts, conflict=conflict, origin=detected[0].origin)
    return Reconciled(parts=tag, conflict=conflict, origin="BodyPartExamined")


def seen_by(facts: Facts, policy: OnConflict) -> Facts:
    """The facts as a rule with this policy sees them: `body_part` is another where tag and detection differ."""
    conflict, found = facts.get("body_part_conflict"), facts.get("detected.body_part")
    if policy is OnConflict.TRUST_PIXELS or found is None or not is_conflict(conflict):
        return facts
    tag, sure = facts.get("BodyPartExamined"), facts.get("detected.confidence")
    confidence = float(sure.highest or 0) if sure is not None else 0.0
    seen = _seen(tag.values if tag is not None else (), found.values, found.origin, confidence, policy)
    return {**facts, "body_part": seen}


@lru_cache(maxsize=4096)
def _seen(
    tag: tuple[Scalar, ...], found: tuple[Scalar, ...], origin: str, confidence: float, policy: OnConflict
) -> Fact:
    """The fact `body_part` where tag and detection differ; the same few cases come again and again."""
    detected = tuple(Detected(part=BodyPart(str(part)), confidence=confidence, origin=origin) for part in found)
    both = reconcile(of_tag(tag), detected, policy)
    return derived("body_part", both.parts, both.origin)


def is_conflict(fact: Fact | None) -> bool:
    """Whether the fact `body_part_conflict` of a series, or of any series of a study, says so."""
    return fact is not None and True in fact.values
