"""A person makes a passkey on their page and opens their machine with it; a removed one opens nothing."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.live.browser import Tab, chromium
from tests.live.rig import Platform, until

pytestmark = pytest.mark.timeout(240)

PHONE = {
    "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
    "isUserVerified": True, "automaticPresenceSimulation": True,
}


def sign_in_by_link(lived: Platform, tab: Tab) -> None:
    tab.open(json.loads(lived.lobby("browser", "--json").out)["url"])
    tab.until("!!document.querySelector('form button.big')")
    tab.run("document.querySelector('form button.big').click()")
    tab.until("document.body.innerText.includes('Your machines')")


def passkeys(lived: Platform) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(lived.lobby("passkey", "list", "--json").out)["passkeys"]
    return found


def test_a_passkey_in_a_real_browser(lived: Platform, tmp_path: Path) -> None:
    with chromium(lived.home / "root.pem") as tab:
        tab.ask("WebAuthn.enable")
        device = tab.ask("WebAuthn.addVirtualAuthenticator", options=PHONE)["authenticatorId"]
        sign_in_by_link(lived, tab)
        tab.open(lived.url("localhost", "/passkeys"))
        tab.until("!!document.querySelector('form[data-passkey] input')")
        tab.run("document.querySelector('form[data-passkey] input').value = 'pocket'")
        tab.run("document.querySelector('form[data-passkey] button').click()")
        tab.until("document.querySelector('.card strong')?.innerText == 'pocket'")
        tab.picture(tmp_path / "passkeys.png")
        held = tab.ask("WebAuthn.getCredentials", authenticatorId=device)["credentials"]
        assert [(c["rpId"], c["isResidentCredential"]) for c in held] == [("localhost", True)]

        # The same device again is told apart by the browser itself.
        tab.run("document.querySelector('form[data-passkey] button').click()")
        tab.until("document.querySelector('form[data-passkey] [role=status]').innerText.includes('already')")

        tab.ask("Network.clearBrowserCookies")
        tab.open(lived.url("passed.localhost", "/__ussycode/login?redirect=/__ussycode/logout"))
        tab.until("document.body.innerText.includes('passed.localhost')")
        tab.run("document.querySelector('form[data-passkey=show] button').click()")
        tab.until("location.hostname == 'passed.localhost' && location.pathname == '/__ussycode/logout'")
        tab.open(lived.url("localhost"))
        tab.until("document.body.innerText.includes('Your machines')")
        assert [c for c in tab.complaints if "favicon" not in c and "404" not in c] == []
        assert [p["name"] for p in passkeys(lived) if "last_used_at" in p] == ["pocket"]

        # Somebody who cannot unlock the device gets nowhere.
        tab.ask("Network.clearBrowserCookies")
        tab.ask("WebAuthn.setUserVerified", authenticatorId=device, isUserVerified=False)
        tab.open(lived.url("localhost", "/login"))
        tab.until("!!document.querySelector('form[data-passkey=show] button')")
        tab.run("document.querySelector('form[data-passkey=show] button').click()")
        tab.until("/Cancelled/.test(document.querySelector('form[data-passkey] [role=status]').innerText)")
        tab.ask("WebAuthn.setUserVerified", authenticatorId=device, isUserVerified=True)
        tab.run("document.querySelector('form[data-passkey=show] button').click()")
        tab.until("document.body.innerText.includes('Your machines')")

        said = lived.lobby("passkey", "remove", "pocket").out
        assert "removed pocket; 2 browsers are signed out" in said and passkeys(lived) == []
        tab.open(lived.url("localhost"))
        until(lambda: "Your machines" not in (tab.run("document.body.innerText") or "Your machines"), 15, "signed out")
        tab.open(lived.url("localhost", "/login"))
        tab.until("!!document.querySelector('form[data-passkey=show] button')")
        tab.run("document.querySelector('form[data-passkey=show] button').click()")
        tab.until("document.body.innerText.includes('this passkey was not accepted')")
