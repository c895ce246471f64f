"""Forms of sources and destinations: whatever is written already comes back, whole, and nothing that is by default."""

import pytest
import yaml

from router import destinations, rulebook
from router.db.revisions import Kind
from router.web.entry import blanks, entry_of, shown, typed

SOURCES = [
    {"ae_title": "CT_1", "addresses": ["10.0.0.1", "any"], "services": ["store"], "quiet_period_s": 12.5},
    {"ae_title": "0815", "addresses": ["::1"], "notes": "yes", "at_deadline": "hold",
     "witnesses": ["count"], "count_at": {"ae_title": "A", "host": "a", "port": 104}},
]  # fmt: skip
DESTINATIONS = [
    {"name": "pacs", "kind": "dicom", "ae_title": "ON", "host": "10.0.0.2", "port": 104, "tls": True,
     "profile": {"seg": "labelmap"}},
    {"name": "disk", "kind": "folder", "path": "/srv/out: put # here"},
]  # fmt: skip


@pytest.mark.parametrize("entry", SOURCES, ids=lambda one: one["ae_title"])
def test_a_source_comes_back_from_its_form(entry: dict[str, object]) -> None:
    names = [one.name for one in blanks(rulebook.Source)]
    assert names[:2] == ["ae_title", "addresses"], "what must be filled in comes first"
    texts = {name: typed(entry, name) for name in names}
    assert entry_of(texts, {}) == entry
    assert entry_of({"ae_title": texts["ae_title"]}, entry) == entry, "what a form does not show is put back"
    rulebook.parse(rulebook.write(Kind.SOURCES, [entry_of(texts, {})]), "the form")


@pytest.mark.parametrize("entry", DESTINATIONS, ids=lambda one: one["name"])
def test_a_destination_comes_back_from_its_form(entry: dict[str, object]) -> None:
    form = blanks(destinations.find(str(entry["kind"])).settings)
    assert entry_of({one.name: typed(entry, one.name) for one in form}, {}) == entry


@pytest.mark.parametrize("kind", destinations.names())
def test_every_field_of_every_kind_says_what_it_is(kind: str) -> None:
    for one in blanks(destinations.find(kind).settings):
        assert one.about or one.name == "kind", one.name
        if one.default and not one.choices:
            yaml.safe_load(one.default)


def test_what_is_one_of_few_is_chosen() -> None:
    form = {one.name: one for one in blanks(destinations.find("dicom").settings)}
    assert form["tls"].choices == ("true", "false")
    source = {one.name: one for one in blanks(rulebook.Source)}
    assert source["at_deadline"].choices == ("decide", "hold")
    assert source["addresses"].choices == ()


@pytest.mark.parametrize(
    "value", ["on", "1", "1e3", "a: b", "- x", "", "# x", "it's", 'a"b', "null", True, 3, [1, "2"]]
)
def test_what_is_typed_is_read_as_what_it_was(value: object) -> None:
    assert yaml.safe_load(shown(value) or '""') == value
