"""What a benchmark of power failures needs of one kind of save."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

OLD, NEW = 1, 2  # versions


class Save(ABC):
    """One kind of save.

    Attributes:
        name: for the table.
        over_older: whether it replaces an older version.
        is_quick: whether the tests can afford it.
    """

    name: str
    over_older = True
    is_quick = True

    @abstractmethod
    def save(self, folder: Path, version: int) -> None: ...

    @abstractmethod
    def version(self, folder: Path) -> int | None:
        """The version in a folder; None if there is none.

        Raises:
            ValueError: it is neither the old nor the new one.
        """

    def outcomes(self, saved: bool) -> set[int | None]:
        """The versions that a failure may leave.

        Args:
            saved: whether the save had ended.
        """
        return {NEW} if saved else {OLD if self.over_older else None, NEW}
