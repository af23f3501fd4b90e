"""Who decides what: images leased to browsers, decisions written, undone and repeated; no image goes to two at once."""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deepfer_yolo.data.corrections import Corrections, CorrectionsWriter, Standing, final_of
from deepfer_yolo.data.decisions import MAX_CHARS, UNDO, WORDS, Decision, now, shown_by
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import os_reason
from deepfer_yolo.review.queue import Entry
from deepfer_yolo.serve.schemas import ProblemError, too_many
from deepfer_yolo.servers import ReviewConfig

AHEAD = 16
"""Images that a browser holds, so that the next ones are there before they are asked for."""
GAP = 20
"""Decisions between the two looks at one image, where there are so many left."""
MAX_BROWSERS = 64


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of the queue a browser wants; what is empty takes all."""

    label: str = ""
    split: str = ""
    kind: str = ""

    def takes(self, entry: Entry) -> bool:
        """Whether an image is among them."""
        row = entry.row
        return (
            self.label in ("", row.label)
            and self.split in ("", row.split)
            and (not self.kind or self.kind in entry.kinds)
        )


@dataclass(slots=True)
class Browser:
    """One browser of one reviewer: the places in the queue that it holds, its own decisions, and its last sign."""

    reviewer: str
    seen_s: float
    ahead: list[int] = field(default_factory=list)
    repeats: set[int] = field(default_factory=set)
    history: list[tuple[int, Decision]] = field(default_factory=list)


@dataclass(slots=True)
class _Share:
    """A queue as it stands for reviewers who do not see each other's images: all of them, or with `second` one."""

    open: list[int]
    owners: dict[int, str] = field(default_factory=dict)
    later: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    n_decided: Counter[str] = field(default_factory=Counter)


class Review:
    """A review under way. Its calls come one at a time. `ids` name the images of `entries` to browsers."""

    def __init__(
        self,
        entries: Sequence[Entry],
        ids: Sequence[str],
        labels: Sequence[str],
        writer: CorrectionsWriter,
        config: ReviewConfig,
        clock: Callable[[], float] = time.monotonic,
        model: str = "",
    ) -> None:
        self.entries, self.labels, self.config = tuple(entries), tuple(labels), config
        self._writer, self._clock, self._model = writer, clock, model
        self._decisions = list(writer.before.decisions)
        self._standing = Standing()
        for decision in self._decisions:
            self._standing.add(decision)
        self.ids = tuple(ids)
        self._place_of = {name: place for place, name in enumerate(self.ids)}
        self._shares: dict[str, _Share] = {}
        self._browsers: dict[str, Browser] = {}

    @property
    def corrections(self) -> Corrections:
        """All decisions of the file as they stand."""
        before = self._writer.before
        return Corrections(before.path, tuple(self._decisions), before.digest)

    def place(self, name: str) -> int:
        """Where in the queue the image of an id stands. Raises ProblemError for none."""
        if name not in self._place_of:
            raise ProblemError(404, "no such image in this review")
        return self._place_of[name]

    def next(self, session: str, reviewer: str, wanted: Filter | None = None) -> list[int]:
        """The places that a browser holds from now on, the next one first."""
        browser, share = self._browser(session, reviewer), self._share(reviewer)
        if wanted is not None:
            for place in [place for place in browser.ahead if not wanted.takes(self.entries[place])]:
                self._give_back(browser, share, place)
        self._fill(session, browser, share, wanted or Filter())
        return browser.ahead

    def decide(self, session: str, reviewer: str, name: str, answer: str, seconds: float | None = None) -> Decision:
        """Write one decision and return it. Raises ProblemError where the image is another browser's or decided."""
        if (answer not in self.labels and answer not in WORDS) or answer == UNDO:
            raise ProblemError(422, "no such answer")
        place, share = self.place(name), self._share(reviewer)
        browser = self._browser(session, reviewer)
        if place not in browser.ahead:
            if browser.history and (last := browser.history[-1])[0] == place and last[1].new_label == answer:
                return last[1]  # the answer to the first request was lost on its way
            if place not in share.open:
                raise ProblemError(409, "another browser has this image, or it is decided")
        is_repeat = place in browser.repeats
        decision = self._written(self.entries[place], reviewer, answer, seconds, is_repeat=is_repeat)
        self._forget(browser, share, place)
        browser.history.append((place, decision))
        share.n_decided[reviewer] += 1
        if not is_repeat and self._is_marked(self.entries[place]):
            share.later.setdefault(reviewer, []).append((share.n_decided[reviewer] + GAP, place))
        return decision

    def undo(self, session: str, reviewer: str) -> int:
        """Take back the browser's last decision and give it that image again; its place."""
        browser, share = self._browser(session, reviewer), self._share(reviewer)
        if not browser.history:
            raise ProblemError(409, "there is nothing to undo")
        place, decision = browser.history[-1]
        if share.owners.get(place, session) != session:
            raise ProblemError(409, "another browser has this image now")
        self._written(self.entries[place], reviewer, UNDO, None, is_repeat=decision.is_repeat)
        browser.history.pop()
        share.n_decided[reviewer] -= 1
        if not decision.is_repeat:
            share.later[reviewer] = [pair for pair in share.later.get(reviewer, ()) if pair[1] != place]
        self._forget(browser, share, place)
        browser.ahead.insert(0, place)
        share.owners[place] = session
        if decision.is_repeat:
            browser.repeats.add(place)
        return place

    def progress(self, session: str, reviewer: str) -> Mapping[str, int]:
        """How many images of the queue are decided, are left, and were decided by this browser."""
        share, browser = self._share(reviewer), self._browser(session, reviewer)
        held = sum(place not in other.repeats for other in self._browsers.values() for place in other.ahead
                   if self._share(other.reviewer) is share)  # fmt: skip
        left = len(share.open) + held
        return {
            "total": len(self.entries),
            "done": len(self.entries) - left,
            "left": left,
            "here": len(browser.history),
        }

    def release(self, session: str) -> None:
        """Give back what a browser holds; it may come again."""
        if (browser := self._browsers.get(session)) is None:
            return
        for place in list(browser.ahead):
            self._give_back(browser, self._share(browser.reviewer), place)

    def _written(self, entry: Entry, reviewer: str, answer: str, seconds: float | None, *, is_repeat: bool) -> Decision:
        shown = ("blind",) if self.config.blind else shown_by(self._model) if entry.probs else ()
        how = (*shown, *(("repeat",) if is_repeat else ()))
        row, why = entry.row, "; ".join(entry.why)[: MAX_CHARS["why"]]
        decision = Decision(row.path, row.sha256, row.split, row.label, answer, reviewer, why, how, seconds, now())
        try:
            self._writer.append(decision)
        except DatasetError as error:
            raise ProblemError(507, printable(f"{error}; {error.hint}")) from None
        except OSError as error:
            raise ProblemError(507, printable(f"{self._writer.path}: {os_reason(error)}")) from None
        self._decisions.append(decision)
        self._standing.add(decision)
        return decision

    def _browser(self, session: str, reviewer: str) -> Browser:
        """The browser, heard of now; those that have been silent too long give their images back."""
        at_s = self._clock()
        for name, other in self._browsers.items():
            if name != session and at_s - other.seen_s > self.config.lease_s:
                self.release(name)
        found = self._browsers.get(session)
        if found is None or found.reviewer != reviewer:
            self.release(session)
            if found is None and len(self._browsers) >= MAX_BROWSERS:
                self._drop_silent()
            found = self._browsers[session] = Browser(reviewer, at_s)
        found.seen_s = at_s
        return found

    def _drop_silent(self) -> None:
        idle = [name for name, browser in self._browsers.items() if not browser.ahead]
        if not idle:
            raise too_many(f"{MAX_BROWSERS} browsers review already")
        del self._browsers[idle[0]]

    def _share(self, reviewer: str) -> _Share:
        key = reviewer if self.config.second else ""
        if key not in self._shares:
            self._shares[key] = _Share([place for place in range(len(self.entries)) if self._is_open(place, reviewer)])
        share = self._shares[key]
        if reviewer not in share.later:
            share.later[reviewer] = [(GAP, place) for place, entry in enumerate(self.entries)
                                     if self._is_marked(entry) and self._lacks_repeat(entry, reviewer)]  # fmt: skip
        return share

    def _is_open(self, place: int, reviewer: str) -> bool:
        entry = self.entries[place]
        answers = self._standing.of((entry.row.path, entry.row.sha256))
        if self.config.second:
            return reviewer not in answers
        return not answers or (entry.is_conflict and final_of(answers.values()) is None)

    def _is_marked(self, entry: Entry) -> bool:
        """Whether an image is to be shown twice: by its hash, so that a review that goes on repeats the same ones."""
        return int(entry.row.sha256[:8], 16) < self.config.repeat * 2**32

    def _lacks_repeat(self, entry: Entry, reviewer: str) -> bool:
        image = entry.row.path, entry.row.sha256
        return reviewer in self._standing.of(image) and reviewer not in self._standing.of(image, is_repeat=True)

    def _fill(self, session: str, browser: Browser, share: _Share, wanted: Filter) -> None:
        later = share.later[browser.reviewer]
        count = share.n_decided[browser.reviewer] + len(browser.ahead)
        for place in list(share.open):
            if len(browser.ahead) >= AHEAD:
                return
            if later and later[0][0] <= count:
                self._take(session, browser, share, later.pop(0)[1], is_repeat=True)
            if wanted.takes(self.entries[place]):
                share.open.remove(place)
                self._take(session, browser, share, place)
                count += 1
        while later and len(browser.ahead) < AHEAD:  # nothing new is left
            self._take(session, browser, share, later.pop(0)[1], is_repeat=True)

    def _take(self, session: str, browser: Browser, share: _Share, place: int, *, is_repeat: bool = False) -> None:
        browser.ahead.append(place)
        share.owners[place] = session
        if is_repeat:
            browser.repeats.add(place)

    def _forget(self, browser: Browser, share: _Share, place: int) -> None:
        share.owners.pop(place, None)
        browser.repeats.discard(place)
        if place in browser.ahead:
            browser.ahead.remove(place)
        if place in share.open:
            share.open.remove(place)

    def _give_back(self, browser: Browser, share: _Share, place: int) -> None:
        is_repeat = place in browser.repeats
        self._forget(browser, share, place)
        if is_repeat:
            share.later.setdefault(browser.reviewer, []).insert(0, (share.n_decided[browser.reviewer], place))
        else:
            insort(share.open, place)
