"""The waiting line: fair queueing between principals, weighted by tokens. Knows rows, no slot, no bound and no time.

Start-time fair queueing: a principal's virtual time advances by the cost of each of its rows that leaves the line,
divided by its weight, and whoever is furthest behind is next; what a row did not take after all is given back. Who
comes back starts at the line's own virtual time: being away is neither saved up nor punished. Among one principal's requests a lower priority number goes first,
then arrival: a principal can hold back only itself. The rows of a request stay together. Every operation is O(log n).
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Final, Generic

from deployments.rows import Event, Row, Ticket, Work

# A heap is rebuilt when most of its entries are of requests that left otherwise, but not for a few.
_FEW: Final = 16


@dataclass(eq=False, slots=True)
class _Request(Generic[Work, Event]):
    share: "_Share[Work, Event]"
    priority: int
    rows: deque[Row[Work, Event]]


@dataclass(eq=False, slots=True)
class _Share(Generic[Work, Event]):
    """One principal in the line."""

    principal: str
    weight: float
    start: float  # the virtual time at which its next row starts
    # A heap: priority, arrival, request.
    requests: list[tuple[int, int, _Request[Work, Event]]] = field(default_factory=list)
    left: int = 0  # requests in the heap that have no rows any more
    rows: int = 0
    tokens: Counter[int] = field(default_factory=Counter)  # by priority

    def first(self) -> _Request[Work, Event] | None:
        """The request that is next, None without one."""
        while self.requests and not self.requests[0][2].rows:
            heapq.heappop(self.requests)
            self.left -= 1
        return self.requests[0][2] if self.requests else None

    def forget_one(self) -> None:
        """A request somewhere in the heap has lost its rows."""
        self.left += 1
        if self.left > _FEW and self.left > len(self.requests) // 2:
            self.requests = [entry for entry in self.requests if entry[2].rows]
            heapq.heapify(self.requests)
            self.left = 0


class Line(Generic[Work, Event]):
    """Rows that wait. `weights`: a principal's share against the others', 1 where it is not named."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.tokens = 0
        self._weights = weights or {}
        self._rows = 0
        self._requests: dict[Ticket[Event], _Request[Work, Event]] = {}
        # Whoever waits, or was served so lately that its virtual time is ahead of the line's.
        self._shares: dict[str, _Share[Work, Event]] = {}
        self._order: list[
            tuple[float, int, _Share[Work, Event]]
        ] = []  # a heap with one entry for each of them
        self._waiting_weight = 0.0
        self._virtual = 0.0
        self._arrivals = count()

    def __len__(self) -> int:
        """Rows in the line."""
        return self._rows

    def __iter__(self) -> Iterator[Row[Work, Event]]:
        """All rows, by the arrival of their requests."""
        return chain.from_iterable(request.rows for request in list(self._requests.values()))

    def push(self, rows: Sequence[Row[Work, Event]]) -> None:
        """Put a request's rows at the end of its principal's line. Rows have the principal and priority of the first."""
        first = rows[0]
        share = self._shares.get(first.principal)
        if share is None:
            weight = self._weights.get(first.principal, 1.0)
            share = self._shares[first.principal] = _Share(first.principal, weight, self._virtual)
            self._place(share)
        request = self._requests[first.ticket] = _Request(share, first.priority, deque(rows))
        heapq.heappush(share.requests, (first.priority, next(self._arrivals), request))
        self._count(request, len(rows), sum(row.cost for row in rows))

    def pop(self) -> Row[Work, Event] | None:
        """Take the row that is next, None from an empty line."""
        while self._order:
            start, _, share = self._order[0]
            if start != share.start or self._shares.get(share.principal) is not share:
                heapq.heappop(self._order)
                continue
            request = share.first()
            if request is not None:
                return self._take(share, request)
            # It is the one furthest behind and wants nothing: the line's time passes its own.
            self._virtual = share.start
            heapq.heappop(self._order)
            del self._shares[share.principal]
        return None

    def discard(self, ticket: Ticket[Event]) -> None:
        """Take a request's rows out, in time that does not depend on how many others wait."""
        request = self._requests.pop(ticket, None)
        if request is not None:
            rows = list(request.rows)
            request.rows.clear()
            self._count(request, -len(rows), -sum(row.cost for row in rows))
            request.share.forget_one()

    def refund(self, principal: str, tokens: int) -> None:
        """So many tokens of what left the line were not taken, by a row that ended early or never ran."""
        share = self._shares.get(principal)
        if share is None:  # the line's time has passed its own: it has nothing to wait for
            return
        start = max(share.start - tokens / share.weight, self._virtual)
        if start < share.start:
            share.start = start
            self._place(share)

    def held(self, principal: str) -> tuple[int, int]:
        """Rows and tokens of one principal."""
        share = self._shares.get(principal)
        return (0, 0) if share is None else (share.rows, share.tokens.total())

    def ahead(self, principal: str, priority: int) -> float:
        """Tokens that leave the line before a row that joined it now.

        While its own are served, the others get their shares of the batch; they have no more than is in the line.
        """
        share = self._shares.get(principal)
        if share is None or not share.rows:
            return 0.0
        own = sum(tokens for level, tokens in share.tokens.items() if level <= priority)
        return min(float(self.tokens), own * self._waiting_weight / share.weight)

    def _take(self, share: _Share[Work, Event], request: _Request[Work, Event]) -> Row[Work, Event]:
        row = request.rows.popleft()
        if not request.rows:
            del self._requests[row.ticket]
            share.left += 1  # it is the heap's first: gone with the next look
        self._count(request, -1, -row.cost)
        self._virtual = share.start
        share.start += row.cost / share.weight
        heapq.heapreplace(self._order, (share.start, next(self._arrivals), share))
        return row

    def _place(self, share: _Share[Work, Event]) -> None:
        if len(self._order) > _FEW + 2 * len(self._shares):
            self._order = [(each.start, next(self._arrivals), each) for each in self._shares.values()]
            heapq.heapify(self._order)
        heapq.heappush(self._order, (share.start, next(self._arrivals), share))

    def _count(self, request: _Request[Work, Event], rows: int, tokens: int) -> None:
        share = request.share
        waited = share.rows > 0
        share.rows += rows
        share.tokens[request.priority] += tokens
        if not share.tokens[request.priority]:
            del share.tokens[request.priority]
        self._rows += rows
        self.tokens += tokens
        if waited != (share.rows > 0):
            self._waiting_weight += -share.weight if waited else share.weight
        if not self._rows:
            self._waiting_weight = 0.0  # what additions of fractions left there
