"""One side of an archive, in a process of its own: `encode` writes it, `decode` gives its pictures back from it alone.

python -m archiver.evaluation.process encode|decode     a task as JSON on stdin, what was found as JSON on stdout

Both go through the pipelines that `archiver encode` and `archiver restore` use, then time the codec on the pictures
once more, one by one, on one thread of one core, without reading or writing: CPU seconds, after one to warm up, of as
many pictures as take a minute.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from archiver.codecs import load_codec
from archiver.codecs.caption_text import encode_caption
from archiver.single_image import caption_table
from manifests.records import CodecSpec, EncodedImage
from manifests.storage import connect, locate
from pipelines.codec import Picture, Pixels
from pipelines.images import read_image

TIMED_SECONDS = 60.0


@dataclass(frozen=True)
class Task:
    """Paths are local; the spec is its JSON."""

    preset: str
    source: str  # folder of pictures
    archive: str
    output: str  # folder for decoded pictures, PNG: 0.png, 1.png, ... in the order of `keys`
    keys: tuple[str, ...]
    spec: str
    captions: str  # none, or where a codec that reads captions gets them from


@dataclass(frozen=True)
class Timing:
    """CPU seconds of the codec alone."""

    pixels: int
    seconds: float
    peak_bytes: int  # of the process, resident


@dataclass(frozen=True)
class Decoded:
    """One image as the archive gave it back."""

    key: str
    height: int
    width: int
    bitstream_bytes: int
    caption_bytes: int  # coded alone, where the codec decodes from it


def encode_in_process(task: Task) -> tuple[Mapping[str, str], Timing | None]:
    """Afterwards the archive holds the pictures, but for those that are given with why they failed.

    Where it holds some already, it goes on from there. No timing where all failed.
    """
    found = json.loads(_child("encode", task))
    return found["failed"], Timing(**found["timing"]) if found["timing"] else None


def decode_in_process(task: Task) -> tuple[list[Decoded], Timing]:
    """The images in the order of `task.keys`, their pixels in `task.output`; ValueError where one is lost."""
    found = json.loads(_child("decode", task))
    return [Decoded(**one) for one in found["decoded"]], Timing(**found["timing"])


def _child(side: str, task: Task) -> str:
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-m", "archiver.evaluation.process", side],
        input=json.dumps(asdict(task)),
        capture_output=True,
        text=True,
        env={**os.environ, **one_thread},
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ValueError(f"{task.preset}: {side} failed: {told}")
    return done.stdout


def _encode(task: Task) -> tuple[Mapping[str, str], Timing | None]:
    from archiver.captioners import load_captioner
    from archiver.weights import local_weights
    from pipelines.encode import EncodeJob, encode
    from pipelines.select import failures, open_archive, select

    spec = CodecSpec.from_json(task.spec.encode())
    weights = {sha256: local_weights()[sha256] for sha256 in spec.weights}
    job = EncodeJob(
        locate(task.source),
        locate(task.archive),
        spec,
        weights,
        captions=task.captions,
        load_captioner=load_captioner,
        reads_caption=task.captions != "none",
    )
    for _ in encode(job, load_codec):
        pass
    archive = open_archive(job.archive)
    told, lost = select(archive), failures(archive)
    captions = dict(zip(told["key"].to_pylist(), told["caption"].to_pylist(), strict=True))
    failed = dict(zip(lost["key"].to_pylist(), lost["failure"].to_pylist(), strict=True))
    if missing := sorted(set(task.keys) - captions.keys() - failed.keys()):
        raise ValueError(f"{missing[0]} was not encoded")
    if not captions:
        return failed, None
    codec = load_codec(spec, weights, "cpu")
    source = connect(locate(task.source))

    def pictures() -> Iterator[Work]:
        for key in captions:
            pixels_hwc = read_image(source.read(key)).pixels_hwc
            picture = Picture(pixels_hwc, captions[key])
            yield Work(pixels_hwc.shape[0] * pixels_hwc.shape[1], partial(codec.encode, [picture]))

    return failed, _timed(pictures)


def _decode(task: Task) -> tuple[list[Decoded], Timing]:
    from pipelines.restore import Lost, restore_rows
    from pipelines.select import open_archive

    archive = open_archive(locate(task.archive))
    place = {key: number for number, key in enumerate(task.keys)}
    images: dict[str, EncodedImage] = {}
    cache = Path(task.output) / "weights"
    for found in restore_rows(archive, task.keys, load_codec, cache, "cpu"):
        if isinstance(found, Lost):
            raise ValueError(f"{found.key}: {found.why}")
        Image.fromarray(found.pixels_hwc).save(
            Path(task.output) / f"{place[found.key]}.png", compress_level=1
        )
        assert found.record.image is not None
        images[found.key] = found.record.image
    spec = CodecSpec.from_json(task.spec.encode())
    codec = load_codec(spec, {sha256: cache / f"{sha256}.safetensors" for sha256 in spec.weights}, "cpu")

    def works() -> Iterator[Work]:
        for image in images.values():
            yield Work(image.height * image.width, partial(codec.decode, [image]))

    timing = _timed(works)
    shutil.rmtree(cache, ignore_errors=True)  # the archive has them
    return [_facts(key, images[key], codec.reads_caption) for key in task.keys], timing


def _facts(key: str, image: EncodedImage, reads_caption: bool) -> Decoded:
    caption_bytes = len(encode_caption(image.caption or "", caption_table())) if reads_caption else 0
    return Decoded(key, image.height, image.width, len(image.bitstream), caption_bytes)


@dataclass(frozen=True)
class Work:
    """One call of a codec."""

    pixels: int
    run: Callable[[], object]


def _timed(works: Callable[[], Iterator[Work]]) -> Timing:
    """Runs them one by one, until TIMED_SECONDS are over; the first also once before, untimed."""
    next(works()).run()
    pixels, seconds = 0, 0.0
    for work in works():
        started = time.process_time()
        work.run()
        seconds += time.process_time() - started
        pixels += work.pixels
        if seconds >= TIMED_SECONDS:
            break
    return Timing(pixels, seconds, _peak_bytes())


def _peak_bytes() -> int:
    """Of this program: on Linux, ru_maxrss still remembers the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    given = json.load(sys.stdin)
    task = Task(**{**given, "keys": tuple(given["keys"])})
    if hasattr(os, "sched_setaffinity"):  # some libraries count cores, not OMP_NUM_THREADS
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if sys.argv[1] == "encode":
        failed, encoded = _encode(task)
        found: object = {"failed": failed, "timing": asdict(encoded) if encoded else None}
    else:
        decoded, timing = _decode(task)
        found = {"decoded": [asdict(one) for one in decoded], "timing": asdict(timing)}
    json.dump(found, sys.stdout)


def read_decoded(task: Task, key: str) -> Pixels:
    """The pixels that `decode_in_process` wrote."""
    with Image.open(Path(task.output) / f"{task.keys.index(key)}.png") as image:
        return np.array(image.convert("RGB"), dtype=np.uint8)


if __name__ == "__main__":
    main()
