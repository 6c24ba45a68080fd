"""What lies where a checkpoint is to be written: an earlier export, which may be replaced, or something
else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.tokenizer_files import folder_of, merges_of, tokenizer_files
from ..errors import UserError
from .peft import FILES
from .tokenizer_export import mark

# What stands in the page beside every checkpoint.
OURS = "A plain open_clip checkpoint: cl_complora is not needed"


def adapter_folder(out: Path) -> Path:
    """Where the adapter for PEFT stands."""
    return out.with_name(f"{out.stem}-peft")


def adapter_mark(out: Path) -> str:
    """What the page says of it."""
    return f"`{adapter_folder(out).name}/` holds the same update"


@dataclass(frozen=True)
class Earlier:
    """An earlier export of the same name.

    Attributes:
        out: its weights.
        page: what it says of its files; empty where there is none.
    """

    out: Path
    page: str

    @classmethod
    def at(cls, out: Path) -> Earlier:
        """What there is at a place."""
        page = out.with_suffix(".md")
        text = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
        return cls(out, text if OURS in text else "")

    def check(self, files: Sequence[Path], began_with: Sequence[Path]) -> None:
        """Replace nothing but an earlier export, and that only where the run did not begin with it.

        Args:
            files: to be written.
            began_with: files of the run.

        Raises:
            UserError: naming the file.
        """
        for file in (file for file in files if file.exists()):
            if any(own.exists() and own.samefile(file) for own in began_with):
                raise UserError(f"-o {self.out}: the run began with {file}; choose another name")
        of_sides = {file: told for told, side in self._sides() for file in side}
        adapter = adapter_folder(self.out)
        # An adapter that is left alone does no harm; a tokeniser would be read with the weights.
        others = [file for file in of_sides if file not in files and file.parent != adapter]
        for file in (*files, *others):
            if file.exists() and not (self.page and of_sides.get(file, OURS) in self.page):
                raise UserError(
                    f"-o {self.out}: {file} is there already, and from no earlier export; choose another name"
                )

    def others(self, files: Sequence[Path]) -> list[Path]:
        """What it has beside its weights and the new one has not, which would pass for the new one's.

        Args:
            files: of the new one.
        """
        sides = [side for told, side in self._sides() if told in self.page]
        return [file for side in sides for file in side if file not in files]

    def _sides(self) -> Iterator[tuple[str, list[Path]]]:
        """What a page says of files that not every export has, and the files."""
        merges, folder, adapter = merges_of(self.out), folder_of(self.out), adapter_folder(self.out)
        yield mark(merges), [merges]
        yield mark(folder), tokenizer_files(folder)
        yield adapter_mark(self.out), [adapter / name for name in FILES]
