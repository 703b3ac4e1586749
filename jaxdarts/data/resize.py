"""How are images brought to one square size, once, when they are loaded?"""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize_picture(picture: Image.Image, size: int) -> Image.Image:
    """One picture as `size` x `size` pixels: the mean over each new pixel's area when shrinking, else bilinear.

    The aspect ratio is not kept. A picture of the right size is returned as it is.
    """
    if picture.size == (size, size):
        return picture
    shrinks = min(picture.size) >= size
    return picture.resize((size, size), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)


def resize_images(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 or float32 [N, H, W, C] to [N, size, size, C] of the same dtype. Cost: about 10 us for 32x32x3."""
    num_images, height, width, channels = images.shape
    if (height, width) == (size, size):
        return images
    resized = np.empty((num_images, size, size, channels), images.dtype)
    if images.dtype == np.uint8 and channels == 3:
        for index, image in enumerate(images):
            resized[index] = np.asarray(resize_picture(Image.fromarray(image), size))
        return resized
    # Channel by channel: Pillow would weight colours by a fourth channel, and has no float colour pictures.
    for index, image in enumerate(images):
        for channel in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
            resized[index, ..., channel] = np.asarray(resize_picture(plane, size))
    return resized
