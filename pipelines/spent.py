"""What work took of the machine that it ran on, as it is billed."""

import time


class Spent:
    """Seconds since it was made: of the device; on "cpu" of cores, as many as all threads of this process used."""

    def __init__(self, device: str) -> None:
        """Example: "cpu", "cuda:1"."""
        self._cores = device.partition(":")[0] == "cpu"
        self._wall, self._used = time.monotonic(), time.process_time()

    def seconds(self) -> float:
        """Waiting counts, too: the machine waits as well."""
        wall = time.monotonic() - self._wall
        return max(wall, time.process_time() - self._used) if self._cores else wall
