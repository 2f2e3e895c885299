"""Named queries of a fleet's own: where the fleet file says that they lie."""

from __future__ import annotations

from pathlib import Path

from services.fleet.file import load
from services.home import Home
from services.launcher.main import daemons


def test_the_folder_of_the_fleet_file_reaches_the_projector(tmp_path: Path) -> None:
    """`[queries] folder` is taken from the fleet file's place and handed to the projector; without it nothing is."""
    file = tmp_path / "fleet.toml"
    for text, wanted in (("", []), ('[queries]\nfolder = "sql"\n', ["--queries", str(tmp_path / "sql")])):
        file.write_text(text)
        commands = dict(daemons(load(file).fleet, Home(tmp_path / "home"), file))
        command = list(commands["projector"])
        assert command[command.index("--queries") :] == wanted if wanted else "--queries" not in command


def test_the_folder_is_known_while_nothing_runs(tmp_path: Path) -> None:
    """What the last projector was handed is where queries are looked for without it, and no longer once it is handed none."""
    home = Home(tmp_path / "home")
    assert home.query_folders == (home.queries,)
    home.remember_queries(tmp_path / "sql")
    assert Home(home.path).query_folders == (home.queries, tmp_path / "sql")
    home.remember_queries(None)
    assert home.query_folders == (home.queries,)
