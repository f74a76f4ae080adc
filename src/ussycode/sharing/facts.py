"""Gathers what decisions need: one read for a command, the whole picture or its changes for edges."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ussycode.access.facts import Grant, VmFacts
from ussycode.base.db import Tx
from ussycode.base.events import Event
from ussycode.domains import edges
from ussycode.identity import signing
from ussycode.identity import store as identity
from ussycode.identity.model import Session, User
from ussycode.ports import ImageCatalog
from ussycode.runtime.driver import Power
from ussycode.sharing import store as shares
from ussycode.sharing.model import Ports, resolve
from ussycode.vms import ports as store
from ussycode.vms import store as vms
from ussycode.vms.model import Mailbox, Vm
from ussycode.wire.edge import Change, EdgeGrant, EdgeSession, EdgeSigner, EdgeUser, EdgeVm, Snapshot

Grants = Mapping[str, tuple[Grant, ...]]


def of_vm(tx: Tx, images: ImageCatalog, name: str) -> VmFacts | None:
    """Facts about the VM called `name`; None when there is none."""
    return _facts(tx, images, vms.by_name(tx, name))


def of_id(tx: Tx, images: ImageCatalog, vm: str) -> VmFacts | None:
    """The same for a VM by its id."""
    return _facts(tx, images, vms.by_id(tx, vm))


def shown(tx: Tx, images: ImageCatalog, vm: str) -> VmFacts | None:
    """The same, and None too for a VM in the trash."""
    found = vms.by_id(tx, vm)
    return _facts(tx, images, found) if found is not None and _shown(found) else None


def _facts(tx: Tx, images: ImageCatalog, vm: Vm | None) -> VmFacts | None:
    if vm is None or vm.power is Power.ABSENT:
        return None
    ports = ports_of(tx, images, vm)
    grants = shares.grants(shares.shares_of(tx, vm.id))
    mail = vm.mailbox is Mailbox.ON
    return VmFacts(vm.id, vm.name, vm.owner, ports.public, ports.primary, grants, frozenset(vm.tags), mail)


def ports_of(tx: Tx, images: ImageCatalog, vm: Vm) -> Ports:
    """Ports of one VM."""
    return resolve(store.ports_of(tx, vm.id), images.default_port(vm.image))


def snapshot(tx: Tx, images: ImageCatalog, seq: int) -> Snapshot:
    """Everything an edge must know, numbered `seq`."""
    chosen, granted = store.all_ports(tx), shares.all_grants(tx)
    return Snapshot(
        seq,
        [_vm(v, resolve(chosen.get(v.id, {}), images.default_port(v.image)), granted.get(v.id, {}))
         for v in vms.everything(tx) if _shown(v)],
        [_user(u) for u in identity.all_users(tx)],
        [_session(s) for s in identity.live_sessions(tx)],
        _signers(tx),
        edges.everything(tx),
    )


def change(tx: Tx, images: ImageCatalog, seq: int, events: Sequence[Event]) -> Change:
    """What `events` changed for edges, numbered `seq`; empty lists when they concern no edge."""
    made = Change(seq, [], [], [], [], [], [], sorted({e.subject for e in events if _ends_tokens(e)}))
    for subject, kind in dict.fromkeys(_concerned(tx, events)):
        if kind in ("vm", "share"):
            found = vms.by_id(tx, subject)
            if found is None or not _shown(found):
                made.drop_vms.append(subject)
            else:
                grants = shares.grants(shares.shares_of(tx, subject))
                made.put_vms.append(_vm(found, ports_of(tx, images, found), grants))
        elif kind == "user":
            user = identity.user_by(tx, "id", subject)
            made.drop_users.append(subject) if user is None else made.put_users.append(_user(user))
        elif kind == "session":
            session = identity.session(tx, subject)
            made.drop_sessions.append(subject) if session is None else made.put_sessions.append(_session(session))
        elif kind == "domain":
            domain = edges.one(tx, subject)
            made.drop_domains.append(subject) if domain is None else made.put_domains.append(domain)
    if any(e.kind.startswith("signing.") for e in events):
        made.signers.extend(_signers(tx))
    return made


def _concerned(tx: Tx, events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    """Subject and noun of each event; an address that changes hands concerns every VM shared with it."""
    for event in events:
        noun = event.kind.partition(".")[0]
        if noun == "email":
            yield from ((vm, "share") for vm in shares.vms_for(tx, str(event.data["address"])))
        else:
            yield event.subject, noun


def _signers(tx: Tx) -> list[EdgeSigner]:
    return [EdgeSigner(key.id, key.seed, key.signs_from) for key in signing.keys(tx)]


def _ends_tokens(event: Event) -> bool:
    return event.kind in ("key.removed", "key.tagged", "token.revoked") or event.kind.startswith("user.")


def _shown(vm: Vm) -> bool:
    return vm.power is not Power.ABSENT and not vm.trashed_at


def _vm(vm: Vm, ports: Ports, grants: Grants) -> EdgeVm:
    address = vm.address if vm.running else ""
    public = tuple(sorted(ports.public))
    given = tuple(
        EdgeGrant(user, g.level.value, g.port, g.link, g.expires) for user, some in grants.items() for g in some
    )
    return EdgeVm(
        vm.id, vm.name, vm.owner, vm.status, address, vm.secret, ports.primary, public, vm.asleep, given, vm.tags
    )


def _user(user: User) -> EdgeUser:
    return EdgeUser(user.id, user.handle, user.role.value, user.email)


def _session(session: Session) -> EdgeSession:
    return EdgeSession(session.digest, session.user, session.host, session.expires)
