(() => {
  const standing = document.getElementById("standing");
  const form = document.getElementById("lag-form");
  const lag = document.getElementById("lag");
  const output = document.getElementById("lag-output");
  const protection = document.getElementById("protection");
  const inputs = [document.getElementById("text"), document.getElementById("name")];
  let missing = document.querySelector("#outcome.missing");

  async function refresh() {
    if (document.hidden) return;
    try {
      const response = await fetch("/backstage/standing");
      if (!response.ok) throw new Error(response.statusText);
      standing.innerHTML = await response.text();
    } catch {
      standing.innerHTML = "<p>The demonstration does not answer any more.</p>";
      return;
    }
    const servers = standing.querySelector("table");
    if (missing && servers && Number(servers.dataset.slaveLast) >= Number(missing.dataset.id)) {
      missing.classList.add("arrived");
      missing.querySelector("[role=status]").textContent = "Your post has reached the slave. Load the page again to see it.";
      missing = null;
    }
  }

  lag.addEventListener("input", () => { output.textContent = `${lag.value} s`; });
  lag.addEventListener("change", async () => {
    form.setAttribute("aria-busy", "true");
    await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), redirect: "manual" });
    form.removeAttribute("aria-busy");
    refresh();
  });
  setInterval(refresh, 500);

  // The switch loads the page again. What has been typed stays, and so does the focus of the keyboard.
  protection.addEventListener("click", (event) => {
    const kept = { values: inputs.map((input) => input.value), focus: event.detail === 0 };
    sessionStorage.setItem("kept", JSON.stringify(kept));
  });
  const kept = JSON.parse(sessionStorage.getItem("kept"));
  sessionStorage.removeItem("kept");
  if (kept) {
    kept.values.forEach((value, at) => { inputs[at].value = value; });
    if (kept.focus) protection.focus();
  }
})();
