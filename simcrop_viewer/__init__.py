"""The desktop application. This version has the library and the ``simcrop`` command only."""
