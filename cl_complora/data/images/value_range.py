"""From what a picture stores, numbers of more than eight bits or with a fraction, to 0 … 255."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import UserError

if TYPE_CHECKING:
    import numpy as np

# A set whose values leave the last bit of a file unused is brighter for it and no worse. From 15 bits on a
# file of 16 is taken as it is, as pictures that use all of it always were.
_BITS = (8, 9, 10, 11, 12, 13, 14, 16)


@dataclass(frozen=True)
class ValueRange:
    """The stored values that become black and white; what lies beyond them is clipped.

    Attributes:
        low: becomes 0.
        high: becomes 255.
        whole: the values are integers.
    """

    low: float
    high: float
    whole: bool = True

    @classmethod
    def of_bits(cls, bits: int) -> ValueRange:
        """0 … 2^bits − 1."""
        return cls(0, 2**bits - 1)

    @classmethod
    def of_setting(cls, setting: int | Sequence[float]) -> ValueRange:
        """What ``range: 12`` or ``range: [0, 4095]`` asks for."""
        if isinstance(setting, int):
            return cls.of_bits(setting)
        low, high = setting
        # 0 … 1 and −1 … 1 are what fractions are scaled to.
        return cls(low, high, float(low).is_integer() and float(high).is_integer() and high - low > 2)

    @classmethod
    def around(cls, low: float, high: float, whole: bool) -> ValueRange:
        """The usual range that holds all values of a set.

        Integers and fractions from 0 on: the bits that the largest needs (8 … 14, 16; more are taken one by
        one). Fractions: 0 … 1 or −1 … 1 where they lie within. Else from the smallest to the largest.

        Args:
            low, high: smallest and largest value.
            whole: the values are stored as integers.
        """
        if not whole and high <= 1 and low >= -1:
            return cls(0.0 if low >= 0 else -1.0, 1.0, False)
        if low >= 0 and high < 2**32:
            needed = math.floor(high).bit_length()
            bits = next((bits for bits in _BITS if bits >= needed), needed)
            return cls(0, 2**bits - 1, whole)
        return cls(low, high if high > low else low + 1, whole)

    @property
    def bits(self) -> int | None:
        """b for 0 … 2^b − 1."""
        power = math.log2(self.high + 1) if self.low == 0 and self.high > 1 else 0.5
        return int(power) if power.is_integer() else None

    def eight_bits(self, values: np.ndarray) -> np.ndarray:
        """256 steps of equal width: ``⌊256 (v − low) / (high − low)⌋``, of integers ``⌊256 (v − low) / (high
        − low + 1)⌋``, which for bits drops the low ones.

        Args:
            values: of any shape and number type; what is no number becomes 0.

        Returns:
            uint8 of the same shape.
        """
        import numpy as np

        if values.dtype.kind in "iu" and self.whole:
            low, width = int(self.low), int(self.high) - int(self.low) + 1
            # Clipped first: 2^32 steps times 256 still fit 64 bits.
            inside = values.astype(np.int64).clip(low, int(self.high)) - low
            return (inside * 256 // width).astype(np.uint8)
        width = self.high - self.low + (1 if self.whole else 0)
        scaled = (values.astype(np.float64) - self.low) * (256 / width)
        return np.nan_to_num(np.floor(scaled), nan=0.0).clip(0, 255).astype(np.uint8)

    def __str__(self) -> str:
        """``0 to 4095 (12 bits)``."""
        bits = self.bits if self.whole else None
        return f"{self.low:.10g} to {self.high:.10g}" + (f" ({bits} bits)" if bits else "")


BYTES = ValueRange.of_bits(8)
SIXTEEN = ValueRange.of_bits(16)


def given_range(text: str) -> ValueRange:
    """Bits (``12``), or the values that become black and white (``0,4095``), as ``--range`` gives them.

    Raises:
        UserError: for anything else.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0].is_integer() and 1 <= numbers[0] <= 32:
        return ValueRange.of_bits(int(numbers[0]))
    if len(numbers) == 2 and all(math.isfinite(number) for number in numbers) and numbers[0] < numbers[1]:
        return ValueRange.of_setting(numbers)
    raise UserError(
        f"--range {text}: must be LOW,HIGH with LOW < HIGH, or a number of bits from 1 to 32 (12 for 0,4095)"
    )
