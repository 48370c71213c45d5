"""Curves that others published for the 24 Kodak pictures at full size: not measured here, and marked so wherever shown.

LPIPS is that of AlexNet, v0.1, in all of them but SPRDiff, which gives VGG's. Rates are the authors' own: AEIC's are
estimates of the entropy model, not files (their byte totals are not whole numbers), and a user measured 0.046 bits per
pixel from real files where StableCodec claims 0.034. All are means over the pictures.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Literal

from archiver.evaluation.metrics import Metric

KODAK_SIZES = {(768, 512), (512, 768)}  # pixels, width and height
KODAK = frozenset(f"kodim{number:02d}" for number in range(1, 25))

Origin = Literal["results file", "figure"]  # of the authors' repository; digitised from one, 1-2 % off
BACKBONE = "AlexNet v0.1 (SPRDiff: VGG-16)"


@dataclass(frozen=True)
class Published:
    """One method's curve; a metric that was not published, or not for every rate, is empty."""

    method: str
    year: int
    source: str
    origin: Origin
    bpp: tuple[float, ...]
    lpips_alex: tuple[float, ...] = ()
    lpips_vgg: tuple[float, ...] = ()
    dists: tuple[float, ...] = ()
    psnr: tuple[float, ...] = ()
    ms_ssim: tuple[float, ...] = ()

    def of(self, metric: Metric) -> tuple[float, ...]:
        values: tuple[float, ...] = getattr(self, metric.name, ())
        return values


PUBLISHED: tuple[Published, ...] = (
    Published(
        "PerCo (SD)", 2024, "github.com/Nikolai10/PerCo", "results file",
        bpp=(0.0324, 0.1261),
        lpips_alex=(0.2965, 0.143), dists=(0.161, 0.080), psnr=(19.5, 22.8),
    ),
    Published(
        "AEIC-SE", 2025, "AEIC, repository of the authors", "results file",
        bpp=(0.0041, 0.0079, 0.0143, 0.0241, 0.0370),
        lpips_alex=(0.342, 0.273, 0.215, 0.175, 0.147), dists=(0.155, 0.127, 0.108, 0.0915, 0.0815),
        psnr=(19.0, 20.2, 21.3, 22.2, 22.9), ms_ssim=(0.583, 0.662, 0.729, 0.781, 0.822),
    ),
    Published(
        "AEIC-ME", 2025, "AEIC, repository of the authors", "results file",
        bpp=(0.0056, 0.0101, 0.0168, 0.0260, 0.0376),
        lpips_alex=(0.311, 0.244, 0.198, 0.164, 0.143), dists=(0.140, 0.116, 0.1005, 0.0877, 0.0821),
        psnr=(20.0, 21.1, 22.0, 22.8, 23.3), ms_ssim=(0.637, 0.703, 0.760, 0.802, 0.832),
    ),
    Published(
        "StableCodec (claimed)", 2025, "StableCodec, results in the repository of AEIC", "results file",
        bpp=(0.0058, 0.0108, 0.0171, 0.0250, 0.0341),
        lpips_alex=(0.310, 0.244, 0.207, 0.182, 0.166), dists=(0.152, 0.125, 0.108, 0.098, 0.092),
        psnr=(20.3, 21.3, 22.1, 22.6, 23.0), ms_ssim=(0.643, 0.712, 0.757, 0.791, 0.812),
    ),
    Published(
        "OneDC", 2025, "OneDC, figure of the paper", "figure",
        bpp=(0.0033, 0.0101, 0.0165, 0.0245, 0.0354, 0.0505, 0.0776, 0.1118),
        lpips_alex=(0.380, 0.220, 0.183, 0.154, 0.133, 0.115, 0.096, 0.083),
        dists=(0.204, 0.131, 0.110, 0.097, 0.084, 0.076, 0.066, 0.057),
        psnr=(17.2, 20.6, 21.5, 22.2, 23.0, 23.6, 24.4, 25.3),
    ),
    Published(
        "RDVQ", 2026, "RDVQ, figure of the paper", "figure",
        bpp=(0.010, 0.018, 0.025, 0.035, 0.0435),
        lpips_alex=(0.272, 0.220, 0.182, 0.160, 0.148), dists=(0.125, 0.102, 0.087, 0.080, 0.072),
    ),
    Published(
        "SPRDiff", 2026, "SPRDiff, figure of the paper", "figure",
        bpp=(0.0139, 0.0204, 0.0279),
        lpips_vgg=(0.327, 0.301, 0.285), dists=(0.122, 0.108, 0.099),
        psnr=(21.97, 22.61, 22.99), ms_ssim=(0.752, 0.788, 0.806),
    ),
    Published(
        "DLF", 2025, "DLF, figure of the paper", "figure",
        bpp=(0.0080, 0.0097, 0.0125, 0.0156),
        lpips_alex=(0.285, 0.272, 0.249, 0.234), dists=(0.149, 0.140, 0.131, 0.125),
    ),
    Published(
        "GLC", 2024, "GLC, figure of the paper", "figure",
        bpp=(0.0248, 0.0375), lpips_alex=(0.195, 0.160), dists=(0.113, 0.095),
    ),
    Published(
        "MS-ILLM", 2023, "NeuralCompression, results in its repository", "results file",
        bpp=(0.0443, 0.0806, 0.153),
        lpips_alex=(0.158, 0.110, 0.073), dists=(0.135, 0.109, 0.081), psnr=(24.7, 25.9, 27.5),
    ),
    Published(
        "RDEIC, 5 steps", 2024, "RDEIC, results in its repository", "results file",
        bpp=(0.0238, 0.0436, 0.0654, 0.0906, 0.120),
        lpips_alex=(0.203, 0.156, 0.122, 0.100, 0.0856), dists=(0.141, 0.113, 0.089, 0.0725, 0.062),
        psnr=(22.2, 23.5, 24.5, 25.3, 25.8),
    ),
    Published(
        "DiffEIC, 50 steps", 2024, "DiffEIC, results in the repository of RDEIC", "results file",
        bpp=(0.0201, 0.0375, 0.0609, 0.0916, 0.1233),
        lpips_alex=(0.3185, 0.2376, 0.171, 0.127, 0.1055), dists=(0.164, 0.133, 0.097, 0.074, 0.064),
        psnr=(19.6, 21.2, 22.5, 24.2, 24.4),
    ),
    Published(
        "VTM", 2023, "VTM, results in the repository of RDEIC", "results file",
        bpp=(0.0205, 0.034, 0.048, 0.0951),
        lpips_alex=(0.569, 0.495, 0.447, 0.346), psnr=(24.0, 25.25, 26.1, 27.95),
    ),
    Published(
        "ELIC", 2022, "ELIC, results in the repository of RDEIC", "results file",
        bpp=(0.0476, 0.12), lpips_alex=(0.451, 0.313), psnr=(26.2, 28.9),
    ),
)  # fmt: skip


def published_for(names: Sequence[str], sizes: Set[tuple[int, int]]) -> tuple[Published, ...]:
    """The curves that may stand beside pictures of these names (keys without folder and suffix): Kodak's or none.

    `sizes` are the pictures' widths and heights.
    """
    kodak = KODAK.issuperset(names) and len(set(names)) == len(names) and sizes <= KODAK_SIZES
    return PUBLISHED if names and kodak else ()
