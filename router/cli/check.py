"""`isocenter check`: files and settings, offline."""

from router.cli import app
from router.cli._checkup import tell
from router.cli._common import DEFAULT_CONFIG, AsJson, Config


@app.command(epilog="Example: isocenter check --config /srv/isocenter/isocenter.yaml")
def check(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Look at files and settings, without touching anybody: rights, room, certificates, the database, the rulebook.

    Exit code 0 without a fault (warnings may stand), 1 with one, 2 where the settings themselves are wrong.
    """
    from router.checkup import files

    tell(config, files.look, as_json=as_json)
