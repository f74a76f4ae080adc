"use strict";
// Makes passkeys and signs in with them. What the server says and what the authenticator answers is JSON both ways.
async function send(path, content) {
  const answer = await fetch(path, {
    method: "POST", redirect: "error", headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: content === undefined ? "" : JSON.stringify(content),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error + (said.hint ? ": " + said.hint : ""));
  return said;
}

const hex = (text) => Array.from(
  atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0).toString(16).padStart(2, "0"),
).join("");

const ceremonies = {
  async make(form) {
    const options = await send("/passkeys/begin");
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
    const made = await navigator.credentials.create({ publicKey });
    const name = new FormData(form).get("name");
    return send("/passkeys/finish", { name, handle: hex(options.user.id), credential: made.toJSON() });
  },
  async show() {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(await send("/login/passkey/begin"));
    const shown = await navigator.credentials.get({ publicKey });
    return send("/login/passkey/finish" + location.search, { credential: shown.toJSON() });
  },
};

for (const form of document.querySelectorAll("form[data-passkey]")) {
  const status = form.querySelector("[role=status]");
  if (!globalThis.PublicKeyCredential?.parseRequestOptionsFromJSON) {
    status.textContent = "This browser does not know passkeys, or is too old for ours.";
    form.querySelector("button").disabled = true;
    continue;
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    status.textContent = "Waiting for your device…";
    try {
      location.assign((await ceremonies[form.dataset.passkey](form)).location);
    } catch (error) {
      status.textContent = error.name === "NotAllowedError" ? "Cancelled, or it took too long."
        : error.name === "InvalidStateError" ? "This device has a passkey of yours already." : error.message;
    } finally {
      button.disabled = false;
    }
  });
}
