"""Something that is wrong."""

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
        Whether somebody set a value that cannot be meant. Anything else slows down or may break.
    backend : str, optional
        The backend that cannot run because of it, if it cannot run.
    """

    problem: str
    fix: str
    wrong_value: bool = False
    backend: str | None = None
