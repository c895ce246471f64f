"""Any MONAI bundle as a pipeline: its folder read, judged and carded, without torch and without running a line of it.

A bundle is a folder with `configs/metadata.json`, `configs/inference.json` (or .yaml) and weights under `models/`.
Its chain is run by `pipelines.model`, imported when the pipeline is first called.

Source:  MONAI Bundle Specification; metadata schema 20220324 and later
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from dicom_sr import codes
from dicom_sr.nouns import Findings, Volume
from pipelines import confinement, declared, engines, ledger, runtime, trust, vocabulary, weights
from pipelines.agreement import Mirrored
from pipelines.spec import OutputMeasurement, OutputSegment, Pipeline, Progress, Spec, silent
from pipelines.trust import AllowList, Untrusted

if TYPE_CHECKING:
    from pipelines.model import Model

Task = Literal["segmentation", "classification", "detection"]

NOBODY = AllowList()
"""A site without an allow-list: only declarative bundles run."""
INFERENCE = ("inference.json", "inference.yaml", "inference.yml")
MAX_CONFIG_BYTES = 4 << 20
CLASSIFIERS = re.compile(
    r"(DenseNet|Densenet|SE?ResNe|SEnet|SENet|EfficientNet|TorchVisionFC|Classifier|ViT$|resnet\d)"
)
MODALITIES = {
    "ct": ("CT",),
    "mr": ("MR",),
    "mri": ("MR",),
    "pet": ("PT",),
    "pt": ("PT",),
    "mammogram": ("MG",),
    "mammography": ("MG",),
    "mg": ("MG",),
    "us": ("US",),
    "ultrasound": ("US",),
    "x-ray": ("CR", "DX"),
    "xray": ("CR", "DX"),
    "cxr": ("CR", "DX"),
}


class NotABundle(Untrusted):
    """A folder without the files of a bundle, or with ones that cannot be read."""


class BundleSettings(BaseModel):
    """What a rule may set on an installed bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiles: Literal["published", "even"] = Field(
        "published", description="Tiles where the bundle's author put them, or as few as possible, spread evenly"
    )
    minimum_score: float = Field(
        0.0, ge=0.0, le=1.0, description="Boxes of a detector below this score are not reported"
    )
    certainty: bool = Field(
        False, description="Give each structure the mean probability that the network gave to its voxels"
    )
    saliency: bool = Field(
        False,
        description="Of a classifier, map where its likeliest class is seen, by covering parts of the image; "
        "costs hundreds of runs",
    )
    mirrored: Mirrored = Field(
        "no",
        description="Run on mirrored images too, take the mean, and say how well the runs agree; costs a run each",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle as its files describe it. `digest` is that of its whole tree."""

    root: Path
    name: str
    config: Mapping[str, Any] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    digest: str
    isolated: bool = False
    """Whether it runs code of its own, which an administrator has signed for: never in this process."""

    @property
    def version(self) -> str:
        """The bundle's own version."""
        return str(self.metadata.get("version", "0"))

    @property
    def output(self) -> Mapping[str, Any]:
        """What the metadata says of the network's answer."""
        return _mapping(self.metadata, "network_data_format", "outputs", "pred")

    @property
    def input(self) -> Mapping[str, Any]:
        """What the metadata says of the network's image."""
        inputs = _mapping(self.metadata, "network_data_format", "inputs")
        return _mapping(inputs, "image") or next((v for v in inputs.values() if isinstance(v, Mapping)), {})

    @property
    def labels(self) -> dict[int, str]:
        """The names of the network's classes by channel, background included."""
        named = _mapping(self.output, "channel_def")
        return {int(key): str(value) for key, value in named.items() if str(key).isdecimal()}

    @property
    def task(self) -> Task:
        """What the network does, from what its config builds."""
        if any("RetinaNet" in target for target in _targets(self.config)):
            return "detection"
        network = str(_mapping(self.config, "network_def").get("_target_", "")).rpartition(".")[2]
        stated = str(self.output.get("format", "")).lower()
        if stated.startswith("class") or stated == "probabilities" or CLASSIFIERS.match(network):
            return "classification"
        return "segmentation"

    @property
    def modalities(self) -> tuple[str, ...]:
        """DICOM modalities of the images that it was made for; empty when the metadata does not say."""
        return MODALITIES.get(str(self.input.get("modality", "")).strip().lower(), ())

    @property
    def channels(self) -> int:
        """Channels of the network's image."""
        stated = self.input.get("num_channels", _mapping(self.config, "network_def").get("in_channels", 1))
        return stated if isinstance(stated, int) else 1

    @property
    def dimensions(self) -> int:
        """Whether the network sees planes (2) or volumes (3)."""
        stated = _mapping(self.config, "network_def").get("spatial_dims")
        shape = self.input.get("spatial_shape")
        if isinstance(stated, int):
            return stated
        return len(shape) if isinstance(shape, list) and len(shape) in (2, 3) else 3

    def declaration(self, device: str = "cpu") -> declared.Declaration:
        """Its config, ready to be built for a device; the two items that a site sets are set."""
        config = {**self.config, "device": device, "bundle_root": str(self.root)}
        if self.isolated:
            from pipelines.free import Free

            return Free(config, device)
        return declared.Declaration(config, device)


def read(root: Path, *, digest: str | None = None, name: str | None = None, allowed: AllowList = NOBODY) -> Bundle:
    """The bundle in this folder, which the declarative profile has accepted.

    `digest` is given where the tree was digested before, `name` where it is not the folder's, `allowed` is the
    administrator's signed list.

    Raises:  NotABundle, Untrusted
    """
    whole = digest or trust.digest(root)
    metadata = _document(root / "configs" / "metadata.json")
    found = [root / "configs" / name for name in INFERENCE if (root / "configs" / name).is_file()]
    if not found:
        raise NotABundle(
            f"{root.name} has no configs/inference.json", remedy="Give a MONAI bundle with an inference config"
        )
    bundle = Bundle(
        root=root, name=slug(name or root.name), config=_document(found[0]), metadata=metadata, digest=whole
    )
    return judge(bundle, allowed)


def judge(bundle: Bundle, allowed: AllowList = NOBODY) -> Bundle:
    """The bundle if the declarative profile accepts its config and weights, or if an administrator has signed for it
    and code can be isolated here (then it is `isolated`); else it is refused, with every reason.

    Raises:  Untrusted
    """
    try:
        _declarative(bundle)
    except Untrusted as refused:
        if bundle.digest not in allowed.digests:
            remedy = f"{refused.remedy}; or have an administrator sign for its digest {bundle.digest}"
            raise Untrusted(refused.what, remedy=remedy) from None
        fault = confinement.why_not()
        if fault is not None:
            raise Untrusted(
                f"the bundle {bundle.name} is on the signed allow-list, but {refused.what}; and code cannot be "
                f"isolated on this machine: {fault}",
                remedy="Use a kernel with Landlock and user namespaces or seccomp, or publish it with plain configs",
            ) from None
        return replace(bundle, isolated=True)
    return bundle


def _declarative(bundle: Bundle) -> None:
    declaration, engine = bundle.declaration(), engines.of(bundle.root)
    objections = declared.objections(declaration.config, network=engine is None)
    if objections:
        raise Untrusted(
            f"the bundle {bundle.name} is not declarative: {'; '.join(map(str, objections[:5]))}",
            remedy="Ask its author for plain configs; only those run without an administrator's signature",
        )
    if engine is None:
        weights.check(weights.find(bundle.root, declaration)[0])
        return
    if bundle.task == "detection":
        raise Untrusted(f"{bundle.name} gives boxes, which MONAI's own networks give alone", remedy="Add its weights")
    engine[0].check(engine[1])


def slug(name: str) -> str:
    """A bundle's name as a pipeline's: lower case, words joined by underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "bundle"


def spec(bundle: Bundle) -> Spec:
    """The bundle's model card."""
    names = [name for _, name in sorted(bundle.labels.items()) if not vocabulary.is_background(name)]
    delineated = names if bundle.task == "segmentation" else []
    given = {
        "segmentation": ("volume", "certainty", "agreement"),
        "classification": ("certainty", "agreement"),
        "detection": ("certainty",),
    }
    measured = (codes.quantity(name) for name in given[bundle.task])
    return Spec(
        name=bundle.name,
        version=bundle.version,
        title=str(bundle.metadata.get("name") or bundle.metadata.get("task") or bundle.name),
        intended_use=str(bundle.metadata.get("intended_use") or "Not stated by its author; research only"),
        limitations=(
            str(bundle.metadata.get("description") or "Its author gives no description"),
            "A model from elsewhere: nobody has verified it here, and its files are run as they were published",
        ),
        modalities=bundle.modalities,
        needs=tuple(_needs(bundle)),
        segments=tuple(_segment(name) for name in delineated),
        measurements=tuple(OutputMeasurement(name=one.concept, unit=one.unit) for one in measured),
        settings=BundleSettings,
        weights_digest=bundle.digest,
        licence=str(bundle.metadata.get("license") or bundle.metadata.get("licence") or "Not stated; see the bundle"),
        time_limit_s=1800.0,
    )


def pipeline(bundle: Bundle) -> Pipeline:
    """The bundle as a catalogue entry: its card, and a runner that loads the network when first called."""

    def run(volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent) -> Findings:
        if bundle.isolated:
            from pipelines import isolated

            return isolated.run(bundle, volume, settings, device=device, progress=progress)
        from pipelines.model import run as through

        return through(resident(bundle.root, bundle.name, bundle.digest, device), volume, settings, progress)

    return Pipeline(spec=spec(bundle), runner=run)


def resident(root: Path, name: str, digest: str, device: str) -> "Model":
    """A bundle's network in memory, kept for the next volume; the tree must still be the one that was judged.

    Raises:  Untrusted
    """
    from pipelines.model import load

    def loaded() -> "Model":
        if trust.digest(root) != digest:
            raise Untrusted(
                f"the files of {name} are not those that were installed", remedy="Remove the bundle and add it again"
            )
        return load(read(root, digest=digest, name=name), device)

    where = runtime.device(device)
    least = max((path.stat().st_size for path in (root / "models").glob("*")), default=0)
    return ledger.LEDGER.take((root, digest, where), where, loaded, least=least)


def _needs(bundle: Bundle) -> Iterator[str]:
    if bundle.modalities:
        yield f"Modality {' or '.join(bundle.modalities)}"
    if bundle.channels == 3 and bundle.dimensions == 2:
        yield "A grey image; its values are given to all three channels of the network"
    elif bundle.channels > 1:
        yield f"{bundle.channels} images of one patient at once, which a single series cannot give: it is refused"
    if bundle.task == "classification" and bundle.dimensions == 2:
        yield "A single image"


def _segment(name: str) -> OutputSegment:
    term = vocabulary.term(name)
    return OutputSegment(label=name[:64], type=term.type, laterality=term.laterality)


def _document(path: Path) -> dict[str, Any]:
    """A JSON or YAML file whose root is a mapping.

    Raises:  NotABundle
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise NotABundle(f"{path.name} is over-large", remedy=f"A config has at most {MAX_CONFIG_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as broken:
        raise NotABundle(
            f"{path.name} cannot be read: {str(broken).splitlines()[0][:200]}", remedy="Give a whole MONAI bundle"
        ) from None
    if not isinstance(found, dict):
        raise NotABundle(f"{path.name} is not a mapping", remedy="Give a whole MONAI bundle")
    return found


def _mapping(item: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        item = item.get(key, {}) if isinstance(item, Mapping) else {}
    return item if isinstance(item, Mapping) else {}


def _targets(config: Mapping[str, Any]) -> Iterator[str]:
    for node in declared.NODES:
        for _, item in declared.walk(config.get(node, {})):
            if isinstance(item, dict) and "_target_" in item:
                yield str(item["_target_"])
