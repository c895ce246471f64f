"""`isocenter verify`: is every file in the store as it was?"""

from rich.progress import track

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, print_rows, talk


class StoreDamaged(Problem):
    """Files of the store are missing, or are not what they were."""


@app.command(epilog="Example: isocenter verify")
def verify(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Read the whole store again and name every file that is damaged or missing."""
    from router.compose import open_node
    from router.config import load
    from router.work import rehash

    node = open_node(load(config))
    total = rehash.count(node)
    looked = track(rehash.look(node), "reading the store", total=total, console=talk, transient=True)
    faults = [
        {"path": one.path, "sop_instance_uid": one.sop_instance_uid, "fault": one.fault} for one in looked if one.fault
    ]
    print_rows(faults, ("path", "sop_instance_uid", "fault"), as_json=as_json, empty=f"{total} files are as they were.")
    if faults:
        raise StoreDamaged(
            f"{len(faults)} of {total} files are damaged or missing",
            remedy="Look at the disk. What is sent again is stored again; results come by `isocenter jobs rerun`",
        )
