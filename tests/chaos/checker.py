"""The judge of a history. It knows nothing of brokers, workers and stores; what it says rests on the entries alone.

lost         confirmed jobs with neither answer nor dead letter nor expiry
unexpected   answers, dead letters and effects of jobs that nobody submitted
wrong        an answer other than the only right one, or than an earlier answer to the same job; an answer from a
             version that is too old, or that does not hold what its version has to hold
effects      writes that took effect never, twice, or in another version than they were answered with; final rows
             other than all writes make, each applied once in the order of versions
duplicates   second and further answers to a job: allowed, and counted
expired      jobs that their client gave up: allowed only where the test says so
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.history import Entry, digest_of

#: The collection whose searches read all of its rows, and the writes to it.
READS = "search.moving"
AWAY = "STORE_UNAVAILABLE"
WRITES = ("upsert.moving", "insert.moving", "delete.moving")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a history amounts to; sentences name the jobs.

    Attributes:
        recovery_s: the longest that a connection, and then an answer, was away after its loss was noticed and its cause
            healed; None where nothing was injected.
    """

    jobs: int
    lost: list[str]
    unexpected: list[str]
    wrong: list[str]
    effects: list[str]
    duplicates: int
    unavailable: int
    expired: int
    dead: int
    recovery_s: float | None

    @property
    def faults(self) -> list[str]:
        return [*self.lost, *self.unexpected, *self.wrong, *self.effects]


@dataclass
class _Job:
    """The entries of one job, in their order."""

    entries: list[Entry] = field(default_factory=list)

    def all(self, phase: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.phase == phase]

    @property
    def answers(self) -> list[Entry]:
        """Those that say what became of the job."""
        return [entry for entry in self.all("answered") if entry.digest != AWAY]

    def first(self, phase: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.phase == phase), None)


def check(history: Iterable[Entry]) -> Verdict:
    entries = list(history)
    jobs: dict[str, _Job] = defaultdict(_Job)
    for entry in entries:
        if entry.job_id:
            jobs[entry.job_id].entries.append(entry)
    submitted = {job_id: job for job_id, job in jobs.items() if job.first("submitted")}
    strangers = [
        entry for entry in entries if entry.phase in ("answered", "dead", "committed") and entry.job_id not in submitted
    ]
    states = _States(submitted)
    return Verdict(
        jobs=len(submitted),
        lost=[f"job {job_id} is lost" for job_id, job in submitted.items() if _is_lost(job)],
        unexpected=[f"job {entry.job_id!r} is {entry.phase}, and nobody submitted it" for entry in strangers],
        wrong=[*_wrong_answers(submitted), *_wrong_reads(submitted, states), *_wrong_versions(entries, submitted)],
        effects=[*_wrong_effects(submitted), *_wrong_rows(entries, states)],
        duplicates=sum(max(0, len(job.answers) - 1) for job in submitted.values()),
        unavailable=sum(len(job.all("answered")) - len(job.answers) for job in submitted.values()),
        expired=sum(job.first("expired") is not None for job in submitted.values()),
        dead=sum(job.first("dead") is not None for job in submitted.values()),
        recovery_s=_recovery_s(entries),
    )


class _States:
    """The rows at each version: every committed write, applied once, by version and then by order of submission."""

    def __init__(self, submitted: dict[str, _Job]) -> None:
        order = {job_id: number for number, job_id in enumerate(submitted)}
        commits = [
            (commit.version or 0, order[job_id], job.first("submitted"))
            for job_id, job in submitted.items()
            if (commit := job.first("committed")) is not None
        ]
        rows: dict[int, int] = {}
        self._versions: dict[int, dict[int, int]] = {0: {}}
        for version, _, write in sorted(commits, key=lambda commit: commit[:2]):
            for key, value in ((write and write.effect) or {}).items():
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value
            self._versions[version] = dict(rows)

    def at(self, version: int) -> dict[int, int]:
        return self._versions[max(known for known in self._versions if known <= version)]

    @property
    def last(self) -> dict[int, int]:
        return self._versions[max(self._versions)]


def _is_lost(job: _Job) -> bool:
    ended = any(job.first(phase) for phase in ("answered", "dead", "expired"))
    return job.first("confirmed") is not None and not ended


def _wrong_answers(submitted: dict[str, _Job]) -> Iterable[str]:
    for job_id, job in submitted.items():
        answers, wanted = job.answers, job.entries[0].digest
        # A read that is done again sees what was written meanwhile, and says so by its version.
        versions = {answer.version for answer in answers} if job.entries[0].op == READS else {None}
        digests = {answer.digest for answer in answers}
        if len(digests) > len(versions):
            yield f"job {job_id} has different answers: {sorted(digests)}"
        elif wanted and digests and digests != {wanted}:
            yield f"job {job_id} ({job.entries[0].op}) is answered {digests.pop()}, right is {wanted}"


def _wrong_reads(submitted: dict[str, _Job], states: _States) -> Iterable[str]:
    for job_id, job in submitted.items():
        for answer in job.all("answered") if job.entries[0].op == READS else ():
            if answer.version is not None and answer.digest != digest_of(states.at(answer.version)):
                yield f"job {job_id} does not see version {answer.version} as its writes made it"


def _wrong_versions(entries: Sequence[Entry], submitted: dict[str, _Job]) -> Iterable[str]:
    """A client sees every version that it was told of before it asked, and its writes in their order."""
    told: dict[str, int] = defaultdict(int)  # the newest version that a client knows of
    least: dict[str, int] = {}  # by job
    for entry in entries:
        if entry.phase == "submitted" and entry.op == READS:
            least[entry.job_id] = max(told[entry.proc], entry.version or 0)
        elif entry.phase == "answered" and entry.version is not None and entry.op in (READS, *WRITES):
            if entry.version < least.get(entry.job_id, 0):
                yield f"job {entry.job_id} sees version {entry.version}, but {least[entry.job_id]} was there before it"
            told[entry.proc] = max(told[entry.proc], entry.version)
    newest: dict[str, int] = defaultdict(int)
    for job_id, job in submitted.items():
        answer, proc = next(iter(job.answers), None), job.entries[0].proc
        if answer is None or answer.version is None or answer.op not in WRITES:
            continue
        if answer.version < newest[proc]:
            yield f"write {job_id} took effect in version {answer.version}, after one of version {newest[proc]}"
        newest[proc] = max(newest[proc], answer.version)


def _wrong_effects(submitted: dict[str, _Job]) -> Iterable[str]:
    for job_id, job in submitted.items():
        commits, answer = job.all("committed"), next(iter(job.answers), None)
        if len(commits) > 1:
            yield f"write {job_id} took effect {len(commits)} times"
        if job.entries[0].op in WRITES and answer is not None and answer.version is not None:
            if not commits:
                yield f"write {job_id} is answered and took no effect"
            elif commits[0].version != answer.version:
                yield f"write {job_id} is in version {commits[0].version}, its answer says {answer.version}"


def _wrong_rows(entries: Sequence[Entry], states: _States) -> Iterable[str]:
    for entry in entries:
        if entry.phase == "final" and dict(entry.effect or {}) != states.last:
            yield f"the rows in the end are {entry.effect}, the writes make {states.last}"


def _recovery_s(entries: Sequence[Entry]) -> float | None:
    """Between the later of a fault's end and its being noticed, and each connection and the next answer."""
    longest = None
    for injected, healed, until in _faults(entries):
        window = [entry for entry in entries if injected.t <= entry.t < until]
        answered = next((entry.t for entry in window if entry.phase == "answered" and entry.t > healed.t), None)
        noticed: dict[tuple[str, str], float] = {}
        noticed_last = healed.t
        for entry in window:
            connection = (entry.proc, entry.op)
            if entry.phase == "lost" and connection not in noticed:
                noticed[connection] = max(healed.t, entry.t)
                if answered is None or entry.t < answered:
                    noticed_last = max(noticed_last, entry.t)
            elif entry.phase == "connected" and connection in noticed:
                longest = max(longest or 0.0, entry.t - noticed.pop(connection))
        if answered is not None:
            longest = max(longest or 0.0, answered - noticed_last)
    return longest


def _faults(entries: Sequence[Entry]) -> Iterable[tuple[Entry, Entry, float]]:
    """Each fault's begin and end, and when the next one began."""
    injected = [entry for entry in entries if entry.phase == "injected"]
    healed = [entry for entry in entries if entry.phase == "healed"]
    later = [*(entry.t for entry in injected[1:]), float("inf")]
    return zip(injected, healed, later, strict=False)  # that is none where there is no fault
