"""Every pipeline of the catalogue: a whole Spec, no torch at import, refusals by reason, findings as its Spec says."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from dicom_sr.nouns import Findings
from pipelines import catalog
from pipelines.spec import Refused, UnknownPipeline
from tests.pipelines.examples import example

LEGAL = {"CT", "MR", "PT", "CR", "DX", "MG", "US"}


@pytest.fixture(params=catalog.own())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_spec_is_whole(name: str) -> None:
    spec = catalog.find(name).spec
    assert spec.name == name
    assert spec.version.count(".") == 2
    assert spec.title
    assert spec.intended_use
    assert spec.limitations
    assert spec.needs
    assert spec.modalities
    assert set(spec.modalities) <= LEGAL
    assert spec.segments or spec.measurements
    assert spec.time_limit_s > 0


def test_settings_have_defaults_descriptions_and_no_room_for_typing_errors(name: str) -> None:
    settings = catalog.find(name).spec.settings
    assert all(field.description for field in settings.model_fields.values())
    assert settings() == settings.model_validate(json.loads(settings().model_dump_json()))
    with pytest.raises(ValidationError):
        settings.model_validate({"no_such_setting": 1})


@pytest.mark.long
def test_importing_an_entry_imports_no_framework(name: str) -> None:
    program = (
        "import sys; from pipelines import catalog; catalog.find(sys.argv[1]);"
        "print([m for m in ('torch', 'monai', 'scipy', 'cc3d', 'highdicom') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_modality_is_refused_with_reason_and_remedy(name: str) -> None:
    entry = catalog.find(name)
    other = next(modality for modality in sorted(LEGAL) if modality not in entry.spec.modalities)
    volume = example(name)
    with pytest.raises(Refused) as refused:
        entry.runner(replace(volume, acquisition=replace(volume.acquisition, modality=other)), entry.spec.settings())
    assert refused.value.what
    assert refused.value.remedy
    assert not refused.value.retryable


@pytest.mark.long
def test_an_empty_volume_is_refused_or_yields_no_segment(name: str) -> None:
    entry = catalog.find(name)
    volume = example(name)
    for value in (-1000, 0, 3000):
        try:
            said = entry.runner(replace(volume, array=np.full_like(volume.array, value)), entry.spec.settings())
        except Refused:
            continue
        assert said.segments == ()


def test_findings_are_what_the_spec_promises(name: str) -> None:
    entry = catalog.find(name)
    said = entry.runner(example(name), entry.spec.settings())
    spec = entry.spec
    assert (said.algorithm.name, said.algorithm.version) == (spec.name, spec.version)
    assert said.algorithm.weights_digest == spec.weights_digest
    assert dict(said.algorithm.parameters).keys() == spec.settings.model_fields.keys()
    structures = {(segment.label, segment.type, segment.laterality) for segment in spec.segments}
    assert {(segment.label, segment.type, segment.laterality) for segment in said.segments} <= structures
    quantities = {(measurement.name, measurement.unit) for measurement in spec.measurements}
    for group in said.groups:
        assert {(measurement.name, measurement.unit) for measurement in group.measurements} <= quantities
    if said.labels is not None:
        assert said.labels.shape == example(name).array.shape
        assert said.labels.dtype == np.uint8


@pytest.mark.long
def test_the_same_volume_gives_the_same_findings(name: str) -> None:
    entry = catalog.find(name)

    def said() -> Findings | str:
        try:
            return entry.runner(example(name), entry.spec.settings())
        except Refused as refused:
            return refused.what

    first, second = said(), said()
    if isinstance(first, str) or isinstance(second, str):
        assert first == second
        return
    assert first.groups == second.groups
    assert first.not_found == second.not_found
    assert len(first.layers) == len(second.layers)
    assert all(np.array_equal(a, b) for a, b in zip(first.layers, second.layers, strict=True))


@pytest.mark.long
def test_a_run_leaves_its_volume_as_it_was(name: str) -> None:
    entry, volume = catalog.find(name), example(name)
    before = volume.array.copy()
    volume.array.setflags(write=False)
    try:
        entry.runner(volume, entry.spec.settings())
    except Refused:
        pass
    finally:
        volume.array.setflags(write=True)
    assert np.array_equal(before, volume.array)


def test_an_unknown_pipeline_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownPipeline, match="ct_lung"):
        catalog.find("ct_lnug")
