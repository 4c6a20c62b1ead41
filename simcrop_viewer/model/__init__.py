"""What the application knows: plain objects that tell of their changes, without Qt or napari."""
