"""Bundles are installed whole or not at all, stand beside the catalogue, and are noticed when they change."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import catalog, ledger, models, trust
from pipelines.spec import UnknownPipeline
from pipelines.trust import Untrusted
from tests.bundles import toys
from tests.bundles.toys import ARGMAX, SOFTMAX, SPACE, TURN, WINDOW, inverted
from tests.conftest import REPOSITORY

TINY = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [2, 4],
    "strides": [2],
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = toys.config(TINY, [TURN, SPACE, WINDOW], [SOFTMAX, inverted(), ARGMAX])
    folder = tmp_path_factory.mktemp("bundles") / "Spleen-CT Toy"
    return toys.save(folder, written, toys.metadata(["background", "spleen"]), gain=3)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder of installed bundles that the catalogue looks into."""
    root = tmp_path / "models"
    catalog.look_in(root)
    yield root
    catalog.look_in(None)


def zipped(bundle: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file in bundle.rglob("*"):
            target.write(file, Path(bundle.name) / file.relative_to(bundle))
    return path


def test_a_folder_and_its_zip_install_as_the_same_bundle(bundle: Path, tmp_path: Path) -> None:
    first = models.add(bundle, tmp_path / "one")
    second = models.add(zipped(bundle, tmp_path / "whatever.zip"), tmp_path / "two")
    assert (first.name, first.digest) == (second.name, second.digest) == ("spleen_ct_toy", trust.digest(bundle))
    assert first.task == "segmentation"


def test_an_installed_bundle_is_a_pipeline_like_any_other(bundle: Path, site: Path) -> None:
    models.add(bundle, site)
    assert "spleen_ct_toy" in catalog.names()
    assert "ct_lung" in catalog.names()
    found = catalog.find("spleen_ct_toy")
    assert found.spec.name == "spleen_ct_toy"
    assert found.spec.modalities == ("CT",)
    assert [segment.label for segment in found.spec.segments] == ["spleen"]
    assert found.spec.weights_digest == trust.digest(bundle)
    findings = found.runner(toys.volume(), found.spec.settings())
    assert findings.algorithm.weights_digest == trust.digest(bundle)
    assert findings.labels is not None


def test_without_a_folder_the_catalogue_has_its_own_entries_only() -> None:
    assert catalog.names() == catalog.own()
    with pytest.raises(UnknownPipeline):
        catalog.find("spleen_ct_toy")


def test_the_same_bundle_again_changes_nothing_and_another_of_its_name_is_refused(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    first = models.add(bundle, root)
    assert models.add(bundle, root) == first
    other = tmp_path / bundle.name
    shutil.copytree(bundle, other)
    described = json.loads((other / "configs" / "metadata.json").read_text())
    (other / "configs" / "metadata.json").write_text(json.dumps({**described, "version": "9.9"}))
    with pytest.raises(models.AlreadyInstalled):
        models.add(other, root)
    assert models.add(other, root, name="spleen two").name == "spleen_two"
    assert [installed.name for installed in models.list_(root)] == ["spleen_ct_toy", "spleen_two"]


def test_a_name_of_the_catalogue_is_not_for_bundles(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(models.AlreadyInstalled, match="catalogue"):
        models.add(bundle, tmp_path, name="ct_lung")


def test_a_changed_file_is_found_by_verify_and_stops_the_bundle(bundle: Path, site: Path) -> None:
    models.add(bundle, site)
    assert [verdict.fault for verdict in models.verify(site)] == [None]
    weights = site / "spleen_ct_toy" / "bundle" / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes() + b"\0")
    (verdict,) = models.verify(site, "spleen_ct_toy")
    assert verdict.fault is not None
    ledger.LEDGER.spare("cpu")
    pipeline = catalog.find("spleen_ct_toy")
    with pytest.raises(Untrusted, match="not those that were installed"):
        pipeline.runner(toys.volume(), pipeline.spec.settings())


def test_a_broken_bundle_does_not_hide_the_others(bundle: Path, site: Path) -> None:
    models.add(bundle, site)
    models.add(bundle, site, name="broken")
    models._pipeline.cache_clear()
    (site / "broken" / "bundle" / "configs" / "inference.json").write_text("{")
    assert "spleen_ct_toy" in catalog.names()
    assert "broken" not in catalog.names()
    assert models.verify(site, "broken")[0].fault


def test_a_removed_bundle_is_gone(bundle: Path, site: Path) -> None:
    models.add(bundle, site)
    assert models.remove(site, "spleen_ct_toy").name == "spleen_ct_toy"
    assert list(site.iterdir()) == []
    with pytest.raises(models.UnknownModel):
        models.remove(site, "spleen_ct_toy")


def test_a_refused_bundle_leaves_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "hostile"
    shutil.copytree(bundle, other)
    (other / "configs" / "inference.json").write_text('{"network_def": {"_target_": "os.system"}}')
    with pytest.raises(Untrusted):
        models.add(other, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_digest_covers_names_and_bytes_and_not_times(bundle: Path, tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in "abc")
    for copy in (one, two, three):
        shutil.copytree(bundle, copy)
    os.utime(two / "configs" / "metadata.json", (1, 1))
    (three / "models" / "model.pt").rename(three / "models" / "model_.pt")
    assert trust.digest(one) == trust.digest(two) != trust.digest(three)


# ---------------------------------------------------------------- the signed allow-list

FOREIGN = """
import os, sys
from pathlib import Path
from dicom_sr.problem import Problem
from pipelines import catalog, models as shelf
from router import config
from router.cli import models
act, root, given = sys.argv[1:]
models.root_of = lambda _: Path(root)
os.setgid(65534)
os.setuid(65534)
try:
    models.add(Path(given), trial=False) if act == "add" else models.remove(given)
except Problem as problem:
    print(problem)
"""


@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another account")
def test_another_account_than_the_services_is_told_which_one(bundle: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place, source = Path(folder), Path(folder) / "source"
        place.chmod(0o755)
        shutil.copytree(bundle, source)
        models.add(source, place / "models", trial=False)
        (place / "models").chmod(0o755)
        name = models.list_(place / "models")[0].name

        def says(*words: str | Path) -> str:
            done = subprocess.run(
                [sys.executable, "-c", FOREIGN, *map(str, words)], capture_output=True, text=True, check=False,
                cwd=REPOSITORY,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout

        for words in (("add", place / "models", source), ("remove", place / "models", name)):
            said = says(*words)
            assert "may not be written by the account nobody; it is root's" in said
            assert "sudo -u root isocenter models" in said
        source.chmod(0o700)
        (place / "theirs").mkdir()
        (place / "theirs").chmod(0o777)
        assert "may not be read by the account nobody" in says("add", place / "theirs", source)
        assert [one.name for one in models.list_(place / "models")] == [name]


SIGNED = """
import os, sys
from pathlib import Path
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pipelines import trust
os.setgid(65534)
os.setuid(65534)
print(sorted(trust.allowed(Path(sys.argv[1]), public_key=Path(sys.argv[2])).digests))
"""


def signed(folder: Path, text: bytes) -> tuple[Path, Path]:
    """An allow-list with its signature, and the public key in a folder of its own."""
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    keys = folder / "keys"
    keys.mkdir()
    path, public = folder / "allowed.txt", keys / "administrator.pub"
    path.write_bytes(text)
    (folder / "allowed.txt.sig").write_bytes(base64.b64encode(key.sign(text)))
    public.write_bytes(base64.b64encode(key.public_key().public_bytes_raw()))
    for place in (folder, keys):
        place.chmod(0o755)
    return path, public


def as_service_user(path: Path, public: Path) -> subprocess.CompletedProcess[str]:
    """Reads the list as a user who may not write the key."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for parent in path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    return subprocess.run(
        [sys.executable, "-c", SIGNED, str(path), str(public)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_a_signed_digest_is_allowed(tmp_path: Path) -> None:
    digest = "a" * 64
    done = as_service_user(*signed(tmp_path, f"# bundles of the radiology lab\n{digest} spleen 0.5\n".encode()))
    assert done.stdout.strip() == str([digest]), done.stderr


def test_a_list_that_was_changed_after_it_was_signed_is_refused(tmp_path: Path) -> None:
    path, public = signed(tmp_path, b"")
    path.write_bytes(b"b" * 64)
    done = as_service_user(path, public)
    assert "is not signed by the key" in done.stderr


def test_a_key_that_the_service_could_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Untrusted, match="can be written by the user that runs the node"):
        trust.allowed(*signed(tmp_path, b"")[:1], public_key=tmp_path / "keys" / "administrator.pub")
