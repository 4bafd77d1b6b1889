"""The form in which a check of the installation reports what it found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what fixes it.

    Parameters
    ----------
    problem : str
        What is wrong and where it comes from.
    fix : str
        The one command that fixes it.
    wrong_value : bool
        Whether somebody has set a value that must be a mistake; other findings make things slow or fail.
    backend : str, optional
        The backend that cannot run because of it; None if every backend can.
    """

    problem: str
    fix: str
    wrong_value: bool = False
    backend: str | None = None
