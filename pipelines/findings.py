"""What a check of an archive can find."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["damaged", "missing", "doubled", "undecodable", "unfinished", "orphan", "unvouched"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    name: str  # path of an object, or key of a record
    words: str

    @property
    def harmless(self) -> bool:
        """Left by a run that was interrupted or is going on: nothing that was archived is lost."""
        return self.kind in ("unfinished", "orphan", "unvouched")
