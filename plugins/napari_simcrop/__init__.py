"""The napari plugin: scans, labels and the sample study in any napari window.

`readers`, `writers`, `sample` and `commands` hold what ``napari.yaml`` names; all they do is ask
`simcrop_core` and `simcrop_viewer`.
"""
