"""Wrong settings are refused with file, line and column; right ones are absolute when loaded."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from router import document
from router.config import Section, Settings, load
from router.errors import UnreadableFile, WrongSettings


def faults(folder: Path, text: str) -> list[str]:
    path = folder / "site.yaml"
    path.write_text(text)
    with pytest.raises(WrongSettings) as caught:
        load(path)
    return [str(fault).removeprefix(f"{folder}/") for fault in caught.value.faults]


def test_an_empty_file_means_all_defaults_below_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("# nothing yet\n")
    settings = load(path)
    assert settings.ae_title == "ISOCENTER"
    assert settings.storage.path == tmp_path / "store"
    assert settings.run_path == tmp_path / "run"
    assert settings.database.url == f"sqlite:///{tmp_path}/isocenter.db"


def test_absolute_paths_and_other_databases_stay_as_written(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    url = "postgresql+psycopg://pacs:secret@db/isocenter"
    path.write_text(f"storage: {{path: /srv/dicom}}\ndatabase: {{url: '{url}'}}\n")
    settings = load(path)
    assert settings.storage.path == Path("/srv/dicom")
    assert settings.database.url == url


def test_every_fault_comes_at_once_with_its_line_and_column(tmp_path: Path) -> None:
    text = "ae_title: ISOCENTER\nlistener:\n  port: 70000\n  idle_timeout_s: never\ntimezone: Mars/Olympus\n"
    found = faults(tmp_path, text)
    assert [fault.partition(": ")[0] for fault in found] == ["site.yaml:3:9", "site.yaml:4:19", "site.yaml:5:11"]
    assert found[0].endswith("listener.port: Input should be less than or equal to 65535")


def test_an_unknown_setting_points_at_its_name_and_suggests_the_right_one(tmp_path: Path) -> None:
    assert faults(tmp_path, "listener:\n  host: 0.0.0.0\n  prot: 104\n") == [
        "site.yaml:3:3: listener.prot: there is no such setting: did you mean port?"
    ]


@pytest.mark.parametrize("word", ["ON", "NO", "yes", "123"])
def test_an_unquoted_ae_title_that_yaml_takes_for_something_else_is_refused_with_the_remedy(
    tmp_path: Path, word: str
) -> None:
    (fault,) = faults(tmp_path, f"ae_title: {word}\n")
    assert fault.startswith("site.yaml:1:11: ae_title: ")
    assert f'write "{word}" in quotes' in fault


def test_quoted_ae_titles_that_look_like_booleans_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text('ae_title: "ON"\n')
    assert load(path).ae_title == "ON"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("listener: [\n", "site.yaml:2:1"),
        ("- 1\n", "site.yaml:1:1"),
        ("log: {level: info}\nlog: {level: debug}\n", "site.yaml:2:1"),
        ("web: &a {port: 1}\nlistener: *a\n", "site.yaml:2:11"),
    ],
)
def test_what_is_not_a_plain_mapping_is_refused_where_it_stands(tmp_path: Path, text: str, place: str) -> None:
    assert faults(tmp_path, text)[0].startswith(f"{place}: ")


def test_a_database_in_memory_is_refused(tmp_path: Path) -> None:
    assert "would forget everything" in faults(tmp_path, "database: {url: 'sqlite://'}\n")[0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"site\.yaml"):
        load(tmp_path / "site.yaml")


class Cat(Section):
    kind: Literal["cat"]
    lives: int


class Dog(Section):
    kind: Literal["dog"]
    tricks: list[str]


class House(Section):
    animals: list[Annotated[Cat | Dog, Field(discriminator="kind")]]


def test_a_fault_inside_a_discriminated_union_has_its_own_address() -> None:
    text = (
        "animals:\n  - kind: dog\n    tricks: [sit, 3]\n  - kind: cat\n    lifes: 7\n    lives: many\n  - kind: cow\n"
    )
    page = document.parse(text, "house.yaml", wrong=WrongSettings)
    with pytest.raises(ValidationError) as caught:
        House.model_validate(page.value)
    assert sorted(str(fault).split(": Input")[0] for fault in page.faults(caught.value, House))[:3] == [
        "house.yaml:3:19: animals[0].tricks[1]",
        "house.yaml:5:5: animals[1].lifes: there is no such setting: did you mean lives?",
        "house.yaml:6:12: animals[1].lives",
    ]
    assert any("house.yaml:7:5: animals[2]" in str(fault) for fault in page.faults(caught.value, House))


def test_settings_stay_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().ae_title = "OTHER"  # type: ignore[misc]
