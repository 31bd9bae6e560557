"""One verified package on local disk. Knows where it lies and what is sealed in it; opens no graph."""

from dataclasses import dataclass
from pathlib import Path

from model_store.errors import MissingFile
from model_store.files import Folder
from model_store.manifest import Manifest
from model_store.verify import LIMITS, Limits


@dataclass(frozen=True, slots=True)
class Package:
    """A folder whose every file was equal to the manifest when the store opened it."""

    folder: Path
    manifest: Manifest
    limits: Limits = LIMITS

    def path(self, relative: str) -> Path:
        """Where a listed file lies. Raises MissingFile for any other."""
        if relative not in self.manifest.files:
            raise MissingFile(f"{relative!r} is not in the manifest of {self.manifest.name}")
        return self.folder / relative

    def read(self, relative: str) -> bytes:
        """Content of a listed file, compared with its digest again: what is returned is what was sealed.

        Raises MissingFile, LinkedFile, WrongSize, WrongDigest.
        """
        self.path(relative)
        with Folder(self.folder, hard_links=self.limits.hard_links) as opened:
            return opened.read(relative, self.manifest.files[relative])
