"""A job that has not begun -> how much it would take: what `encode --dry-run` shows."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manifests.archive import Archive, exists
from manifests.plan import Shard
from manifests.records import Record
from pipelines.changes import Changes, compare
from pipelines.codec import LoadCodec
from pipelines.encode_job import EncodeJob
from pipelines.listing import list_source, with_captions
from pipelines.pool import device_here, workers_here
from pipelines.regions import with_boxes
from pipelines.spent import Spent
from pipelines.weights import weights_path
from pipelines.worker import Encoder, EncodeTask, planned_images, setup_of

SAMPLE_IMAGES = 16
OVERHEAD_BYTES = 12  # of a record, beside bitstream and caption: the format's budget


@dataclass(frozen=True)
class Estimate:
    """Of the images that are new or have changed. From a sample of them, so only as good as that."""

    changes: Changes
    images: int  # to be encoded
    source_bytes: int
    archive_bytes: int  # that they would add, weights that the archive lacks included
    weights_bytes: int  # of it
    sample_images: int
    sample_failures: int
    bpp: float | None  # of the sample's bitstreams; None where none could be encoded
    seconds: float  # with so many workers, each as fast as a core here, or as the device
    workers: int


def estimate(job: EncodeJob, load_codec: LoadCodec) -> Estimate:
    """Lists the source, and encodes a sample in this process; writes nothing."""
    job.check()
    archive = Archive(job.archive) if exists(job.archive) else None
    listing = list_source(job.source, job.selection)
    meant = job.selection.pattern()
    rows, changes = compare(listing, archive, str(job.source), meant, job.retry_failures)
    if job.caption_table is not None:
        rows = with_captions(rows, job.caption_table)
    if job.boxes is not None:
        rows = with_boxes(rows, job.boxes)
    device = device_here(job.gpu)
    workers = job.workers or (1 if job.workers == 0 else workers_here(device))
    images = len(rows)
    if not images:
        return Estimate(changes, 0, 0, 0, 0, 0, 0, None, 0.0, workers)
    encoder = Encoder(setup_of(job, load_codec), device)
    task = _sample(rows, job)
    spent = Spent(device)
    records = list(encoder.records(task))
    seconds = spent.seconds()  # a worker has one core
    found = [record.image for record in records if record.image is not None]
    pixels = sum(image.height * image.width for image in found)
    weights_bytes = _missing_weights(job, archive)
    bitstream_bytes = sum(len(image.bitstream) for image in found)
    return Estimate(
        changes,
        images,
        changes.source_bytes,
        round(images * (_stored_bytes(records) / len(records) + OVERHEAD_BYTES)) + weights_bytes,
        weights_bytes,
        len(records),
        len(records) - len(found),
        8 * bitstream_bytes / pixels if pixels else None,
        seconds / len(records) * images / workers,
        workers,
    )


def _sample(rows: pa.Table, job: EncodeJob) -> EncodeTask:
    """Rows evenly spread over the plan, the first and the last among them."""
    places = np.unique(np.linspace(0, len(rows) - 1, SAMPLE_IMAGES).round().astype(np.int64))
    images = tuple(planned_images(rows.take(pa.array(places)), 0))
    shard = Shard("", 0, len(places) - 1)
    return EncodeTask(shard, images, job.spec.id, job.captions, job.digest, job.keep)


def _missing_weights(job: EncodeJob, archive: Archive | None) -> int:
    """Bytes of the weights that would have to be written."""
    return sum(
        file.stat().st_size
        for sha256, file in job.weights.items()
        if archive is None or not archive.store.exists(weights_path(sha256))
    )


def _stored_bytes(records: list[Record]) -> int:
    """Of bitstreams and captions."""
    images = [record.image for record in records if record.image is not None]
    return sum(len(image.bitstream) + len((image.caption or "").encode()) for image in images)
