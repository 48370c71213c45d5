"""What the user runs, and the codecs.

>>> import archiver
>>> archive = archiver.open("s3://bucket/archive")
>>> for key, image in archive.select("caption like '%dog%'").restore(): ...
"""

from archiver.api import OpenArchive, Selection, open

__all__ = ["OpenArchive", "Selection", "__version__", "open"]
__version__ = "0.1.0"
