/** As much of React as one component needs: refs, state, effects, and elements that stay in place. */

type Node = { type: string; props: Record<string, any>; children: (Node | string)[] };
type Hook = { value: any; deps?: unknown[] };

const hooks: Hook[] = [];
let at = 0;
let draw = () => {};

const hook = (make: () => any) => (hooks[at] ??= { value: make() }, hooks[at++]);
export const useRef = (value: any) => hook(() => ({ current: value })).value;

export function useState(first: any) {
  const own = hook(() => first);
  return [own.value, (value: any) => { own.value = value; queueMicrotask(draw); }];
}

export function useEffect(effect: () => void, deps: unknown[]) {
  const own = hook(() => null);
  if (own.deps && deps.every((one, n) => one === own.deps![n])) return;
  own.deps = deps;
  queueMicrotask(effect);
}

export const h = (type: string, props: Record<string, any> | null, ...children: (Node | string)[]): Node => ({ type, props: props ?? {}, children: children.flat() });

function put(parent: Element, node: Node | string, n: number) {
  if (typeof node === "string") {
    const text = parent.childNodes[n] ?? parent.appendChild(document.createTextNode(""));
    text.textContent = node;
    return;
  }
  const element = (parent.childNodes[n] ?? parent.appendChild(document.createElement(node.type))) as any;
  for (const [name, value] of Object.entries(node.props)) {
    if (name === "ref") value.current = element;
    else element[name.startsWith("on") ? name.toLowerCase() : name === "autoPlay" ? "autoplay" : name] = value;
  }
  node.children.forEach((child, index) => put(element, child, index));
}

export function render(component: (props: any) => Node, props: any, root: Element) {
  draw = () => {
    at = 0;
    put(root, component(props), 0);
  };
  draw();
}

Object.assign(globalThis, { useRef, useEffect, h });
