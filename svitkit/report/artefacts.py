"""What lies beside a record: the bundle that was measured, and the checkpoint that it was built from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svitkit.manifest import MANIFEST_NAME, Manifest, from_json, read_manifest
from svitkit.models.spec import ModelSpec
from svitkit.parts import bundle_sha256

if TYPE_CHECKING:
    from svitkit.compress.report import PruneReport

CHECKPOINT, BUNDLE = "checkpoint", "bundle"  # as ``svitkit deploy`` names them
SPEC, DECISIONS = "svit.json", "report.json"
UNCOMPRESSED = "original"


@dataclass(frozen=True, kw_only=True)
class Artefacts:
    """What is known of a bundle beside its measurements.

    Attributes:
        manifest: its table of contents.
        spec: the network that it was built from; None if its checkpoint does not lie beside it.
        decisions: what its compression decided; None if that does not lie in the checkpoint.
    """

    manifest: Manifest
    spec: ModelSpec | None = None
    decisions: PruneReport | None = None

    @property
    def method(self) -> str | None:
        """Returns the name of the compression; None if there is no checkpoint that tells it."""
        if self.decisions is not None:
            return self.decisions.method
        if self.spec is None:
            return None
        compressed = self.spec.provenance.get("compressed")
        return str(compressed.get("method")) if isinstance(compressed, dict) else UNCOMPRESSED


def find_artefacts(folders: Iterable[Path], wanted: set[str]) -> Mapping[str, Artefacts]:
    """Returns the artefacts in ``folders`` by the hash of the manifest, of those bundles that are wanted."""
    known: dict[str, Artefacts] = {}
    for folder in dict.fromkeys(folders):
        for bundle in (folder / BUNDLE, folder):
            is_one = bundle.is_file() or (bundle / MANIFEST_NAME).is_file()
            digest = bundle_sha256(bundle) if is_one else None
            if digest in wanted and digest not in known:
                known[digest] = _read_artefacts(folder, bundle)
    return known


def _read_artefacts(folder: Path, bundle: Path) -> Artefacts:
    """Reads a bundle, and the checkpoint in its folder, which is its own where ``svitkit deploy`` wrote both."""
    manifest = read_manifest(bundle)
    if bundle == folder:
        return Artefacts(manifest=manifest)
    spec, decisions = folder / CHECKPOINT / SPEC, folder / CHECKPOINT / DECISIONS
    return Artefacts(
        manifest=manifest,
        spec=from_json(spec.read_bytes(), ModelSpec, source=str(spec)) if spec.is_file() else None,
        decisions=_read_decisions(decisions) if decisions.is_file() else None,
    )


def _read_decisions(path: Path) -> PruneReport:
    from svitkit.compress.report import PruneReport

    return from_json(path.read_bytes(), PruneReport, source=str(path))
