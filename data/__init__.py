"""Sources of images, long-tailed splits, and batches of pixels on the device."""
