"""Lists are read page by page, in a lane and without a gap or a double."""

from router.db import jobs
from router.db.engine import writing
from router.domain.job import Lane
from router.web import doors
from tests.web.conftest import Window
from tests.web.rows import arrive


def test_jobs_are_paged_in_a_lane(window: Window) -> None:
    made = [arrive(window.node, f"1.2.{number}") for number in range(7)]
    with writing(window.node.engine) as connection:
        for number in range(5):
            jobs.add_delivery(
                connection, study_instance_uid=f"1.2.{number}", generation=1, result_set_id=None,  # type: ignore[arg-type]
                destination=f"pacs{number}", priority=1, max_attempts=1,
            )  # fmt: skip
    viewer = window.log_in("viewer")
    seen: list[int] = []
    asked: dict[str, str | int] = {"lane": str(Lane.INFER), "limit": 3}
    while found := viewer.get(f"{doors.API}/jobs", params=asked).json():
        assert {one["lane"] for one in found} == {"infer"}
        seen += [one["id"] for one in found]
        asked["before"] = seen[-1]
    assert seen == sorted(made, reverse=True)
    assert viewer.get(f"{doors.API}/jobs", params={"before": 0}).status_code == 422
