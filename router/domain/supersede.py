"""An earlier run on the same series, whose results somebody has: what is different now, in a sentence for people."""

from collections.abc import Sequence

from router.domain.job import Job


def earlier(one: Job, runs: Sequence[Job]) -> list[Job]:
    """Runs of the same pipeline with the same settings on what the job's series was before, the newest first."""
    same = [
        run
        for run in runs
        if run.id < one.id
        and run.lane is one.lane
        and (run.series_instance_uid, run.pipeline, run.settings_digest)
        == (one.series_instance_uid, one.pipeline, one.settings_digest)
        and (run.pixels_digest, run.identity_digest) != (one.pixels_digest, one.identity_digest)
    ]
    return sorted(same, key=lambda run: -run.id)


def is_correction(one: Job, before: Job) -> bool:
    """Whether the images are the same, and only whose they are was corrected."""
    return one.pixels_digest == before.pixels_digest


def change(one: Job, before: Job) -> str:
    """What is different from the earlier run."""
    if one.study_instance_uid != before.study_instance_uid:
        return "its images were moved here from another study"
    if one.series_instance_uid != before.series_instance_uid:
        return "its images were moved here from another series"
    if is_correction(one, before):
        return "patient or study data were corrected, the images are the same"
    then, now = before.instances, one.instances
    if then is None or now is None or then == now:
        return "images of the series were replaced"
    what = f"{_images(abs(now - then))} {'came later' if now > then else 'went away'}"
    return f"{what}, {now} instead of {then} were read"


def _images(number: int) -> str:
    return f"{number} image{'' if number == 1 else 's'}"
