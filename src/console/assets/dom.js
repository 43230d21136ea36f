// The few things the page does to its document. Texts go in as text, never as markup.

export const element = (id) => document.getElementById(id);

export function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className !== "") node.className = className;
  if (text !== "") node.textContent = text;
  return node;
}

/** A name that is cut at its start when there is no room. */
export function makeName(tag, className, text) {
  const node = make(tag, `${className} name-end`);
  node.append(make("bdi", "", text));
  node.title = text;
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Makes `list` show `items`, keeping the nodes of those that stay: a click must find the node it began on. */
export function sync(list, items, keyOf, create, update) {
  const known = new Map([...list.children].map((node) => [node.dataset.key, node]));
  let place = list.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const node = known.get(key) ?? create(item);
    known.delete(key);
    node.dataset.key = key;
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
  }
  for (const node of known.values()) node.remove();
}
