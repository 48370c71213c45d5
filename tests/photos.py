"""A folder of a few small photographs with captions beside them, and one that is torn."""

from pathlib import Path

from PIL import Image

from tests.samples import photograph

CAPTIONS = {
    "animals/cat.jpg": "a tabby cat looks into the camera",
    "people/astronaut.jpg": "an astronaut smiles",
    "table/coffee.jpg": "a cup of coffee on a table",
}
_NAMES = {"animals/cat.jpg": "chelsea", "people/astronaut.jpg": "astronaut", "table/coffee.jpg": "coffee"}
TORN = "animals/torn.jpg"


def write_photos(folder: Path) -> Path:
    """Three that can be archived, each half as high and wide as the original, and one that cannot."""
    for key, caption in CAPTIONS.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(_NAMES[key])).reduce(2).save(path, quality=92)
        path.with_suffix(".txt").write_text(caption + "\n", "utf-8")
    whole = (folder / "animals/cat.jpg").read_bytes()
    (folder / TORN).write_bytes(whole[: len(whole) // 2])
    (folder / TORN).with_suffix(".txt").write_text("half a cat\n", "utf-8")
    return folder
