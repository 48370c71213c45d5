"""`make demo`: photographs -> an archive -> pictures again, by the commands that a user types.

Writes below one folder: photographs/ (unless --images names others), archive/, restored/, and sheet.png,
originals and reconstructions side by side.
"""

import argparse
import io
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from archiver.codecs import load_codec
from manifests.storage import locate
from pipelines.decode import Lost
from pipelines.images import read_image
from pipelines.restore import restore_rows
from pipelines.select import open_archive, select
from pipelines.sheet import SheetRow, comparison_sheet, detail_of
from pipelines.weights import default_cache

MARK = ".made-by-demo"  # a folder with it may be emptied
SHEET_IMAGES = 6


@dataclass(frozen=True)
class Photograph:
    """One that scikit-image carries in its wheel."""

    file: str
    key: str
    caption: str


PHOTOGRAPHS = (
    Photograph("chelsea.png", "animals/cat.jpg", "a tabby cat with green eyes looks into the camera"),
    Photograph(
        "astronaut.png", "people/astronaut.jpg", "an astronaut in an orange suit smiles before a flag"
    ),
    Photograph(
        "camera.png", "people/cameraman.jpg", "a man in a coat looks through a film camera on a tripod"
    ),
    Photograph("rocket.jpg", "space/rocket.jpg", "a rocket stands on its launch pad at night"),
    Photograph("hubble_deep_field.jpg", "space/galaxies.jpg", "thousands of galaxies in a dark sky"),
    Photograph("moon.png", "space/moon.jpg", "the surface of the moon, with craters"),
    Photograph(
        "coffee.png", "table/coffee.jpg", "a cup of coffee on a saucer with a spoon, on a wooden table"
    ),
    Photograph("coins.png", "table/coins.jpg", "old coins in rows on dark cloth"),
    Photograph("motorcycle_left.png", "vehicles/motorcycle.jpg", "a motorcycle stands in a garage"),
)
WHERE_OURS = "caption like '%cat%' or caption like '%rocket%' or width > 700"


def write_photographs(folder: Path) -> None:
    """JPEG files with captions beside them, and a broken one: the run must survive it."""
    for photograph in PHOTOGRAPHS:
        path = folder / photograph.key
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO((files("skimage") / "data" / photograph.file).read_bytes())) as image:
            image.convert("L" if image.mode == "L" else "RGB").save(path, quality=92)
        path.with_suffix(".txt").write_text(photograph.caption + "\n", "utf-8")
    whole = (folder / "animals/cat.jpg").read_bytes()
    (folder / "animals/torn.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "animals/torn.txt").write_text("a file that was cut off while it was copied\n", "utf-8")


class Demo:
    """Runs commands as a user would, and shows them."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)

    def say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def heading(self, text: str) -> None:
        self.console.print()
        self.console.rule(Text(text, style="bold"), align="left", style="dim")

    def run(self, *arguments: str, may_find: bool = False) -> None:
        """One `archiver` command; exit code 1 means that it named something that is lost."""
        words = ["archiver", *arguments]
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        self.console.print(Text(f"$ {shown}", style="bold cyan"), soft_wrap=True)
        sys.stdout.flush()
        status = subprocess.run([str(Path(sys.executable).with_name("archiver")), *arguments]).returncode
        if status not in ((0, 1) if may_find else (0,)):
            raise SystemExit(f"demo: {shown}: exit code {status}, expected 0")


def write_sheet(source: Path, archive: Path, target: Path) -> tuple[int, float]:
    """Some images before and after, spread over the archive; how many, and seconds of decoding one."""
    opened = open_archive(locate(str(archive)))
    rows = select(opened).to_pylist()
    places = np.linspace(0, len(rows) - 1, min(SHEET_IMAGES, len(rows))).round()
    keys = [str(rows[int(place)]["key"]) for place in places]
    sheet, seconds = [], 0.0
    for found in restore_rows(opened, keys, load_codec, default_cache(), "cpu"):
        if isinstance(found, Lost) or found.record.image is None:
            raise SystemExit(f"demo: {found}")
        seconds += found.seconds
        original = read_image((source / found.key).read_bytes())
        detail = detail_of(found.record.source_bytes, found.record.image)
        sheet.append(SheetRow(original.pixels_hwc, found.pixels_hwc, found.key, detail))
    source_bytes, bitstream_bytes, pixels = (
        sum(values)
        for values in zip(
            *((row["source_bytes"], row["bitstream_bytes"], row["width"] * row["height"]) for row in rows),
            strict=True,
        )
    )
    facts = (
        f"All {len(rows):,} images, codec {rows[0]['codec']}: {source_bytes:,} bytes of files became "
        f"{bitstream_bytes:,} bytes of bitstreams, {source_bytes / bitstream_bytes:,.0f} : 1, "
        f"{8 * bitstream_bytes / pixels:.3f} bits per pixel.\n"
        "The pictures on the right are all that is left of those on the left once they are deleted."
    )
    target.write_bytes(comparison_sheet(sheet, facts=facts))
    return len(sheet), seconds / len(sheet)


def prepare(folder: Path) -> None:
    """An empty folder of ours."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise SystemExit(f"demo: {folder} is not empty and not from a demo: name another with OUT=folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for all that is made")
    parser.add_argument("--images", type=Path, help="folder of images to archive instead; it is only read")
    options = parser.parse_args()
    prepare(options.out)
    demo = Demo()
    photographs, archive, restored = (options.out / name for name in ("photographs", "archive", "restored"))
    source = options.images or photographs
    where, decoded = "width >= height", "0.1"
    if options.images is None:
        write_photographs(source)
        where, decoded = WHERE_OURS, "1"
        demo.say(
            f"{len(PHOTOGRAPHS)} photographs with captions in {source}, and a file that is torn on purpose."
        )
    demo.heading("Archive: Ray actors encode, then one commit makes it visible")
    demo.run("encode", str(source), str(archive), "--captions", "sidecar", may_find=True)
    demo.heading("What did not get in, and why")
    demo.run("failures", str(archive))
    demo.heading("Look, with SQL")
    demo.run("ls", str(archive), "--where", where, "--limit", "24")
    demo.heading("Get pictures back: these rows only")
    demo.run("restore", str(archive), str(restored), "--where", where, "--limit", "24")
    demo.heading("Check every byte, and decode")
    demo.run("verify", str(archive), "--decode", decoded)
    count, seconds = write_sheet(source, archive, options.out / "sheet.png")
    demo.heading("What it costs")
    demo.run("report", str(archive), "--decode-seconds", f"{seconds:.6f}")
    demo.heading("Look at these")
    table = (
        (options.out / "sheet.png", f"{count} originals and their reconstructions, side by side"),
        (restored, "the restored pictures, each marked as a reconstruction in its metadata"),
        (archive / "FORMAT.md", "what every byte of the archive means"),
        (archive, "the archive: one Delta Lake table of Parquet parts, plans, specs"),
    )
    for path, words in table:
        demo.console.print(Text(f"  {path}", style="bold"), Text(words), sep="\n      ", soft_wrap=True)


if __name__ == "__main__":
    main()
