"use strict";
// Copy buttons work wherever they appear, also in parts that were refreshed.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  } catch {
    button.textContent = "select it";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
});

// The list asks for itself again while somebody looks at it.
const list = document.querySelector("[data-refresh]");
if (list) {
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(list.dataset.refresh, { redirect: "error", headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const text = await answer.text();
      if (text !== list.dataset.shown) {
        list.innerHTML = text;
        list.dataset.shown = text;
      }
    } catch {
      // The platform restarts, or the sign-in is over: what is shown stays until the page is loaded anew.
    }
  }, 3000);
}
