"""All that knows a pixel: images are the first kind of sample."""
