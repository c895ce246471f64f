"""What a destination gets: by a ready profile's name or by fields, and without what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.destinations import Profile
from router.destinations._profile import FIELDS, READY
from router.destinations.folder import Settings

SEG, LABEL_MAP, SR, SC = (next(uid for uid, field in FIELDS.items() if field == name) for name in
               ("seg", "label map", "sr comprehensive3d", "pictures"))  # fmt: skip


def chosen(profile: object) -> Profile:
    return Settings.model_validate({"kind": "folder", "name": "x", "path": "/tmp", "profile": profile}).profile


@pytest.mark.parametrize("name", READY)
def test_a_ready_profile_is_chosen_by_its_name(name: str):
    assert chosen(name) == READY[name]


def test_an_unknown_name_is_told_the_known_ones_and_nothing_at_all_is_refused():
    with pytest.raises(ValidationError, match="legacy-pacs"):
        chosen("legacypacs")
    with pytest.raises(ValidationError, match="without any kind"):
        chosen({"seg": "none", "sr": "none"})


def test_the_report_comes_last_and_the_canonical_text_says_it_all():
    for profile in READY.values():
        assert profile.kinds[-1] == "measurement_report"
        assert Profile.model_validate_json(profile.canonical()) == profile
    assert Profile().canonical() == "{}"


def test_a_refused_segmentation_becomes_key_slices_and_a_refused_report_a_simpler_one():
    assert Profile().without(frozenset([SEG])) == Profile(seg="none", overlay="key")
    assert Profile().without(frozenset([SR])) == Profile(sr="comprehensive")
    no_reports = frozenset(uid for uid, field in FIELDS.items() if field.startswith("sr "))
    assert Profile().without(no_reports) == Profile(sr="none", summary=True)
    assert Profile().without(frozenset([SEG, SC])) == Profile(seg="none")
    assert Profile().without(frozenset(FIELDS)) is None


def test_a_refused_label_map_becomes_a_binary_segmentation_and_then_key_slices():
    profile = Profile(seg="labelmap")
    assert profile.kinds == ("label_map", "measurement_report")
    assert profile.without(frozenset([LABEL_MAP])) == Profile()
    assert profile.without(frozenset([SEG])) == profile
    assert profile.without(frozenset([SEG, LABEL_MAP])) == Profile(seg="none", overlay="key")


def test_a_profile_says_from_how_many_frames_on_a_segmentation_is_split():
    assert Profile(split_frames_above=2000).settings == {"segmentation": {"split_frames_above": 2000}}
    assert Profile(split_frames_above=2000).canonical() != Profile().canonical()
    with pytest.raises(ValidationError, match="split_frames_above"):
        Profile(split_frames_above=1)


@given(
    st.builds(
        Profile, seg=st.sampled_from(["binary", "labelmap", "none"]),
        sr=st.sampled_from(["comprehensive3d", "comprehensive", "enhanced"]),
        overlay=st.sampled_from(["none", "key", "all"]), summary=st.booleans(), key_objects=st.booleans(),
        reject_superseded=st.booleans(),
    ),
    st.frozensets(st.sampled_from(sorted(FIELDS))),
)  # fmt: skip
def test_nothing_refused_is_in_what_comes_instead(profile: Profile, refused: frozenset[str]):
    instead = profile.without(refused)
    if instead is None:
        return
    fields = {FIELDS[uid] for uid in refused}
    assert not ("seg" in fields and "segmentation" in instead.kinds)
    assert not ("label map" in fields and "label_map" in instead.kinds)
    assert not ("pictures" in fields and {"overlay", "summary"} & set(instead.kinds))
    assert f"sr {instead.sr}" not in fields
    assert not ("key_objects" in fields and {"key_objects", "rejection_note"} & set(instead.kinds))
    assert instead.without(refused) == instead
