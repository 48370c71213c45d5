"""How fast `layered` encodes and decodes with one thread, what memory it takes, and what the time goes into.

    python -m tests.measure.layered_speed PICTURE [--codec PRESET] [--megapixels N]

The picture is enlarged to so many megapixels, 3:2. Memory is the peak of a process that only encodes, and of one that
only decodes. The profile is of decoding: the share of each kind of operation; beside it the multiplications that
convolutions need for a megapixel, and how long this machine takes for as many of them in one large product of matrices
in fp32 and in bf16: no implementation of these layers in that precision is faster.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from archiver.codecs import load_codec
from archiver.codecs.layered import LayeredCodec
from archiver.presets import find_preset
from archiver.weights import shipped_weights
from manifests.records import EncodedImage
from pipelines.codec import Picture


def peak() -> float:
    """MB, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def multiplications(codec: LayeredCodec, encoded: EncodedImage) -> float:
    """Of all layers of the enhancer in decoding, a pixel."""
    with FlopCounterMode(display=False) as counter:
        codec.decode([encoded])
    return float(counter.get_total_flops()) / 2 / (encoded.height * encoded.width)


def fastest(work: Callable[[], object], times: int = 5) -> float:
    """Seconds."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return min(found)


def multiplied(kind: torch.dtype) -> float:
    """Multiplications a second of one large product of matrices."""
    side = 1024
    matrix = torch.randn(side, side).to(kind)
    return side**3 / fastest(lambda: matrix @ matrix, 10)


def loaded(preset: str) -> LayeredCodec:
    torch.set_num_threads(1)
    codec = load_codec(find_preset(preset).spec, shipped_weights(), "cpu")
    assert isinstance(codec, LayeredCodec)
    return codec


def sized(file: Path, megapixels: float) -> Picture:
    height = int((megapixels * 1e6 * 2 / 3) ** 0.5)
    small = Image.open(file).convert("RGB")
    return Picture(np.asarray(small.resize((height * 3 // 2, height), Image.Resampling.BICUBIC)), None)


def encoding(preset: str, file: Path, megapixels: float) -> tuple[float, float, EncodedImage]:
    """Seconds, peak of memory, what was encoded."""
    codec, picture = loaded(preset), sized(file, megapixels)
    begin = time.perf_counter()
    (encoded,) = codec.encode([picture])
    return time.perf_counter() - begin, peak(), encoded


def decoding(preset: str, encoded: EncodedImage) -> tuple[float, float]:
    """Seconds, peak of memory."""
    codec = loaded(preset)
    begin = time.perf_counter()
    codec.decode([encoded])
    return time.perf_counter() - begin, peak()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--codec", default="layered-0.03", metavar="PRESET")
    parser.add_argument("--megapixels", type=float, default=24)
    given = parser.parse_args()
    codec = loaded(given.codec)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as fresh:
        seconds, most, encoded = fresh.submit(encoding, given.codec, given.picture, given.megapixels).result()
        million = encoded.height * encoded.width / 1e6
        print(f"{given.codec}, {encoded.width} x {encoded.height}, one thread")
        print(f"encode  {million / seconds:.2f} MPix/s, peak {most:.0f} MB")
        seconds, most = fresh.submit(decoding, given.codec, encoded).result()
        print(f"decode  {million / seconds:.2f} MPix/s, peak {most:.0f} MB")

    (encoded,) = codec.encode([sized(given.picture, 1)])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        codec.decode([encoded])
    events = seen.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:8]:
        print(f"{100 * event.self_cpu_time_total / total:5.1f} %  {event.key}")
    million = encoded.height * encoded.width / 1e6
    needed = multiplications(codec, encoded) * 1e6
    seconds = fastest(lambda: codec.decode([encoded]), 3) / million
    print(f"{needed / 1e9:.1f} G multiplications and {seconds:.2f} s a MPix")
    for kind in (torch.float32, torch.bfloat16):
        speed = multiplied(kind)
        print(f"{kind}: {speed / 1e9:.0f} G a second, so {needed / speed:.2f} s a MPix at the very least")


if __name__ == "__main__":
    main()
