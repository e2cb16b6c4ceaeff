"""LibreOffice and Gnumeric without their windows, for tests: how what we write is read by others.

As root on Debian they are installed: in 15 s with 280 MB, and in 5 s with 60 MB.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.dev import apt
from app.dev.child import Child

# How long a program may take for all of its files, in seconds.
PATIENCE = 110.0


class NoSpreadsheet(apt.Missing):
    """There is no such program on this machine."""

    code = "no_spreadsheet"


def libreoffice() -> Path:
    """`SOFFICE`, or PATH, or installed; raises NoSpreadsheet."""
    return apt.find_or_install(find_libreoffice, "libreoffice-calc-nogui", "SOFFICE")


def gnumeric() -> Path:
    """`SSCONVERT`, or PATH, or installed; raises NoSpreadsheet."""
    return apt.find_or_install(find_gnumeric, "gnumeric", "SSCONVERT")


def find_libreoffice() -> Path:
    return _found("LibreOffice", "SOFFICE", ("soffice", "libreoffice"), "libreoffice-calc-nogui")


def find_gnumeric() -> Path:
    return _found("Gnumeric", "SSCONVERT", ("ssconvert",), "gnumeric")


def open_in_libreoffice(files: Sequence[Path], out: Path, options: str = "") -> list[Path]:
    """Each file opened and saved as a workbook in `out`, in one go, since starting takes seconds.

    `options` are those of its CSV filter: separator, quote, character set, first line, columns, language,
    whether quoted fields are text, whether dates and the like are recognized, and so on.
    """
    with tempfile.TemporaryDirectory(prefix="waybill-libreoffice-") as profile:
        command = [
            *(str(libreoffice()), "--headless", "--norestore", f"-env:UserInstallation=file://{profile}"),
            *([f"--infilter=CSV:{options}"] if options else []),
            *("--convert-to", "xlsx", "--outdir", str(out), *map(str, files)),
        ]
        # It takes more from its home than the profile.
        _run("LibreOffice", command, out, os.environ | {"HOME": profile})
    return [out / f"{file.stem}.xlsx" for file in files]


def open_in_gnumeric(files: Sequence[Path], out: Path) -> list[Path]:
    """Each file opened and saved as a workbook in `out`."""
    made = [out / f"{file.stem}.xlsx" for file in files]
    with tempfile.TemporaryDirectory(prefix="waybill-gnumeric-") as home:
        environ = os.environ | {"HOME": home, "LC_ALL": "C.UTF-8"}
        for file, workbook in zip(files, made, strict=True):
            # It looks at the beginning of a text file to tell what it is, and is easily wrong.
            text = ["--import-type=Gnumeric_stf:stf_csvtab"] if file.suffix == ".csv" else []
            command = [str(gnumeric()), *text, "--export-type=Gnumeric_Excel:xlsx", str(file), str(workbook)]
            _run("Gnumeric", command, out, environ)
    return made


def _run(name: str, command: Sequence[str], out: Path, environ: dict[str, str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    child = Child(name, command, log=out / f"{name.lower()}.log", environ=environ)
    child.start()
    try:
        child.wait(PATIENCE)
    finally:
        child.kill()


def _found(title: str, variable: str, names: Sequence[str], package: str) -> Path:
    named = os.environ.get(variable)
    found = next(filter(None, map(shutil.which, [named] if named else names)), None)
    if found is None:
        raise NoSpreadsheet(
            f"The tests of formats need {title} and found none. Set {variable} to the path of {names[0]}, "
            f"put it on PATH, or install it: `apt-get install {package}`."
        )
    return Path(found)
