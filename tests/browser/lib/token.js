/** Tokens, signed here: thousands are needed, and a process for each would take minutes. */
import { createHmac } from "node:crypto";

export const JWT_KEY = "a key of at least thirty-two bytes for the tokens";

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export function token(user, room = "*") {
  const text = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub: user, rooms: [room], exp: Math.floor(Date.now() / 1000) + 3600 })}`;
  return `${text}.${createHmac("sha256", JWT_KEY).update(text).digest("base64url")}`;
}
