"""Resizes a JPEG or PNG: base64 in, base64 out. Uses Pillow from PyPI (requirements.txt)."""

import base64
import io

from PIL import Image, ImageOps

PIXELS_MAX = 50_000_000
FORMATS = ("JPEG", "PNG")


def lambda_handler(event, context):
    """``{"image": base64, "width": 128}`` -> ``{"image": base64, "format", "size", "original_size"}``."""
    Image.MAX_IMAGE_PIXELS = PIXELS_MAX
    source = Image.open(io.BytesIO(base64.b64decode(event["image"])), formats=FORMATS)
    original_size, picture_format = source.size, source.format
    picture = ImageOps.exif_transpose(source)
    width = int(event.get("width", 128))
    picture.thumbnail((width, width), Image.Resampling.LANCZOS)
    output = io.BytesIO()
    picture.save(output, picture_format)
    print(f"{picture_format} {original_size} -> {picture.size}, {output.tell()} bytes")
    return {
        "image": base64.b64encode(output.getvalue()).decode(),
        "format": picture_format,
        "size": picture.size,
        "original_size": original_size,
    }
