"""Senders as they are in hospitals: what one study looks like on the wire, event by event, in seconds.

Beside the images there are associations that open and close, and what the sender says: a storage commitment request,
performed procedure steps, or the size of each series in its headers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from router.domain.procedure_step import PerformedStep, StepState

STUDY = "1"


@dataclass(order=True)
class Event:
    """What happens at a moment: an association opens or closes, an image comes over it, or something is said."""

    at: float
    kind: str = field(compare=False)
    association: int = field(compare=False, default=0)
    place: tuple[int, int] = field(compare=False, default=(0, 0))
    said: PerformedStep | frozenset[str] | None = field(compare=False, default=None)


@dataclass
class Sent:
    """One study as it was sent.

    `sized`: each image says how many its series has; `at_once`: the sender is believed to have but one series, or to
    send all at once; `late`: one image comes an hour late.
    """

    events: list[Event]
    sized: bool = False
    at_once: bool = False
    late: bool = False


Sender = Callable[[Random], Sent]


def uid(place: tuple[int, int]) -> str:
    """SOPInstanceUID of the image at this position of this series."""
    return f"{place[0]}.{place[1]}"


def over(association: int, images: list[Event]) -> list[Event]:
    """These images over an association of their own."""
    first, last = min(images).at, max(images).at
    return [Event(first - 0.05, "open", association), *images, Event(last + 0.05, "close", association)]


def images(random: Random, places: list[tuple[int, int]], start: float, association: int) -> list[Event]:
    """One image after the other, now and then with a pause that nobody ordered."""
    at, made = start, []
    for place in places:
        at += random.uniform(0.02, 0.2) + (random.lognormvariate(0.5, 0.7) if random.random() < 0.05 else 0)
        made.append(Event(at, "image", association, place))
    return made


def stack(series: int, count: int) -> list[tuple[int, int]]:
    return [(series, position) for position in range(count)]


def one_association(random: Random) -> Sent:
    places = [place for series in range(3) for place in stack(series, random.randint(10, 30))]
    return Sent(over(1, images(random, places, 0, 1)))


def association_a_series(random: Random, pause: tuple[float, float] = (1, 20), series: int = 3) -> Sent:
    events, at = list[Event](), 0.0
    for number in range(series):
        events += over(number, images(random, stack(number, random.randint(10, 30)), at, number))
        at = max(events).at + random.uniform(*pause)
    return Sent(events)


def parallel_associations(random: Random) -> Sent:
    return Sent(
        [
            event
            for lane in range(4)
            for event in over(lane, images(random, stack(lane, random.randint(5, 30)), random.uniform(0, 3), lane))
        ]
    )


def split_associations(random: Random) -> Sent:
    """One series over several associations at once, as senders with many threads do it."""
    places, lanes = stack(0, random.randint(40, 80)), 4
    return Sent(
        [
            event
            for lane in range(lanes)
            for event in over(lane, images(random, places[lane::lanes], random.uniform(0, 2), lane))
        ]
    )


def association_an_image(random: Random) -> Sent:
    made = images(random, stack(0, random.randint(20, 60)), 0, 0)
    return Sent(
        [event for number, image in enumerate(made) for event in over(number, [replace(image, association=number)])]
    )


def cut_and_resumed(random: Random) -> Sent:
    places = stack(0, random.randint(20, 60))
    cut = random.randint(1, len(places) - 1)
    first = over(1, images(random, places[:cut], 0, 1))
    return Sent(first + over(2, images(random, places[cut:], max(first).at + random.uniform(5, 45), 2)))


def out_of_order(random: Random) -> Sent:
    places = stack(0, random.randint(20, 60))
    random.shuffle(places)
    return Sent(over(1, images(random, places, 0, 1)))


def interleaved(random: Random) -> Sent:
    places = sorted((place for series in range(3) for place in stack(series, 20)), key=lambda place: place[1])
    return Sent(over(1, images(random, places, 0, 1)))


def slow_mr(random: Random) -> Sent:
    return association_a_series(random, (120, 600), 4)


def missing_slice(random: Random) -> Sent:
    places = stack(0, 40)
    del places[random.randint(1, 38)]
    return Sent(over(1, images(random, places, 0, 1)))


def hour_late(random: Random) -> Sent:
    sent = one_association(random)
    if random.random() < 0.02:
        at = max(sent.events).at + 3600
        return Sent(sent.events + over(9, [Event(at, "image", 9, (0, 99))]), late=True)
    return sent


def with_sizes(random: Random) -> Sent:
    return replace(association_a_series(random), sized=True)


def one_with_its_size(random: Random) -> Sent:
    return replace(out_of_order(random), sized=True, at_once=True)


def slow_mr_with_sizes(random: Random) -> Sent:
    return replace(slow_mr(random), sized=True)


def with_commitment(random: Random) -> Sent:
    sent = association_a_series(random)
    named = frozenset(uid(event.place) for event in sent.events if event.kind == "image")
    return Sent([*sent.events, Event(max(sent.events).at + random.uniform(0.05, 0.5), "said", said=named)])


def step(name: str, state: StepState, made: list[Event]) -> PerformedStep:
    """A step that has made these images."""
    series: dict[str, list[str]] = {}
    for event in made:
        series.setdefault(str(event.place[0]), []).append(uid(event.place))
    return PerformedStep(
        sop_instance_uid=name,
        state=state,
        study_instance_uids=(STUDY,),
        series={} if state is StepState.IN_PROGRESS else {one: tuple(uids) for one, uids in series.items()},
    )


def reported(random: Random, sent: Sent, *, forgets: float = 0.0, ends: StepState = StepState.COMPLETED) -> Sent:
    """One step for the study, ended from twenty seconds before the last image to half a second after it."""
    made = [event for event in sent.events if event.kind == "image"]
    said = [Event(min(sent.events).at - 1, "said", said=step("step", StepState.IN_PROGRESS, made))]
    if random.random() >= forgets:
        at = max(max(made).at + random.uniform(-20, 0.5), min(made).at)
        said.append(Event(at, "said", said=step("step", ends, made)))
    return Sent([*said, *sent.events])


def with_steps(random: Random) -> Sent:
    return reported(random, association_a_series(random))


def forgetful(random: Random) -> Sent:
    return reported(random, association_a_series(random), forgets=0.05)


def discontinued(random: Random) -> Sent:
    sent = association_a_series(random, series=random.randint(1, 3))
    return reported(random, sent, ends=StepState.DISCONTINUED)


def slow_mr_with_steps(random: Random) -> Sent:
    return reported(random, slow_mr(random))


def step_a_series(random: Random) -> Sent:
    """MR: a step for each series, all begun before the first image."""
    sent = slow_mr(random)
    said = list[Event]()
    for number in range(4):
        made = [event for event in sent.events if event.kind == "image" and event.place[0] == number]
        said.append(Event(-1, "said", said=step(f"step {number}", StepState.IN_PROGRESS, made)))
        at = max(made).at + random.uniform(-1, 0.5)
        said.append(Event(at, "said", said=step(f"step {number}", StepState.COMPLETED, made)))
    return Sent([*said, *sent.events])


SENDERS: dict[str, Sender] = {
    "one association": one_association,
    "an association a series": association_a_series,
    "parallel associations": parallel_associations,
    "a series split over four": split_associations,
    "an association an image": association_an_image,
    "in order, cut and resumed": cut_and_resumed,
    "out of order": out_of_order,
    "interleaved series": interleaved,
    "MR, 2-10 min between series": slow_mr,
    "a slice is missing": missing_slice,
    "a slice an hour late (2 %)": hour_late,
    "each series gives its size": with_sizes,
    "MR, each gives its size": slow_mr_with_sizes,
    "one series gives its size": one_with_its_size,
    "storage commitment": with_commitment,
    "MPPS": with_steps,
    "MPPS, 5 % never ended": forgetful,
    "MPPS, discontinued": discontinued,
    "MR, MPPS for the study": slow_mr_with_steps,
    "MR, MPPS for each series": step_a_series,
}

WITNESSED = {
    "storage commitment": "study",
    "MPPS": "study",
    "MPPS, 5 % never ended": "study",
    "MPPS, discontinued": "study",
    "MR, MPPS for the study": "study",
    "MR, MPPS for each series": "both",
    "one series gives its size": "both",
    "each series gives its size": "series",
    "MR, each gives its size": "series",
}
"""Senders that give a positive witness, and of what."""
