"""The napari plugin. This version has no contributions yet."""
