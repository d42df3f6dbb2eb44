/** Opens the page of one application: `?page=`. */
import { params } from "./page.js";
import { render } from "./react.js";

const page = params.get("page");
await import(`./${page}.js`);
if (page?.endsWith("VideoCall")) {
  const own = page.startsWith("own/") && (await import("react" as string));
  if (own) Object.assign(globalThis, { useRef: own.useRef, useEffect: own.useEffect, h: own.createElement });
  const open = (callId: string) => {
    const [{ VideoCall }, props, main] = [globalThis as any, { callId, token: params.get("token") }, document.querySelector("main")!];
    if (own) own.createRoot(main).render(own.createElement(own.StrictMode, null, own.createElement(VideoCall, props)));
    else render(VideoCall, props, main);
  };
  Object.assign(globalThis, { open });
}
document.body.dataset.ready = "yes";
