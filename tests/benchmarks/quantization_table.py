"""Every scheme on the real detector: the tables of docs/quantization.md.

Run: `python -m tests.benchmarks.quantization_table [--write docs/quantization.md]` with QUANTSWEEP_REFERENCE_DATA set;
about ten minutes on 2 cores. `--write` puts the tables in place of those between the file's markers.
"""

import argparse
import re
import time
from pathlib import Path

from tests.benchmarks.zoo import places, quantsweep, swept, zoo_folder

SPEC = Path(__file__).parents[2] / "orchestrator" / "examples" / "quantization.yaml"
TABLES = {"schemes": ("leaderboard", "--markdown"), "layers": ("layers", "--markdown")}
"""Commands that make each table, by the name of its markers."""


def main() -> None:
    """Runs the sweep and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    out: Path | None = parser.parse_args().write
    with zoo_folder() as folder:
        start = time.perf_counter()
        swept(folder, SPEC.read_text())
        print(f"{time.perf_counter() - start:.0f} s")
        tables = {name: quantsweep("results", *words, *places(folder)[:2]) for name, words in TABLES.items()}
    for name, table in tables.items():
        print(table)
        if out is not None:
            out.write_text(replaced(out.read_text(), name, table))


def replaced(text: str, name: str, table: str) -> str:
    """Puts a table between its markers.

    Args:
        text: A Markdown file with the lines `<!-- NAME -->` and `<!-- /NAME -->`.
        name: Name of the markers.
        table: The table.

    Returns:
        The file with the table in place of what was between them.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the file has no markers <!-- {name} --> and <!-- /{name} -->")
    return pattern.sub(lambda found: f"{found[1]}\n{table.strip()}\n\n{found[2]}", text)


if __name__ == "__main__":
    main()
