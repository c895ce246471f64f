"""C-FIND: a query read, allowed, audited and answered match by match, while the peer listens."""

from router.db import audit, catalogue
from router.db.catalogue import Place
from router.db.engine import reading, writing
from router.domain.query import IdentifierDoesNotMatch, Root, check_search
from router.node import Node
from router.query.answer import Answer
from router.query.exchange import Exchange
from router.query.identifier import Granted, Request, understand
from router.query.status import FindStatus

FIRST_PAGE = 50
"""Matches that are looked up before the first is answered."""
PAGE = 500


def find(node: Node, exchange: Exchange, root: Root, granted: Granted) -> None:
    """Answer one C-FIND.

    Raises:  PeerGone
    Source:  PS3.4 C.4.1.3 (SCP behaviour)
    """
    try:
        request = understand(exchange.content, explicit=exchange.explicit, root=root, granted=granted)
        check_search(request.query, relational=granted.relational)
    except IdentifierDoesNotMatch as problem:
        exchange.refuse(FindStatus.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, problem.what)
        return
    query = request.query
    with writing(node.engine) as connection:
        audit.write(
            connection,
            exchange.caller,
            "study.queried",
            root=str(root),
            level=query.level.name,
            keys=sorted(query.conditions),
        )
    exchange.respond(FindStatus.SUCCESS if _answered(node, exchange, request) else FindStatus.CANCEL)


def _answered(node: Node, exchange: Exchange, request: Request) -> bool:
    """Whether every match was sent; False when the peer has cancelled."""
    answer = Answer(request, explicit=exchange.explicit, retrieve_ae_title=node.settings.ae_title)
    some_left_out = bool(request.query.unsupported)
    status = FindStatus.PENDING_WITHOUT_OPTIONAL_KEYS if some_left_out else FindStatus.PENDING
    place: Place | None = Place()
    limit = FIRST_PAGE
    while place is not None:
        with reading(node.engine) as connection:
            found, place = catalogue.page(connection, request.query, place, limit)
        for values in found:
            if exchange.cancelled:
                return False
            exchange.pending(status, answer.identifier(values))
        exchange.check()
        limit = PAGE
    return not exchange.cancelled
