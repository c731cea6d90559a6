"""What models run on: values drawn for any signature, or read from arrays, folders, test data and images."""

from normfold.inputs.image_options import ImageOptions, parse_image_options

__all__ = ["ImageOptions", "parse_image_options"]
