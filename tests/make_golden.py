"""Write the golden files of presets: python tests/make_golden.py PRESET..."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.codec_suite import CodecSuite, decode_one, encode_one, load_preset
from tests.golden_files import Golden, sha256, write_golden
from tests.samples import grey, photo, saturated

PICTURES = {"photo": photo(48, 72), "grey": grey(33, 47), "saturated": saturated(21, 20), "dot": photo(1, 1)}


def suite_of(preset: str) -> type[CodecSuite]:
    """The subclass of `CodecSuite` that tests a preset."""
    for file in sorted((Path(__file__).parent / "archiver" / "codecs").glob("test_*.py")):
        module = importlib.import_module(f"tests.archiver.codecs.{file.stem}")
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, CodecSuite):
                suite: type[CodecSuite] = found
                if getattr(suite, "preset", None) == preset:
                    return suite
    raise SystemExit(f"no suite below tests/archiver/codecs has the preset {preset!r}")


def main() -> None:
    for preset in sys.argv[1:]:
        suite = suite_of(preset)()
        codec = load_preset(preset)
        goldens = []
        for name, pixels_hwc in {**PICTURES, **suite.more_golden()}.items():
            encoded = encode_one(codec, pixels_hwc)
            exact_sha256 = sha256(suite.exact(codec, encoded))
            goldens.append(Golden(name, encoded, exact_sha256, decode_one(codec, encoded)))
        print(write_golden(codec.spec, goldens))


if __name__ == "__main__":
    main()
