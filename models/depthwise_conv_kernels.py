"""Triton kernels of the depthwise convolution; `depthwise_conv_function` launches them.

A kernel's channels are groups * vector, as `channel_groups` gives them. Offsets of spans are int64;
they may point before an image, but what lies outside of it is masked. Sums are float32 and added up
in a fixed order (no atomics), so results are the same in every run.
"""

from utils.optional_triton import begin, jit_for_all, tl

_kernel = jit_for_all(
    *("spans", "groups", "height", "width", "out_height", "out_width", "top", "left"),
    *("tap_step", "cell_rows", "cell_columns", "stripe_spans", "channels", "stripes"),
)


@_kernel
def _channels(channels, block_channels: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program's channels and which block of spans it has. Neighbours in the grid share spans."""
    blocks = tl.cdiv(channels, block_channels)
    program = tl.program_id(0)
    channel = (program % blocks) * block_channels + tl.arange(0, block_channels)
    return channel, program // blocks


@_kernel
def _unravel(span, rows, spans_a_row):  # type: ignore[no-untyped-def]
    """Image, row, and number in its row of a span; those one under the other are neighbours."""
    rest = span // rows
    return (rest // spans_a_row).to(tl.int64), span % rows, rest % spans_a_row


@_kernel
def _append(values, value):  # type: ignore[no-untyped-def]
    return values + (value,)  # noqa: RUF005


@_kernel
def _tap_row(  # type: ignore[no-untyped-def]
    taps, channel, used, first, step, kernel: tl.constexpr, block_spans: tl.constexpr
):
    """A row's taps, each (block_spans, block_channels): laid out over threads as the images are."""
    row = ()
    for tap in tl.static_range(kernel):
        place = tl.broadcast_to(
            taps + first + tap * step + channel[None, :], [block_spans, channel.shape[0]]
        )
        row = _append(row, tl.load(place, mask=used, other=0.0).to(tl.float32))
    return row


@_kernel
def _zeros(number: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr):  # type: ignore[no-untyped-def]
    sums = ()
    for _ in tl.static_range(number):
        sums = _append(sums, tl.zeros([rows, columns], dtype=tl.float32))
    return sums


@_kernel
def _plus(total, value, factors, index: tl.constexpr, number: tl.constexpr):  # type: ignore[no-untyped-def]
    """The total and the product with one of a number of factors, if there is such a one."""
    if index >= 0 and index < number:
        total += value * factors[index]
    return total


@_kernel
def convolve(  # type: ignore[no-untyped-def]
    x,
    taps,
    y,
    spans,
    groups,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    tap_step,
    vector: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    columns: tl.constexpr,
    block_spans: tl.constexpr,
    block_channels: tl.constexpr,
    early: tl.constexpr,
):
    """y[r, c] = Σ x[r s − top + i, c s − left + j] taps[i, j]; tap n lies at n · tap_step · C."""
    begin(early)
    channels = groups * vector
    channel, block = _channels(channels, block_channels)
    span = block * block_spans + tl.arange(0, block_spans)
    used = (span < spans)[:, None] & (channel < channels)[None, :]
    image, row, place = _unravel(span, out_height, tl.cdiv(out_width, columns))
    first_row = row * stride - top
    first_column = place * (columns * stride) - left
    pixel = (image * height + first_row) * width + first_column
    source = x + pixel[:, None] * channels + channel[None, :]
    sums = _zeros(columns, block_spans, block_channels)
    for i in range(kernel):
        offset = i * kernel * tap_step * channels
        weights = _tap_row(taps, channel, used, offset, tap_step * channels, kernel, block_spans)
        in_row = used & ((first_row + i >= 0) & (first_row + i < height))[:, None]
        for j in tl.static_range((columns - 1) * stride + kernel):
            column = first_column + j
            inside = in_row & ((column >= 0) & (column < width))[:, None]
            value = tl.load(source + (i * width + j) * channels, mask=inside, other=0.0)
            value = value.to(tl.float32)
            grown = ()
            for c in tl.static_range(columns):
                more = _plus(sums[c], value, weights, j - c * stride, kernel)
                grown = _append(grown, more)
            sums = grown
    pixel = (image * out_height + row) * out_width + place * columns
    target = y + pixel[:, None] * channels + channel[None, :]
    for c in tl.static_range(columns):
        inside = used & (place * columns + c < out_width)[:, None]
        tl.store(target + c * channels, sums[c].to(y.dtype.element_ty), mask=inside)


@_kernel
def deal_out(  # type: ignore[no-untyped-def]
    dy,
    taps,
    dx,
    spans,
    groups,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    cell_rows,
    cell_columns,
    vector: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    columns: tl.constexpr,
    block_spans: tl.constexpr,
    block_channels: tl.constexpr,
    early: tl.constexpr,
):
    """The gradient of the input: pixel s a + r − top of a column gets Σ dy[a − m] taps[r + s m]."""
    begin(early)
    channels = groups * vector
    cells: tl.constexpr = columns // stride
    reach: tl.constexpr = (kernel - 1) // stride  # cells before its own that a pixel hears of
    channel, block = _channels(channels, block_channels)
    span = block * block_spans + tl.arange(0, block_spans)
    used = (span < spans)[:, None] & (channel < channels)[None, :]
    image, row, place = _unravel(span, cell_rows, tl.cdiv(cell_columns, cells))
    cell_row = top // stride + row
    cell_column = left // stride + place * cells
    pixel = (image * out_height + cell_row) * out_width + cell_column
    source = dy + pixel[:, None] * channels + channel[None, :]
    first_column = cell_column * stride - left
    for r in tl.static_range(stride):
        sums = _zeros(columns, block_spans, block_channels)
        for m in tl.static_range((kernel - 1 - r) // stride + 1):
            offset = (r + stride * m) * kernel * channels
            weights = _tap_row(taps, channel, used, offset, channels, kernel, block_spans)
            in_row = used & ((cell_row - m >= 0) & (cell_row - m < out_height))[:, None]
            for j in tl.static_range(cells + reach):
                column = cell_column + (j - reach)
                inside = in_row & ((column >= 0) & (column < out_width))[:, None]
                shift = (j - reach - m * out_width) * channels
                value = tl.load(source + shift, mask=inside, other=0.0).to(tl.float32)
                grown = ()
                for c in tl.static_range(columns):
                    more = _plus(
                        sums[c], value, weights,
                        c % stride + stride * (c // stride - (j - reach)), kernel,
                    )  # fmt: skip
                    grown = _append(grown, more)
                sums = grown
        target_row = cell_row * stride + r - top
        in_row = used & ((target_row >= 0) & (target_row < height))[:, None]
        pixel = (image * height + target_row) * width + first_column
        target = dx + pixel[:, None] * channels + channel[None, :]
        for c in tl.static_range(columns):
            column = first_column + c
            inside = in_row & ((column >= 0) & (column < width))[:, None]
            tl.store(target + c * channels, sums[c].to(dx.dtype.element_ty), mask=inside)


@_kernel
def partial_weight_gradient(  # type: ignore[no-untyped-def]
    x,
    dy,
    partials,
    spans,
    groups,
    height,
    width,
    out_height,
    out_width,
    top,
    left,
    stripe_spans,
    vector: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    columns: tl.constexpr,
    block_spans: tl.constexpr,
    block_channels: tl.constexpr,
    early: tl.constexpr,
):
    """Σ dy[r, c] x[r s − top + i, c s − left + j] of stripes, into partials (stripes, k·k, C)."""
    begin(early)
    channels = groups * vector
    channel, stripe = _channels(channels, block_channels)
    first = stripe * stripe_spans
    sums = _zeros(kernel * kernel, block_spans, block_channels)
    for step in range(0, stripe_spans, block_spans):
        span = first + step + tl.arange(0, block_spans)
        used = (span < spans)[:, None] & (channel < channels)[None, :]
        image, row, place = _unravel(span, out_height, tl.cdiv(out_width, columns))
        pixel = (image * out_height + row) * out_width + place * columns
        source = dy + pixel[:, None] * channels + channel[None, :]
        gradients = ()
        for c in tl.static_range(columns):
            inside = used & (place * columns + c < out_width)[:, None]
            gradient = tl.load(source + c * channels, mask=inside, other=0.0)
            gradients = _append(gradients, gradient.to(tl.float32))
        first_row = row * stride - top
        first_column = place * (columns * stride) - left
        pixel = (image * height + first_row) * width + first_column
        source = x + pixel[:, None] * channels + channel[None, :]
        for i in tl.static_range(kernel):
            in_row = used & ((first_row + i >= 0) & (first_row + i < height))[:, None]
            for j in tl.static_range((columns - 1) * stride + kernel):
                column = first_column + j
                inside = in_row & ((column >= 0) & (column < width))[:, None]
                value = tl.load(source + (i * width + j) * channels, mask=inside, other=0.0)
                value = value.to(tl.float32)
                grown = ()
                for tap in tl.static_range(kernel * kernel):
                    more = sums[tap]
                    if tap // kernel == i and (j - tap % kernel) % stride == 0:
                        more = _plus(more, value, gradients, (j - tap % kernel) // stride, columns)
                    grown = _append(grown, more)
                sums = grown
    place = partials + stripe.to(tl.int64) * kernel * kernel * channels + channel
    for tap in tl.static_range(kernel * kernel):
        tl.store(place + tap * channels, tl.sum(sums[tap], axis=0), mask=channel < channels)


@_kernel
def combine_weight_gradient(  # type: ignore[no-untyped-def]
    partials,
    dweight,
    channels,
    stripes,
    number: tl.constexpr,
    block_stripes: tl.constexpr,
    block_sums: tl.constexpr,
    early: tl.constexpr,
):
    """dweight (C, number) from the sums of the stripes (stripes, number, C)."""
    begin(early)
    entry = tl.program_id(0) * block_sums + tl.arange(0, block_sums)
    used = entry < number * channels
    total = tl.zeros([block_stripes, block_sums], dtype=tl.float32)
    for step in range(0, stripes, block_stripes):
        stripe = step + tl.arange(0, block_stripes)
        inside = (stripe < stripes)[:, None] & used[None, :]
        place = partials + stripe[:, None].to(tl.int64) * number * channels + entry[None, :]
        total += tl.load(place, mask=inside, other=0.0)
    target = dweight + entry % channels * number + entry // channels
    tl.store(target, tl.sum(total, axis=0).to(dweight.dtype.element_ty), mask=used)
