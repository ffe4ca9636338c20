"""The errors that svitkit raises on purpose.

    SvitError                 anything svitkit can explain; the command line exits with 1
    ├── ConfigError           an argument, file or name is wrong; the user can mend it
    ├── UnsupportedError      the input is well formed, but svitkit cannot express it
    ├── VerificationError     two computations that must agree do not, or a file fails its checksum
    └── RunError              a program on a board failed, died, hung or printed nonsense

Every message says what happened, what was got, what was wanted, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SvitError(Exception):
    """Anything svitkit can explain in one sentence."""


class ConfigError(SvitError):
    """An argument, a file or a name is wrong, and the user can mend it."""


class UnsupportedError(SvitError):
    """The input is well formed, but svitkit has no meaning for it."""


class VerificationError(SvitError):
    """Two computations that must agree do not, or a file is not what its manifest says."""


class RunError(SvitError):
    """A program that ran on a board failed, was killed, took too long, or did not print what it must."""


def unknown_name(kind: str, got: str, known: Iterable[str]) -> ConfigError:
    """Builds the error for a misspelt name, with the nearest known one.

    Args:
        kind: what is named, for example ``"board"``.
        got: the name that nothing answers to.
        known: every name that would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"unknown {kind} '{got}'.{hint} Known: {', '.join(names)}.")
