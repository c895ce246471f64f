"""Codes of anatomic regions and what they cover, whatever language their CodeMeaning is in.

SNOMED CT, and the SNOMED-RT identifiers that older devices write for the same concepts.

Source:  PS3.16 CID 4031 (Common Anatomic Regions), CID 4 (Anatomic Regions)
"""

SCHEMES = frozenset({"SCT", "SRT", "SNM3", "99SDM"})

COVERED_BY: tuple[tuple[str, str], ...] = (
    (
        "head",
        "69536005 T-D1100 12738006 T-A0100 89546000 T-11100 91397008 T-11196 363654007 T-D14AE 2095001 T-22000 "
        "42575006 T-D1460 91609006 T-11180 70925003 T-11170 661005 T-D1213 59066005 T-11133 361078006 T-AB959 "
        "53620006 T-15290 13881006 T-11166 74386004 T-11149 81745001 T-AA000 371398005 T-D0801 55024004 T-11102",
    ),
    ("neck", "45048000 T-D1600 4596009 T-24100 45289007 T-61100 54019009 T-61300"),
    (
        "chest",
        "816094009 51185008 T-D3000 39607008 T-28000 80891009 T-32000 72410000 T-D3300 113197003 T-11300 86598002 "
        "T-280A0 955009 T-26000 56873002 T-11210",
    ),
    (
        "abdomen",
        "818981001 113345001 T-D4000 28231008 T-63000 15776009 T-65000 69930009 T-65010 303270005 T-50007 28273000 "
        "T-60610 79741001 T-64500 34707002 T-60600 69695003 T-57000 38848004 T-58200 21306003 T-58400 34516001 T-58600 "
        "30315005 T-58000 14742008 T-59000 71854001 T-59300",
    ),
    ("pelvis", "816092008 12921003 T-D6000 89837001 T-74000 41216001 T-92000 34402009 T-59600 110639002 T-88920"),
    (
        "spine",
        "421060004 T-D04FF 122494005 T-11501 122495006 T-11502 122496007 T-11503 1217253001 1217257000 1217256009 "
        "1217254007 54735007 T-11AD0 64688005 T-11BF0",
    ),
    (
        "extremity",
        "66019005 T-D0300 53120007 T-D8000 61685007 T-D9000 40983000 T-D8200 14975008 T-D8500 85562004 T-D8700 7569003 "
        "T-D8800 76505004 T-D8810 68367000 T-D9100 30021000 T-D9400 56459004 T-D9700 29707007 T-D9800 72696002 T-D9200 "
        "29836001 T-D2500 24136001 T-15710 16982005 T-D2220 16953009 T-15430 74670003 T-15460 70258002 T-15750 "
        "71341001 T-12710 85050009 T-12410 64234005 T-12730 87342007 T-12750 80144004 T-12770",
    ),
    ("breast", "76752008 T-04000"),
    ("whole body", "38266002 T-D0010"),
    ("head, neck", "774007 T-D1000"),
    ("neck, chest", "417437006 R-FAB52"),
    ("chest, abdomen", "416550000 R-FAB55"),
    ("abdomen, pelvis", "818982008 416949008 R-FAB57"),
    ("chest, abdomen, pelvis", "416775004 R-FAB56"),
    ("neck, chest, abdomen", "416152001 R-FAB53"),
    ("neck, chest, abdomen, pelvis", "416319003 R-FAB54"),
    ("pelvis, extremity", "1231522001"),
)
"""Regions and the codes that stand for them."""

REGIONS: dict[str, tuple[str, ...]] = {
    code: tuple(covered.split(", ")) for covered, codes in COVERED_BY for code in codes.split()
}


def regions_of(coded: str) -> tuple[str, ...]:
    """What a code, written as "value:scheme", covers; nothing where it is not one of these."""
    value, _, scheme = coded.partition(":")
    return REGIONS.get(value, ()) if scheme.upper() in SCHEMES else ()
