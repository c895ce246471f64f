"""The router's errors: one tree, each with what happened and what to do about it.

    Problem (dicom_sr.problem)
    ├── WrongFile: a YAML file says something wrong; every fault has file:line:column
    │   ├── WrongSettings: isocenter.yaml
    │   └── WrongRulebook: rules, sources or destinations
    ├── UnreadableFile: a YAML file that is not there or may not be read
    ├── cli._common
    │   └── BadAddress: an address is not AE_TITLE@HOST:PORT
    ├── cli._peer
    │   └── NoNode: the command needs a node's settings, and there are none
    ├── cli.audit
    │   ├── AuditBroken: the audit is not as it was written
    │   └── NotSent: the receiver of the audit messages does not take them
    ├── cli.backup
    │   └── NoBackup: the database cannot be copied so
    ├── cli.fetch
    │   └── NotFetched: not everything that was asked for came
    ├── cli.forget
    │   └── NotForgotten: a patient cannot be forgotten (yet)
    ├── cli._far
    │   └── NodeRefuses: a node elsewhere does not do what we ask, or does not answer
    ├── cli.heartbeat
    │   └── NoHeartbeat: the heartbeat's phantom has not come back, or there is nobody who could send it
    ├── cli.init
    │   └── AlreadyThere: the folder has a node already
    ├── cli.inspect
    │   └── NotInspectable: a file cannot be read as DICOM
    ├── cli.models
    │   ├── Damaged: an installed bundle is not what was installed
    │   └── NotYours: this account may not write the node's bundles, or not read what is to be installed
    ├── cli.pipelines
    │   └── NotPaused: there is nothing to resume
    ├── cli.run
    │   ├── NotRunnable: there is nothing here that the pipeline could read
    │   └── WrongSetting: a --set is not a setting of this pipeline
    ├── cli.send
    │   ├── NothingToSend: no DICOM file lies where it was looked for
    │   └── NotAccepted: the receiver refused at least one instance
    ├── cli.show
    │   └── NotShowable: the file is no segmentation and no report
    ├── cli.verify
    │   └── StoreDamaged: files of the store are missing, or are not what they were
    ├── compose
    │   └── UnknownRole: there is no such role
    ├── db.accounts
    │   ├── UnknownUser: no user has this name
    │   ├── UserExists: a user of this name is there already
    │   └── LastAdmin: without this admin nobody could manage the node any more
    ├── db.alerts
    │   └── NoSuchAlert: no alert of this number stands
    ├── db.jobs
    │   └── UnknownJob: no job has this number
    ├── db.migrate
    │   └── DatabaseTooNew: a newer Isocenter has already migrated this database
    ├── db.node
    │   └── NotInitialised: the database has no node yet
    ├── db.place
    │   ├── NetworkDisk: the database would lie on a network file system
    │   └── NotOurAccount: the database belongs to another account of this machine, which did not give it to ours
    ├── db.results
    │   └── OtherBytes: an object was built anew under a UID that is taken, with other bytes
    ├── db.revisions
    │   └── UnknownRevision: no revision of this kind has this number
    ├── db.studies
    │   ├── UnknownStudy: the node knows no study by this name
    │   └── NotHeld: a study was to be released that nobody holds
    ├── db.tokens
    │   ├── UnknownToken: no token has this name
    │   └── TokenExists: a token of this name is there already
    ├── destinations
    │   ├── UnknownDestinationKind: no destination kind has this name
    │   ├── CannotCommit: the far side does not take requests for storage commitment, or not this one
    │   ├── Unreachable: nobody can be reached there; everything for it waits until it answers
    │   └── Rejected: the far side is there and does not want us as we are; a person must change something
    ├── destinations._http
    │   └── UnreadableSecret: a file that holds a secret cannot be read
    ├── domain.audit
    │   └── UnknownAct: an audit row tells of an act that this version does not know
    ├── domain.job
    │   └── IllegalMove: a job was asked to do what its state does not allow
    ├── domain.query
    │   └── IdentifierDoesNotMatch: a request's identifier is not what its SOP class allows
    ├── examine
    │   └── Unreadable: a stored file cannot be read again
    ├── ingest.follow
    │   └── NotAdmitted: the node does not take what it was told to fetch
    ├── ingest.listener
    │   └── PortTaken: another process listens where we should
    ├── ingest.receive
    │   └── Refused: an instance that is not taken, with the status that says so
    ├── ingest.walker
    │   └── NotParseable: bytes that are no data set in the transfer syntax under which they came
    ├── notify
    │   └── NotSent: a channel for alerts does not take them
    ├── passwords
    │   └── WeakPassword: a password is too short, too long or the user's own name
    ├── query.exchange
    │   └── PeerGone: the peer has aborted, released or lost the association, or takes no more data
    ├── query.retrieve
    │   └── RetrievalRefused: a retrieval that is not begun, with the status that says so
    ├── query.scu
    │   ├── PeerUnreachable: the other node does not answer, or went away in the middle
    │   ├── PeerRefuses: the other node answers, and will not do what we ask
    │   └── WrongQuery: a query that cannot be asked: an unknown attribute, or no unique key
    ├── revise
    │   ├── NotInTheBook: the revision in force has no entry of this name
    │   └── WrongKind: a document of one kind came where another was wanted
    ├── rulebook
    │   └── UnreadablePasscode: a file that holds a source's passcode cannot be read
    ├── starter
    │   └── UnknownHost: a host name has no address
    ├── store
    │   └── StoreUnusable: the folder of the objects cannot be written: read-only, full, foreign or failing
    ├── tls
    │   └── UnusableCredentials: a certificate, its key or the list of authorities cannot be used
    ├── trial
    │   └── NothingToTest: no DICOM file lies where a test of the rules was asked for
    ├── web.dicomweb.asked
    │   ├── NotHeldHere: the node holds nothing under this name, or its file is gone
    │   ├── NotAcceptable: nothing that the request takes can be made of what it asks for
    │   ├── WrongQuery: a parameter of a search, or of a picture, says nothing that can be understood
    │   ├── NotMultipart: a body to be stored is not what STOW-RS sends
    │   ├── TooManyAtOnce: so many requests store at this moment that another one has to wait
    │   └── Broken: a body that is no multipart message of the boundary that its header names
    ├── web.dicomweb.model
    │   └── UnreadableObject: a file of the store is not the DICOM object that the index says
    ├── web.oidc
    │   ├── ProviderUnreachable: the provider of accounts does not answer as it should
    │   └── NotLetIn: the provider's answer does not let anybody in
    ├── web.pictures
    │   └── NothingToSee: a job has no pictures: it is no inference, or its files are not here any more
    ├── web.server
    │   └── PortTaken: another program listens where the window should open
    ├── web.signin
    │   ├── WrongPassword: there is no such user, or this is not their password
    │   └── TooManyAttempts: after wrong passwords the next one is looked at only later
    ├── work.build
    │   ├── FindingsGone: the kept findings of a run are not in the store, or not as they were kept
    │   └── NothingToReject: a note was asked for, and of the objects that it is about none lies in the store
    ├── work.deliver
    │   ├── NotYet: the far side does not have the images yet that the results are about, or a note
    │   ├── NotTaken: the far side has not taken an instance; it may later
    │   ├── NotThere: the far side has taken what it does not show when it is asked
    │   ├── Refused: the far side refuses an instance, or to keep it, and will refuse it again
    │   ├── NoSuchDestination: the destination of a delivery is not among the destinations in force
    │   └── NothingToSend: a delivery without objects: its result set is gone
    ├── work.infer
    │   └── OtherVersion: the job wants a version of its pipeline that is not installed
    ├── work.loop
    │   ├── Lost: the job in hand is no longer ours: cancelled, superseded or claimed by another after its
    │   └── ForPerson: only a person can say how this job is to go on: it is held, and goes on when it is released
    ├── work.messages
    │   └── ToldProblem: a Problem of the resident process, as it told it; `name` is its class there
    ├── work.resident
    │   ├── ProcessDied: the resident process ended in the middle of a request: a crash in native code, or out
    │   └── OutOfTime: a run took longer than its pipeline allows
    ├── work.seal
    │   ├── NoAuditKey: the audit's chain cannot go on, or be verified, without its key
    │   ├── HeadNotSent: a head of the audit's chain has not left the machine; it is tried again
    │   └── UnreadableHeads: a file that should hold the heads of a chain does not
    └── work.sets
        └── HeldBack: the gate closed before a result set

Errors that belong to one room are defined in that room; this file has those that more than one room raises or
catches, and the tree is kept true by a test.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dicom_sr.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong in a file, with its address; `line` and `column` count from 1, 0 is "the whole file"."""

    file: str
    line: int
    column: int
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class WrongFile(Problem):
    """A file says something that cannot be; all its faults at once."""

    exit_code = 2

    def __init__(self, faults: Iterable[Fault], *, remedy: str = "Correct the lines named here and try again") -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.file, fault.line, fault.column)))
        super().__init__("\n".join(str(fault) for fault in self.faults), remedy=remedy)


class WrongSettings(WrongFile):
    """`isocenter.yaml` cannot be used as it is."""


class WrongRulebook(WrongFile):
    """Rules, sources or destinations cannot be imported as they are."""


class UnreadableFile(Problem):
    """A YAML file is not there, or may not be read."""

    exit_code = 2
