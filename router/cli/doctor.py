"""`isocenter doctor`: what `check` finds, and everything that has to be touched to be known."""

from router.cli import app
from router.cli._checkup import tell
from router.cli._common import DEFAULT_CONFIG, AsJson, Config


@app.command(epilog="Example: isocenter doctor --config /srv/isocenter/isocenter.yaml")
def doctor(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Touch everything that the node needs, and say what is wrong and what to do; stores no object anywhere.

    Disk, clock, devices, database, our own door; of each destination its name, port, TLS, AE titles and SOP classes.
    Exit code 0 without a fault (warnings may stand), 1 with one, 2 where the settings themselves are wrong.
    """
    from router.checkup import world

    tell(config, world.look, as_json=as_json)
