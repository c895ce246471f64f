"""What a hostile or careless bundle tries, and the reason that it is refused with; nothing of it runs."""

import io
import json
import os
import pickle
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import archive, bundles, declared, expressions, models, trust
from pipelines.trust import Untrusted
from tests.bundles import toys
from tests.bundles.toys import ARGMAX, SOFTMAX, SPACE, TURN, WINDOW, inverted

Config = dict[str, Any]
TINY: Config = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [2, 4],
    "strides": [2],
}


def plain() -> Config:
    return toys.config(TINY, [TURN, SPACE, WINDOW], [SOFTMAX, inverted(), ARGMAX])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.save(tmp_path_factory.mktemp("bundles") / "toy", plain(), toys.metadata(["background", "spleen"]))


def changed(change: Callable[[Config], Any]) -> Config:
    config = plain()
    change(config)
    return config


MARK = "$__import__('os').system('touch /tmp/isocenter_was_here')"
CONFIGS: dict[str, tuple[Callable[[Config], Any], str]] = {
    "a target that runs commands": (lambda c: c["network_def"].update(_target_="os.system"), "os.system"),
    "a target that opens a process": (
        lambda c: c["preprocessing"]["transforms"].append({"_target_": "subprocess.Popen", "args": ["touch", "x"]}),
        "subprocess.Popen",
    ),
    "an import inside an expression": (lambda c: c["network_def"].update(in_channels=MARK), "__import__"),
    "the same where we never look": (lambda c: c.update(initialize=[MARK]), "__import__"),
    "the same in the imports": (lambda c: c.update(imports=["$import subprocess"]), "subprocess"),
    "a system call from an import": (lambda c: c.update(run=["$os.system('touch x')"]), "os.system"),
    "a way up through classes": (
        lambda c: c["network_def"].update(in_channels="$().__class__.__base__.__subclasses__()"),
        "__",
    ),
    "eval": (lambda c: c["inferer"].update(overlap="$eval('1')"), "eval"),
    "a Lambda": (
        lambda c: c["postprocessing"]["transforms"].append(
            {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x"}
        ),
        "runs code from the config",
    ),
    "a lambda as an argument": (lambda c: c["inferer"].update(mode="$lambda x: x"), "Lambda is not computed"),
    "a script of the bundle": (lambda c: c["network_def"].update(_target_="scripts.net.Net"), "not MONAI's"),
    "a script of the same name": (
        lambda c: c["inferer"].update(_target_="scripts.inferer.RetinaNetInferer"),
        "not MONAI's",
    ),
    "a reader of files": (
        lambda c: c["network_def"].update(in_channels="$open('/etc/passwd').read()"),
        "open() is not on the allow-list",
    ),
    "torch.load": (
        lambda c: c.update(arch="$torch.load('x.pt')", network_def={**TINY, "in_channels": "@arch"}),
        "torch.load() is not on the allow-list",
    ),
    "a download": (
        lambda c: c["network_def"].update(in_channels="$torch.hub.load('a/b', 'c')"),
        "torch.hub.load() is not on the allow-list",
    ),
    "a macro that reads a file": (lambda c: c["network_def"].update(in_channels="%/etc/passwd"), "macros read files"),
    "a random transform": (
        lambda c: c["preprocessing"]["transforms"].append({"_target_": "RandFlipd", "keys": "image"}),
        "not on the allow-list",
    ),
    "MONAI's own file opener": (
        lambda c: c["network_def"].update(_target_="monai.data.load_decathlon_datalist"),
        "not on the allow-list",
    ),
    "MONAI's command line": (lambda c: c["network_def"].update(_target_="monai.bundle.run"), "not on the allow-list"),
    "a debugger": (lambda c: c["network_def"].update(_mode_="debug"), "only the modes"),
    "a reference to nothing": (lambda c: c["network_def"].update(in_channels="@nowhere"), "refers to nothing"),
    "a method with side effects": (
        lambda c: c["inferer"].update(overlap="$@network_def.load_state_dict({})"),
        "load_state_dict() is not on the allow-list",
    ),
    "an assignment": (lambda c: c["network_def"].update(in_channels="$(x := 3)"), "NamedExpr is not computed"),
    "text formatting": (lambda c: c["network_def"].update(in_channels="$f'{1}'"), "JoinedStr is not computed"),
    "no network at all": (lambda c: c.pop("network_def"), "has no network_def"),
}


@pytest.mark.parametrize("trick", CONFIGS)
def test_a_config_that_asks_for_more_is_refused_with_the_reason(trick: str, bundle: Path, tmp_path: Path) -> None:
    change, reason = CONFIGS[trick]
    folder = copied(bundle, tmp_path / "hostile", changed(change))
    with pytest.raises(Untrusted, match="not declarative") as refused:
        bundles.read(folder)
    assert reason in str(refused.value)
    assert not Path("/tmp/isocenter_was_here").exists()


def copied(bundle: Path, target: Path, config: Config | None = None) -> Path:
    import shutil

    shutil.copytree(bundle, target)
    if config is not None:
        (target / "configs" / "inference.json").write_text(json.dumps(config))
    return target


def test_the_plain_bundle_is_accepted(bundle: Path) -> None:
    assert bundles.read(bundle).task == "segmentation"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$[0] * 10**9", "Pow is not computed"),
        ("$[0] * 1000000", "too long a list"),
        ("$'a' * 1000000", "too long a list"),
        ("$list(range(10000000))", "too long a list"),
        ("$'%1000000000d' % 1", "formats text"),
        ("$'x'.to('cpu')", "is called on a str"),
        ("$" + "9" * 400 + " * " + "9" * 400, "too large a number"),
    ],
)
def test_an_expression_that_would_fill_the_memory_is_not_computed(text: str, reason: str) -> None:
    with pytest.raises(Untrusted) as refused:
        declared.Declaration({"item": text}).get("item")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$[1.5, 1.5, 1.5] if @fine else [3.0, 3.0, 3.0]", [1.5, 1.5, 1.5]),
        ("$@root + '/models/' + @file", "/b/models/model.pt"),
        ("$len(@names) + @nested#count", 5),
        ("$not @fine", False),
        ("$monai.utils.CommonKeys.IMAGE", "image"),
        ("$@names['spleen']", 1),
        ("$list(@names.keys())[1:]", ["background"]),
        ("$(1 + 2) * 3 // 2 - -1", 5),
        ("$max(@nested::count, 2) if 1 < 2 <= 2 and @fine or False else 0", 3),
        ("$os.path.join(@root, 'models')", "/b/models"),
        ("$None", None),
    ],
)
def test_the_expressions_of_published_configs_are_computed(text: str, value: Any) -> None:
    config = {
        "fine": True,
        "root": "/b",
        "file": "model.pt",
        "names": {"spleen": 1, "background": 0},
        "nested": {"count": 3},
        "item": text,
    }
    assert not list(expressions.faults(parsed(text)))
    assert declared.Declaration(config).get("item") == value


def parsed(text: str) -> expressions.Expression:
    found = expressions.parse(text)
    assert isinstance(found, expressions.Expression)
    return found


def test_a_config_that_refers_to_itself_is_refused() -> None:
    with pytest.raises(Untrusted, match="refers to itself"):
        declared.Declaration({"a": "@b", "b": "$@a + 1"}).get("a")


# ---------------------------------------------------------------- weights


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/isocenter_was_here",)


def evil_zip(path: Path) -> None:
    torch.save({"weight": torch.zeros(2), "evil": Evil()}, path)


def evil_plain(path: Path) -> None:
    path.write_bytes(pickle.dumps({"evil": Evil()}))


def evil_old(path: Path) -> None:
    torch.save({"evil": Evil()}, path, _use_new_zipfile_serialization=False)


def not_weights(path: Path) -> None:
    path.write_text("these are not the weights you are looking for")


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pickle that runs a command": (evil_plain, "a pickle that calls posix.system"),
    "a checkpoint with such a pickle": (evil_zip, "a pickle that calls posix.system"),
    "an old checkpoint with such a pickle": (evil_old, "a pickle that calls posix.system"),
    "text": (not_weights, "not a checkpoint"),
    "a TorchScript program": (torchscript, "a TorchScript program"),
}


@pytest.mark.parametrize("trick", WEIGHTS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_weights_that_are_more_than_tensors_are_refused_unread(trick: str, bundle: Path, tmp_path: Path) -> None:
    write, reason = WEIGHTS[trick]
    folder = copied(bundle, tmp_path / "hostile")
    write(folder / "models" / "model.pt")
    with pytest.raises(Untrusted) as refused:
        bundles.read(folder)
    assert reason in str(refused.value)
    assert not Path("/tmp/isocenter_was_here").exists()


def test_old_and_new_checkpoints_of_tensors_are_accepted(tmp_path: Path) -> None:
    state = toys_state()
    torch.save(state, tmp_path / "new.pt")
    torch.save({"model": state, "epoch": 3}, tmp_path / "wrapped.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("new.pt", "wrapped.pt", "old.pt"):
        trust.check_checkpoint(tmp_path / name)


def toys_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"layer{n}.weight": torch.randn(64, 33, generator=generator) for n in range(4)}


def test_weights_of_another_network_are_refused_when_added(bundle: Path, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path / "other")
    torch.save(toys_state(), folder / "models" / "model.pt")
    with pytest.raises(Untrusted, match="does not fit"):
        models.add(folder, tmp_path / "installed")
    assert models.list_(tmp_path / "installed") == ()


def test_a_bundle_with_nothing_but_a_program_waits_for_isolation(bundle: Path, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path / "compiled")
    (folder / "models" / "model.pt").rename(folder / "models" / "model.ts")
    with pytest.raises(Untrusted, match="compiled program"):
        bundles.read(folder)


# ---------------------------------------------------------------- archives and trees


def packed(path: Path, entries: Iterator[tuple[zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for info, content in entries:
            target.writestr(info, content, compress_type=zipfile.ZIP_DEFLATED)
    return path


def entry(name: str, *, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


ARCHIVES: dict[str, tuple[list[tuple[zipfile.ZipInfo, bytes]], str]] = {
    "a path that climbs": ([(entry("toy/../../evil"), b"x")], "leads out of the bundle"),
    "a path from the root": ([(entry("/etc/evil"), b"x")], "leads out of the bundle"),
    "a link": ([(entry("toy/link", mode=stat.S_IFLNK | 0o777), b"/etc/passwd")], "a link or a device"),
    "a pipe": ([(entry("toy/pipe", mode=stat.S_IFIFO | 0o644), b"")], "a link or a device"),
    "a bomb": ([(entry(f"toy/{n}"), bytes(8 << 20)) for n in range(4)], "zip bomb"),
    "one name in two cases": ([(entry("toy/a"), b"1"), (entry("toy/A"), b"2")], "twice"),
    "a drive letter": ([(entry("C:evil"), b"x")], "unfit name"),
    "a name that moves the cursor": ([(entry("toy/\x1b[2J"), b"x")], "unfit name"),
    "no bundle": ([(entry("readme.txt"), b"hello")], "holds no bundle"),
}


@pytest.mark.parametrize("trick", ARCHIVES)
def test_an_archive_that_reaches_out_is_refused_with_the_reason(trick: str, tmp_path: Path) -> None:
    entries, reason = ARCHIVES[trick]
    path, root = packed(tmp_path / "toy.zip", iter(entries)), tmp_path / "installed"
    with pytest.raises(Untrusted) as refused:
        models.add(path, root)
    assert reason in str(refused.value)
    assert sorted(root.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_an_archive_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "toy.zip", iter([(entry("toy/a"), bytes(range(256)) * 64)]))
    raw = path.read_bytes()
    true, lie = (256 * 64).to_bytes(4, "little"), (100).to_bytes(4, "little")
    path.write_bytes(raw.replace(true, lie))
    (tmp_path / "out").mkdir()
    with pytest.raises(Untrusted):
        archive.unpack(path, tmp_path / "out")


def test_bytes_that_are_no_archive_are_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(Untrusted, match="not a sound zip"):
        archive.unpack(tmp_path / "toy.zip", tmp_path)


def test_a_tree_with_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path / "linked")
    (folder / "models" / "more.pt").symlink_to("/etc/passwd")
    with pytest.raises(Untrusted, match="link or a device"):
        bundles.read(folder)


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "{", "null", '{"a": ' * 5000, json.dumps({"network_def": json.loads("[" * 90 + "]" * 90)})],
    ids=["list", "broken", "null", "deep and broken", "deep"],
)
def test_a_config_that_is_no_mapping_is_refused(text: str, bundle: Path, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path / "broken")
    (folder / "configs" / "inference.json").write_text(text)
    with pytest.raises(Untrusted):
        bundles.read(folder)


def test_a_yaml_config_cannot_make_objects(bundle: Path, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path / "yaml")
    (folder / "configs" / "inference.json").unlink()
    (folder / "configs" / "inference.yaml").write_text(
        "network_def: !!python/object/apply:os.system ['touch /tmp/x']\n"
    )
    with pytest.raises(Untrusted, match="cannot be read"):
        bundles.read(folder)


def test_nothing_is_judged_with_torch_or_monai(bundle: Path) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from pipelines import bundles, catalog, models, trust; "
        f"bundles.spec(bundles.read(Path({str(bundle)!r}))); catalog.names(); "
        "sys.exit(str({'torch', 'monai'} & set(sys.modules)) if {'torch', 'monai'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stream_is_never_longer_than_it_says() -> None:
    sink = io.BytesIO()
    assert archive._copy(io.BytesIO(bytes(1000)), sink, 10) == 11
    assert len(sink.getvalue()) == 11
