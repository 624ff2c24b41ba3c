"""Every error a user can meet, as one tree.

PatinaError
├── ConfigError         a setting is missing, out of range or contradicts another
├── DatasetError        the image folder cannot be trained on
│   └── ImagesChanged   images are gone or are others than when the run began
├── ImageError          one image cannot be used (the run goes on without it)
├── BaseError           the base, or the model that writes captions, cannot be found, read or used
├── AdapterFileError    a style file cannot be read, or does not fit the base
│   └── AlphaUnknown    it does not say how strongly it counts
├── RunError            a run folder cannot be started, resumed or finished
├── PublishError        a style cannot be published as asked, or the hub does not take it
├── DeviceError         the device cannot do what was asked
│   └── DoesNotFit      not enough memory, with what would fit
└── StudioError         the studio folder or its worker cannot do what was asked
    └── DiskFull        there is no room left where the studio lies

Each message is one sentence or two: what is wrong with which file or field, and what to do next.
Messages are shown as they are; whoever shows them in HTML escapes them.
"""

from __future__ import annotations

import errno


class PatinaError(Exception):
    """Base of all errors that a user can mend; the command line prints the message and exits with 2."""


class ConfigError(PatinaError):
    """A setting is missing, out of range, or contradicts another."""


class DatasetError(PatinaError):
    """The image folder cannot be trained on."""


class ImagesChanged(DatasetError):
    """Images are gone or are others than when the run began; it can go on without them."""


class ImageError(PatinaError):
    """One image cannot be used."""


class BaseError(PatinaError):
    """The base, or the model that writes captions, cannot be found, read or used."""


class AdapterFileError(PatinaError):
    """A style file cannot be read, or does not fit the base."""


class AlphaUnknown(AdapterFileError):
    """A style file does not say its alpha, and nobody has said it."""


class RunError(PatinaError):
    """A run folder cannot be started, resumed or finished."""


class PublishError(PatinaError):
    """A style cannot be published as asked, or the hub does not take it."""


class DeviceError(PatinaError):
    """The device cannot do what was asked."""


class DoesNotFit(DeviceError):
    """Not enough memory; the message says what would fit."""


class StudioError(PatinaError):
    """The studio folder or its worker cannot do what was asked."""


class DiskFull(StudioError):
    """There is no room left where the studio lies; what was asked can be asked again when there is."""


def means_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that a disk or a quota is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DiskFull) or (isinstance(seen, OSError) and seen.errno in _NO_ROOM):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


# EDQUOT is missing on Windows, whose own numbers for this Python translates.
_NO_ROOM = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
