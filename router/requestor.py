"""pynetdicom's side of an association that we ask for, with a race of its own taken away.

`Association.send_*` stops the reactor thread, so that only they take answers out of the queue. They believe a flag
that the reactor sets a moment before it stops and clears a moment after it went on: on a busy machine the reactor is
between the two, takes the answer, drops it, and the sender waits until its time-out. One of some thousand C-STOREs
was lost so. Here the flag is asked of the event on which the reactor stops.
"""

import threading

from pynetdicom.association import Association


class Requestor(Association):  # type: ignore[misc]
    """An association whose `_is_paused` is true only while its reactor is stopped."""

    @property
    def _is_paused(self) -> bool:
        stopped = bool(self._reactor_checkpoint._cond._waiters)
        # nobody is left, or it is the reactor itself that asks (it releases after its network time-out)
        return stopped or self._kill or threading.current_thread() is self

    @_is_paused.setter
    def _is_paused(self, value: bool) -> None:
        """What the reactor says of itself is not needed."""


def steady(association: Association) -> Association:
    """The association as a Requestor; to be called as soon as `AE.associate` has given it."""
    association.__class__ = Requestor
    return association
