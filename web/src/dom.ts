// Elements of the page, and numbers as the reader's language writes them.

type Child = Node | string;
type Properties = Record<string, string | number | boolean | EventListener | undefined>;

// An element with attributes. A function is a listener, such as onclick. `true` is an attribute without a value.
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

// A part of the page with a heading, which names it for screen readers.
export function panel(title: string, ...children: Child[]): HTMLElement {
  const id = `panel-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return element("section", { "aria-labelledby": id, class: "panel" }, element("h2", { id }, title), ...children);
}

export function button(text: string, onclick: () => void, properties: Properties = {}): HTMLButtonElement {
  return element("button", { type: "button", onclick, ...properties }, text);
}

export function show(value: number, digits = 2): string {
  return new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function say(text: string): void {
  const status = document.getElementById("status");
  if (status) status.textContent = text;
}
