"""A picture in cells -> tiles that overlap by what a network sees, so that they join without seams."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """Cells top … bottom, left … right, made from the cells seen_top … around them."""

    top: int
    bottom: int
    left: int
    right: int
    seen_top: int
    seen_bottom: int
    seen_left: int
    seen_right: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.right)

    def pixel_rows(self, step: int) -> slice:
        return slice(self.top * step, self.bottom * step)

    def pixel_columns(self, step: int) -> slice:
        return slice(self.left * step, self.right * step)

    def cut(self, x: Tensor, step: int) -> Tensor:
        """What is seen, of a tensor (..., rows, columns) with `step` of them to a cell."""
        rows = slice(self.seen_top * step, self.seen_bottom * step)
        return x[..., rows, self.seen_left * step : self.seen_right * step]

    def inner(self, x: Tensor, step: int) -> Tensor:
        """The tile's own part of what a network made of `cut`."""
        top, left = self.top - self.seen_top, self.left - self.seen_left
        rows = slice(top * step, (top + self.bottom - self.top) * step)
        return x[..., rows, left * step : (left + self.right - self.left) * step]


def tiles(height: int, width: int, side: int, reach: int) -> list[Tile]:
    """Tiles of up to `side` cells that see `reach` cells around them, where there are any."""
    made = []
    for top in range(0, height, side):
        for left in range(0, width, side):
            bottom, right = min(top + side, height), min(left + side, width)
            rows = max(0, top - reach), min(height, bottom + reach)
            columns = max(0, left - reach), min(width, right + reach)
            made.append(Tile(top, bottom, left, right, *rows, *columns))
    return made
