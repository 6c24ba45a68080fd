"""Class names of the user's own, as the command line takes them."""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import UserError
from ..files import read_lines

_MOST_BYTES = 10_000_000


def class_names(text: str) -> list[str]:
    """Names of ``cat,dog``, of ``"Paris, Texas",Rome`` or of ``@names.txt``, a file of one name a line.

    Raises:
        UserError: for a file that cannot be read, for no names, and for quotes that are not closed.
    """
    if text.startswith("@"):
        lines = [line.strip() for line in read_lines(Path(text[1:]), _MOST_BYTES)]
        names = [line for line in lines if line]
        if not names:
            raise UserError(f"--classes {text}: the file holds no names; one a line")
        return names
    try:
        names = [
            name.strip() for row in csv.reader([text], skipinitialspace=True, strict=True) for name in row
        ]
    except csv.Error as error:
        raise UserError(
            f"--classes {text}: must be names separated by commas, one that holds a comma in double quotes"
            f" ({error})"
        ) from None
    if not any(names):
        raise UserError("--classes: names no class; leave it out for those of the run")
    return names
