"""Files of a training, whole or not at all."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError


@contextmanager
def put_in_place(file: Path) -> Iterator[Path]:
    """A name to write to, which becomes `file` when the block ends well, and else is gone.

    Whatever keeps it from being written becomes an OSError that names `file`.
    """
    unfinished = file.with_name(f"{file.name}.unfinished")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # as the umask wants it; safetensors lets nobody but the owner read
        yield unfinished
        unfinished.chmod(mode)
        with open(unfinished, "rb") as written:
            os.fsync(written.fileno())
        os.replace(unfinished, file)
    except (OSError, RuntimeError, SafetensorError) as error:
        # Where a disk is full, torch.save fails once more while it handles the OSError.
        first = error.__context__ if isinstance(error, RuntimeError) else None
        cause = first if isinstance(first, OSError) else error
        raise OSError(f"{file} cannot be written: {cause}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def read_checkpoint(file: Path, device: torch.device) -> dict[str, Any]:
    """What `torch.save` wrote; ValueError where the file is damaged."""
    with open(file, "rb") as content:
        try:
            found = torch.load(content, map_location=device, weights_only=True)
        except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{file} is damaged ({told}): remove it to begin anew") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is no checkpoint of a training")
    return found
