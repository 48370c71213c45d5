"""A count and a seed -> realistic synthetic records, sorted by key: what the byte budget is measured on.

Real in what compresses: folders by day and event, camera counters with gaps, few sensor sizes, times that
rise through a shoot. Random in what does not: bitstreams, JPEG sizes. Captions come from a grammar.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from manifests.records import CodecSpec, EncodedImage, Record

SPEC = CodecSpec("synthetic", 1).id
FIRST_DAY, DAYS = datetime(2012, 1, 1, tzinfo=UTC), 13 * 365
SHOOT_IMAGES, MOST_IMAGES = 90, 900  # typical and largest number of images in a folder
FAILURES = ("not an image", "file ends early", "more pixels than allowed")
FAILURE_SHARE, NOTE_SHARE, UPRIGHT_SHARE = 0.001, 0.003, 0.24
NOTES = ("alpha flattened on white", "first of 12 frames", "converted from CMYK")
JPEG_BITS_PER_PIXEL = 2.2  # median


@dataclass(frozen=True)
class Camera:
    """How one camera names its files, and the size of its sensor."""

    prefix: str
    ending: str
    height: int  # pixels, held level
    width: int


CAMERAS = (  # sorted by prefix; one shoot never mixes two cameras of one prefix
    Camera("DJI_", ".JPG", 2250, 4000),
    Camera("DSC_", ".JPG", 4000, 6000),
    Camera("DSC_", ".JPG", 2848, 4288),
    Camera("IMG_", ".JPG", 3456, 5184),
    Camera("IMG_", ".jpg", 3024, 4032),
    Camera("P101", ".JPG", 3456, 4608),
    Camera("P101", ".JPG", 3000, 4000),
)

EVENTS = (
    "harbour", "wedding", "garden", "museum", "hike", "birthday", "market", "beach", "concert", "train",
    "school", "factory", "winter", "lake", "city", "christmas", "roadtrip", "zoo", "football", "workshop",
    "castle", "boat", "party", "forest", "airport", "graduation", "picnic", "festival", "bridge", "kitchen",
)  # fmt: skip
SUBJECTS = (
    "a man", "a woman", "two children", "a group of people", "an old couple", "a small dog", "a black cat",
    "a red car", "a fishing boat", "a cyclist", "a waiter", "three friends", "a girl in a blue coat",
    "a bride", "a street musician", "a white horse", "a crowd", "a boy with a kite", "a brown bear",
    "several bicycles", "a tram", "a tall tower", "a bowl of fruit", "a flock of birds", "an empty bench",
    "a football team",
)  # fmt: skip
ACTIONS = (
    "standing", "sitting", "walking", "looking up", "waiting", "resting", "seen from behind", "smiling",
    "reading", "eating lunch", "holding an umbrella", "crossing the street", "leaning on a wall",
    "lying down", "in motion", "close to the camera", "half hidden", "talking", "posing", "playing",
    "carrying flowers", "out of focus",
)  # fmt: skip
PLACES = (
    "beside a stone bridge", "in a narrow street", "on a wooden pier", "under tall trees",
    "at a long table", "in front of a church", "near the water", "on a green hill", "in a crowded square",
    "by the window", "at the station", "on a sandy beach", "in the snow", "next to a parked van",
    "inside a large hall", "on the balcony", "behind a fence", "in a vegetable garden", "along the river",
    "at the foot of a mountain",
)  # fmt: skip
LIGHTS = (
    "", "", "", "", " at sunset", " in the morning", " at night", " on a cloudy day", " in bright sun",
    " in the rain", " under a clear sky", " in soft light",
)  # fmt: skip


def records(
    count: int, seed: int, mean_bitstream_bytes: int = 140, captions: bool = True
) -> Iterator[Record]:
    """`count` records of as many different keys, sorted by key; equal arguments give equal records."""
    rng = np.random.default_rng(seed)
    sizes = _shoot_sizes(rng, count)
    if len(sizes) > DAYS * len(EVENTS):
        raise ValueError(f"{count} records, expected so few that {DAYS * len(EVENTS)} folders hold them")
    places = rng.choice(DAYS * len(EVENTS), len(sizes), replace=False)
    days = [
        (FIRST_DAY + timedelta(int(place) // len(EVENTS)), EVENTS[place % len(EVENTS)]) for place in places
    ]
    for (day, event), images in zip(sorted(days), sizes, strict=True):
        yield from _shoot(rng, day, event, images, mean_bitstream_bytes, captions)


def _shoot_sizes(rng: np.random.Generator, count: int) -> list[int]:
    """How many images each folder holds: skewed, and `count` in all."""
    sizes: list[int] = []
    while sum(sizes) < count:
        drawn = rng.lognormal(np.log(SHOOT_IMAGES), 0.8, max(1, count // SHOOT_IMAGES))
        sizes += np.clip(drawn, 1, MOST_IMAGES).astype(int).tolist()
    ends = np.minimum(np.cumsum(sizes), count)
    return [images for images in np.diff(ends, prepend=0).tolist() if images > 0]


def _shoot(
    rng: np.random.Generator, day: datetime, event: str, images: int, mean_bytes: int, captions: bool
) -> Iterator[Record]:
    """The images of one folder: one camera, or two of different names."""
    cameras = [CAMERAS[rng.integers(len(CAMERAS))]]
    other = CAMERAS[rng.integers(len(CAMERAS))]
    if images > 40 and other.prefix != cameras[0].prefix and rng.random() < 0.4:
        cameras.append(other)
    first = images if len(cameras) == 1 else int(images * rng.uniform(0.3, 0.9))
    folder = f"{day:%Y/%m/%d}-{event}/"
    counts = dict(zip(cameras, (first, images - first), strict=False))
    for camera in sorted(cameras, key=lambda found: found.prefix):
        yield from _reel(rng, folder, camera, int(day.timestamp()), counts[camera], mean_bytes, captions)


def _reel(
    rng: np.random.Generator,
    folder: str,
    camera: Camera,
    midnight: int,
    images: int,
    mean_bytes: int,
    captions: bool,
) -> Iterator[Record]:
    """What one camera took in one shoot."""
    numbers = _numbers(rng, images)
    mtimes = midnight + int(rng.integers(7 * 3600, 15 * 3600)) + _elapsed_seconds(rng, images)
    # People turn a camera and leave it so for a while.
    upright = np.repeat(rng.random(images // 4 + 1) < UPRIGHT_SHARE, 4)[:images]
    bits = camera.height * camera.width * rng.lognormal(np.log(JPEG_BITS_PER_PIXEL), 0.35, images)
    bitstreams = _bitstreams(rng, images, mean_bytes)
    texts = _captions(rng, images) if captions else [None] * images
    luck = rng.random(images)
    words = rng.integers(3, size=images)
    rows = zip(
        numbers.tolist(), mtimes.tolist(), upright.tolist(), bits.tolist(), luck.tolist(), words.tolist(),
        bitstreams, texts, strict=True,
    )  # fmt: skip
    for number, mtime, turned, size_bits, lucky, word, bitstream, text in rows:
        height, width = (camera.width, camera.height) if turned else (camera.height, camera.width)
        failed = lucky < FAILURE_SHARE
        yield Record(
            key=f"{folder}{camera.prefix}{number:04d}{camera.ending}",
            source_bytes=int(size_bits) // 8,
            mtime=mtime,
            spec=SPEC,
            image=None if failed else EncodedImage(bitstream, text, height, width),
            failure=FAILURES[word] if failed else None,
            notes=NOTES[word] if lucky > 1 - NOTE_SHARE else None,
        )


def _numbers(rng: np.random.Generator, images: int) -> NDArray[np.int64]:
    """A camera's counter, rising, with gaps where pictures were deleted."""
    steps = 1 + (rng.random(images) < 0.12) * rng.geometric(0.3, images)
    numbers: NDArray[np.int64] = int(rng.integers(0, 7500)) + np.cumsum(steps)
    assert numbers[-1] <= 9999, "a counter of four digits"
    return numbers


def _elapsed_seconds(rng: np.random.Generator, images: int) -> NDArray[np.int64]:
    """Since the shoot began: bursts and pauses, never falling."""
    return np.cumsum(rng.lognormal(2.0, 1.4, images)).astype(np.int64)


def _bitstreams(rng: np.random.Generator, images: int, mean_bytes: int) -> list[bytes]:
    """Random bytes, skewed lengths whose mean is `mean_bytes`."""
    spread = 0.35
    lengths = rng.lognormal(np.log(mean_bytes) - spread**2 / 2, spread, images)
    ends = np.cumsum(np.maximum(1, np.rint(lengths).astype(np.int64))).tolist()
    whole = rng.bytes(ends[-1])
    return [whole[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _captions(rng: np.random.Generator, images: int) -> list[str]:
    """Example: "three friends eating lunch by the window in soft light"; a shoot often stays at its place."""
    home = int(rng.integers(len(PLACES)))
    places = np.where(rng.random(images) < 0.3, home, rng.integers(len(PLACES), size=images))
    subjects, actions, lights = (
        rng.integers(len(words), size=images) for words in (SUBJECTS, ACTIONS, LIGHTS)
    )
    chosen = zip(subjects.tolist(), actions.tolist(), places.tolist(), lights.tolist(), strict=True)
    return [
        f"{SUBJECTS[subject]} {ACTIONS[action]} {PLACES[place]}{LIGHTS[light]}"
        for subject, action, place, light in chosen
    ]
