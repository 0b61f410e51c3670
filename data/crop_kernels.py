"""Triton kernels that resize crops of images of different sizes, each an axis of all at once.

Weights are those of `data.resize`: interpolation whose kernel widens where pixels shrink. What is
known of an image is a row of a float64 table, in the order of FIELDS.
"""

from utils.optional_triton import jit_for_all, tl

# Of the region's first pixel: its place in the line of all pixels; then pixels of a plane and of a
# row of the image, the region's sides, the box in it, whether to mirror, and the place of the
# region's first row among the rows that are resized across.
FIELDS = (
    "start", "plane", "stride", "width", "height", "x", "y", "box_width", "box_height", "flip",
    "first_row",
)  # fmt: skip
START, PLANE, STRIDE, WIDTH, HEIGHT, X, Y, BOX_WIDTH, BOX_HEIGHT, FLIP, FIRST_ROW = map(
    tl.constexpr, range(len(FIELDS))
)
COLUMNS = tl.constexpr(len(FIELDS))

_kernel = jit_for_all("size")


@_kernel
def _weight(distance, cubic: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of a pixel at a distance ≥ 0: a triangle, or Keys' cubic kernel (1981) with a = -0.5."""
    if cubic:
        near = (1.5 * distance - 2.5) * distance * distance + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        return tl.where(distance < 1, near, tl.where(distance < 2, far, 0.0))
    return tl.maximum(1 - distance, 0.0)


@_kernel
def _reach(target, start, length, size, cubic: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of results at `target`: centres, the first pixel that counts, how many, the widening."""
    scale = length / size
    widening = tl.maximum(scale, 1.0)
    support = widening * (2 if cubic else 1)
    centre = start + target * scale
    first = tl.floor(centre - 0.5 - support).to(tl.int32)
    return centre, first, (2 * support).to(tl.int32) + 2, widening


@_kernel
def _place(table, block_rows: tl.constexpr, block_columns: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program's image, as its row of the table, channel, and the rows and columns it makes."""
    fields = table + (tl.program_id(0) // 3) * COLUMNS
    channel = (tl.program_id(0) % 3).to(tl.int64)
    row = tl.program_id(1) * block_rows + tl.arange(0, block_rows)
    column = tl.program_id(2) * block_columns + tl.arange(0, block_columns)
    return fields, channel, row, column


@_kernel
def resize_across(  # type: ignore[no-untyped-def]
    line,
    lines,
    table,
    size,
    cubic: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
):
    """Every region, (3, height, width) of `line`, becomes (3, height, size) of `lines`."""
    fields, channel, row, column = _place(table, block_rows, block_columns)
    width, height = tl.load(fields + WIDTH).to(tl.int32), tl.load(fields + HEIGHT).to(tl.int32)
    target = column + 0.5
    target = tl.where(tl.load(fields + FLIP) > 0, size - target, target)
    start, length = tl.load(fields + X).to(tl.float32), tl.load(fields + BOX_WIDTH).to(tl.float32)
    centre, first, taps, widening = _reach(target, start, length, size, cubic)

    place = tl.load(fields + START).to(tl.int64) + channel * tl.load(fields + PLANE).to(tl.int64)
    places = line + place + row[:, None] * tl.load(fields + STRIDE).to(tl.int64)
    inside = (row < height)[:, None]
    total = tl.zeros([block_columns], dtype=tl.float32)
    sums = tl.zeros([block_rows, block_columns], dtype=tl.float32)
    # No taps of a block below the region.
    for tap in range(0, tl.where(tl.program_id(1) * block_rows < height, taps, 0)):
        pixel = first + tap
        known = (pixel >= 0) & (pixel < width)
        weight = tl.where(known, _weight(tl.abs(pixel + 0.5 - centre) / widening, cubic), 0.0)
        values = tl.load(places + pixel[None, :], mask=inside & known[None, :], other=0)
        total += weight
        sums += weight[None, :] * values.to(tl.float32)
    first_row = tl.load(fields + FIRST_ROW).to(tl.int64) + channel * height
    results = lines + (first_row + row)[:, None] * size + column[None, :]
    total = tl.where(total == 0, 1.0, total)  # of columns that are not stored
    tl.store(results, sums / total[None, :], mask=inside & (column < size)[None, :])


@_kernel
def resize_down(  # type: ignore[no-untyped-def]
    lines,
    result,
    table,
    size,
    cubic: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
):
    """Every column of (3, height, size) of `lines` becomes one of `result` (n, 3, size, size)."""
    fields, channel, row, column = _place(table, block_rows, block_columns)
    height = tl.load(fields + HEIGHT).to(tl.int32)
    start, length = tl.load(fields + Y).to(tl.float32), tl.load(fields + BOX_HEIGHT).to(tl.float32)
    centre, first, taps, widening = _reach(row + 0.5, start, length, size, cubic)

    first_row = tl.load(fields + FIRST_ROW).to(tl.int64) + channel * height
    used = (column < size)[None, :]
    total = tl.zeros([block_rows], dtype=tl.float32)
    sums = tl.zeros([block_rows, block_columns], dtype=tl.float32)
    for tap in range(0, taps):
        pixel = first + tap
        known = (pixel >= 0) & (pixel < height)
        weight = tl.where(known, _weight(tl.abs(pixel + 0.5 - centre) / widening, cubic), 0.0)
        places = lines + (first_row + pixel)[:, None] * size + column[None, :]
        values = tl.load(places, mask=known[:, None] & used, other=0.0)
        total += weight
        sums += weight[:, None] * values
    total = tl.where(total == 0, 1.0, total)  # of rows that are not stored
    values = sums / total[:, None]
    if cubic:  # its weights overshoot
        values = tl.minimum(tl.maximum(values, 0.0), 255.0)
    image = tl.program_id(0).to(tl.int64) * size
    places = result + (image + row)[:, None] * size + column[None, :]
    tl.store(places, values, mask=(row < size)[:, None] & used)
