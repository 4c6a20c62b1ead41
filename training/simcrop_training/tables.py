"""``simcrop-train table``: results of several runs in the form of the paper's tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from simcrop_core.cli.terminal import answer

NAMES = ("table.md", "table.csv", "table.tex")


def run_table(arguments: argparse.Namespace) -> int:
    """Print a table, and write it with pictures where a folder is named.

    Raises
    ------
    SimCroPError
        A run has no result or none for this table, or files are there or cannot be written.
    """
    from simcrop_core.finetune.table_figure import write_figures
    from simcrop_core.finetune.tables import make_table, read_run
    from simcrop_core.outputs import refuse_existing, whole_file

    runs = [read_run(Path(folder).expanduser()) for folder in arguments.dirs]
    table = make_table(arguments.kind, runs)
    lines = [table.markdown()]
    if arguments.out is not None:
        out = Path(arguments.out).expanduser()
        refuse_existing([out / name for name in NAMES], overwrite=arguments.overwrite)
        texts = (table.markdown(), table.csv(), table.latex())
        for name, text in zip(NAMES, texts, strict=True):
            with whole_file(out / name) as hidden:
                hidden.write_text(text, encoding="utf-8")
        pictures = write_figures(out, runs)
        names = ", ".join([*NAMES, *(path.name for path in pictures)])
        lines.append(f"Written to {out}: {names}")
    answer(arguments, table.to_dict(), lines)
    return 0
