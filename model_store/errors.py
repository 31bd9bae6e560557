"""Why a package or a store was refused. Every message is one sentence and names no path outside the package.

PackageError
|-- StoreError               the store itself, not one package
|   |-- PackageNotFound      no such name or version
|   |-- AlreadyPublished     the version exists; versions never change
|   |-- StoreUnavailable     the address cannot be read or written
|   |   `-- StoreReadOnly    ... or may not be written
|   |-- CalibrationNotFound  no such calibration of the model
|   `-- CalibrationInUse     the calibration is a default
|-- InvalidManifest          model.json is not a manifest
|   `-- UnknownSchema        ... of a schema version this program reads
|-- BrokenFiles              the folder is not what its manifest says
|   |-- MissingFile          a listed file is not there
|   |-- UnlistedFile         a file is there that the manifest does not list
|   |-- LinkedFile           a symbolic or hard link, or no regular file
|   |-- OutsidePath          a path that leaves the package folder
|   |-- WrongSize            a file's size
|   `-- WrongDigest          a file's SHA-256, or the manifest's own
|-- TooLarge                 a limit on files, bytes, nodes or depth
|-- BrokenGraph              a graph that is no ONNX, does not open, or differs from its signature
|   |-- ForbiddenOperator    ... or uses an operator outside the allow-list
|   `-- GoldenMismatch       ... or does not reproduce its recorded outputs
|-- DeviceUnavailable        the device asked for cannot run graphs
`-- RunFailed                a run of an open graph failed
"""


class PackageError(Exception):
    """Base of everything `model_store` refuses on purpose."""


class StoreError(PackageError):
    """The store cannot do what it was asked."""


class PackageNotFound(StoreError):
    """No such name or version in the store."""


class AlreadyPublished(StoreError):
    """The version exists, and versions never change."""


class StoreUnavailable(StoreError):
    """The store's address cannot be read or written."""


class StoreReadOnly(StoreUnavailable):
    """The store may be read and not written."""


class CalibrationNotFound(StoreError):
    """No such calibration of the model."""


class CalibrationInUse(StoreError):
    """The calibration is a default and cannot be deleted."""


class InvalidManifest(PackageError):
    """`model.json` is not a manifest."""


class UnknownSchema(InvalidManifest):
    """`model.json` follows a schema version this program does not read."""


class BrokenFiles(PackageError):
    """The folder is not what its manifest says."""


class MissingFile(BrokenFiles):
    """A listed file is not there."""


class UnlistedFile(BrokenFiles):
    """A file is there that the manifest does not list."""


class LinkedFile(BrokenFiles):
    """A symbolic link, a hard link, or something that is no regular file."""


class OutsidePath(BrokenFiles):
    """A path that leaves the package folder."""


class WrongSize(BrokenFiles):
    """A file is longer or shorter than the manifest says."""


class WrongDigest(BrokenFiles):
    """A file's content, or the manifest's own, is not what was sealed."""


class TooLarge(PackageError):
    """The package exceeds a limit on files, bytes, nodes or depth."""


class BrokenGraph(PackageError):
    """A graph that is no ONNX, does not open, or differs from the signature in the manifest."""


class ForbiddenOperator(BrokenGraph):
    """A graph uses an operator outside the allow-list."""


class GoldenMismatch(BrokenGraph):
    """A graph does not reproduce the outputs its exporter recorded."""


class DeviceUnavailable(PackageError):
    """The device asked for cannot run graphs here."""


class RunFailed(PackageError):
    """A run of an open graph failed."""
