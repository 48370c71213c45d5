"""`archiver codecs`: what there is to choose from."""

from archiver.commands.options import AsJson
from archiver.console import Column, print_json, print_table, say
from archiver.presets import DEFAULT, PRESETS


def codecs(as_json: AsJson = False) -> None:
    """List the codec presets, smallest pictures first."""
    presets = sorted(PRESETS, key=lambda preset: preset.bpp)
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
                    "spec": preset.spec.id,
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
                preset.summary,
            )
            for preset in presets
        ],
    )
    say("* the default of `archiver encode`")
