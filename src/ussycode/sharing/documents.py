"""What commands about sharing answer to machines."""
from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class PortDocument(TypedDict):
    """One port that has a visibility of its own."""

    port: int
    share: str
    url: str


class PersonDocument(TypedDict):
    """Somebody a VM is shared with. `port` is missing for the primary one, whichever it is."""

    email: str
    handle: NotRequired[str]
    status: Literal["pending", "active"]
    invited_at: str
    share_level: Literal["web", "root"]
    via: Literal["invite", "link"]
    port: NotRequired[int]
    expires_at: NotRequired[str]


class LinkDocument(TypedDict):
    """A share link. `token` is the id that removes it: what opens the link was shown once and is not kept."""

    token: str
    created_at: str
    use_count: int
    last_used_at: str | None
    label: NotRequired[str]
    port: NotRequired[int]
    expires_at: NotRequired[str]
    max_uses: NotRequired[int]


class ShareDocument(TypedDict):
    """`share show`. `email_stopped` says why the platform turned the VM's mail off."""

    vm_name: str
    status: str
    port: int
    url: str
    users: list[PersonDocument]
    links: list[LinkDocument]
    teams: list[dict[str, str]]
    team_access: bool
    team_ssh: bool
    team_shelley: bool
    ports: list[PortDocument]
    domains: list[str]
    receive_email: bool
    email_address: str
    email_stopped: NotRequired[str]
    listening: NotRequired[list[int]]


class VisibilityDocument(TypedDict):
    """`share port`, `set-public` and `set-private`; what follows `share` is there after a change."""

    vm_name: str
    port: int
    share: str
    status: NotRequired[str]
    team_access: NotRequired[bool]
    team_ssh: NotRequired[bool]
    team_shelley: NotRequired[bool]


class AddedDocument(TypedDict):
    """`share add`."""

    status: Literal["success"]
    vm_name: str
    shared_with: str
    url: str
    message: str
    port: NotRequired[int]
    expires_at: NotRequired[str]


class LevelDocument(TypedDict):
    """`share add --root` and `share remove --root`: what the person may do now."""

    status: Literal["updated"]
    vm_name: str
    shared_with: str
    share_level: Literal["web", "root"]
    message: str
    expires_at: NotRequired[str]


class MessageDocument(TypedDict):
    """`share remove` and `share remove-link`."""

    status: Literal["success"]
    vm_name: str
    message: str


class LinkAddedDocument(TypedDict):
    """`share add-link`: the one time that the token is shown. `id` removes it too."""

    status: Literal["success"]
    vm_name: str
    token: str
    url: str
    id: str
    label: NotRequired[str]
    port: NotRequired[int]
    expires_at: NotRequired[str]
    max_uses: NotRequired[int]


class RequestDocument(TypedDict):
    """Somebody who asks; without `port` for the primary one."""

    vm_name: str
    handle: str
    email: str
    message: str
    asked_at: str
    expires_at: str
    port: NotRequired[int]


class RequestsDocument(TypedDict):
    """`share requests`, and `share decline`."""

    requests: list[RequestDocument]
