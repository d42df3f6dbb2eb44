/** Opens the page of one application: `?page=`. */
import { params } from "./page.js";
import { render } from "./react.js";

const page = params.get("page");
await import(`./${page}.js`);
if (page === "VideoCall") {
  const open = (callId: string) => render((globalThis as any).VideoCall, { callId, token: params.get("token") }, document.querySelector("main")!);
  Object.assign(globalThis, { open });
}
document.body.dataset.ready = "yes";
