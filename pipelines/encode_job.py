"""What a user asks of `encode`, as one value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from manifests.records import CodecSpec
from manifests.storage import Location
from pipelines.captions import LoadCaptioner, no_captioner
from pipelines.listing import Selection, check_apart
from pipelines.regions import LoadFinder, left_out, no_finder

SHARD_RECORDS = 2_000  # at most, unless the user says otherwise
LEAST_SHARD_RECORDS = 32
SHARDS_A_WORKER = 4  # at least, where there are images enough: the last shards decide how long workers idle


@dataclass(frozen=True)
class EncodeJob:
    """Everything that changes what lies in the archive afterwards, and how many work on it."""

    source: Location
    archive: Location
    spec: CodecSpec
    weights: Mapping[str, Path] = field(default_factory=dict)  # sha256 -> local file, copied into the archive
    captions: str = "none"  # see pipelines/captions.py
    caption_table: Location | None = None
    load_captioner: LoadCaptioner = no_captioner  # picklable
    reads_caption: bool = False  # the codec decodes from the caption
    keep: str = "none"  # see pipelines/regions.py
    boxes: Location | None = None
    load_finder: LoadFinder = no_finder  # picklable
    selective: bool = False  # the codec can leave out parts of pictures
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    workers: int | None = 0  # None: as many as the cluster has room for; 0: this process
    shard_records: int = SHARD_RECORDS
    retry_failures: bool = False
    digest: bool = False
    gpu: bool = False  # the codec runs best on one

    def check(self) -> None:
        """ValueError where the parts do not go together."""
        check_apart(self.source, self.archive)
        if self.reads_caption and self.captions == "none":
            raise ValueError("captions 'none', expected any other: this codec decodes from captions")
        if (self.captions == "table") != (self.caption_table is not None):
            raise ValueError(
                f"captions {self.captions!r} and table {self.caption_table}, expected both or neither"
            )
        if self.keep != "none" and not self.selective:
            raise ValueError(f"keep {self.keep!r}, expected 'none': this codec codes whole pictures only")
        if (self.keep == "boxes") != (self.boxes is not None):
            raise ValueError(f"keep {self.keep!r} and boxes {self.boxes}, expected both or neither")
        if self.shard_records < 1:
            raise ValueError(f"shards of {self.shard_records} records, expected 1 or more")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"{self.workers} workers, expected 0 or more")

    @property
    def selection(self) -> Selection:
        return Selection(self.include, (*self.exclude, *left_out(self.keep)))

    def records_a_shard(self, images: int) -> int:
        """At most, so that no worker waits long for the last shard."""
        workers = self.workers or os.cpu_count() or 1
        balanced = -(-images // (SHARDS_A_WORKER * workers))
        return min(self.shard_records, max(LEAST_SHARD_RECORDS, balanced))
