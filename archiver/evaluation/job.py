"""What an evaluation is of."""

import json
from dataclasses import dataclass
from pathlib import Path

from archiver.evaluation.baselines import Name, conventional
from archiver.presets import Preset
from manifests.storage import Location, locate
from pipelines.listing import check_apart

SHOWN = 8  # pictures of the report
BEGUN = "evaluation.json"  # in the work folder: what it is of


@dataclass(frozen=True)
class EvaluationJob:
    """What to measure."""

    source: Location
    presets: tuple[Preset, ...]
    baselines: tuple[Name, ...]
    # A new folder for copies of the pictures, archives and reconstructions, or that of the same job, broken off: what
    # had been encoded and decoded there is not done again. It remains.
    work: Path
    inception: Path | None = None  # weights of FID's Inception
    limit: int | None = None  # pictures, evenly spaced in the order of their keys
    shown: int = SHOWN
    captions: str = "sidecar"  # where presets that read captions get them from; or "tags"

    def check(self) -> None:
        """ValueError where it makes no sense."""
        names = [preset.name for preset in self.presets]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"codecs {names}, expected one or more, each once")
        if len(set(self.baselines)) != len(self.baselines):
            raise ValueError(f"baselines {list(self.baselines)}, expected each once")
        check_apart(self.source, locate(str(self.work)))
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit {self.limit}, expected 1 or more")
        for name in self.baselines:
            conventional(name)
        if self.inception is not None:
            from archiver.evaluation.inception import check_inception

            check_inception(self.inception)
        if self.work.exists() and any(self.work.iterdir()):
            begun = self.work / BEGUN
            if not begun.is_file() or begun.read_bytes() != self.facts():
                raise ValueError(
                    f"{self.work} holds something else, expected a new folder, or this evaluation's"
                )

    def facts(self) -> bytes:
        """What archives and reconstructions follow from."""
        specs = {preset.name: preset.spec.to_json().decode() for preset in self.presets}
        told = {"source": str(self.source), "limit": self.limit, "captions": self.captions, "codecs": specs}
        return json.dumps(told, indent=1).encode()
