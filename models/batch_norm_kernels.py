"""Triton kernels of the fused batch normalisation; `batch_norm_function` launches them.

A kernel's channels are groups * vector, as `channel_groups` gives them. Row offsets are int64. Sums
are added up in a fixed order (no atomics), so results are the same in every run.
"""

from utils.optional_triton import begin, jit_for_all, tl

_kernel = jit_for_all("rows", "groups", "stripe_rows", "stripes")


@_kernel
def _place(channels, stripe_rows, block_channels: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program's first row and its channels. Neighbours in the grid share rows."""
    blocks = tl.cdiv(channels, block_channels)
    program = tl.program_id(0)
    first = (program // blocks).to(tl.int64) * stripe_rows
    return first, (program % blocks) * block_channels + tl.arange(0, block_channels)


@_kernel
def _masked(dy, z, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient before the activation; NaN passes, as in PyTorch."""
    if activation == "relu":
        dy = tl.where(z <= 0, 0.0, dy)
    if activation == "relu6":
        dy = tl.where((z <= 0) | (z >= 6), 0.0, dy)
    return dy


@_kernel
def _activated(value, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    """The activation; NaN stays, as in PyTorch."""
    if activation is not None:
        value = tl.where(value < 0, 0.0, value)
    if activation == "relu6":
        value = tl.where(value > 6, 6.0, value)
    return value


@_kernel
def _plus(value, shortcut, offsets, inside, added: tl.constexpr):  # type: ignore[no-untyped-def]
    """The value, and what a shortcut brings, if there is one."""
    if added:
        value += tl.load(shortcut + offsets, mask=inside, other=0.0).to(tl.float32)
    return value


@_kernel
def _before_activation(  # type: ignore[no-untyped-def]
    dz, own, z, dshortcut, offsets, inside, activation: tl.constexpr, added: tl.constexpr
):
    """The gradient before the activation, whose input is `own`, or with a shortcut more than that.

    Then its output z tells, and the gradient is the shortcut's, too.
    """
    if added:
        dz = _masked(dz, tl.load(z + offsets, mask=inside, other=0.0), activation)
        tl.store(dshortcut + offsets, dz.to(dshortcut.dtype.element_ty), mask=inside)
    else:
        dz = _masked(dz, own, activation)
    return dz


@_kernel
def _keep_running(  # type: ignore[no-untyped-def]
    running_mean, running_var, num_batches_tracked, average, moment, number, momentum, column, used
):
    """The running statistics, brought up to date with a batch's mean and squared deviations."""
    old_mean = tl.load(running_mean + column, mask=used, other=0.0)
    old_var = tl.load(running_var + column, mask=used, other=0.0)
    unbiased = moment / (number - 1)
    tl.store(running_mean + column, (1 - momentum) * old_mean + momentum * average, mask=used)
    tl.store(running_var + column, (1 - momentum) * old_var + momentum * unbiased, mask=used)
    if tl.program_id(0) == 0:
        tl.store(num_batches_tracked, tl.load(num_batches_tracked) + 1)


@_kernel
def partial_statistics(  # type: ignore[no-untyped-def]
    x,
    partials,
    rows,
    groups,
    stripe_rows,
    vector: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    stages: tl.constexpr,
    early: tl.constexpr,
):
    """Mean and sum of squared deviations of each stripe, into partials (stripes, 2, C).

    What is summed is x less the stripe's first row: a large mean does not cancel the variance.
    """
    begin(early)
    channels = groups * vector
    first, column = _place(channels, stripe_rows, block_channels)
    used = column < channels
    lane = tl.arange(0, block_rows)
    offsets = lane[:, None] * channels + column[None, :]
    shift = tl.load(x + first * channels + column, mask=used, other=0.0).to(tl.float32)
    total = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    squares = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    for step in tl.range(0, stripe_rows, block_rows, num_stages=stages):
        row = first + step
        inside = (lane < rows - row)[:, None] & used[None, :]
        value = tl.load(x + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        deviation = tl.where(inside, value - shift[None, :], 0.0)
        total += deviation
        squares += deviation * deviation
    count = tl.minimum(rows - first, stripe_rows).to(tl.float32)
    summed = tl.sum(total, axis=0)
    moment = tl.sum(squares, axis=0) - summed * summed / count
    place = partials + first // stripe_rows * 2 * channels + column
    tl.store(place, shift + summed / count, mask=used)
    tl.store(place + channels, moment, mask=used)


@_kernel
def combine_statistics(  # type: ignore[no-untyped-def]
    partials,
    mean,
    variance,
    running_mean,
    running_var,
    num_batches_tracked,
    momentum,
    rows,
    groups,
    stripe_rows,
    stripes,
    vector: tl.constexpr,
    block_stripes: tl.constexpr,
    block_channels: tl.constexpr,
    early: tl.constexpr,
):
    """Statistics of all rows from those of the stripes, and the running ones.

    For stripes of n_i rows with means m_i and sums of squared deviations S_i:
    S = Σ S_i + Σ n_i (m_i − m)², m = Σ n_i m_i / N (Chan, Golub & LeVeque, Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances, 1979), taken relative to m_0.
    """
    begin(early)
    channels = groups * vector
    column = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    used = column < channels
    shift = tl.load(partials + column, mask=used, other=0.0)
    total = tl.zeros([block_stripes, block_channels], dtype=tl.float32)
    squares = tl.zeros([block_stripes, block_channels], dtype=tl.float32)
    for step in range(0, stripes, block_stripes):
        stripe = step + tl.arange(0, block_stripes)
        inside = (stripe < stripes)[:, None] & used[None, :]
        place = partials + stripe[:, None] * 2 * channels + column[None, :]
        stripe_mean = tl.load(place, mask=inside, other=0.0)
        moment = tl.load(place + channels, mask=inside, other=0.0)
        count = tl.minimum(rows - stripe.to(tl.int64) * stripe_rows, stripe_rows).to(tl.float32)
        deviation = tl.where(inside, stripe_mean - shift[None, :], 0.0)
        total += count[:, None] * deviation
        squares += moment + count[:, None] * deviation * deviation
    number = rows.to(tl.float32)
    summed = tl.sum(total, axis=0)
    moment = tl.maximum(tl.sum(squares, axis=0) - summed * summed / number, 0.0)
    average = shift + summed / number
    tl.store(mean + column, average, mask=used)
    tl.store(variance + column, moment / number, mask=used)
    _keep_running(
        running_mean, running_var, num_batches_tracked, average, moment, number, momentum, column,
        used,
    )  # fmt: skip


@_kernel
def transform(  # type: ignore[no-untyped-def]
    x,
    shortcut,
    z,
    mean,
    variance,
    weight,
    bias,
    eps,
    rows,
    groups,
    stripe_rows,
    vector: tl.constexpr,
    activation: tl.constexpr,
    added: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    stages: tl.constexpr,
    early: tl.constexpr,
):
    """z = activation((x - mean) / sqrt(variance + eps) * weight + bias + shortcut)."""
    begin(early)
    channels = groups * vector
    first, column = _place(channels, stripe_rows, block_channels)
    used = column < channels
    lane = tl.arange(0, block_rows)
    offsets = lane[:, None] * channels + column[None, :]
    center = tl.load(mean + column, mask=used, other=0.0)
    scale = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    scale *= tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    for step in tl.range(0, stripe_rows, block_rows, num_stages=stages):
        row = first + step
        inside = (lane < rows - row)[:, None] & used[None, :]
        value = tl.load(x + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        value = (value - center[None, :]) * scale[None, :] + shift[None, :]
        value = _plus(value, shortcut + row * channels, offsets, inside, added)
        value = _activated(value, activation)
        tl.store(z + row * channels + offsets, value.to(z.dtype.element_ty), mask=inside)


@_kernel
def partial_gradients(  # type: ignore[no-untyped-def]
    x,
    dy,
    z,
    dshortcut,
    partials,
    mean,
    variance,
    weight,
    bias,
    eps,
    rows,
    groups,
    stripe_rows,
    vector: tl.constexpr,
    activation: tl.constexpr,
    added: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    stages: tl.constexpr,
    early: tl.constexpr,
):
    """Σ dz and Σ dz (x - mean) of each stripe, into partials (stripes, 2, C).

    With a shortcut, dz is written there as its gradient.
    """
    begin(early)
    channels = groups * vector
    first, column = _place(channels, stripe_rows, block_channels)
    used = column < channels
    lane = tl.arange(0, block_rows)
    offsets = lane[:, None] * channels + column[None, :]
    center = tl.load(mean + column, mask=used, other=0.0)
    scale = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    scale *= tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    total = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    products = tl.zeros([block_rows, block_channels], dtype=tl.float32)
    for step in tl.range(0, stripe_rows, block_rows, num_stages=stages):
        row = first + step
        inside = (lane < rows - row)[:, None] & used[None, :]
        value = tl.load(x + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        dz = tl.load(dy + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        deviation = value - center[None, :]
        # Rounded as the activation's input would be.
        own = (deviation * scale[None, :] + shift[None, :]).to(x.dtype.element_ty).to(tl.float32)
        dz = _before_activation(
            dz, own, z + row * channels, dshortcut + row * channels, offsets, inside, activation,
            added,
        )  # fmt: skip
        total += dz
        products += dz * deviation
    place = partials + first // stripe_rows * 2 * channels + column
    tl.store(place, tl.sum(total, axis=0), mask=used)
    tl.store(place + channels, tl.sum(products, axis=0), mask=used)


@_kernel
def combine_gradients(  # type: ignore[no-untyped-def]
    partials,
    dweight,
    dbias,
    variance,
    eps,
    groups,
    stripes,
    vector: tl.constexpr,
    block_stripes: tl.constexpr,
    block_channels: tl.constexpr,
    early: tl.constexpr,
):
    """dbias = Σ dz, dweight = Σ dz x̂, with x̂ = (x - mean) / sqrt(variance + eps)."""
    begin(early)
    channels = groups * vector
    column = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    used = column < channels
    total = tl.zeros([block_stripes, block_channels], dtype=tl.float32)
    products = tl.zeros([block_stripes, block_channels], dtype=tl.float32)
    for step in range(0, stripes, block_stripes):
        stripe = step + tl.arange(0, block_stripes)
        inside = (stripe < stripes)[:, None] & used[None, :]
        place = partials + stripe[:, None] * 2 * channels + column[None, :]
        total += tl.load(place, mask=inside, other=0.0)
        products += tl.load(place + channels, mask=inside, other=0.0)
    rstd = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    tl.store(dbias + column, tl.sum(total, axis=0), mask=used)
    tl.store(dweight + column, tl.sum(products, axis=0) * rstd, mask=used)


@_kernel
def input_gradient(  # type: ignore[no-untyped-def]
    x,
    dy,
    dx,
    mean,
    variance,
    weight,
    bias,
    eps,
    dweight,
    dbias,
    rows,
    groups,
    stripe_rows,
    vector: tl.constexpr,
    activation: tl.constexpr,
    frozen: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    stages: tl.constexpr,
    early: tl.constexpr,
):
    """dx = weight · rstd · (dz − Σ dz / N − x̂ Σ dz x̂ / N); with frozen statistics no sums."""
    begin(early)
    channels = groups * vector
    first, column = _place(channels, stripe_rows, block_channels)
    used = column < channels
    lane = tl.arange(0, block_rows)
    offsets = lane[:, None] * channels + column[None, :]
    center = tl.load(mean + column, mask=used, other=0.0)
    rstd = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    scale = rstd * tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    if not frozen:
        number = rows.to(tl.float32)
        mean_dz = tl.load(dbias + column, mask=used, other=0.0) / number
        slope = tl.load(dweight + column, mask=used, other=0.0) * rstd / number
    for step in tl.range(0, stripe_rows, block_rows, num_stages=stages):
        row = first + step
        inside = (lane < rows - row)[:, None] & used[None, :]
        value = tl.load(x + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        dz = tl.load(dy + row * channels + offsets, mask=inside, other=0.0).to(tl.float32)
        deviation = value - center[None, :]
        z = (deviation * scale[None, :] + shift[None, :]).to(x.dtype.element_ty).to(tl.float32)
        dz = _masked(dz, z, activation)
        if not frozen:
            dz = dz - mean_dz[None, :] - deviation * slope[None, :]
        dz = dz * scale[None, :]
        tl.store(dx + row * channels + offsets, dz.to(dx.dtype.element_ty), mask=inside)


@_kernel
def _whole_place(  # type: ignore[no-untyped-def]
    rows, channels, block_rows: tl.constexpr, block_channels: tl.constexpr
):
    """A program's channels, the offsets of all rows, and what of either is used."""
    column = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    lane = tl.arange(0, block_rows)
    used = column < channels
    offsets = lane[:, None] * channels + column[None, :]
    return column, offsets, used, (lane < rows)[:, None] & used[None, :]


@_kernel
def normalise(  # type: ignore[no-untyped-def]
    x,
    shortcut,
    z,
    mean,
    variance,
    running_mean,
    running_var,
    num_batches_tracked,
    weight,
    bias,
    momentum,
    eps,
    rows,
    groups,
    vector: tl.constexpr,
    activation: tl.constexpr,
    added: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    early: tl.constexpr,
):
    """Statistics of all rows, the running ones, and z as of `transform`."""
    begin(early)
    column, offsets, used, inside = _whole_place(rows, groups * vector, block_rows, block_channels)
    scale = tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    value = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    first = tl.load(x + column, mask=used, other=0.0).to(tl.float32)
    number = rows.to(tl.float32)
    # Less the first row: a large mean does not round away the differences.
    center = first + tl.sum(tl.where(inside, value - first[None, :], 0.0), axis=0) / number
    deviation = tl.where(inside, value - center[None, :], 0.0)
    moment = tl.sum(deviation * deviation, axis=0)
    scale *= tl.rsqrt(moment / number + eps)
    value = deviation * scale[None, :] + shift[None, :]
    value = _activated(_plus(value, shortcut, offsets, inside, added), activation)
    tl.store(z + offsets, value.to(z.dtype.element_ty), mask=inside)
    tl.store(mean + column, center, mask=used)
    tl.store(variance + column, moment / number, mask=used)
    _keep_running(
        running_mean, running_var, num_batches_tracked, center, moment, number, momentum, column,
        used,
    )  # fmt: skip


@_kernel
def all_gradients(  # type: ignore[no-untyped-def]
    x,
    dy,
    z,
    dshortcut,
    dx,
    dweight,
    dbias,
    mean,
    variance,
    weight,
    bias,
    eps,
    rows,
    groups,
    vector: tl.constexpr,
    activation: tl.constexpr,
    added: tl.constexpr,
    block_rows: tl.constexpr,
    block_channels: tl.constexpr,
    early: tl.constexpr,
):
    """dshortcut, dbias, dweight and dx as of the three kernels that do it in turn."""
    begin(early)
    column, offsets, used, inside = _whole_place(rows, groups * vector, block_rows, block_channels)
    center = tl.load(mean + column, mask=used, other=0.0)
    rstd = tl.rsqrt(tl.load(variance + column, mask=used, other=1.0) + eps)
    scale = rstd * tl.load(weight + column, mask=used, other=0.0)
    shift = tl.load(bias + column, mask=used, other=0.0)
    value = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    dz = tl.load(dy + offsets, mask=inside, other=0.0).to(tl.float32)
    deviation = value - center[None, :]
    own = (deviation * scale[None, :] + shift[None, :]).to(x.dtype.element_ty).to(tl.float32)
    dz = _before_activation(dz, own, z, dshortcut, offsets, inside, activation, added)
    total = tl.sum(dz, axis=0)
    slope = tl.sum(dz * deviation, axis=0) * rstd
    tl.store(dbias + column, total, mask=used)
    tl.store(dweight + column, slope, mask=used)
    number = rows.to(tl.float32)
    dz = dz - (total / number)[None, :] - deviation * (slope * rstd / number)[None, :]
    dz = dz * scale[None, :]
    tl.store(dx + offsets, dz.to(dx.dtype.element_ty), mask=inside)
