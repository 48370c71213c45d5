"""`python -m tests.measure.pipeline_efficiency [--images N] [--rounds R]`: how much of a codec's speed `encode` keeps.

Images/s of `encode` with one Ray worker over a bare loop of the same codec on the same files, and of two workers over
one; start-up excluded: counted from the shard with which the last worker has begun to deliver. Then the driver's
peak resident memory for N and 4 N images. Run it with nothing else on the machine.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from archiver.codecs import load_codec
from archiver.presets import find_preset
from manifests.storage import locate
from pipelines.codec import Picture
from pipelines.encode import EncodeJob, Finished, ShardDone, encode
from pipelines.images import read_image
from tests.samples import photographs
from tests.sources import png
from tests.toy_codec import SPEC, load_toy

SIDE = 512  # pixels
SHARDS = 16
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def write_photographs(folder: Path, count: int) -> None:
    """JPEG files of SIDE x SIDE, cut out of three photographs at as many places."""
    rng = np.random.default_rng(3)
    whole = [Image.fromarray(pixels).resize((900, 900)) for pixels in photographs()]
    for number in range(count):
        left, top = rng.integers(0, 900 - SIDE, 2).tolist()
        file = io.BytesIO()
        whole[number % 3].crop((left, top, left + SIDE, top + SIDE)).save(file, "JPEG", quality=92)
        (folder / f"{number:05d}.jpg").write_bytes(file.getvalue())


def bare_rate(folder: Path, preset: str) -> float:
    """Images/s of reading, decoding and encoding, one after the other."""
    codec = load_codec(find_preset(preset).spec, {}, "cpu")
    files = sorted(folder.iterdir())
    started = time.monotonic()
    for file in files:
        codec.encode([Picture(read_image(file.read_bytes()).pixels_hwc, None)])
    return len(files) / (time.monotonic() - started)


def pipeline_rate(folder: Path, preset: str, workers: int) -> float:
    """Images/s of `encode`, from the shard on with which every worker has delivered one."""
    count = len(list(folder.iterdir()))
    with tempfile.TemporaryDirectory() as archive:
        job = EncodeJob(
            locate(str(folder)),
            locate(f"{archive}/a"),
            find_preset(preset).spec,
            workers=workers,
            shard_records=-(-count // SHARDS),
        )
        ends, images = [], []
        for event in encode(job, load_codec):
            if isinstance(event, ShardDone):
                ends.append(time.monotonic())
                images.append(event.result.images)
    begun = max(1, workers)
    return sum(images[begun:]) / (ends[-1] - ends[begun - 1])


def driver_peak_mb(images: int) -> float:
    """Of a driver in a process of its own, with one worker in another."""
    command = [sys.executable, "-m", "tests.measure.pipeline_efficiency", "--drive", str(images)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout)


def drive(images: int) -> None:
    """Encodes tiny images, and prints this process's peak in MB."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        for number in range(images):
            (source / f"{number:06d}.png").write_bytes(png(number=number))
        job = EncodeJob(locate(str(source)), locate(f"{folder}/archive"), SPEC, workers=1, shard_records=250)
        last = list(encode(job, load_toy))[-1]
        assert isinstance(last, Finished)
        assert last.images == images
    (peak,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    print(int(peak.split()[1]) / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--memory-images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="avif-0.1")
    parser.add_argument("--drive", type=int)
    asked = parser.parse_args()
    if asked.drive is not None:
        drive(asked.drive)
        return
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # Threads are counted when libraries load: begin again with one, as workers have.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ONE_THREAD})
    rates: dict[str, list[float]] = {"bare loop": [], "one worker": [], "two workers": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder, asked.images)
        for _ in range(asked.rounds):  # in turns: what slows the machine down slows all three
            rates["bare loop"].append(bare_rate(folder, asked.preset))
            rates["one worker"].append(pipeline_rate(folder, asked.preset, 1))
            rates["two workers"].append(pipeline_rate(folder, asked.preset, 2))
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{asked.preset}, {asked.images} images of {SIDE} x {SIDE}, {machine}")
    for what, found in rates.items():
        print(
            f"{what:<12} {statistics.median(found):7.2f} images/s   ({', '.join(f'{one:.2f}' for one in found)})"
        )
    bare, one, two = (statistics.median(found) for found in rates.values())
    print(f"one worker / bare loop    {one / bare:5.2f}   expected 0.9 or more")
    print(f"two workers / one worker  {two / one:5.2f}   expected 1.7 or more")
    few, many = asked.memory_images, 4 * asked.memory_images
    print(
        f"driver's peak: {driver_peak_mb(few):.0f} MB for {few:,} images, {driver_peak_mb(many):.0f} MB for {many:,}"
    )


if __name__ == "__main__":
    main()
