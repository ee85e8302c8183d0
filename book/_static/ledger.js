// Filters the cards of the claims page. The choice stands in the address (?paper=A&verdict=reproduced), so that a link
// can make it; an address that names a card (#claim-A1) shows that card. Without this script the page is the whole list.
(() => {
  const start = () => {
    const form = document.querySelector("form.epigen-filter");
    if (!form) return;
    const cards = [...document.querySelectorAll(".epigen-claims > .epigen-claim")];
    const selects = [...form.querySelectorAll("select")];

    const show = () => {
      let count = 0;
      for (const card of cards) {
        card.hidden = selects.some((select) => select.value && card.dataset[select.name] !== select.value);
        count += !card.hidden;
      }
      form.querySelector("output").textContent = `${count} of ${cards.length} claims`;
    };

    const readAddress = () => {
      const chosen = new URLSearchParams(location.search);
      for (const select of selects) select.value = chosen.get(select.name) || "";
      show();
    };

    const writeAddress = () => {
      const chosen = new URLSearchParams(selects.filter((select) => select.value).map((select) => [select.name, select.value]));
      history.replaceState(null, "", `${location.pathname}?${chosen}${location.hash}`);
      show();
    };

    // A card that the address names is shown, also where the filter would hide it.
    const showTarget = () => {
      const card = document.querySelector(".epigen-claim:target");
      if (!card?.hidden) return;
      form.reset();
      setTimeout(() => card.scrollIntoView());
    };

    form.hidden = false;
    form.addEventListener("change", writeAddress);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(writeAddress));
    window.addEventListener("hashchange", showTarget);
    readAddress();
    showTarget();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
