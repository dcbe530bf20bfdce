"""Write the table of the catalogue of rules that ``goniometer rules`` lists: python scripts/make_rule_table.py"""

from __future__ import annotations

from pathlib import Path

from goniometer.rotations.summary import table

TABLE = Path(__file__).parents[1] / "src" / "goniometer" / "rotations" / "catalogue.json"

if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
