// Under the pointer or the focus, a link of the text shows what it leads to: a term, a reference, a claim, a figure, a table.
// What is shown lies in a script that is loaded at the first link, since fetch() may not read from file://.
(() => {
  const SELECTOR = ".bd-article a[href*='#']:not(.headerlink, .image-reference)";
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href);
  let previews = null;
  let current = null;
  const box = document.createElement("div");
  Object.assign(box, { id: "epigen-preview", className: "epigen-preview", hidden: true });
  box.setAttribute("role", "tooltip");

  const load = () =>
    (previews ||= new Promise((resolve) => {
      window.epigenPreviews = resolve;
      const script = document.createElement("script");
      Object.assign(script, { src: new URL("previews.js", root).href, onerror: () => resolve({}) });
      document.head.append(script);
    }));

  const hide = () => {
    current?.removeAttribute("aria-describedby");
    current = null;
    box.hidden = true;
  };

  const place = (link) => {
    const { left, top, bottom } = link.getClientRects()[0];
    const below = bottom + box.offsetHeight + 8 < innerHeight || top < box.offsetHeight + 8;
    box.style.top = `${below ? bottom + 4 : top - box.offsetHeight - 4}px`;
    box.style.left = `${Math.max(8, Math.min(left, innerWidth - box.offsetWidth - 8))}px`;
  };

  async function show(link) {
    hide();
    current = link;
    const shown = await load();
    const { href } = new URL(link.href);
    const content = href.startsWith(root.href) && shown[decodeURIComponent(href.slice(root.href.length).replace(/\?[^#]*/, ""))];
    if (current !== link || !content) return;
    box.innerHTML = content;
    for (const image of box.querySelectorAll("img")) {
      image.src = new URL(image.getAttribute("src"), root).href;
      image.onload = () => current === link && place(link);
    }
    link.setAttribute("aria-describedby", box.id);
    box.hidden = false;
    place(link);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.body.append(box);
    for (const event of ["mouseover", "focusin"])
      document.addEventListener(event, ({ target }) => {
        const link = target.closest?.(SELECTOR);
        if (link && link !== current) show(link);
        else if (!link && !box.contains(target)) hide();
      });
    document.addEventListener("keydown", ({ key }) => key === "Escape" && hide());
    document.addEventListener("scroll", hide, { passive: true });
  });
})();
