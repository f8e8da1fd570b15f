(() => {
  const standing = document.getElementById("standing");
  const form = document.getElementById("lag-form");
  const lag = document.getElementById("lag");
  const output = document.getElementById("lag-output");
  let missing = document.querySelector("#messages .missing");

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
    const servers = standing.querySelector(".servers");
    if (missing && servers && Number(servers.dataset.slaveLast) >= Number(missing.dataset.id)) {
      missing.classList.add("arrived");
      missing.querySelector("[role=status]").textContent = `Your message #${missing.dataset.id} is on the slave now.`;
      missing = null;
    }
  }

  lag.addEventListener("input", () => { output.textContent = `${lag.value} s`; });
  lag.addEventListener("change", async () => {
    await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), redirect: "manual" });
    refresh();
  });
  setInterval(refresh, 500);
})();
