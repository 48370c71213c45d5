"""`archiver codecs`: what there is to choose from."""

from collections.abc import Mapping
from dataclasses import replace

from archiver.commands.options import AsJson
from archiver.console import Column, print_json, print_table, say
from archiver.presets import DEFAULT, PRESETS, Preset
from archiver.weights import how_to_import, imports


def codecs(as_json: AsJson = False) -> None:
    """List the codec presets, smallest pictures first."""
    there = {found.preset: found.weights for found in imports()}
    presets = sorted((_complete(preset, there) for preset in PRESETS), key=lambda preset: preset.bpp)
    missing = {preset.name for preset in presets if preset.imported and preset.name not in there}
    if as_json:
        print_json(
            [
                {
                    "name": preset.name,
                    "family": preset.spec.name,
                    "bpp": preset.bpp,
                    "default": preset.name == DEFAULT,
                    "reads_caption": preset.reads_caption,
                    "gpu": preset.gpu,
                    "spec": None if preset.name in missing else preset.spec.id,
                    "needs": how_to_import(preset) if preset.name in missing else None,
                    "imported": preset.name in there,
                    "summary": preset.summary,
                }
                for preset in presets
            ]
        )
        return
    print_table(
        [
            Column("preset"),
            Column("family", least=100),
            Column("bits a pixel", number=True),
            Column("a megapixel", number=True, least=100),
            Column("captions", least=100),
            Column("runs on"),
            Column("what it keeps"),
        ],
        [
            (
                f"{preset.name} *" if preset.name == DEFAULT else preset.name,
                preset.spec.name,
                f"{preset.bpp:g}",
                f"{preset.bpp / 8 * 1000:,.1f} kB",
                "needed" if preset.reads_caption else "optional",
                "GPU" if preset.gpu else "CPU",
                f"needs: {how_to_import(preset)}" if preset.name in missing else preset.summary,
            )
            for preset in presets
        ],
    )
    if used := [preset.name for preset in presets if preset.name in there]:
        say(f"with imported weights, see `archiver weights ls`: {', '.join(used)}")
    say("* the default of `archiver encode`")


def _complete(preset: Preset, imported: Mapping[str, tuple[str, ...]]) -> Preset:
    """With the weights that were imported for it, if any."""
    weights = imported.get(preset.name, preset.spec.weights)
    return replace(preset, spec=replace(preset.spec, weights=weights))
